//! `thinshim run`: a build script as it is, with thinshim in front of its tools.
//!
//! A private directory holds thinshim under the tools' names and comes first on the command's
//! PATH; a jobserver is hosted unless there is one; links leave their reports in the directory,
//! and a summary is made of them when the command has ended.

pub mod builder;
mod compilers;
mod directory;
mod jobs;
mod llvm;
mod makefile;
mod masquerade;
mod summary;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::num::NonZeroUsize;
use std::process::{Command, ExitCode};
use std::{env, fs};

use crate::Failure;
use crate::settings::Settings;
use crate::site::{self, Event, Site};
use crate::sys::signals::{self, Signals};
use crate::sys::{child, step};
use crate::tool::{self, Builder};
use compilers::Compilers;
use directory::Directory;
use jobs::Jobs;
use summary::{Circumstances, FrontEnds};

/// What to run, and how.
#[derive(Debug)]
pub struct Options {
    /// Jobs at once; `None`: those of the jobserver above, or one for each CPU.
    pub jobs: Option<NonZeroUsize>,
    /// No summary.
    pub quiet: bool,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// The run's warm tools.
#[derive(Debug)]
enum WarmTools {
    /// Nobody wants them.
    Off,
    /// There are none, for this reason.
    Missing(String),
    /// They take jobs.
    Listening(Box<Compilers>),
}

impl WarmTools {
    fn start(site: &Site, signals: &Signals) -> WarmTools {
        match Compilers::listen(site, signals.mask_before()) {
            Ok(compilers) => WarmTools::Listening(Box::new(compilers)),
            Err(reason) => WarmTools::Missing(reason.to_string()),
        }
    }

    fn configure(&self, command: &mut Command) {
        if let WarmTools::Listening(compilers) = self {
            compilers.configure(command);
        } else {
            command.env_remove(site::TOKEN_VARIABLE);
        }
    }

    /// What they do while the command runs.
    fn beside(&mut self) -> Option<&mut dyn step::Beside> {
        match self {
            WarmTools::Listening(compilers) => Some(&mut **compilers),
            _ => None,
        }
    }

    fn front_ends(&self) -> FrontEnds {
        match self {
            WarmTools::Listening(compilers) => compilers.front_ends,
            _ => FrontEnds::default(),
        }
    }

    fn missing(&self) -> Option<&str> {
        match self {
            WarmTools::Missing(reason) => Some(reason),
            _ => None,
        }
    }
}

/// Runs a command to its end, and ends as it does.
///
/// # Errors
/// thinshim's own failures; the command's are the exit status.
pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(format!("run: cannot {what}: {error}"))
    };
    // Better now than in the first link, after many compiles.
    let settings = Settings::read()?;
    // Held from before there is anything to leave behind.
    let signals =
        Signals::hold_these(&signals::BUILD).map_err(|error| fail("hold signals", &error))?;
    let path = outer_path();
    let directory =
        Directory::create().map_err(|error| fail("make a private directory", &error))?;
    let site = directory.site();
    masquerade::fill(site, &path)
        .and_then(|()| site.await_events())
        .map_err(|error| fail("fill the private directory", &error))?;
    let jobs = Jobs::new(options.jobs, &site.jobserver())?;
    let mut command = command(options, site, &path)?;
    jobs.configure(&mut command);
    let mut warm = if settings.warm { WarmTools::start(site, &signals) } else { WarmTools::Off };
    warm.configure(&mut command);
    let ended = step::pass_beside(&mut command, &signals, warm.beside())
        .map_err(|error| fail(&format!("run `{}`", options.command[0].display()), &error))?;
    let reports = fs::read(site.report()).unwrap_or_default();
    if let Some(outer) = Site::current() {
        pass_on(&outer, site, &reports, warm.front_ends());
    }
    if !options.quiet {
        let failed = !ended.status.success();
        let text = tell(options, site, &jobs, &warm, &reports, failed);
        // Nobody may be there to read it, which is no reason to end otherwise.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    // Before this process ends, perhaps by a signal.
    drop(warm);
    drop(jobs);
    drop(directory);
    drop(signals);
    Ok(child::end_as(ended.status))
}

/// PATH, less the tools of a run that this one is part of.
fn outer_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    Site::current().map_or(path.clone(), |site| site.without_tools(&path))
}

fn command(options: &Options, site: &Site, path: &OsStr) -> Result<Command, Failure> {
    let Some((name, args)) = options.command.split_first() else {
        return Err(Failure::new("run: no command"));
    };
    let mut command = Command::new(name);
    command.args(args).env("PATH", site.with_tools(path)).env(site::VARIABLE, site.path());
    // By a path it does not come by our make.
    if name.as_encoded_bytes().contains(&b'/') && tool::builder(name) == Some(Builder::Make) {
        command.args(llvm::variables(args));
    }
    Ok(command)
}

/// A run within a run is part of what that sums up.
fn pass_on(outer: &Site, site: &Site, reports: &[u8], front_ends: FrontEnds) {
    let mut reports = reports.to_owned();
    reports.extend(front_ends.to_report().as_bytes());
    let heard = Event::ALL.into_iter().filter(|&event| site.heard(event));
    heard.for_each(|event| outer.tell(event));
    let file = fs::OpenOptions::new().append(true).create(true).open(outer.report());
    if let Err(error) = file.and_then(|mut file| file.write_all(&reports)) {
        log::info!("cannot report to the run above: {error}");
    }
}

fn tell(
    options: &Options,
    site: &Site,
    jobs: &Jobs,
    warm: &WarmTools,
    reports: &[u8],
    failed: bool,
) -> String {
    let circumstances = Circumstances {
        command: &options.command,
        jobserver: jobs.identity().map(|identity| identity.to_string()),
        jobs: jobs.count(),
        missing: jobs.missing(),
        clang_on_path: tool::find(OsStr::new("clang")).is_some(),
        llvm: env::var_os("LLVM"),
        clang_called: site.heard(Event::Clang),
        lld_called: site.heard(Event::Lld),
        compiled: site.heard(Event::Compile),
        older_ninja: site.heard(Event::OlderNinja),
        failed,
        front_ends: warm.front_ends(),
        cold: warm.missing().map(str::to_owned),
    };
    summary::tell(reports, &circumstances)
}
