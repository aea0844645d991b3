//! Which jobserver a run's command takes part in: the one above, or one of our own.

use std::num::NonZeroUsize;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::Failure;
use crate::failure;
use crate::jobserver::{self, Host, Identity, Pool, Source};
use crate::sys::fd;

/// The jobserver of a run.
#[derive(Debug)]
pub(super) enum Jobs {
    /// Ours.
    Hosted(Host),
    /// That of a make above, which was found here.
    Joined(Source, Option<Identity>),
}

impl Jobs {
    /// Decides: a number, `asked` for or in a MAKEFLAGS that names no jobserver, is a wish for a
    /// jobserver of one's own, as with make.
    ///
    /// # Errors
    /// Where none can be hosted.
    pub(super) fn new(asked: Option<NonZeroUsize>, path: &Path) -> Result<Jobs, Failure> {
        let makeflags = std::env::var_os("MAKEFLAGS").unwrap_or_default();
        let jobs = if let Some(jobs) = asked.or_else(|| jobserver::jobs(&makeflags)) {
            jobs
        } else {
            let pool = Pool::join();
            let Some(limit) = pool.limit() else {
                name(pool.source(), path);
                return Ok(Jobs::Joined(pool.source().clone(), pool.identity()));
            };
            if let Some(warning) = pool.warning() {
                failure::warn(warning);
            }
            NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN)
        };
        let host = Host::new(jobs, path)
            .map_err(|error| Failure::new(format!("run: cannot host a jobserver: {error}")))?;
        Ok(Jobs::Hosted(host))
    }

    /// Lets `command` take part.
    pub(super) fn configure(&self, command: &mut Command) {
        match self {
            Jobs::Hosted(host) => host.configure(command),
            // Looking has closed them to children.
            Jobs::Joined(Source::Inherited { read, write }, _) => {
                fd::inherit(command, vec![*read, *write]);
            }
            Jobs::Joined(..) => {}
        }
    }

    /// Which jobserver it is.
    pub(super) fn identity(&self) -> Option<Identity> {
        match self {
            Jobs::Hosted(host) => host.identity(),
            Jobs::Joined(_, identity) => *identity,
        }
    }

    /// Tokens that have not come back.
    pub(super) fn missing(&self) -> usize {
        match self {
            Jobs::Hosted(host) => {
                host.available().map_or(0, |count| host.tokens().saturating_sub(count))
            }
            Jobs::Joined(..) => 0,
        }
    }

    /// How many jobs at once, where that is ours to say.
    pub(super) fn count(&self) -> Option<usize> {
        match self {
            Jobs::Hosted(host) => Some(host.tokens() + 1),
            Jobs::Joined(..) => None,
        }
    }
}

/// Gives the jobserver of a make above a name, by which a make that has not inherited its ends, and
/// a ninja that takes only a name, get at it. Where that fails they are as well off as without us.
fn name(source: &Source, path: &Path) {
    let target = match source {
        Source::Fifo(fifo) => fifo.clone(),
        Source::Inherited { read, .. } => format!("/proc/{}/fd/{read}", std::process::id()).into(),
        Source::Reopened { pid, read, .. } => format!("/proc/{pid}/fd/{read}").into(),
        Source::Unreachable(_) | Source::None => return,
    };
    if let Err(error) = symlink(target, path) {
        log::info!("{}: {error}", path.display());
    }
}
