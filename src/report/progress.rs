//! The summary line in Kbuild's style, and the live counter before it on a terminal.

use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Report;

/// A link that took less says nothing.
const WORTH_TELLING_S: f64 = 1.0;
/// The counter moves no faster than eyes.
const COUNTER_STEP: Duration = Duration::from_millis(100);

/// Tells how a link goes on.
#[derive(Debug)]
pub struct Progress {
    output: String,
    started: Instant,
    drawn: Option<Instant>,
    /// Something of the counter stands on the terminal's line.
    on_line: bool,
    live: bool,
    silent: bool,
}

impl Progress {
    /// Begins to tell of the link of `output`.
    pub fn new(output: &Path) -> Progress {
        let silent = is_silent(env::var_os("MAKEFLAGS").as_deref());
        Progress {
            output: output.display().to_string(),
            started: Instant::now(),
            drawn: None,
            on_line: false,
            live: !silent && io::stderr().is_terminal(),
            silent,
        }
    }

    /// So many back ends of so many have ended.
    pub fn count(&mut self, done: usize, all: usize) {
        let due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= COUNTER_STEP);
        if self.live && due && self.started.elapsed().as_secs_f64() >= WORTH_TELLING_S {
            tell(&format!("\r  LTO     {}  {done}/{all}", self.output));
            self.drawn = Some(Instant::now());
            self.on_line = true;
        }
    }

    /// Passes on what a tool said on stderr.
    pub fn say(&mut self, said: &[u8]) {
        if !said.is_empty() {
            self.clear();
            let _ = io::stderr().write_all(said);
        }
    }

    /// Wipes the counter from the terminal's line.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.on_line) {
            tell("\r\x1b[K");
        }
    }

    /// Tells how the link went, if it took long enough to be of interest.
    pub fn finish(&mut self, report: &Report) {
        self.clear();
        if !self.silent && self.started.elapsed().as_secs_f64() >= WORTH_TELLING_S {
            let hits = match report.cache_hits {
                0 => String::new(),
                hits => format!(", {hits} from cache"),
            };
            tell(&format!(
                "  LTO     {}  {} modules, {} back ends{hits} in {:.1} s (thin link {:.1} s, \
                 native link {:.1} s)\n",
                self.output,
                report.modules,
                report.backends_run,
                report.backends_s,
                report.thin_link_s,
                report.native_link_s,
            ));
        }
    }
}

/// Writes to stderr; where that takes no words, a link is none the worse.
fn tell(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// `make -s`: an `s` in the first word of MAKEFLAGS, which holds the single-letter options
/// without a dash (GNU make manual, "Options/Recursion").
fn is_silent(makeflags: Option<&OsStr>) -> bool {
    let flags = makeflags.map(OsStr::as_bytes).unwrap_or_default();
    let first = flags.split(|byte| *byte == b' ').next().unwrap_or_default();
    !first.starts_with(b"-") && !first.contains(&b'=') && first.contains(&b's')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_make_s_first_word() {
        for (flags, silent) in [
            ("s", true),
            ("rRs -j4 --jobserver-auth=3,4", true),
            ("rR -j4 -- V=s", false),
            (" -j4 --jobserver-style=fifo", false),
            ("--no-print-directory", false),
            ("", false),
        ] {
            assert_eq!(is_silent(Some(OsStr::new(flags))), silent, "{flags}");
        }
        assert!(!is_silent(None));
    }
}
