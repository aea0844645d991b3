//! `thinshim distribute FILE.json`: the back ends of a link that lld distributes itself (DTLTO,
//! `ld.lld --thinlto-distributor=…`).
//!
//! lld has done the thin link and waits; then it links the native objects. What it asks for has
//! only the options that it knows from its command line: an object's record has the others, such
//! as `-mcmodel=kernel` and `-fno-pie`, without which the code is wrong.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::Failure;
use crate::back_ends::{BackEnds, Means};
use crate::cache::settings::Mode;
use crate::cache::{Cache, Start};
use crate::decision;
use crate::failure;
use crate::invocation::clang;
use crate::jobserver::Pool;
use crate::report::Report;
use crate::report::progress::Progress;
use crate::settings::Settings;
use crate::stop::Step;
use crate::sys::child;
use crate::sys::signals::Signals;
use crate::thinlto::back_end::{BackEnd, OptionsFrom};
use crate::thinlto::dtlto::{Asked, Request};
use crate::thinlto::module::{self, Module, Sort};
use crate::tool;
use crate::warm::{Compiler, Warm};

/// Runs the back ends that `file` lists.
///
/// # Errors
/// thinshim's own failures; clang's are the exit status. lld fails with either.
pub fn run(file: &Path) -> Result<ExitCode, Failure> {
    let fail = |what: &dyn std::fmt::Display| {
        Failure::new(format!("distribute: {}: {what}", file.display()))
    };
    let text = fs::read(file).map_err(|error| fail(&error))?;
    let request = Request::read(&text).map_err(|what| {
        fail(&format!("{what}; lld 21 or newer writes one for --thinlto-distributor"))
    })?;
    let settings = Settings::read()?;
    let signals = Signals::hold().map_err(|error| Failure::new(format!("signals: {error}")))?;
    // Nobody else would tell: lld has nothing to end a distributor with.
    child::end_with_parent(Signal::SIGTERM).map_err(|error| fail(&error))?;
    let result = distribute(&request, &settings, &signals);
    drop(signals);
    Ok(match result? {
        Step::Go => ExitCode::SUCCESS,
        Step::Stop(stop) => stop.end(),
    })
}

fn distribute(request: &Request, settings: &Settings, signals: &Signals) -> Result<Step, Failure> {
    let began = Instant::now();
    let output = &request.output;
    let clang = compiler(request, settings).ok_or_else(|| {
        Failure::new(format!(
            "link of {}: cannot find its compiler `{}`: name the clang of lld's release by \
             --thinlto-remote-compiler or THINSHIM_CLANG",
            output.display(),
            request.compiler.display()
        ))
    })?;
    let jobs: Vec<BackEnd> = request
        .jobs
        .iter()
        .map(|asked| job(request, asked, settings.options))
        .collect::<Result<_, _>>()
        .map_err(|what| Failure::new(format!("link of {}: {what}", output.display())))?;
    let mut pool = Pool::join();
    if let Some(warning) = pool.warning() {
        failure::warn(warning);
    }
    let cache = cache(request, settings, &clang);
    let warm = Warm::of(settings.warm, cache.is_some());
    let mut compiler =
        Compiler::new(&clang, jobs.len(), warm, settings.back_end_limit.is_some(), signals);
    let mut progress = Progress::new(output);
    let mut report = Report {
        output: output.clone(),
        jobserver: pool.identity(),
        modules: jobs.len(),
        ..Report::default()
    };
    let back_ends = BackEnds {
        output,
        jobs: &jobs,
        clang: &clang,
        settings,
        signals,
        began,
        cache: cache.as_ref(),
        names: &<[u8]>::to_vec,
    };
    let means = Means { compiler: &mut compiler, pool: &mut pool };
    let (step, _) = back_ends.run(means, &mut progress, &mut report, &mut Vec::new())?;
    if matches!(step, Step::Go) {
        if let Some(cache) = cache {
            let outcome = cache.finish();
            for warning in &outcome.warnings {
                progress.say(format!("thinshim: warning: {warning}\n").as_bytes());
            }
            report.take(outcome);
        }
        let failed = |error| Failure::new(format!("link of {}: {error}", output.display()));
        report.append().map_err(failed)?;
    }
    Ok(step)
}

