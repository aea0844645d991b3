//! The private directory of a `thinshim run`, as the run and all tools below it know it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Names the directory to everything below a `thinshim run`.
pub const VARIABLE: &str = "THINSHIM_RUN";

/// Shows to a run that a process is part of it: [`Site::token`].
pub const TOKEN_VARIABLE: &str = "THINSHIM_RUN_TOKEN";

/// Bytes of a token.
pub const TOKEN: usize = 32;

/// What a run wants to have heard of, to say why nothing was distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Clang was called.
    Clang,
    /// ld.lld was called.
    Lld,
    /// A ThinLTO compile.
    Compile,
    /// A ninja that takes no part in the jobserver.
    OlderNinja,
}

impl Event {
    /// All of them.
    pub const ALL: [Event; 4] = [Event::Clang, Event::Lld, Event::Compile, Event::OlderNinja];

    fn name(self) -> &'static str {
        match self {
            Event::Clang => "clang",
            Event::Lld => "ld.lld",
            Event::Compile => "compile",
            Event::OlderNinja => "older ninja",
        }
    }
}

/// The directory of a `thinshim run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site(PathBuf);

impl Site {
    /// The run whose directory is `path`.
    pub fn at(path: &Path) -> Site {
        Site(path.to_owned())
    }

    /// The run that this process is part of.
    pub fn current() -> Option<Site> {
        env::var_os(VARIABLE).map(PathBuf::from).filter(|path| path.is_absolute()).map(Site)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where thinshim stands under the names of tools: first on PATH.
    pub fn tools(&self) -> PathBuf {
        self.0.join("bin")
    }

    /// The jobserver's named pipe, if the run hosts one.
    pub fn jobserver(&self) -> PathBuf {
        self.0.join("jobserver")
    }

    /// The reports of links, one JSON line each.
    pub fn report(&self) -> PathBuf {
        self.0.join("report")
    }

    /// The socket where warm compilers are asked for.
    pub fn compilers(&self) -> PathBuf {
        self.0.join("compilers")
    }

    /// What shows that this process is part of a run that has warm compilers. `None`: it is not.
    pub fn token(&self) -> Option<[u8; TOKEN]> {
        env::var_os(TOKEN_VARIABLE)?.as_bytes().try_into().ok()
    }

    /// There until `event` happens. Removed rather than made, so that a call that has nothing to
    /// say writes no file: all but the first find nothing to remove.
    fn pending(&self, event: Event) -> PathBuf {
        self.0.join("pending").join(event.name())
    }

    /// Makes the events ready to be heard of.
    ///
    /// # Errors
    /// The operating system's.
    pub fn await_events(&self) -> std::io::Result<()> {
        fs::create_dir(self.0.join("pending"))?;
        Event::ALL.into_iter().try_for_each(|event| fs::write(self.pending(event), []))
    }

    /// Leaves word that `event` has happened.
    pub fn tell(&self, event: Event) {
        // Gone already, or the whole run is: either way nobody waits for it.
        let _ = fs::remove_file(self.pending(event));
    }

    /// Whether `event` has happened.
    pub fn heard(&self, event: Event) -> bool {
        !self.pending(event).exists()
    }

    /// `path`, a PATH, less the run's own tools.
    pub fn without_tools(&self, path: &OsStr) -> OsString {
        let own = self.tools();
        let kept = path.as_bytes().split(|&byte| byte == b':');
        let kept: Vec<&[u8]> = kept.filter(|dir| *dir != own.as_os_str().as_bytes()).collect();
        OsStr::from_bytes(&kept.join(&b':')).to_owned()
    }

    /// `path`, a PATH, with the run's own tools first.
    pub fn with_tools(&self, path: &OsStr) -> OsString {
        let mut with = self.tools().into_os_string();
        with.push(":");
        with.push(self.without_tools(path));
        with
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_the_tools_and_nothing_else() {
        let site = Site::at(Path::new("/t/run"));
        for (path, without) in [
            ("/t/run/bin:/usr/bin::/t/run/bin:.", "/usr/bin::."),
            ("/usr/bin:/t/run/binary", "/usr/bin:/t/run/binary"),
            ("", ""),
        ] {
            assert_eq!(site.without_tools(OsStr::new(path)), without);
            let with = site.with_tools(OsStr::new(path));
            assert_eq!(with, format!("/t/run/bin:{without}").as_str());
            assert_eq!(site.without_tools(&with), without);
        }
    }
}
