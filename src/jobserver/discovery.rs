//! Which jobserver this process may take part in, and its open ends.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::ancestry;
use super::makeflags::{Auth, JobFlags};
use crate::sys::fd;

/// What the environment says about jobs, read once.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `MAKEFLAGS`.
    pub makeflags: Option<OsString>,
    /// `CARGO_MAKEFLAGS`, which counts where `MAKEFLAGS` names no jobserver.
    pub cargo_makeflags: Option<OsString>,
    /// `THINSHIM_JOBS`: the limit where there is no jobserver.
    pub jobs: Option<OsString>,
}

impl Environment {
    /// This process's own.
    pub fn read() -> Environment {
        Environment {
            makeflags: env::var_os("MAKEFLAGS"),
            cargo_makeflags: env::var_os("CARGO_MAKEFLAGS"),
            jobs: env::var_os("THINSHIM_JOBS"),
        }
    }

    /// The job options that count.
    pub(super) fn flags(&self) -> JobFlags {
        let parse = |text: &Option<OsString>| text.as_deref().map(JobFlags::parse);
        let make = parse(&self.makeflags).unwrap_or_default();
        match parse(&self.cargo_makeflags) {
            Some(cargo) if !make.mentioned && cargo.mentioned => cargo,
            _ => make,
        }
    }
}

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `fifo:PATH` (make 4.4, ninja 1.13), or a server's device of that name.
    Fifo(PathBuf),
    /// Descriptors that our parent passed on.
    Inherited {
        /// Where tokens are read.
        read: RawFd,
        /// Where they go back.
        write: RawFd,
    },
    /// Descriptors of a make above us that did not pass them on.
    Reopened {
        /// The process that has them.
        pid: i32,
        /// Where tokens are read.
        read: RawFd,
        /// Where they go back.
        write: RawFd,
    },
    /// There is a jobserver and no way to it, for this reason: one job, on the implicit token.
    Unreachable(String),
    /// There is none.
    None,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Fifo(path) => write!(f, "jobserver at {}", path.display()),
            Source::Inherited { read, write } => write!(f, "inherited jobserver {read},{write}"),
            Source::Reopened { pid, read, write } => {
                write!(f, "jobserver {read},{write} of process {pid}")
            }
            Source::Unreachable(reason) => write!(f, "unreachable jobserver: {reason}"),
            Source::None => write!(f, "no jobserver"),
        }
    }
}

/// Which pipe a jobserver is, under whatever name or number it was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// That of the file at `path`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn of_path(path: &Path) -> io::Result<Identity> {
        let stat = nix::sys::stat::stat(path)?;
        Ok(Identity { device: stat.st_dev, inode: stat.st_ino })
    }

    /// `None` for what is not open.
    pub(super) fn of(file: impl std::os::fd::AsFd) -> Option<Identity> {
        let stat = nix::sys::stat::fstat(file).ok()?;
        Some(Identity { device: stat.st_dev, inode: stat.st_ino })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

/// How the read end may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Its description is ours and has `O_NONBLOCK`.
    Private,
    /// Others share it, so its flags stay as they are.
    Shared,
}

/// A jobserver's open ends, close-on-exec.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
    pub(super) reading: Reading,
}

/// Finds the jobserver: the last one named that can be reached.
pub(super) fn discover(flags: &JobFlags) -> (Source, Option<Ends>) {
    let mut reason = None;
    for auth in flags.auths.iter().rev() {
        let reached = match auth {
            Auth::Fifo(path) => open_fifo(path).map(|ends| (Source::Fifo(path.clone()), ends)),
            &Auth::Pipe { read, write } => reach_pipe(read, write),
        };
        match reached {
            Ok((source, ends)) => return (source, Some(ends)),
            // The last one is the one that should have worked.
            Err(why) => reason = reason.or(Some(why)),
        }
    }
    match reason {
        Some(reason) => (Source::Unreachable(reason), None),
        None if flags.mentioned => {
            let reason = "MAKEFLAGS switches the jobserver off, or names it in unknown words";
            (Source::Unreachable(reason.to_owned()), None)
        }
        None => (Source::None, None),
    }
}

