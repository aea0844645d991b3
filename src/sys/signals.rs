//! Signals as events: held back while an event loop runs, and read from a descriptor.
#![expect(unsafe_code, reason = "sigaction, without a handler")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, sigaction,
};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that end a link.
pub const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Signals that mean something to a whole build besides.
pub const BUILD: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// A signal that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Which.
    pub signal: Signal,
    /// Nobody's `kill`: a key at the terminal, or a child's end.
    pub by_kernel: bool,
}

/// `SIGCHLD` and the signals held back, readable while this lives.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
    _children: Children,
}

/// While this lives, children can be waited for, even where this process was told to ignore
/// `SIGCHLD`: then there is neither a signal at their end nor a status (`wait(2)`).
#[derive(Debug)]
pub struct Children {
    ignored: bool,
}

impl Children {
    /// Takes note of children from now on.
    pub fn heed() -> Children {
        let ignored = is_ignored(Signal::SIGCHLD);
        if ignored {
            set(Signal::SIGCHLD, SigHandler::SigDfl);
        }
        Children { ignored }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        if self.ignored {
            set(Signal::SIGCHLD, SigHandler::SigIgn);
        }
    }
}

impl Signals {
    /// Starts to hold the [`ENDING`] signals back.
    ///
    /// # Errors
    /// The operating system's.
    pub fn hold() -> io::Result<Signals> {
        Signals::hold_these(&ENDING)
    }

    /// Starts to hold `signals` back. Those that this process was told to ignore (nohup, a
    /// script's background jobs) stay ignored.
    ///
    /// # Errors
    /// The operating system's.
    pub fn hold_these(signals: &[Signal]) -> io::Result<Signals> {
        let children = Children::heed();
        let mut set: SigSet =
            signals.iter().copied().filter(|&signal| !is_ignored(signal)).collect();
        set.add(Signal::SIGCHLD);
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        match SignalFd::with_flags(&set, flags) {
            Ok(fd) => Ok(Signals { fd, before, _children: children }),
            Err(error) => {
                pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
                Err(error.into())
            }
        }
    }

    /// Readable when a signal waits.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The next signal that waits.
    ///
    /// # Errors
    /// The operating system's.
    pub fn next(&self) -> io::Result<Option<Arrived>> {
        let info = self.fd.read_signal()?;
        Ok(info.and_then(|info| {
            let signal = Signal::try_from(info.ssi_signo.cast_signed()).ok()?;
            Some(Arrived { signal, by_kernel: info.ssi_code > 0 })
        }))
    }

    /// The mask from before, which children must get.
    pub fn mask_before(&self) -> SigSet {
        self.before
    }
}

fn set(signal: Signal, handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: no code of ours is run, whether it is ignored or does what it does by default.
    let _ = unsafe { sigaction(signal, &action) };
}

/// Whether this process ignores `signal`.
pub(super) fn is_ignored(signal: Signal) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null pointer changes nothing, and all zeros are a valid `sigaction`.
    unsafe {
        libc::sigaction(signal as libc::c_int, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}
