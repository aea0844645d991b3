//! The real linker as a process. Its threads are jobs too.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::Failure;
use crate::dispatch::Tool;
use crate::jobserver::Pool;
use crate::sys::signals::Signals;
use crate::sys::{child, step};

/// lld starts no more by itself (`lld/ELF/Driver.cpp`, `threads`).
const THREADS_MAX: usize = 16;
/// A token that is free comes by way of the keeper: two process switches.
const TOKENS_WAIT: Duration = Duration::from_millis(10);

/// How many threads a linker may have: its own, and one for each token that is free now. The
/// tokens stay in the pool's hand.
pub fn threads(pool: &mut Pool) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    1 + pool.gather(cpus.min(THREADS_MAX) - 1, TOKENS_WAIT)
}

/// Becomes the real linker with the same argument bytes; returns only where that fails.
pub fn become_it(call: &Tool, linker: &Path) -> Failure {
    failure(linker, &command(call, linker, &[]).exec())
}

/// Becomes the real linker, on the implicit token; returns only where that fails.
pub fn become_single(call: &Tool, linker: &Path) -> Failure {
    failure(linker, &command(call, linker, &[threads_option(1)]).exec())
}

/// As [`become_single`], for who wants to hear how it ended.
///
/// # Errors
/// Where the linker cannot be run.
pub fn run_single(call: &Tool, linker: &Path) -> Result<step::Ended, Failure> {
    let signals = Signals::hold().map_err(|error| failure(linker, &error))?;
    step::run(&mut command(call, linker, &[threads_option(1)]), &signals)
        .map_err(|error| failure(linker, &error))
}

/// Does the link in-process, on the tokens that are free.
///
/// # Errors
/// Where the linker cannot be run.
pub fn run(call: &Tool, linker: &Path, mut pool: Pool) -> Result<ExitCode, Failure> {
    let threads = threads(&mut pool);
    if threads == 1 {
        drop(pool);
        return Err(become_single(call, linker));
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
    // `-flavor` is one only as the very first word.
    let flavor = if call.args.first().is_some_and(|word| word == "-flavor") { 2 } else { 0 };
    let (first, rest) = call.args.split_at(flavor.min(call.args.len()));
    let mut command = Command::new(linker);
    command.arg0(call.program()).args(first).args(defaults).args(rest);
    command
}

fn failure(linker: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot run {}: {error}", linker.display()))
}
