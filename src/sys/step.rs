//! One child at a time, with its words captured and signals passed on.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;

use super::child::{self, Process};
use super::deadline::Deadline;
use super::signals::Signals;
use super::sigpipe;

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
    if file.metadata()?.len() == 0 {
        return Ok(said);
    }
    file.rewind()?;
    file.read_to_end(&mut said)?;
    Ok(said)
}

/// What goes on in the same loop, as long as the child runs.
pub trait Beside {
    /// What it waits for.
    fn fds(&self) -> Vec<PollFd<'_>>;

    /// When it wants a turn at the latest.
    fn deadlines(&self) -> Vec<&Deadline>;

    /// Does what there is to do, without waiting.
    fn turn(&mut self);

    /// Whether it has something to finish after the child's end.
    fn is_busy(&self) -> bool;

    /// Gives up what it has to finish: a signal has come.
    fn end(&mut self);
}

/// How a child ended that said its own words.
#[derive(Debug)]
pub struct Passed {
    /// Its status.
    pub status: ExitStatus,
    /// A signal that came to this process meanwhile, and was passed on.
    pub interrupted: Option<Signal>,
    /// It was ended because it took too long.
    pub late: bool,
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
    /// It was ended because it took too long.
    pub late: bool,
}

/// Runs a command to its end and captures what it says on stderr.
///
/// # Errors
/// Where it cannot be started or waited for.
pub fn run(command: &mut Command, signals: &Signals) -> io::Result<Ended> {
    run_within(command, signals, None)
}

/// As [`run`], but no longer than `limit`.
///
/// # Errors
/// Where it cannot be started or waited for.
pub fn run_within(
    command: &mut Command,
    signals: &Signals,
    limit: Option<Duration>,
) -> io::Result<Ended> {
    let said = capture_file()?;
    command.stderr(said.try_clone()?);
    let process = start(command, signals, limit.is_some())?;
    attend(&process, said, signals, limit)
}

/// Waits for the end of a process whose words on stderr go to `said`.
///
/// # Errors
/// Where it cannot be waited for.
pub fn attend(
    process: &Process,
    said: File,
    signals: &Signals,
    limit: Option<Duration>,
) -> io::Result<Ended> {
    let Passed { status, interrupted, late } = wait(process, signals, limit, None)?;
    Ok(Ended { status, said: captured(said)?, interrupted, late })
}

/// Runs a command to its end, with this process's standard streams.
///
/// # Errors
/// Where it cannot be started or waited for.
pub fn pass(command: &mut Command, signals: &Signals) -> io::Result<Passed> {
    pass_beside(command, signals, None)
}

/// As [`pass`], with something else in the same loop.
///
/// # Errors
/// Where it cannot be started or waited for.
pub fn pass_beside(
    command: &mut Command,
    signals: &Signals,
    beside: Option<&mut dyn Beside>,
) -> io::Result<Passed> {
    wait(&start(command, signals, false)?, signals, None, beside)
}

fn start(command: &mut Command, signals: &Signals, group: bool) -> io::Result<Process> {
    if group {
        command.process_group(0);
    }
    child::dies_with_parent(command, Signal::SIGTERM);
    child::with_signal_mask(command, signals.mask_before());
    sigpipe::pass_on(command);
    let process = Process::from(&command.spawn()?);
    Ok(if group { process.leads_group() } else { process })
}

fn wait(
    process: &Process,
    signals: &Signals,
    limit: Option<Duration>,
    mut beside: Option<&mut dyn Beside>,
) -> io::Result<Passed> {
    let mut deadline = Deadline::of(limit);
    let mut interrupted = None;
    // Its number is another's after that.
    let mut ended = None;
    loop {
        if ended.is_none() {
            ended = process.try_wait()?;
        }
        if let Some(status) = ended
            && beside.as_ref().is_none_or(|beside| !beside.is_busy())
        {
            let late = deadline.passed() && !status.success();
            return Ok(Passed { status, interrupted, late });
        }
        if let Some(signal) = deadline.due(Instant::now()) {
            process.signal(signal);
        }
        let mut fds = vec![PollFd::new(signals.fd(), PollFlags::POLLIN)];
        let told = process.fd().filter(|_| ended.is_none());
        fds.extend(told.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        fds.extend(beside.iter().flat_map(|beside| beside.fds()));
        let others = beside.iter().flat_map(|beside| beside.deadlines());
        match poll(&mut fds, Deadline::first(others.chain([&deadline]))) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        drop(fds);
        while let Some(arrived) = signals.next()? {
            if arrived.signal == Signal::SIGCHLD {
                continue;
            }
            interrupted.get_or_insert(arrived.signal);
            if ended.is_some() {
                if let Some(beside) = &mut beside {
                    beside.end();
                }
            } else if !arrived.by_kernel || limit.is_some() {
                // A terminal has told its whole foreground group, the process included.
                process.signal(arrived.signal);
            }
        }
        if let Some(beside) = &mut beside {
            beside.turn();
        }
    }
}
