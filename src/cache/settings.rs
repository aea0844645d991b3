//! Where the cache is, and what it may do.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What the cache may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Off,
    /// Give what it has.
    Read,
    /// Give, and store.
    #[default]
    On,
}

impl Mode {
    /// Reads the value of `THINSHIM_CACHE`.
    ///
    /// # Errors
    /// The value, where it is none of ours.
    pub fn from_variable(value: Option<&OsStr>) -> Result<Mode, OsString> {
        match value.map(OsStr::as_bytes) {
            None | Some(b"" | b"on" | b"1") => Ok(Mode::On),
            Some(b"read") => Ok(Mode::Read),
            Some(b"off" | b"0") => Ok(Mode::Off),
            Some(other) => Err(OsStr::from_bytes(other).to_owned()),
        }
    }
}

/// A cache that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its directory.
    pub directory: PathBuf,
    /// Nobody asked for that directory by name.
    pub is_default: bool,
    /// What it may do.
    pub mode: Mode,
    /// Its size in bytes, at most.
    pub limit: u64,
}

/// The cache's directory and whether it is the default one: `THINSHIM_CACHE_DIR`, else `thinshim`
/// in the user's cache directory (XDG Base Directory Specification). `None` where there is no
/// home, as in many package builds.
pub fn directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<(PathBuf, bool)> {
    if let Some(directory) = variable("THINSHIM_CACHE_DIR") {
        return Some((PathBuf::from(directory), false));
    }
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some((base.join("thinshim"), true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_found() {
        let with = |pairs: &[(&str, &str)]| {
            directory(|name| {
                pairs.iter().find(|pair| pair.0 == name).map(|pair| OsString::from(pair.1))
            })
        };
        let home = ("HOME", "/home/a");
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("HOME", "relative")]), None);
        assert_eq!(with(&[home]), Some(("/home/a/.cache/thinshim".into(), true)));
        assert_eq!(with(&[home, ("XDG_CACHE_HOME", "/x")]), Some(("/x/thinshim".into(), true)));
        assert_eq!(
            with(&[home, ("XDG_CACHE_HOME", "relative")]),
            Some(("/home/a/.cache/thinshim".into(), true))
        );
        assert_eq!(with(&[home, ("THINSHIM_CACHE_DIR", "here")]), Some(("here".into(), false)));
    }
}
