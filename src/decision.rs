//! Whether a link is distributed, and if not, why: decided before anything is written.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Failure;
use crate::invocation::clang;
use crate::invocation::lld::{self, Link, Refusal};
use crate::invocation::response;
use crate::settings::Settings;
use crate::thinlto::back_end::{self, OptionsFrom};
use crate::thinlto::inputs::{self, Inputs, Trouble};
use crate::thinlto::module::Module;
use crate::thinlto::names;
use crate::tool;
use crate::workdir::WorkDir;

/// Why most links are passed through.
const NO_THIN: &str = "no ThinLTO bitcode is linked";

/// What becomes of a link.
#[derive(Debug)]
pub enum Decision<'a> {
    /// There is no ThinLTO in it, or it is none of thinshim's business: the reason.
    PassThrough(Cow<'static, str>),
    /// lld alone costs less.
    Small(&'a Link, Inputs<'a>),
    /// In-process ThinLTO does it: output and reason.
    Fallback(PathBuf, String),
    /// Three steps.
    Distribute(Box<Prepared<'a>>),
}

/// A link that is ready to be distributed.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// The command line.
    pub link: &'a Link,
    /// Its inputs.
    pub inputs: Inputs<'a>,
    /// The back-end options of each module.
    pub options: Vec<Arc<[OsString]>>,
    /// The clang of the linker's LLVM.
    pub clang: PathBuf,
}

/// A command line as far as it was understood.
#[derive(Debug)]
pub enum Parsed {
    /// A link.
    Link(Box<Link>),
    /// Not to be distributed. The words are for finding out whether there is bitcode in it.
    Refused(Refusal, Vec<OsString>),
}

impl Parsed {
    /// As the decision takes it.
    pub fn as_ref(&self) -> Result<&Link, (&Refusal, &[OsString])> {
        match self {
            Parsed::Link(link) => Ok(link),
            Parsed::Refused(refusal, words) => Err((refusal, words)),
        }
    }
}

/// Expands response files. `None`: only the linker itself can read them.
///
/// # Errors
/// A sentence that names the file.
pub fn expand(args: &[OsString]) -> Result<Option<Vec<OsString>>, Failure> {
    if !response::mentioned_in(args) {
        return Ok(Some(args.to_vec()));
    }
    match response::expand(args) {
        Ok(words) => Ok(Some(words)),
        Err(error) if error.left_to_tool() => Ok(None),
        Err(error) => Err(Failure::new(format!("link: {error}"))),
    }
}

/// Reads the linker's command line.
pub fn parse(words: Option<Vec<OsString>>) -> Parsed {
    let Some(words) = words else {
        let reason = "a response file that only the linker can read".to_owned();
        return Parsed::Refused(Refusal::PassThrough(reason), Vec::new());
    };
    match lld::parse(words.clone()) {
        Ok(link) => Parsed::Link(Box::new(link)),
        Err(refusal) => Parsed::Refused(refusal, words),
    }
}

