//! One child at a time, with its words captured and signals passed on.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Command, ExitStatus};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::child;
use super::signals::Signals;

/// A file in memory for what a child says: it never blocks the child.
///
/// # Errors
/// The operating system's.
pub fn capture_file() -> io::Result<File> {
    Ok(File::from(memfd_create(c"thinshim-stderr", MFdFlags::MFD_CLOEXEC)?))
}

/// What was written to a capture file.
///
/// # Errors
/// The operating system's.
pub fn captured(mut file: File) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut said)?;
    Ok(said)
}

/// How a child ended that said its own words.
#[derive(Debug)]
pub struct Passed {
    /// Its status.
    pub status: ExitStatus,
    /// A signal that came to this process meanwhile, and was passed on.
    pub interrupted: Option<Signal>,
}

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// What it said on stderr.
    pub said: Vec<u8>,
    /// A signal that came to this process meanwhile, and was passed on.
    pub interrupted: Option<Signal>,
}

/// Runs a command to its end and captures what it says on stderr.
///
/// # Errors
/// Where it cannot be started or waited for.
pub fn run(command: &mut Command, signals: &Signals) -> io::Result<Ended> {
    let said = capture_file()?;
    command.stderr(said.try_clone()?);
    let Passed { status, interrupted } = pass(command, signals)?;
    Ok(Ended { status, said: captured(said)?, interrupted })
}

/// Runs a command to its end, with this process's standard streams.
///
/// # Errors
/// Where it cannot be started or waited for.
pub fn pass(command: &mut Command, signals: &Signals) -> io::Result<Passed> {
    child::dies_with_parent(command, Signal::SIGTERM);
    child::with_signal_mask(command, signals.mask_before());
    let mut running = command.spawn()?;
    let mut interrupted = None;
    loop {
        if let Some(status) = running.try_wait()? {
            return Ok(Passed { status, interrupted });
        }
        let mut fds = [PollFd::new(signals.fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(arrived) = signals.next()? {
            if arrived.signal == Signal::SIGCHLD {
                continue;
            }
            interrupted.get_or_insert(arrived.signal);
            // A terminal has told its whole foreground group, the child included.
            if !arrived.by_kernel {
                let _ = kill(Pid::from_raw(running.id().cast_signed()), arrived.signal);
            }
        }
    }
}
