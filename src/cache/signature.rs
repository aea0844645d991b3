//! What a file's metadata say of its contents: the same signature, the same bytes.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::digest::{Digest, Parts};

/// A file that was written less long ago than this may be written again without another time
/// stamp: kernels stamp files with the last tick of their clock, and some file systems keep whole
/// or even seconds.
const TICK: Duration = Duration::from_secs(2);

/// Device, inode, size, and the times of the last change of contents and of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
}

impl Signature {
    /// The signature of a file with these metadata.
    pub fn of(meta: &Metadata) -> Signature {
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Signature {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// The signature of what is at `path`, symlinks followed; `None` where nothing is.
    pub fn at(path: &Path) -> Option<Signature> {
        fs::metadata(path).ok().map(|meta| Signature::of(&meta))
    }

    /// Whether a change after `seen`, the moment before the file was read, must have changed the
    /// signature.
    pub fn is_settled(&self, seen: SystemTime) -> bool {
        let seen = seen.duration_since(UNIX_EPOCH).unwrap_or_default();
        let newest = self.mtime_ns.max(self.ctime_ns);
        newest + i128::try_from(TICK.as_nanos()).unwrap_or(i128::MAX)
            < i128::try_from(seen.as_nanos()).unwrap_or(0)
    }

    /// The signature as words, for a line of text.
    pub fn to_words(&self) -> String {
        let Signature { device, inode, size, mtime_ns, ctime_ns } = self;
        format!("{device} {inode} {size} {mtime_ns} {ctime_ns}")
    }

    /// Takes the words of a signature off the front of `words`.
    pub fn from_words<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Signature> {
        let mut number = || words.next()?.parse::<i128>().ok();
        let (device, inode, size) = (number()?, number()?, number()?);
        Some(Signature {
            device: device.try_into().ok()?,
            inode: inode.try_into().ok()?,
            size: size.try_into().ok()?,
            mtime_ns: number()?,
            ctime_ns: number()?,
        })
    }
}

/// Files, and what the signature of each was.
#[derive(Clone, Debug)]
pub struct Signed(Vec<(PathBuf, Option<Signature>)>);

impl Signed {
    /// What is there now at `paths`.
    pub fn now(paths: impl IntoIterator<Item = PathBuf>) -> Signed {
        let sign = |path: PathBuf| {
            let signature = Signature::at(&path);
            (path, signature)
        };
        paths.into_iter().map(sign).collect()
    }

    /// Whether one of the files is another by now.
    pub fn has_changed(&self) -> bool {
        self.0.iter().any(|(path, before)| Signature::at(path) != *before)
    }

    /// All of it in one digest.
    pub fn digest(&self) -> Digest {
        let mut parts = Parts::new();
        for (path, signature) in &self.0 {
            parts.add(path.as_os_str().as_bytes());
            let words = signature.map(|signature| signature.to_words());
            parts.add(words.unwrap_or_default().as_bytes());
        }
        parts.digest()
    }
}

impl FromIterator<(PathBuf, Option<Signature>)> for Signed {
    fn from_iter<I: IntoIterator<Item = (PathBuf, Option<Signature>)>>(files: I) -> Signed {
        Signed(files.into_iter().collect())
    }
}

impl Extend<PathBuf> for Signed {
    fn extend<I: IntoIterator<Item = PathBuf>>(&mut self, paths: I) {
        self.0.extend(Signed::now(paths).0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_comes_or_goes_is_a_change() {
        let space = tempfile::tempdir().expect("a directory");
        let (there, not_yet) = (space.path().join("a"), space.path().join("b"));
        fs::write(&there, "").expect("a file");
        let signed = Signed::now([there.clone(), not_yet.clone()]);
        assert!(!signed.has_changed());
        fs::write(&not_yet, "").expect("a file");
        assert!(signed.has_changed());
        let again = Signed::now([there.clone(), not_yet.clone()]);
        assert_ne!(signed.digest(), again.digest());
        fs::remove_file(&there).expect("a file");
        assert!(again.has_changed());
    }

    #[test]
    fn a_file_just_written_is_not_settled() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let meta = file.as_file().metadata().expect("metadata");
        let signature = Signature::of(&meta);
        assert!(!signature.is_settled(SystemTime::now()));
        assert!(signature.is_settled(SystemTime::now() + Duration::from_secs(4)));
        let words = signature.to_words();
        assert_eq!(Signature::from_words(&mut words.split(' ')), Some(signature));
        assert_eq!(Signature::from_words(&mut "1 2 3 4".split(' ')), None);
    }
}
