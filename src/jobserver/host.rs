//! A jobserver of our own, for `thinshim run -jN`.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::descriptors::Descriptors;
use super::discovery::Identity;
use super::makeflags;
use crate::sys::fd;

/// A named pipe with one token for each job but the first, open under two numbers besides.
///
/// Seen to work: make 4.3 takes only `R,W` and dies on a last `fifo:`; make 4.4.1 and `PyPI`'s
/// ninja 1.13 take either; upstream's ninja takes only a last `fifo:`.
#[derive(Debug)]
pub struct Host {
    path: PathBuf,
    jobs: usize,
    /// Open for both, so that neither end ever closes under the others.
    pool: File,
    descriptors: Descriptors,
}

impl Host {
    /// Opens a jobserver at `path` for `jobs` jobs at once, the implicit token's included. The
    /// name must need no quoting: ninja knows none.
    ///
    /// # Errors
    /// The operating system's, and more jobs than a pipe has room for.
    pub fn new(jobs: NonZeroUsize, path: &Path) -> io::Result<Host> {
        mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let mut pool =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let tokens = vec![b'+'; jobs.get() - 1];
        // Not blocking, so that more tokens than a pipe holds are an error and no standstill.
        pool.write_all(&tokens).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot hold {jobs} tokens in a pipe: {error}"))
        })?;
        let descriptors = Descriptors::open(path)?;
        Ok(Host { path: path.to_owned(), jobs: jobs.get(), pool, descriptors })
    }

    /// The named pipe.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which jobserver this is.
    pub fn identity(&self) -> Option<Identity> {
        Identity::of(&self.pool)
    }

    /// What makes of every version understand.
    pub fn makeflags(&self) -> OsString {
        let mut flags = self.ninja_makeflags();
        flags.push(self.descriptors.option("--jobserver-auth"));
        flags
    }

    /// For upstream's ninja, which takes only a last `fifo:`.
    pub fn ninja_makeflags(&self) -> OsString {
        let mut flags = OsString::from(format!(" -j{} --jobserver-auth=fifo:", self.jobs));
        flags.push(&self.path);
        flags
    }

    /// As cargo writes it for its own children.
    pub fn cargo_makeflags(&self) -> OsString {
        let mut flags = OsString::from("-j");
        flags.push(self.descriptors.option("--jobserver-fds"));
        flags.push(self.descriptors.option("--jobserver-auth"));
        flags
    }

    /// Makes `command` and what it starts clients of this jobserver. Whatever else MAKEFLAGS says
    /// stays said.
    pub fn configure(&self, command: &mut Command) {
        let before = std::env::var_os("MAKEFLAGS").unwrap_or_default();
        command
            .env_remove("MFLAGS")
            .env("MAKEFLAGS", makeflags::with_jobserver(&before, &self.makeflags()))
            .env("CARGO_MAKEFLAGS", self.cargo_makeflags());
        self.descriptors.bequeath(command);
    }

    /// Tokens in the pool; below [`Host::tokens`] when every client is gone, some were lost.
    ///
    /// # Errors
    /// The operating system's.
    pub fn available(&self) -> io::Result<usize> {
        fd::waiting(&self.pool)
    }

    /// Tokens that the pool was filled with.
    pub fn tokens(&self) -> usize {
        self.jobs - 1
    }
}
