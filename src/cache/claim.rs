//! Who links an output: what stands there afterwards must be this link's own before it is kept.
//!
//! Two links to one output at once are somebody's mistake, but one of two outputs must not be kept
//! under the key of the other, where later links would find it. So whoever is about to put an
//! output in its place holds a lock on a file of the cache until that is done, and leaves a mark in
//! the file where somebody else holds it, too. Only who was alone from the beginning to the end
//! keeps anything.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::files;

/// A link's claim on its output, for as long as this lives.
#[derive(Debug)]
pub struct Claim {
    file: File,
    first: bool,
}

impl Claim {
    /// Claims `output` among those who use the cache at `root`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn on(root: &Path, output: &Path) -> io::Result<Claim> {
        let path = files::output_file(root, output, "claim");
        let open = || OpenOptions::new().read(true).append(true).create(true).open(&path);
        let mut file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(root.join("outputs"))?;
                open()?
            }
            opened => opened?,
        };
        let first = match file.try_lock() {
            // Nobody is left whom the marks were for.
            Ok(()) => file.set_len(0).is_ok(),
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Err(error),
        };
        // Held by whoever was first for no longer than this takes.
        file.lock_shared()?;
        if !first {
            file.write_all(b"x")?;
        }
        Ok(Claim { file, first })
    }

    /// Whether nobody else has claimed the output since before this link began.
    pub fn is_undisputed(&self) -> bool {
        // An eviction or `thinshim cache clean` may have taken the file away, and others a new one.
        self.first && self.file.metadata().is_ok_and(|meta| meta.len() == 0 && meta.nlink() == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_alone_all_the_time_has_an_undisputed_claim() {
        let space = tempfile::tempdir().expect("a directory");
        fs::create_dir(space.path().join("outputs")).expect("a directory");
        let claim = || Claim::on(space.path(), Path::new("out.o")).expect("a claim");
        let first = claim();
        assert!(first.is_undisputed());
        let other = Claim::on(space.path(), Path::new("other.o")).expect("a claim");
        assert!(first.is_undisputed() && other.is_undisputed());
        let second = claim();
        assert!(!first.is_undisputed() && !second.is_undisputed());
        drop(first);
        // The second is still at it.
        let third = claim();
        assert!(!second.is_undisputed() && !third.is_undisputed());
        drop((second, third));
        let fourth = claim();
        assert!(fourth.is_undisputed());
        drop(claim());
        assert!(!fourth.is_undisputed(), "somebody came and went");
        drop(fourth);
        let fifth = claim();
        fs::remove_dir_all(space.path().join("outputs")).expect("a clean cache");
        assert!(!fifth.is_undisputed());
    }
}
