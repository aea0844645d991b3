//! Calls of tools that the `thinshim run` above does in warm ones.
//!
//! [`run`] does a call of this process's own to its end, in the place of `exec`; a [`Caller`] has the
//! steps of a link done so: back ends and linkers, of which a build has thousands.

use std::borrow::Cow;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::ask::{Connection, Part, Request};
use super::circumstances::Circumstances;
use super::server::{Environment, job};
use super::wire::{HELLO, Header, STREAMS};
use crate::invocation::response;
use crate::settings;
use crate::site::{Site, TOKEN};
use crate::sys::child::Process;
use crate::sys::signals::{self, Signals};
use crate::sys::step;

/// A call that this process is there for.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What it is for.
    pub part: Part,
    /// The tool, with the launchers in front of it.
    pub command: &'a [OsString],
    /// The program.
    pub program: &'a Path,
    /// What it is called.
    pub argv0: &'a OsStr,
    /// Its arguments.
    pub args: &'a [OsString],
}

/// Runs a call to its end, if its arguments, response files expanded, are such as `accept` takes.
/// `None`: it is to be run as usual, nothing has happened yet.
pub fn run(
    site: &Site,
    call: &Call<'_>,
    accept: impl FnOnce(&[OsString]) -> bool,
) -> Option<ExitStatus> {
    let token = site.token()?;
    // A launcher starts tools itself.
    if call.command.len() != 1 || !settings::warm().unwrap_or(true) {
        return None;
    }
    let expanded = if response::mentioned_in(call.args) {
        Cow::Owned(response::expand(call.args).ok()?)
    } else {
        Cow::Borrowed(call.args)
    };
    if !accept(&expanded) {
        return None;
    }
    let request = of_call(call, &expanded);
    let connection = Connection::open(&site.compilers()).ok()?;
    let asked = request.and_then(|request| {
        let signals = Signals::hold_these(&signals::BUILD)?;
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let here = here()?;
        let fds = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), here.as_fd()];
        connection.ask(&token, &request, fds)?;
        Ok(signals)
    });
    match asked {
        Ok(signals) => wait(&connection, &signals),
        Err(reason) => {
            log::debug!("not in a warm compiler: {reason}");
            // Where the request was too long, the connection is still as it was.
            if call.part == Part::FrontEnd {
                connection.tell(&token);
            }
            None
        }
    }
}

fn of_call(call: &Call<'_>, expanded: &[OsString]) -> io::Result<Request> {
    refuse_own_files(expanded)?;
    if call.part == Part::FrontEnd && env::var_os("CCC_OVERRIDE_OPTIONS").is_some() {
        return Err(io::Error::other("CCC_OVERRIDE_OPTIONS may make it link"));
    }
    let argv = std::iter::once(call.argv0).chain(call.args.iter().map(OsString::as_os_str));
    let Circumstances { common, place } = Circumstances::read()?;
    let (header, strings) = job(argv.map(OsStr::as_bytes), &Environment::own()?)?;
    let program = fs::canonicalize(call.program)?;
    let header = Header { place, ..header };
    Ok(Request { part: call.part, program, common, header, strings })
}

/// The working directory: not to be read, only to be gone to.
fn here() -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_PATH).open(".")
}

/// A job has no descriptors but the standard streams, and is another process than its caller.
fn refuse_own_files(words: &[impl AsRef<OsStr>]) -> io::Result<()> {
    if words.iter().any(|word| names_own_file(word.as_ref())) {
        return Err(io::Error::other("it may read a descriptor of its own"));
    }
    Ok(())
}

/// Whether a word may name a file that is there for this process only (proc(5)).
fn names_own_file(word: &OsStr) -> bool {
    let word = word.as_bytes();
    let is_own = |rest: &[u8]| match rest.strip_prefix(b"/proc/") {
        Some(rest) => {
            rest.first().is_some_and(u8::is_ascii_digit)
                || rest.starts_with(b"self")
                || rest.starts_with(b"thread-self")
        }
        None => rest.starts_with(b"/dev/fd"),
    };
    (0..word.len()).any(|at| is_own(&word[at..]))
}

