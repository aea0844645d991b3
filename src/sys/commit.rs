//! Files that appear whole or not at all.

use std::fs::{self, File, Permissions};
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

/// Signals wait while this lives, so that no temporary file outlives the process.
struct SignalsHeld(SigSet);

impl SignalsHeld {
    fn new() -> io::Result<Self> {
        let held: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]
            .into_iter()
            .collect();
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&held), Some(&mut before))?;
        Ok(SignalsHeld(before))
    }
}

impl Drop for SignalsHeld {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None);
    }
}

/// Replaces the regular file at `path` by what `write` writes, keeping its permissions. A symlink
/// stays and its target is replaced; other hard links of the file keep the old contents.
///
/// # Errors
/// Any step's error; the file is then as it was.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let target: PathBuf = fs::canonicalize(path)?;
    let permissions: Permissions = fs::metadata(&target)?.permissions();
    let directory = target.parent().unwrap_or(Path::new("/"));
    let _held = SignalsHeld::new()?;
    let mut file = tempfile::Builder::new().prefix(".thinshim-").tempfile_in(directory)?;
    write(file.as_file_mut())?;
    file.as_file().set_permissions(permissions)?;
    file.persist(&target).map_err(|error| error.error)?;
    Ok(())
}