/// Not asked to be a FIFO: jobservers in user space are character devices (CUSE).
fn open_fifo(path: &Path) -> Result<Ends, String> {
    let explain = |error: io::Error| format!("cannot open {}: {error}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(explain)?;
    // The bytes of an ordinary file are nobody's tokens.
    if file.metadata().map_err(explain)?.is_file() {
        return Err(format!("{} is an ordinary file", path.display()));
    }
    let write = file.try_clone().map_err(explain)?;
    Ok(Ends { read: file.into(), write: write.into(), reading: Reading::Private })
}

fn reach_pipe(read: RawFd, write: RawFd) -> Result<(Source, Ends), String> {
    let inherited = inherited_pipe(read, write);
    let above = ancestry::find_pipe(read, write);
    match (inherited, above) {
        // Numbers are reused: where a make above has another pipe under them, ours is a stranger's.
        (Ok(ends), above)
            if above.as_ref().is_none_or(|pipe| same_file(&ends.read, &pipe.read)) =>
        {
            // For us alone, not for the compilers: the flag is this process's own.
            for fd in [read, write] {
                fd::close_on_exec(fd).map_err(|error| error.to_string())?;
            }
            Ok((Source::Inherited { read, write }, ends))
        }
        (_, Some(pipe)) => {
            let source = Source::Reopened { pid: pipe.pid, read, write };
            Ok((source, Ends { read: pipe.read, write: pipe.write, reading: Reading::Private }))
        }
        (Err(why), None) => Err(format!(
            "its descriptors {read},{write} are not ours ({why}; the recipe has no `+`?) and no \
             make above this process has them"
        )),
        (Ok(_), None) => unreachable!("taken by the first arm"),
    }
}

/// The ends at the numbers `read` and `write` of this process, if they are those of one pipe.
fn inherited_pipe(read: RawFd, write: RawFd) -> Result<Ends, String> {
    let open = |number: RawFd, end: OFlag| -> Result<File, String> {
        let explain = |error: &dyn fmt::Display| format!("descriptor {number}: {error}");
        let copy = fd::duplicate(number, 3).map_err(|error| explain(&error))?;
        let flags = fcntl(&copy, FcntlArg::F_GETFL).map_err(|error| explain(&error))?;
        let mode = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE;
        if mode != end && mode != OFlag::O_RDWR {
            return Err(explain(&"the wrong end of a pipe"));
        }
        let file = File::from(copy);
        match file.metadata() {
            Ok(metadata) if metadata.file_type().is_fifo() => Ok(file),
            Ok(_) => Err(explain(&"not a pipe")),
            Err(error) => Err(explain(&error)),
        }
    };
    let (reader, writer) = (open(read, OFlag::O_RDONLY)?, open(write, OFlag::O_WRONLY)?);
    if !same_file(&reader, &writer) {
        return Err("two different pipes".to_owned());
    }
    // A description of our own for O_NONBLOCK: the inherited one is everybody's.
    let private = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    let write = writer.into();
    Ok(match private {
        Ok(file) if same_file(&file, &reader) => {
            Ends { read: file.into(), write, reading: Reading::Private }
        }
        _ => Ends { read: reader.into(), write, reading: Reading::Shared },
    })
}

fn same_file(one: impl std::os::fd::AsFd, other: impl std::os::fd::AsFd) -> bool {
    let one = Identity::of(one);
    one.is_some() && one == Identity::of(other)
}

/// The number of jobs that a `THINSHIM_JOBS` asks for, which is above 0.
pub fn asked(jobs: &OsStr) -> Option<NonZeroUsize> {
    jobs.to_str()?.trim().parse().ok()
}

/// How many jobs to run where there is no jobserver: `THINSHIM_JOBS`, or the CPUs that affinity
/// and cgroup quota leave us (the standard library knows both of them, in v1 and v2), and no
/// more than a `-jN` in `MAKEFLAGS` asks for.
pub(super) fn local_limit(environment: &Environment, flags: &JobFlags) -> usize {
    environment.jobs.as_deref().and_then(asked).map_or_else(
        || {
            let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            flags.jobs.filter(|&jobs| jobs > 0).map_or(cpus, |jobs| jobs.min(cpus))
        },
        NonZeroUsize::get,
    )
}