/// Decides, after a look at every input.
///
/// # Errors
/// An input that cannot be read or understood.
pub fn decide<'a>(
    linker: &Path,
    parsed: Result<&'a Link, (&Refusal, &[OsString])>,
    settings: &Settings,
) -> Result<Decision<'a>, Failure> {
    let link = match parsed {
        Ok(link) => link,
        Err((Refusal::StepAside(reason), words)) => {
            let link = lld::parse_anyway(words.to_vec());
            return Ok(if any_thin(&link) {
                Decision::Fallback(link.output, reason.clone())
            } else {
                Decision::PassThrough(NO_THIN.into())
            });
        }
        Err((Refusal::PassThrough(reason) | Refusal::Bad(reason), _)) => {
            return Ok(Decision::PassThrough(reason.clone().into()));
        }
    };
    let fallback = |reason: String| Ok(Decision::Fallback(link.output.clone(), reason));
    let inputs = match inputs::look(link, &WorkDir::members_of(&link.output)) {
        Ok(inputs) => inputs,
        Err(Trouble::StepAside(reason)) => return fallback(reason),
        Err(Trouble::Unreadable(what)) => {
            return Err(Failure::new(format!("link of {}: {what}", link.output.display())));
        }
    };
    if !inputs.modules.iter().any(|module| module.thin) {
        return Ok(Decision::PassThrough(NO_THIN.into()));
    }
    if settings.reproduce {
        return fallback("LLD_REPRODUCE: its tar file is to hold this very link".to_owned());
    }
    let bytes: u64 = inputs.modules.iter().map(|module| module.size).sum();
    let alone = |module: &Module| {
        let record = module.record.as_ref().filter(|_| settings.options != OptionsFrom::Link);
        record.is_none_or(|record| !clang::follow_profile(&record.options))
    };
    if bytes <= settings.small && inputs.modules.iter().all(alone) {
        return Ok(Decision::Small(link, inputs));
    }
    let Some(clang) = clang_of(linker, settings) else {
        return fallback(format!(
            "there is no clang beside {}, and THINSHIM_CLANG names none",
            linker.display()
        ));
    };
    match options(link, &inputs.modules, settings, &clang) {
        Ok(options) => {
            Ok(Decision::Distribute(Box::new(Prepared { link, inputs, options, clang })))
        }
        Err(reason) => {
            let told = names::of_archives(reason.as_bytes(), &inputs, false);
            fallback(String::from_utf8_lossy(&told).into_owned())
        }
    }
}

/// The clang of the linker's LLVM, or the one that the user named.
pub fn clang_of(linker: &Path, settings: &Settings) -> Option<PathBuf> {
    settings.clang.clone().or_else(|| tool::beside(linker, "clang"))
}

/// The options of every module; modules of one kind share theirs.
///
/// # Errors
/// A sentence, for a link whose options cannot be said to clang.
pub fn options(
    link: &Link,
    modules: &[Module],
    settings: &Settings,
    clang: &Path,
) -> Result<Vec<Arc<[OsString]>>, String> {
    let no_record = modules.iter().any(|module| module.thin && module.record.is_none());
    let exactness_matters = no_record || settings.options == back_end::OptionsFrom::Link;
    if let Some(reason) = link.lto.inexact().filter(|_| exactness_matters) {
        return Err(reason.to_owned());
    }
    let major = major_version(clang);
    let mut known: HashMap<_, Arc<[OsString]>> = HashMap::new();
    // Mostly a module is of its neighbour's kind.
    let mut last = None;
    modules
        .iter()
        .map(|module| {
            if !module.thin {
                // Its code is the thin link's to write, with the options of the link line.
                return Ok(Arc::default());
            }
            let key = (&module.record, &module.triple);
            if let Some((_, options)) = last.as_ref().filter(|(known, _)| *known == key) {
                return Ok(Arc::clone(options));
            }
            let options = match known.entry(key) {
                Entry::Occupied(known) => Arc::clone(known.get()),
                Entry::Vacant(new) => {
                    let options = back_end::options(link, module, settings.options, major)?;
                    Arc::clone(new.insert(options.into()))
                }
            };
            last = Some((key, Arc::clone(&options)));
            Ok(options)
        })
        .collect()
}

/// The major version of a clang, told by its resource directory (`lib/clang/22`): running it costs
/// as much as a small back end. 0 where the directory does not tell.
pub fn major_version(clang: &Path) -> u32 {
    let versions = fs::canonicalize(clang)
        .ok()
        .and_then(|clang| fs::read_dir(clang.parent()?.join("../lib/clang")).ok());
    versions
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.split('.').next()?.parse().ok()
        })
        .max()
        .unwrap_or(0)
}

/// Whether a command line that was not understood links a module for ThinLTO, as far as can be seen.
fn any_thin(link: &Link) -> bool {
    match inputs::look(link, &WorkDir::members_of(&link.output)) {
        Ok(inputs) => inputs.modules.iter().any(|module| module.thin),
        Err(Trouble::StepAside(_)) => true,
        // lld says it best.
        Err(Trouble::Unreadable(_)) => false,
    }
}
