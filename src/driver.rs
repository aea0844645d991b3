//! One ThinLTO link, from its command line to its output.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::Failure;
use crate::decision::{self, Decision, Prepared};
use crate::dispatch::{self, Tool};
use crate::distribution::{Distribution, Step};
use crate::jobserver::Pool;
use crate::linker;
use crate::report::Report;
use crate::settings::Settings;
use crate::sys::signals::Signals;

/// Does the link that `call` asks for.
///
/// # Errors
/// thinshim's own failures; those of the tools are the exit status.
pub fn run(call: &Tool) -> Result<ExitCode, Failure> {
    let linker = dispatch::program(call)?;
    let settings = Settings::read()?;
    let words = decision::expand(&call.args)?;
    let parsed = decision::parse(words);
    match decision::decide(&linker, parsed.as_ref(), &settings)? {
        Decision::PassThrough => Err(linker::become_it(call, &linker)),
        Decision::Small(output, modules) => {
            report(&Report { output, modules, small: true, ..Report::default() })?;
            Err(linker::become_single(call, &linker))
        }
        Decision::Fallback(output, reason) => {
            leave_in_process(call, &linker, output, reason, &settings)
        }
        Decision::Distribute(prepared) => distribute(&linker, *prepared, &settings),
    }
}

/// Leaves a link to in-process ThinLTO, for a reason.
///
/// # Errors
/// thinshim's own failures; where the user wants no such link, that is one.
pub fn leave_in_process(
    call: &Tool,
    linker: &Path,
    output: PathBuf,
    reason: String,
    settings: &Settings,
) -> Result<ExitCode, Failure> {
    allow_in_process(&output, &reason, settings)?;
    let pool = Pool::join();
    if let Some(warning) = pool.warning() {
        log::warn!("{warning}");
    }
    let fallback = Some(reason);
    let jobserver = pool.identity();
    report(&Report { output, jobserver, fallback, ..Report::default() })?;
    linker::run(call, linker, pool)
}

/// Whether a link may be left to in-process ThinLTO.
///
/// # Errors
/// A sentence with the reason, where the user wants no such link.
pub fn allow_in_process(output: &Path, reason: &str, settings: &Settings) -> Result<(), Failure> {
    let output = output.display();
    if settings.strict {
        return Err(Failure::new(format!(
            "link of {output}: {reason}; THINSHIM_STRICT forbids to leave it to in-process ThinLTO"
        )));
    }
    log::warn!("{output}: left to in-process ThinLTO: {reason}");
    Ok(())
}

/// The plan of a link, for people to read; of what it runs, only the thin link is run.
///
/// # Errors
/// thinshim's own failures, and a thin link that fails.
pub fn explain(call: &Tool) -> Result<serde_json::Value, Failure> {
    let linker = dispatch::program(call)?;
    let settings = Settings::read()?;
    let words = decision::expand(&call.args)?;
    let parsed = decision::parse(words);
    let plain = |decision: &str, reason: &str| {
        Ok(serde_json::json!({ "decision": decision, "reason": reason }))
    };
    match decision::decide(&linker, parsed.as_ref(), &settings)? {
        Decision::PassThrough => plain("pass-through", "no ThinLTO bitcode is linked"),
        Decision::Small(..) => plain("small", "lld alone costs less"),
        Decision::Fallback(_, reason) => plain("fallback", &reason),
        Decision::Distribute(prepared) => {
            let signals = Signals::hold().map_err(|error| own("signals", &error))?;
            let mut distribution = Distribution::new(&linker, *prepared, &settings, &signals)?;
            match distribution.thin_link()? {
                Step::Go => Ok(distribution.plan().to_json()),
                Step::Stop(_) => Err(Failure::new("explain: the thin link failed")),
            }
        }
    }
}

fn report(report: &Report) -> Result<(), Failure> {
    report
        .append()
        .map_err(|error| Failure::new(format!("cannot write to THINSHIM_REPORT's file: {error}")))
}

fn own(step: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("{step}: {error}"))
}

fn distribute(
    linker: &Path,
    prepared: Prepared<'_>,
    settings: &Settings,
) -> Result<ExitCode, Failure> {
    let signals = Signals::hold().map_err(|error| own("signals", &error))?;
    let mut distribution = Distribution::new(linker, prepared, settings, &signals)?;
    let stop = distribution.all_steps()?;
    // The directory and the tokens go back before this process does.
    drop(distribution);
    drop(signals);
    Ok(stop.end())
}
