//! A call of clang that the `thinshim run` above has done in a warm compiler.

use std::borrow::Cow;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::ask::{Connection, Request};
use super::circumstances::Circumstances;
use super::server::job;
use super::wire::{HELLO, Header};
use crate::dispatch::Tool;
use crate::invocation::{clang, response};
use crate::settings;
use crate::site::Site;
use crate::sys::signals::{self, Signals};

/// Words in which a file may be named that only this process has open.
const OWN_FILES: [&[u8]; 2] = [b"/dev/fd", b"/proc/"];

/// Runs a call of clang, whose program is called `argv0`, to its end, where it is a front end.
/// `None`: it is to be run as usual, nothing has happened yet.
pub fn run(site: &Site, call: &Tool, program: &Path, argv0: &OsStr) -> Option<ExitStatus> {
    // A launcher starts compilers itself.
    if call.command.len() != 1 || !settings::warm().unwrap_or(true) {
        return None;
    }
    let token = site.token()?;
    let expanded = if response::mentioned_in(&call.args) {
        Cow::Owned(response::expand(&call.args).ok()?)
    } else {
        Cow::Borrowed(&call.args)
    };
    if !clang::is_front_end(&expanded) {
        return None;
    }
    let connection = Connection::open(&site.compilers()).ok()?;
    let argv = std::iter::once(argv0).chain(call.args.iter().map(OsString::as_os_str));
    let asked = request(program, argv, &expanded).and_then(|request| {
        let signals = Signals::hold_these(&signals::BUILD)?;
        // Not to be read, only to be gone to.
        let here = File::options().read(true).custom_flags(libc::O_PATH).open(".")?;
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let fds = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), here.as_fd()];
        connection.ask(&token, &request, fds)?;
        Ok(signals)
    });
    match asked {
        Ok(signals) => wait(&connection, &signals),
        Err(reason) => {
            log::debug!("not in a warm compiler: {reason}");
            // Where the request was too long, the connection is still as it was.
            connection.tell(&token);
            None
        }
    }
}

/// What to ask for; `expanded` are the arguments with response files expanded.
fn request<'a>(
    program: &Path,
    argv: impl Iterator<Item = &'a OsStr>,
    expanded: &[OsString],
) -> io::Result<Request> {
    if expanded.iter().any(|word| names_own_file(word)) {
        return Err(io::Error::other("it may read a descriptor of its own"));
    }
    if env::var_os("CCC_OVERRIDE_OPTIONS").is_some() {
        return Err(io::Error::other("CCC_OVERRIDE_OPTIONS may make it link"));
    }
    let Circumstances { common, place } = Circumstances::read()?;
    let (header, strings) = job(argv.map(OsStr::as_bytes), env::vars_os())?;
    let program = fs::canonicalize(program)?;
    Ok(Request { program, common, header: Header { place, ..header }, strings })
}

fn names_own_file(word: &OsStr) -> bool {
    let has = |part: &&[u8]| word.as_bytes().windows(part.len()).any(|window| window == *part);
    OWN_FILES.iter().any(has)
}

/// Waits for the end of a job, and passes signals on to it.
fn wait(connection: &Connection, signals: &Signals) -> Option<ExitStatus> {
    let mut begun = false;
    let mut interrupted: Option<Signal> = None;
    loop {
        let mut fds = [
            PollFd::new(connection.fd(), PollFlags::POLLIN),
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
                // The terminal's may have come before the job was in its group; twice does no harm.
                connection.signal(arrived.signal as i32);
            }
        }
        if has_word {
            match connection.word() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_ones_own() {
        for (word, expected) in [
            ("/dev/fd/63", true),
            ("-I/proc/self/fd/3", true),
            ("/dev/stdin", false),
            ("/dev/null", false),
            ("a.c", false),
        ] {
            assert_eq!(names_own_file(OsStr::new(word)), expected, "{word}");
        }
    }
}
