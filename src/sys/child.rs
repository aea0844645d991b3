//! Children: replaced by, waited for, never left behind.
#![expect(unsafe_code, reason = "prctl in the child, between fork and exec")]

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};

use nix::sys::signal::{self, Signal};

/// Makes a child die with `signal` when this process does, however this one ends.
pub fn dies_with_parent(command: &mut Command, signal: Signal) {
    let parent = std::process::id();
    // SAFETY: prctl and getppid are async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(signal)?;
            // The parent may have died before the prctl.
            if nix::unistd::getppid().as_raw().cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ECHILD));
            }
            Ok(())
        });
    }
}

/// Gives a child the signal mask `mask`, whatever this process holds back.
pub fn with_signal_mask(command: &mut Command, mask: signal::SigSet) {
    // SAFETY: pthread_sigmask is async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            signal::pthread_sigmask(signal::SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
            Ok(())
        });
    }
}

/// Ends this process by `signal`, as its default disposition does. Returns where it does not.
pub fn end_by(signal: Signal) -> ExitCode {
    let default = signal::SigAction::new(
        signal::SigHandler::SigDfl,
        signal::SaFlags::empty(),
        signal::SigSet::empty(),
    );
    // SAFETY: the default disposition runs no code of ours.
    let _ = unsafe { signal::sigaction(signal, &default) };
    let _ = signal::raise(signal);
    ExitCode::from(128u8.wrapping_add(signal as u8))
}

/// Runs a command to its end, with this process's standard streams.
///
/// # Errors
/// Where the command cannot be started.
pub fn run(command: &mut Command) -> io::Result<ExitStatus> {
    dies_with_parent(command, Signal::SIGTERM);
    command.spawn()?.wait()
}

/// Ends as a child ended: with its exit status, or by its signal.
pub fn end_as(status: ExitStatus) -> ExitCode {
    if let Some(number) = status.signal() {
        if let Ok(signal) = Signal::try_from(number) {
            // A core file of ours would say nothing of the child's fault.
            let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
            return end_by(signal);
        }
        return ExitCode::from(128u8.wrapping_add(u8::try_from(number).unwrap_or(0)));
    }
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
