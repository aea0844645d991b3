//! A back end that a build system calls itself: from the cache or through clang, and looked at
//! like one of ours.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use crate::Failure;
use crate::cache::settings::Mode;
use crate::cache::{Desk, Start};
use crate::dispatch::Tool;
use crate::failure;
use crate::invocation::clang::{self, BackEndCall};
use crate::report::Report;
use crate::settings::Settings;
use crate::sys::signals::Signals;
use crate::sys::{child, commit, step};
use crate::thinlto::back_end::{self, BackEnd};
use crate::thinlto::module::{self, Sort};
use crate::tool;
use crate::warm::call::Caller;

/// Does what `call` asks for. `None`: clang alone should, with all that it says of its input.
///
/// # Errors
/// thinshim's own failures; clang's are its exit status.
pub fn run(tool: &Tool, call: &BackEndCall) -> Option<Result<ExitCode, Failure>> {
    let job = job(tool, call)?;
    // A launcher in between would look for a cache of its own, whose key is less than ours.
    let clang = tool::find(tool.name())?;
    let settings = match Settings::read() {
        Ok(settings) => settings,
        Err(failure) => return Some(Err(failure)),
    };
    let ended = compile(&clang, &tool.args, &job, &settings);
    Some(ended.map(|ended| ended.unwrap_or(ExitCode::SUCCESS)))
}

/// The job, where module and output are what they should be.
fn job(tool: &Tool, call: &BackEndCall) -> Option<BackEnd> {
    // clang is another program under another name.
    let name = tool::base_name(tool.name()).to_owned();
    let options: Vec<OsString> =
        std::iter::once(name).chain(call.options.iter().cloned()).collect();
    let Ok(Sort::Bitcode(module)) = module::look(&call.module) else { return None };
    match fs::symlink_metadata(&call.output) {
        Ok(meta) if !meta.is_file() => return None,
        Err(error) if error.kind() != io::ErrorKind::NotFound => return None,
        _ => {}
    }
    let machine = match clang::target(&call.options) {
        Some(_) => back_end::machine_by(&call.options, &module),
        None => back_end::machine(&module),
    };
    Some(BackEnd {
        module: call.module.clone(),
        size: module.size,
        index: call.index.clone(),
        output: call.output.clone(),
        options: options.into(),
        search_paths: Vec::new(),
        machine,
    })
}

/// Makes the object of `job`: from the cache, or by `clang` with `args`. `None`: it is there.
///
/// # Errors
/// thinshim's own failures; clang's are its exit status.
pub fn compile(
    clang: &Path,
    args: &[OsString],
    job: &BackEnd,
    settings: &Settings,
) -> Result<Option<ExitCode>, Failure> {
    let fail = |what: &str| {
        Failure::new(format!("back end of {}: {what}", Path::new(&job.module).display()))
    };
    let output = job.output.clone();
    let since = Instant::now();
    let mut report = Report::of_back_end(output.clone());
    let mut desk = open(job, clang, settings, &mut report);
    let mut temporary = commit::Temporary::beside(&output);
    let hit = desk.as_mut().and_then(|desk| {
        desk.jobs = Arc::new([BackEnd { output: temporary.path().to_owned(), ..job.clone() }]);
        let hit = desk.look_up(0)?;
        temporary.persist(&output).ok().map(|()| hit)
    });
    drop(temporary);
    if let Some(hit) = &hit {
        report.cache_hits = 1;
        say(&hit.said);
    } else {
        report.backends_run = 1;
        let own = |error: io::Error| fail(&format!("cannot run {}: {error}", clang.display()));
        let signals = Signals::hold().map_err(own)?;
        let mut command = Command::new(clang);
        command.args(args);
        let ended = run_it(&mut command, &signals, settings).map_err(own)?;
        drop(signals);
        say(&ended.said);
        if let Some(signal) = ended.interrupted {
            return Ok(Some(child::end_by(signal)));
        }
        if ended.late || ended.status.signal().is_some() {
            // What it had written of it by then.
            let _ = fs::remove_file(&output);
        }
        if ended.late {
            return Err(fail(&settings.too_late()));
        }
        if !ended.status.success() {
            return Ok(Some(child::end_as(ended.status)));
        }
        if let Err(what) = back_end::verify(job) {
            // Make would take it for a result.
            let _ = fs::remove_file(&output);
            return Err(fail(&what));
        }
        if let Some(desk) = &mut desk {
            desk.jobs = Arc::new([job.clone()]);
            desk.store(0, &ended.said);
        }
    }
    report.backends_s = since.elapsed().as_secs_f64();
    if let Some(mut desk) = desk {
        desk.remember();
        for warning in &desk.outcome.warnings {
            failure::warn(warning);
        }
        report.take(desk.outcome);
    }
    report.append().map_err(|error| fail(&error.to_string()))?;
    Ok(None)
}

/// Runs a back end, in the run's warm compiler where there is one.
fn run_it(
    command: &mut Command,
    signals: &Signals,
    settings: &Settings,
) -> io::Result<step::Ended> {
    let limit = settings.back_end_limit;
    let heard = match limit {
        None => Caller::hear(command, command.get_program(), None, signals),
        Some(_) => None,
    };
    heard.unwrap_or_else(|| step::run_within(command, signals, limit))
}

fn open(job: &BackEnd, clang: &Path, settings: &Settings, report: &mut Report) -> Option<Desk> {
    let cache = settings.cache.clone().filter(|cache| cache.mode != Mode::Off)?;
    let opened = Desk::open(Start {
        settings: cache,
        output: job.output.clone(),
        // Only links have one.
        work: PathBuf::from("\0"),
        private: false,
        clang: clang.to_owned(),
        modules: vec![job.module.clone()],
    });
    match opened {
        Ok(desk) => Some(desk),
        Err(outcome) => {
            report.take(outcome);
            None
        }
    }
}

/// Passes on what a tool has said on stderr.
pub fn say(said: &[u8]) {
    let _ = io::stderr().write_all(said);
}
