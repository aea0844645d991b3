//! A link's private directory: beside the output, gone at the end.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::sys::guardian::{Guarded, Guardian};
use crate::sys::{commit, spread};

/// A private directory, removed when this goes unless it is to be kept.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    index: PathBuf,
    keep: bool,
    guardian: Option<Guardian>,
    discarding: Option<JoinHandle<()>>,
    _lock: Option<File>,
}

/// Links to one output at once are somebody's mistake, but not a reason to spoil either.
const RIVALS_MAX: usize = 16;

/// Links that keep their directories are as many at once as a build has jobs.
const KEPT_MAX: usize = 1024;

const MEMBERS: &str = "members";
const INDEX: &str = "index";

fn base_name(output: &Path) -> OsString {
    let mut base = OsString::from(".");
    base.push(output.file_name().unwrap_or(output.as_os_str()));
    base.push(".thinshim");
    base
}

/// The name of a directory for the link that comes after `rival` others.
fn numbered(name: &OsStr, rival: usize) -> PathBuf {
    let mut name = name.to_owned();
    if rival > 0 {
        name.push(format!(".{rival}"));
    }
    name.into()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl WorkDir {
    /// Makes the directory for a link to `output`. Its name is always the same, so that what a
    /// killed link left is used again, and the names of modules copied out of archives too.
    ///
    /// # Errors
    /// The operating system's, with the directory's name.
    pub fn create(output: &Path) -> io::Result<WorkDir> {
        // A device: its directory is not one for files.
        if commit::is_special(output) {
            return WorkDir::elsewhere();
        }
        let base = base_name(output);
        let parent = output.parent().unwrap_or(Path::new(""));
        for rival in 0..RIVALS_MAX {
            let path = parent.join(numbered(&base, rival));
            match WorkDir::claim(&path, output) {
                Ok(Some(work)) => return Ok(work),
                Ok(None) => {}
                // The output may be in a directory that is not ours.
                Err(_) if rival == 0 => return WorkDir::elsewhere(),
                Err(error) => return Err(named(&path, &error)),
            }
        }
        Err(io::Error::other(format!("{} is in use", parent.join(&base).display())))
    }

    /// A directory that stays, at `path`; or beside it, while another link has that.
    ///
    /// # Errors
    /// The operating system's, with the directory's name.
    pub fn kept(path: &Path) -> io::Result<WorkDir> {
        for rival in 0..KEPT_MAX {
            let path = numbered(path.as_os_str(), rival);
            let lock = fs::create_dir_all(&path)
                .and_then(|()| File::open(&path))
                .map_err(|error| named(&path, &error))?;
            // Some network file systems have no locks.
            if let Err(TryLockError::WouldBlock) = lock.try_lock() {
                continue;
            }
            return Ok(WorkDir {
                index: path.join(INDEX),
                path,
                keep: true,
                guardian: None,
                discarding: None,
                _lock: Some(lock),
            });
        }
        Err(io::Error::other(format!("{} is in use", path.display())))
    }

    fn elsewhere() -> io::Result<WorkDir> {
        let path = tempfile::Builder::new().prefix("thinshim-").tempdir()?.keep();
        let guardian = Guardian::set(&path, Guarded::Directory)?;
        Ok(WorkDir::guarded(path, guardian, None))
    }

    fn claim(path: &Path, output: &Path) -> io::Result<Option<WorkDir>> {
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Not where somebody else's link leads to: all that is there is removed.
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let lock = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever had it may have removed it meanwhile, and another made a new one.
        let (own, there) = (lock.metadata()?, fs::symlink_metadata(path));
        if !there.is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
            return Ok(None);
        }
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        let absolute = std::path::absolute(output)?;
        let guarded = Guarded::Link { lock: &lock, output: &absolute };
        let guardian = Guardian::set(&std::path::absolute(path)?, guarded)?;
        Ok(Some(WorkDir::guarded(path.to_owned(), guardian, Some(lock))))
    }

    fn guarded(path: PathBuf, guardian: Guardian, lock: Option<File>) -> WorkDir {
        // Another name each time, for `spread`.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let index = path.join(INDEX).join(format!("{:x}", now.as_nanos()));
        WorkDir {
            path,
            index,
            keep: false,
            guardian: Some(guardian),
            discarding: None,
            _lock: lock,
        }
    }

    /// Where copied members stand, if the directory for `output` gets the name it should have.
    pub fn members_of(output: &Path) -> PathBuf {
        output.parent().unwrap_or(Path::new("")).join(base_name(output)).join(MEMBERS)
    }

    /// Where copied members stand.
    pub fn members(&self) -> PathBuf {
        self.path.join(MEMBERS)
    }

    /// Where the individual indexes stand.
    pub fn index(&self) -> &Path {
        &self.index
    }

    /// Makes the directory for the individual indexes.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create_index(&self) -> io::Result<()> {
        if self.keep { fs::create_dir_all(&self.index) } else { spread::create_dir(&self.index) }
    }

    /// Lets a thread remove the individual indexes, thousands of files, while something else is
    /// done. Nobody may want them any more.
    pub fn discard_index(&mut self) {
        if !self.keep {
            let index = self.index.clone();
            // What it leaves, whoever removes the directory will tell of.
            let remove = move || _ = fs::remove_dir_all(index);
            self.discarding = thread::Builder::new().spawn(remove).ok();
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Some(thread) = self.discarding.take() {
            let _ = thread.join();
        }
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
        // Dismissed last: a kill may come in the middle of the removal.
        self.guardian = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symlink_is_no_directory_to_be_cleared() {
        let space = tempfile::tempdir().expect("a directory");
        let elsewhere = space.path().join("elsewhere");
        fs::create_dir(&elsewhere).expect("a directory");
        fs::write(elsewhere.join("file"), "theirs").expect("a file");
        let output = space.path().join("out");
        let link = output.with_file_name(base_name(&output));
        std::os::unix::fs::symlink(&elsewhere, link).expect("a symlink");
        let work = WorkDir::create(&output).expect("a directory");
        assert!(!work.path().starts_with(space.path()), "{}", work.path().display());
        drop(work);
        assert!(elsewhere.join("file").exists());
    }

    #[test]
    fn links_that_keep_their_directories_have_one_each() {
        let space = tempfile::tempdir().expect("a directory");
        let path = space.path().join("kept");
        let [one, two] = [(), ()].map(|()| WorkDir::kept(&path).expect("a directory"));
        assert_eq!(one.path(), path);
        assert_eq!(two.path(), space.path().join("kept.1"));
        drop(one);
        assert_eq!(WorkDir::kept(&path).expect("a directory").path(), path);
    }

    #[test]
    fn not_beside_a_device() {
        let work = WorkDir::create(Path::new("/dev/null")).expect("a directory");
        assert!(!work.path().starts_with("/dev"), "{}", work.path().display());
        let path = work.path().to_owned();
        drop(work);
        assert!(!path.exists());
    }
}
