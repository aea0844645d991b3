//! The real linker as a process. Its threads are jobs too.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, SystemTime};

use crate::Failure;
use crate::dispatch::Tool;
use crate::invocation::lld;
use crate::jobserver::Pool;
use crate::site::Site;
use crate::sys::signals::Signals;
use crate::sys::{child, sigpipe, step};
use crate::warm::ask::Part;
use crate::warm::call::{self, Call, Caller};

/// lld starts no more by itself (`lld/ELF/Driver.cpp`, `threads`).
const THREADS_MAX: usize = 16;
/// A token that is free comes by way of the keeper: two process switches.
const TOKENS_WAIT: Duration = Duration::from_millis(10);

/// How far the times of files may be behind the clock: a jiffy, which is 10 ms at most.
const TICK: Duration = Duration::from_millis(20);

/// How many threads a linker may have: its own, and one for each token that is free now. The
/// tokens stay in the pool's hand.
pub fn threads(pool: &mut Pool) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    1 + pool.gather(cpus.min(THREADS_MAX) - 1, TOKENS_WAIT)
}

/// Becomes the real linker with the same argument bytes, or has it done by the run above.
///
/// # Errors
/// Where the linker cannot be run.
pub fn become_it(call: &Tool, linker: &Path) -> Result<ExitCode, Failure> {
    become_with(call, linker, &[])
}

/// The same on the implicit token.
///
/// # Errors
/// Where the linker cannot be run.
pub fn become_single(call: &Tool, linker: &Path) -> Result<ExitCode, Failure> {
    become_with(call, linker, &[threads_option(1)])
}

fn become_with(call: &Tool, linker: &Path, defaults: &[OsString]) -> Result<ExitCode, Failure> {
    let args = with_defaults(call, defaults);
    if let Some(status) = run_by_site(call, linker, &args) {
        return Ok(child::end_as(status));
    }
    let mut command = Command::new(linker);
    let error = sigpipe::pass_on(command.arg0(call.program()).args(args)).exec();
    Err(failure(linker, &error))
}

/// Has the run above do it, if there is one.
fn run_by_site(tool: &Tool, linker: &Path, args: &[OsString]) -> Option<ExitStatus> {
    let argv0 = tool.program();
    let call = Call { part: Part::Step, command: &tool.command, program: linker, argv0, args };
    call::run(&Site::current()?, &call, |words| !lld::starts_jobs(words))
}

/// As [`become_single`], for who wants to hear how it ended, and on stdout in `stdout`.
///
/// # Errors
/// Where the linker cannot be run.
pub fn run_single(
    call: &Tool,
    linker: &Path,
    output: &Path,
    stdout: &File,
) -> Result<step::Ended, Failure> {
    let signals = Signals::hold().map_err(|error| failure(linker, &error))?;
    let mut command = command(call, linker, &[threads_option(1)]);
    hear(&mut command, call.program(), Some(stdout), output, &signals)
        .map_err(|error| failure(linker, &error))
}

/// Runs a linker called `argv0` to its end and captures what it says on stderr; on stdout, `stdout`
/// hears it, or this process's does. What one that was killed leaves beside its output goes, too.
///
/// # Errors
/// Where the linker cannot be run.
pub fn hear(
    command: &mut Command,
    argv0: &OsStr,
    stdout: Option<&File>,
    output: &Path,
    signals: &Signals,
) -> io::Result<step::Ended> {
    let since = SystemTime::now() - TICK;
    let ended = if let Some(ended) = Caller::hear(command, argv0, stdout, signals) {
        ended?
    } else {
        if let Some(file) = stdout {
            command.stdout(file.try_clone()?);
        }
        step::run(command.arg0(argv0), signals)?
    };
    if ended.status.signal().is_some() {
        sweep(output, since);
    }
    Ok(ended)
}

/// Removes the files that lld has begun to write `output` to since then. It removes them itself
/// where a signal lets it, and where that does not come before lld has taken note of the file.
fn sweep(output: &Path, since: SystemTime) {
    let (Some(base), Some(parent)) = (output.file_name(), output.parent()) else { return };
    let directory = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let begun = || entry.metadata()?.modified().map(|time| time >= since);
        if is_temporary(&entry.file_name(), base) && begun().unwrap_or(false) {
            log::info!("{} goes: the linker was killed", entry.path().display());
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether LLVM would write `base` to a file of that name (`FileOutputBuffer.cpp`: `.tmp` and
/// seven hexadecimal digits).
fn is_temporary(name: &OsStr, base: &OsStr) -> bool {
    let rest = name.as_bytes().strip_prefix(base.as_bytes());
    let digits = rest.and_then(|rest| rest.strip_prefix(b".tmp")).unwrap_or_default();
    digits.len() == 7 && digits.iter().all(u8::is_ascii_hexdigit)
}

/// Does the link in-process, on the tokens that are free.
///
/// # Errors
/// Where the linker cannot be run.
pub fn run(call: &Tool, linker: &Path, mut pool: Pool) -> Result<ExitCode, Failure> {
    let threads = threads(&mut pool);
    if threads == 1 {
        drop(pool);
        return become_single(call, linker);
    }
    let signals = Signals::hold().map_err(|error| failure(linker, &error))?;
    let mut command = command(call, linker, &[threads_option(threads)]);
    let ended = step::pass(&mut command, &signals).map_err(|error| failure(linker, &error))?;
    // The tokens go back before this process does.
    drop(pool);
    drop(signals);
    Ok(match ended.interrupted {
        Some(signal) => child::end_by(signal),
        None => child::end_as(ended.status),
    })
}

/// `--threads` is the default of `--thinlto-jobs`, too; and in front of the user's words it is only
/// a default: theirs come later, and the last counts.
fn threads_option(threads: usize) -> OsString {
    format!("--threads={threads}").into()
}

fn command(call: &Tool, linker: &Path, defaults: &[OsString]) -> Command {
    let mut command = Command::new(linker);
    command.arg0(call.program()).args(with_defaults(call, defaults));
    command
}

/// The linker's arguments, with defaults in front.
fn with_defaults(call: &Tool, defaults: &[OsString]) -> Vec<OsString> {
    // `-flavor` is one only as the very first word.
    let flavor = if call.args.first().is_some_and(|word| word == "-flavor") { 2 } else { 0 };
    let (first, rest) = call.args.split_at(flavor.min(call.args.len()));
    [first, defaults, rest].concat()
}

fn failure(linker: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot run {}: {error}", linker.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_temporaries() {
        for (name, expected) in [
            ("out.o.tmp0a1b2c3", true),
            ("out.o.tmp0a1b2c", false),
            ("out.o.tmp0a1b2c3d", false),
            ("out.o.tmp0a1b2cx", false),
            ("out.o0a1b2c3", false),
            ("another.o.tmp0a1b2c3", false),
            ("out.o", false),
        ] {
            assert_eq!(is_temporary(OsStr::new(name), OsStr::new("out.o")), expected, "{name}");
        }
    }
}
