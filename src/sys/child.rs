//! Children: replaced by, waited for, never left behind.
#![expect(unsafe_code, reason = "prctl in the child, between fork and exec; raw statuses")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};

use nix::sys::signal::{self, Signal, kill};
use nix::sys::wait::WaitPidFlag;
use nix::unistd::Pid;

use super::signals::Children;
use super::sigpipe;
use super::told::Told;

/// A process that is not yet waited for, however it was started.
#[derive(Debug)]
pub struct Process(Kind);

#[derive(Debug)]
enum Kind {
    Child {
        pid: Pid,
        /// Signals go to what it has started, too.
        group: bool,
    },
    /// Another process's child.
    Told(Told),
}

impl From<&Child> for Process {
    fn from(child: &Child) -> Process {
        Process::from(Pid::from_raw(child.id().cast_signed()))
    }
}

impl From<Pid> for Process {
    fn from(pid: Pid) -> Process {
        Process(Kind::Child { pid, group: false })
    }
}

impl From<Told> for Process {
    fn from(told: Told) -> Process {
        Process(Kind::Told(told))
    }
}

impl fmt::Display for Process {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Child { pid, .. } => write!(to, "{pid}"),
            Kind::Told(_) => write!(to, "a job of the run above"),
        }
    }
}

impl Process {
    /// That of a group, whose leader it is or becomes now; only of a child.
    #[must_use]
    pub fn leads_group(mut self) -> Process {
        if let Kind::Child { pid, group } = &mut self.0 {
            // A child that has called exec is out of reach, but then it was started as a leader.
            let _ = nix::unistd::setpgid(*pid, *pid);
            *group = nix::unistd::getpgid(Some(*pid)) == Ok(*pid);
        }
        self
    }

    /// Readable when it may have ended. `None`: then comes a `SIGCHLD`.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Kind::Child { .. } => None,
            Kind::Told(told) => Some(told.as_fd()),
        }
    }

    /// How it ended, if it has. Not to be asked again after that.
    ///
    /// # Errors
    /// The operating system's: it is no child of this process.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        match &self.0 {
            Kind::Child { pid, .. } => wait_for(*pid, WaitPidFlag::WNOHANG),
            Kind::Told(told) => Ok(told.end()),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The operating system's: it is no child of this process.
    pub fn wait(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Child { pid, .. } => while wait_for(*pid, WaitPidFlag::empty())?.is_none() {},
            Kind::Told(told) => {
                told.word();
            }
        }
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        match &self.0 {
            Kind::Child { pid, group } => {
                let group_id = Pid::from_raw(-pid.as_raw());
                let _ = kill(if *group { group_id } else { *pid }, signal);
            }
            Kind::Told(told) => told.signal(signal),
        }
    }
}

fn wait_for(pid: Pid, flags: WaitPidFlag) -> io::Result<Option<ExitStatus>> {
    let mut status = 0;
    // Not nix's: that has no word for a death by a real-time signal.
    // SAFETY: the status is there to be written to.
    match unsafe { libc::waitpid(pid.as_raw(), &raw mut status, flags.bits()) } {
        0 => Ok(None),
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            error => Err(error),
        },
        _ => Ok(Some(ExitStatus::from_raw(status))),
    }
}

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

/// Lets this process get `signal` when its parent ends.
///
/// # Errors
/// The operating system's; or it has ended already.
pub fn end_with_parent(signal: Signal) -> io::Result<()> {
    let parent = nix::unistd::getppid();
    nix::sys::prctl::set_pdeathsig(signal)?;
    // It may have ended before the prctl.
    if nix::unistd::getppid() != parent {
        return Err(io::Error::from_raw_os_error(libc::ECHILD));
    }
    Ok(())
}

/// This process's I/O priority, as `ioprio_get(2)` has it; negative: there is none.
pub fn io_priority() -> libc::c_long {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: takes two numbers and gives one.
    unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) }
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
    let _children = Children::heed();
    dies_with_parent(command, Signal::SIGTERM);
    sigpipe::pass_on(command);
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
