//! One ThinLTO link, from its command line to its output.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crate::Failure;
use crate::back_end_call;
use crate::cache::CachedLink;
use crate::cache::link::{self, Tools};
use crate::cache::link_key::Action;
use crate::cache::settings::Mode;
use crate::decision::{self, Decision, Prepared};
use crate::dispatch::{self, Tool};
use crate::distribution::Distribution;
use crate::failure;
use crate::invocation::lld::Link;
use crate::jobserver::Pool;
use crate::linker;
use crate::report::Report;
use crate::settings::Settings;
use crate::stop::ThinLinked;
use crate::sys::signals::Signals;
use crate::sys::{child, step};
use crate::thinlto::inputs::Inputs;

/// Does the link that `call` asks for.
///
/// # Errors
/// thinshim's own failures; those of the tools are the exit status.
pub fn run(call: &Tool) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let linker = dispatch::program(call)?;
    let settings = Settings::read()?;
    let words = decision::expand(&call.args)?;
    let parsed = decision::parse(words);
    match decision::decide(&linker, parsed.as_ref(), &settings)? {
        Decision::PassThrough(_) => linker::become_it(call, &linker),
        Decision::Small(link, inputs) => small(call, &linker, link, &inputs, &settings),
        Decision::Fallback(output, reason) => {
            leave_in_process(call, &linker, output, reason, &settings)
        }
        Decision::Distribute(prepared) => distribute(call, &linker, *prepared, &settings, began),
    }
}

/// A link that lld alone does for less than three steps cost, unless its output is there.
fn small(
    call: &Tool,
    linker: &Path,
    link: &Link,
    inputs: &Inputs<'_>,
    settings: &Settings,
) -> Result<ExitCode, Failure> {
    let mut told = Report {
        output: link.output.clone(),
        modules: inputs.modules.len(),
        small: true,
        ..Report::default()
    };
    let action = Action { link, inputs, options: &[] };
    let cached = cached_link(settings, Tools { linker, clang: None }, &action);
    let Ok(mut cached) = cached.map_err(|reason| told.link_not_cached = reason) else {
        report(&told)?;
        return linker::become_single(call, linker);
    };
    if let Some(said) = cached.fetch() {
        return from_cache(told, &said);
    }
    if let Some(damaged) = cached.damaged.take() {
        failure::warn(damaged);
        told.cache_damaged = 1;
    }
    if !cached.is_writable() {
        if let Some(warning) = cached.unwritable.take() {
            failure::warn(warning);
            told.link_not_cached = Some("the cache cannot be written to");
        }
        report(&told)?;
        return linker::become_single(call, linker);
    }
    let own = |error| own(&format!("link of {}", link.output.display()), &error);
    let heard = step::capture_file().map_err(own)?;
    let ended = linker::run_single(call, linker, &link.output, &heard)?;
    let heard = step::captured(heard).map_err(own)?;
    // Nobody may be there to read it, which is no reason to end otherwise.
    let _ = io::stdout().write_all(&heard);
    back_end_call::say(&ended.said);
    if let Some(signal) = ended.interrupted {
        return Ok(child::end_by(signal));
    }
    if ended.status.success() {
        told.link_not_cached = if heard.is_empty() {
            cached.keep(&ended.said, None).err()
        } else {
            Some(link::ON_STDOUT)
        };
        report(&told)?;
    }
    Ok(child::end_as(ended.status))
}

/// The link as the cache knows it, or why that has no part in it: no reason where nobody wants
/// one.
fn cached_link(
    settings: &Settings,
    tools: Tools<'_>,
    action: &Action<'_>,
) -> Result<CachedLink, Option<&'static str>> {
    let cache = settings.cache.as_ref().filter(|cache| cache.mode != Mode::Off);
    match cache {
        // Who keeps the files of a link wants it done.
        Some(cache) if settings.keep.is_none() => {
            CachedLink::open(cache, tools, action).map_err(Some)
        }
        _ => Err(None),
    }
}

/// Ends a link whose output came out of the cache.
fn from_cache(told: Report, said: &[u8]) -> Result<ExitCode, Failure> {
    log::debug!("{}: from the cache", told.output.display());
    back_end_call::say(said);
    report(&Report { link_hit: true, ..told })?;
    Ok(ExitCode::SUCCESS)
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
        failure::warn(warning);
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
        Decision::PassThrough(reason) => plain("pass-through", &reason),
        Decision::Small(..) => plain("small", "lld alone costs less"),
        Decision::Fallback(_, reason) => plain("fallback", &reason),
        Decision::Distribute(prepared) => {
            let signals = Signals::hold().map_err(|error| own("signals", &error))?;
            let mut distribution = Distribution::new(&linker, *prepared, &settings, &signals)?;
            match distribution.thin_link()? {
                ThinLinked::Go => Ok(distribution.plan().to_json()),
                ThinLinked::Stop(_) => Err(Failure::new("explain: the thin link failed")),
                ThinLinked::InProcess(reason) => plain("fallback", &reason),
            }
        }
    }
}

fn report(report: &Report) -> Result<(), Failure> {
    let failed = |error| own(&format!("link of {}", report.output.display()), &error);
    report.append().map_err(failed)
}

fn own(step: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("{step}: {error}"))
}

fn distribute(
    call: &Tool,
    linker: &Path,
    prepared: Prepared<'_>,
    settings: &Settings,
    began: Instant,
) -> Result<ExitCode, Failure> {
    let Prepared { link, inputs, options, clang } = &prepared;
    let tools = Tools { linker, clang: Some(clang) };
    let mut cached = cached_link(settings, tools, &Action { link, inputs, options });
    if let Ok(cached) = &mut cached
        && let Some(said) = cached.fetch()
    {
        let output = link.output.clone();
        let modules = inputs.modules.len();
        return from_cache(Report { output, modules, ..Report::default() }, &said);
    }
    let output = link.output.clone();
    let signals = Signals::hold().map_err(|error| own("signals", &error))?;
    let mut distribution = Distribution::new(linker, prepared, settings, &signals)?;
    distribution.count_from(began);
    distribution.keep_output_in(cached);
    let ended = distribution.all_steps()?;
    // The directory and the tokens go back before this process does.
    drop(distribution);
    drop(signals);
    match ended {
        Ok(stop) => Ok(stop.end()),
        Err(reason) => leave_in_process(call, linker, output, reason, settings),
    }
}
