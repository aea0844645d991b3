//! Files that appear whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

/// Signals wait while this lives, so that no temporary file outlives the process.
#[derive(Debug)]
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

/// A name beside a file for what is to become it; removed with this, if it is still there.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
    _held: Option<SignalsHeld>,
}

impl Temporary {
    /// A name beside `path`. Nothing is there yet.
    pub fn beside(path: &Path) -> Temporary {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".thinshim-{}", std::process::id()));
        Temporary { path: path.with_file_name(name), _held: SignalsHeld::new().ok() }
    }

    /// The name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets what is there replace `path`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn persist(&mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
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

/// Whether something is at `path` that is no regular file.
pub fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| !meta.is_file())
}

/// Lets the file at `path` hold `data`, and leaves it alone where it does so already.
///
/// # Errors
/// Any step's error; the file is then as it was.
pub fn update(path: &Path, data: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|before| before == data) {
        return Ok(());
    }
    write(path, data)
}

/// Puts a file that holds `data` at `path`. A device or the like is written to: nothing takes its
/// place.
///
/// # Errors
/// Any step's error; what was there is then as it was.
pub fn write(path: &Path, data: &[u8]) -> io::Result<()> {
    if is_special(path) {
        return fs::write(path, data);
    }
    let mut temporary = Temporary::beside(path);
    fs::write(temporary.path(), data)?;
    temporary.persist(path)
}