/// Waits for the end of a job, and passes signals on to it.
fn wait(connection: &Connection, signals: &Signals) -> Option<ExitStatus> {
    let told = connection.told();
    let mut begun = false;
    let mut interrupted: Option<Signal> = None;
    loop {
        let mut fds = [
            PollFd::new(told.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return ended(begun, interrupted),
        }
        let has_word = fds[0].any() == Some(true);
        while let Ok(Some(arrived)) = signals.next() {
            if arrived.signal != Signal::SIGCHLD {
                interrupted = Some(arrived.signal);
                // A job that has begun is in this process's group, which the terminal tells.
                if !arrived.by_kernel || !begun {
                    told.signal(arrived.signal);
                }
            }
        }
        if has_word {
            match told.word() {
                Some(HELLO) if !begun => begun = true,
                Some(status) if begun => return Some(ExitStatus::from_raw(status)),
                _ => return ended(begun, interrupted),
            }
        }
    }
}

/// What is to become of a job of which nobody tells the end.
fn ended(begun: bool, interrupted: Option<Signal>) -> Option<ExitStatus> {
    match interrupted {
        // The run was killed, and the job with it.
        _ if begun => Some(ExitStatus::from_raw(Signal::SIGKILL as i32)),
        // Held back here, it would have ended this process.
        Some(signal) => Some(ExitStatus::from_raw(signal as i32)),
        None => None,
    }
}

/// Has steps of this process done.
#[derive(Debug)]
pub struct Caller {
    site: Site,
    token: [u8; TOKEN],
    circumstances: Circumstances,
    here: OwnedFd,
}

impl Caller {
    /// `None`: no run above has warm tools, or nobody wants them.
    pub fn new(signals: &Signals) -> Option<Caller> {
        if !settings::warm().unwrap_or(true) {
            return None;
        }
        let site = Site::current()?;
        let token = site.token()?;
        let mut circumstances = Circumstances::read().ok()?;
        // A step is not to hold back what this process does.
        circumstances.place.blocked = before(signals, circumstances.place.blocked);
        Some(Caller { site, token, circumstances, here: here().ok()?.into() })
    }

    /// Starts a job. It ends with this process.
    ///
    /// # Errors
    /// There will be no such job.
    pub(super) fn spawn(
        &self,
        program: &OsStr,
        argv: &[&OsStr],
        environment: &Environment,
        [stdin, stdout, stderr]: [BorrowedFd<'_>; STREAMS],
    ) -> io::Result<Process> {
        let args = &argv[1.min(argv.len())..];
        refuse_own_files(args)?;
        let words: Vec<OsString> = args.iter().map(|&word| word.to_owned()).collect();
        if response::mentioned_in(&words) {
            let expanded = response::expand(&words);
            refuse_own_files(&expanded.map_err(|error| io::Error::other(error.to_string()))?)?;
        }
        let (header, strings) = job(argv.iter().map(|word| word.as_bytes()), environment)?;
        let Circumstances { common, place } = &self.circumstances;
        let request = Request {
            part: Part::Step,
            program: fs::canonicalize(program)?,
            common: common.clone(),
            header: Header { place: *place, ..header },
            strings,
        };
        let connection = Connection::open(&self.site.compilers())?;
        connection.ask(&self.token, &request, [stdin, stdout, stderr, self.here.as_fd()])?;
        let told = connection.begin().ok_or_else(|| io::Error::other("the run refuses"))?;
        Ok(Process::from(told))
    }

    /// Runs what `command` would run as `argv0` to its end, and captures what it says on stderr; on
    /// stdout, `stdout` hears it, or this process's does. `None`: it is to be run as usual.
    pub fn hear(
        command: &Command,
        argv0: &OsStr,
        stdout: Option<&File>,
        signals: &Signals,
    ) -> Option<io::Result<step::Ended>> {
        let caller = Caller::new(signals)?;
        let said = step::capture_file().ok()?;
        let (own_stdin, own_stdout) = (io::stdin(), io::stdout());
        let stdout = stdout.map_or(own_stdout.as_fd(), File::as_fd);
        let argv: Vec<&OsStr> = std::iter::once(argv0).chain(command.get_args()).collect();
        let streams = [own_stdin.as_fd(), stdout, said.as_fd()];
        let process = Environment::of(command)
            .and_then(|environment| {
                caller.spawn(command.get_program(), &argv, &environment, streams)
            })
            .inspect_err(|error| log::debug!("not in a warm tool of the run: {error}"))
            .ok()?;
        Some(step::attend(&process, said, signals, None))
    }
}

/// The signals that were blocked before `signals` were held back, `blocked` being those of now.
fn before(signals: &Signals, blocked: u64) -> u64 {
    let bit = |signal: Signal| 1_u64 << (signal as i32 - 1);
    let mask = signals.mask_before();
    Signal::iterator().fold(blocked, |blocked, signal| {
        if mask.contains(signal) { blocked | bit(signal) } else { blocked & !bit(signal) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_ones_own() {
        for (word, expected) in [
            ("/dev/fd/63", true),
            ("-I/proc/self/fd/3", true),
            ("/proc/12/fd/3", true),
            ("--script=/proc/thread-self/fd/3", true),
            ("-Wa,fs/proc/x,/proc/self/fd/3", true),
            ("/dev/stdin", false),
            ("/dev/null", false),
            ("fs/proc/array.o", false),
            ("/proc/version", false),
            ("a.c", false),
        ] {
            assert_eq!(names_own_file(OsStr::new(word)), expected, "{word}");
        }
    }

    #[test]
    fn what_is_held_back_here_is_not_there() {
        let signals = Signals::hold().expect("signals");
        let real_time = 1 << 40;
        let now = real_time | 1 << (Signal::SIGINT as i32 - 1) | 1 << (Signal::SIGCHLD as i32 - 1);
        assert_eq!(before(&signals, now), real_time);
    }
}
