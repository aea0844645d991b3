//! A jobserver of our own, for `thinshim run -jN`.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

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
    read: OwnedFd,
    write: OwnedFd,
    _dir: TempDir,
}

impl Host {
    /// Above the single digits that a shell script may redirect, and bash's own.
    const LEAST_FD: RawFd = 100;

    /// Opens a jobserver for `jobs` jobs at once, the implicit token's included.
    pub fn new(jobs: NonZeroUsize) -> io::Result<Host> {
        let dir = private_dir()?;
        let path = dir.path().join("jobserver");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let mut pool =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
        let tokens = vec![b'+'; jobs.get() - 1];
        // Not blocking, so that more tokens than a pipe holds are an error and no standstill.
        pool.write_all(&tokens).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot hold {jobs} tokens in a pipe: {error}"))
        })?;
        // Descriptions apart from ours: a make sets O_NONBLOCK on what it inherits.
        let read = raise(&File::open(&path)?)?;
        let write = raise(&OpenOptions::new().write(true).open(&path)?)?;
        Ok(Host { path, jobs: jobs.get(), pool, read, write, _dir: dir })
    }

    /// The named pipe.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What makes of every version understand.
    pub fn makeflags(&self) -> OsString {
        let mut flags = self.job_flag();
        flags.push(self.fifo_flag());
        flags.push(self.pipe_flag("--jobserver-auth"));
        flags
    }

    /// For upstream's ninja, which takes only a last `fifo:`.
    pub fn ninja_makeflags(&self) -> OsString {
        let mut flags = self.job_flag();
        flags.push(self.fifo_flag());
        flags
    }

    /// As cargo writes it for its own children.
    pub fn cargo_makeflags(&self) -> OsString {
        let mut flags = OsString::from("-j");
        flags.push(self.pipe_flag("--jobserver-fds"));
        flags.push(self.pipe_flag("--jobserver-auth"));
        flags
    }

    fn job_flag(&self) -> OsString {
        format!(" -j{}", self.jobs).into()
    }

    fn fifo_flag(&self) -> OsString {
        let mut flag = OsString::from(" --jobserver-auth=fifo:");
        flag.push(&self.path);
        flag
    }

    fn pipe_flag(&self, name: &str) -> OsString {
        format!(" {name}={},{}", self.read.as_raw_fd(), self.write.as_raw_fd()).into()
    }

    /// Makes `command` and what it starts clients of this jobserver.
    pub fn configure(&self, command: &mut Command) {
        super::scrub(command);
        command.env("MAKEFLAGS", self.makeflags()).env("CARGO_MAKEFLAGS", self.cargo_makeflags());
        fd::inherit(command, vec![self.read.as_raw_fd(), self.write.as_raw_fd()]);
    }

    /// Tokens in the pool; below [`Host::tokens`] when every client is gone, some were lost.
    pub fn available(&self) -> io::Result<usize> {
        fd::waiting(&self.pool)
    }

    /// Tokens that the pool was filled with.
    pub fn tokens(&self) -> usize {
        self.jobs - 1
    }
}

fn raise(file: &File) -> io::Result<OwnedFd> {
    // A small limit on open files is no reason to fail.
    fd::duplicate(file.as_raw_fd(), Host::LEAST_FD).or_else(|_| fd::duplicate(file.as_raw_fd(), 10))
}

/// Only ours to look into, and with a name that needs no quoting: ninja knows none.
fn private_dir() -> io::Result<TempDir> {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("thinshim-");
        builder
    };
    let usual = std::env::temp_dir();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,@".contains(byte);
    if usual.is_absolute() && usual.as_os_str().as_bytes().iter().all(plain) {
        builder().tempdir_in(usual)
    } else {
        builder().tempdir_in("/tmp")
    }
}
