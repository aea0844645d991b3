//! Signals as events: held back while an event loop runs, and read from a descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that end a link.
pub const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// `SIGCHLD` and the [`ENDING`] signals, readable while this lives.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Starts to hold the signals back.
    ///
    /// # Errors
    /// The operating system's.
    pub fn hold() -> io::Result<Signals> {
        let mut set: SigSet = ENDING.into_iter().collect();
        set.add(Signal::SIGCHLD);
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        match SignalFd::with_flags(&set, flags) {
            Ok(fd) => Ok(Signals { fd, before }),
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
    pub fn next(&self) -> io::Result<Option<Signal>> {
        let info = self.fd.read_signal()?;
        Ok(info.and_then(|info| Signal::try_from(info.ssi_signo.cast_signed()).ok()))
    }

    /// The mask from before, which children must get.
    pub fn mask_before(&self) -> SigSet {
        self.before
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}
