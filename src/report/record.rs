//! `THINSHIM_REPORT`: one JSON line for each link, and for each back end that a build system calls
//! by itself, written in one piece.

use std::collections::BTreeMap;
use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cache;
use crate::jobserver::Identity;
use crate::site::Site;

/// What is told of a link.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The link's output.
    pub output: PathBuf,
    /// This is no link, but one of the steps of one that the build system does.
    pub step: Option<&'static str>,
    /// Modules that the thin link took.
    pub modules: usize,
    /// Back ends that ran.
    pub backends_run: usize,
    /// Of these, those that a warm compiler ran.
    pub backends_warm: usize,
    /// Back ends that needed not to run.
    pub cache_hits: usize,
    /// Objects that were stored in the cache.
    pub cache_stored: usize,
    /// Entries of the cache that were not what had been stored.
    pub cache_damaged: usize,
    /// Back ends that the cache has no part in, by reason.
    pub not_cached: BTreeMap<String, usize>,
    /// The whole output came out of the cache, and nothing was run.
    pub link_hit: bool,
    /// Why the output is not kept in the cache, where one is used.
    pub link_not_cached: Option<&'static str>,
    /// Seconds of the thin link.
    pub thin_link_s: f64,
    /// Seconds from the link's beginning to the first back end's start; `None` where none ran.
    pub first_back_end_s: Option<f64>,
    /// Seconds from the first back end's start to the last one's end.
    pub backends_s: f64,
    /// Seconds of the native link.
    pub native_link_s: f64,
    /// Most back ends at once.
    pub tokens_max: usize,
    /// The share of the time in which tokens in hand were used, during the back ends; `None`
    /// where none ran.
    pub tokens_busy: Option<f64>,
    /// The jobserver that the link took part in.
    pub jobserver: Option<Identity>,
    /// The link was left to lld, which is cheaper for it.
    pub small: bool,
    /// Why in-process ThinLTO did the link.
    pub fallback: Option<String>,
}

/// The [`Report::step`] of a back end.
pub const BACK_END: &str = "back-end";

impl Report {
    /// Of a back end that the build system calls by itself; `output` is its object.
    pub fn of_back_end(output: PathBuf) -> Report {
        Report { output, step: Some(BACK_END), modules: 1, ..Report::default() }
    }

    /// Takes over what the cache did.
    pub fn take(&mut self, outcome: cache::Outcome) {
        self.cache_damaged += outcome.damaged;
        self.cache_stored = outcome.stored;
        self.not_cached = outcome.not_cached;
    }

    /// Appends the report to the file that `THINSHIM_REPORT` names, if it names one, and to that
    /// of the `thinshim run` above.
    ///
    /// # Errors
    /// The operating system's with the file's name, where the user has named it.
    pub fn append(&self) -> io::Result<()> {
        let named = env::var_os("THINSHIM_REPORT").filter(|path| !path.is_empty());
        let site = Site::current();
        if named.is_none() && site.is_none() {
            return Ok(());
        }
        let mut line = self.to_line();
        line.push('\n');
        // One write to a file opened for appending: lines of parallel links do not mix.
        let append = |path: &Path| -> io::Result<()> {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            file.write_all(line.as_bytes())
        };
        if let Some(site) = site
            && let Err(error) = append(&site.report())
        {
            // The run was killed, or this link outlives it.
            log::info!("nobody to report to: {error}");
        }
        let Some(path) = named else { return Ok(()) };
        append(Path::new(&path)).map_err(|error| {
            io::Error::new(error.kind(), format!("THINSHIM_REPORT={}: {error}", path.display()))
        })
    }

    fn to_line(&self) -> String {
        json!({
            "output": self.output.to_string_lossy(),
            "step": self.step,
            "modules": self.modules,
            "backends_run": self.backends_run,
            "backends_warm": self.backends_warm,
            "cache_hits": self.cache_hits,
            "cache_stored": self.cache_stored,
            "cache_damaged": self.cache_damaged,
            "not_cached": self.not_cached,
            "link_hit": self.link_hit,
            "link_not_cached": self.link_not_cached,
            "thin_link_s": seconds(self.thin_link_s),
            "first_back_end_s": self.first_back_end_s.map(seconds),
            "backends_s": seconds(self.backends_s),
            "native_link_s": seconds(self.native_link_s),
            "tokens_max": self.tokens_max,
            "tokens_busy": self.tokens_busy.map(seconds),
            "jobserver": self.jobserver.map(|jobserver| jobserver.to_string()),
            "small": self.small,
            "fallback": self.fallback,
        })
        .to_string()
    }
}

/// Milliseconds are as fine as these figures get.
fn seconds(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
