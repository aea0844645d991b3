//! thinshim's environment variables for links, read once.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use crate::Failure;
use crate::cache::settings::{self as cache, Mode};
use crate::jobserver;
use crate::thinlto::back_end::OptionsFrom;
use crate::tool;

/// Bitcode up to this size is cheaper for lld alone: a distributed link starts at least three
/// processes where lld starts none.
const SMALL_BYTES: u64 = 16 << 10;

/// With less memory than this free, no further back end starts.
const MEMORY_FLOOR: u64 = 512 << 20;

/// The cache's size, at most.
const CACHE_BYTES: u64 = 10 << 30;

/// Seconds that a back end may take.
const TIMEOUT: &str = "THINSHIM_BACKEND_TIMEOUT";

/// What the environment asks for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `THINSHIM_STRICT`: a fallback is an error.
    pub strict: bool,
    /// `THINSHIM_SMALL`: most bytes of bitcode that are left to lld alone.
    pub small: u64,
    /// `THINSHIM_OPTIONS`: where the back ends' options come from.
    pub options: OptionsFrom,
    /// `THINSHIM_KEEP`: the work directory, to be kept.
    pub keep: Option<PathBuf>,
    /// `THINSHIM_MEM_FLOOR`: bytes.
    pub memory_floor: u64,
    /// `THINSHIM_BACKEND_TIMEOUT`: a back end that takes longer is ended.
    pub back_end_limit: Option<Duration>,
    /// `THINSHIM_WARM`: back ends run in a compiler that is loaded once.
    pub warm: bool,
    /// `THINSHIM_CLANG`: the back ends' clang.
    pub clang: Option<PathBuf>,
    /// `LLD_REPRODUCE`, lld's own: it writes a tar file of the link, as `--reproduce` does.
    pub reproduce: bool,
    /// `THINSHIM_CACHE`, `THINSHIM_CACHE_DIR`, `THINSHIM_CACHE_SIZE`; `None`: there is no place
    /// for one.
    pub cache: Option<cache::Settings>,
}

impl Settings {
    /// What a back end has done that was ended after its time.
    pub fn too_late(&self) -> String {
        let limit = self.back_end_limit.unwrap_or_default().as_secs();
        format!(
            "clang has not ended within {limit} s, the limit of {TIMEOUT}, and was killed: give \
             it more time, or see by `THINSHIM_KEEP=DIR` and its command in `thinshim explain` \
             where it hangs"
        )
    }

    /// Reads the environment. `THINSHIM_JOBS`, which the jobserver reads, is looked at, too.
    ///
    /// # Errors
    /// A sentence that names the variable whose value is none of its own.
    pub fn read() -> Result<Settings, Failure> {
        if let Some(jobs) = variable("THINSHIM_JOBS")
            && jobserver::asked(&jobs).is_none()
        {
            return Err(Failure::new(format!(
                "THINSHIM_JOBS={}: not a number above 0",
                jobs.display()
            )));
        }
        let bytes = |name: &str, default: u64| match variable(name) {
            None => Ok(default),
            Some(value) => size(&value).ok_or_else(|| {
                Failure::new(format!(
                    "{name}={}: not a number of bytes (K, M and G may follow it)",
                    value.display()
                ))
            }),
        };
        let options = variable("THINSHIM_OPTIONS");
        let mode = Mode::from_variable(variable("THINSHIM_CACHE").as_deref()).map_err(|value| {
            Failure::new(format!("THINSHIM_CACHE={}: not one of on, read, off", value.display()))
        })?;
        let limit = bytes("THINSHIM_CACHE_SIZE", CACHE_BYTES)?;
        let cache = cache::directory(variable).map(|(directory, is_default)| cache::Settings {
            directory,
            is_default,
            mode,
            limit,
        });
        Ok(Settings {
            strict: switch("THINSHIM_STRICT", false)?,
            small: bytes("THINSHIM_SMALL", SMALL_BYTES)?,
            options: OptionsFrom::from_variable(options.as_deref()).map_err(|value| {
                Failure::new(format!(
                    "THINSHIM_OPTIONS={}: not one of record, link, sections",
                    value.display()
                ))
            })?,
            keep: variable("THINSHIM_KEEP").map(PathBuf::from),
            memory_floor: bytes("THINSHIM_MEM_FLOOR", MEMORY_FLOOR)?,
            back_end_limit: variable(TIMEOUT)
                .map(|value| {
                    seconds(&value).ok_or_else(|| {
                        Failure::new(format!(
                            "{TIMEOUT}={}: not a number of seconds (0: as long as it takes)",
                            value.display()
                        ))
                    })
                })
                .transpose()?
                .filter(|limit| !limit.is_zero()),
            warm: warm()?,
            clang: variable("THINSHIM_CLANG")
                .map(|name| {
                    tool::find(&name).ok_or_else(|| {
                        Failure::new(format!(
                            "THINSHIM_CLANG={}: no such program (the path of a clang, or its name \
                             on PATH)",
                            name.display()
                        ))
                    })
                })
                .transpose()?,
            // For lld an empty one counts, too.
            reproduce: env::var_os("LLD_REPRODUCE").is_some(),
            cache,
        })
    }
}

/// A variable; an empty one counts as none.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// `THINSHIM_WARM` alone, for those that need no other settings.
///
/// # Errors
/// It is neither on nor off.
pub fn warm() -> Result<bool, Failure> {
    switch("THINSHIM_WARM", true)
}

/// A variable that is on or off.
fn switch(name: &str, default: bool) -> Result<bool, Failure> {
    match variable(name).as_deref().map(OsStr::as_encoded_bytes) {
        None => Ok(default),
        Some(b"on" | b"1") => Ok(true),
        Some(b"off" | b"0") => Ok(false),
        Some(value) => {
            let value = String::from_utf8_lossy(value);
            Err(Failure::new(format!("{name}={value}: not on or off")))
        }
    }
}

/// A number of seconds, in digits.
fn seconds(text: &OsStr) -> Option<Duration> {
    text.to_str()?.parse().ok().map(Duration::from_secs)
}

/// A number of bytes: digits, and perhaps K, M or G.
fn size(text: &OsStr) -> Option<u64> {
    let text = text.to_str()?;
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("0", Some(0)), ("32K", Some(32768)), ("1g", Some(1 << 30)), ("K", None), ("-1", None)]
        {
            assert_eq!(size(OsStr::new(text)), bytes, "{text}");
        }
    }
}