/// The clang that the link names, or the user; else the one beside the lld that waits.
fn compiler(request: &Request, settings: &Settings) -> Option<PathBuf> {
    if let Some(clang) = &settings.clang {
        return Some(clang.clone());
    }
    if !request.compiler.is_empty() {
        return tool::find(&request.compiler);
    }
    let linker = format!("/proc/{}/exe", std::os::unix::process::parent_id());
    decision::clang_of(Path::new(&linker), settings)
}

fn cache(request: &Request, settings: &Settings, clang: &Path) -> Option<Cache> {
    let settings = settings.cache.clone().filter(|settings| settings.mode != Mode::Off)?;
    // What a back end writes besides its object is in no entry.
    if request.jobs.iter().any(|job| job.side_outputs) {
        return None;
    }
    let start = Start {
        settings,
        output: request.output.clone(),
        // There is none whose name messages could hold.
        work: PathBuf::from("\0"),
        private: false,
        clang: clang.to_owned(),
        modules: request.jobs.iter().map(|job| job.module.clone()).collect(),
    };
    Cache::start(start).inspect_err(|error| log::warn!("no cache: {error}")).ok()
}

fn job(request: &Request, asked: &Asked, from: OptionsFrom) -> Result<BackEnd, String> {
    let module = look(&asked.module)?;
    let mut options = options(request, &module, from)?;
    options.extend(asked.options.iter().cloned());
    let mut search_paths = search_paths(&module);
    for imported in asked.imported.iter().filter(|imported| **imported != asked.module) {
        search_paths.extend(search_paths_of(imported));
    }
    let output = asked.output.clone();
    let options: Arc<[OsString]> = options.into();
    Ok(BackEnd::new(&module, asked.index.clone(), output, options, search_paths))
}

fn look(path: &OsString) -> Result<Module, String> {
    let name = Path::new(path).display();
    match module::look(path) {
        Ok(Sort::Bitcode(module)) => Ok(*module),
        Ok(Sort::Other(_)) => Err(format!("{name} is no bitcode")),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

fn search_paths(module: &Module) -> Vec<OsString> {
    module.record.iter().flat_map(|record| record.search_paths.clone()).collect()
}

/// An import that is not there is clang's to tell of.
fn search_paths_of(imported: &OsString) -> Vec<OsString> {
    look(imported).map(|module| search_paths(&module)).unwrap_or_default()
}

/// The options of a module: as in a link of our own, as far as lld passes on what it was told.
fn options(request: &Request, module: &Module, from: OptionsFrom) -> Result<Vec<OsString>, String> {
    let name = Path::new(&module.path).display();
    let Some(record) = &module.record else { return Ok(request.common.clone()) };
    clang::check(&record.options).map_err(|refused| refused.in_record_of(&name))?;
    if let (OptionsFrom::Record | OptionsFrom::Sections, Some(doubt)) = (from, &record.doubt) {
        return Err(format!(
            "{name} was compiled with {}, which thinshim does not understand; \
             THINSHIM_OPTIONS=link goes without",
            doubt.display()
        ));
    }
    let mut recorded = record.options.clone();
    // As in a link of our own: the link has decided against them.
    if request.pic() && clang::refuses_pic(&recorded) {
        recorded.push("-fPIC".into());
    }
    Ok(match from {
        OptionsFrom::Record => [recorded, request.explicit()].concat(),
        OptionsFrom::Link => {
            let own = clang::known_to_linker(&record.options, !request.pic());
            [own, request.common.clone()].concat()
        }
        OptionsFrom::Sections => {
            let mut options = clang::without_loop_alignment(&recorded);
            options.extend(request.explicit());
            options.extend(
                ["-ffunction-sections", "-fdata-sections", "-faddrsig"].map(OsString::from),
            );
            options
        }
    })
}
