//! Entries on disk: native objects by their key, with what the compiler said.
//!
//! An entry is one file: the object, what clang said on stderr, and a trailer with the lengths of
//! both and a digest of all of it and the key. It appears by rename, so it is there whole or not
//! at all, and is looked at whole on every hit: a bit that flipped is a miss.
//!
//! A hit hands out a copy that shares the blocks of the entry where the file system can
//! (`FICLONE`), and else holds the bytes that were looked at. Never a hard link: whoever wrote to it
//! would write into the cache. So an entry may be removed at any time, and no link that runs
//! notices.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::digest::{Digest, Parts};

const MAGIC: &[u8; 8] = b"THINSHI1";
/// Two lengths, a digest, the magic.
const TRAILER: usize = 8 + 8 + 32 + 8;
/// An entry's time of last use is written down no more often than this.
const USE_STEP: Duration = Duration::from_secs(600);
/// A temporary file this old belongs to nobody who lives.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A cache directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    writable: bool,
}

/// What was found under a key.
#[derive(Debug)]
pub enum Found {
    /// An entry that is whole.
    Hit(Entry),
    /// Nothing.
    Absent,
    /// An entry that is not what was stored.
    Damaged,
}

/// An entry that was looked at.
#[derive(Debug)]
pub struct Entry {
    file: File,
    data: Vec<u8>,
    object: usize,
    said: usize,
}

impl Entry {
    /// The native object.
    pub fn object(&self) -> &[u8] {
        &self.data[..self.object]
    }

    /// What the compiler said.
    pub fn said(&self) -> &[u8] {
        &self.data[self.object..self.object + self.said]
    }

    /// Writes the object to a new file at `path`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut to = File::create(path)?;
        if rustix::fs::ioctl_ficlone(&to, &self.file).is_ok() {
            return to.set_len(self.object as u64);
        }
        to.write_all(self.object())
    }
}

impl Store {
    /// The cache at `directory`, made where it is to be written and not there.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(directory: &Path, writable: bool) -> io::Result<Store> {
        // Another layout gets another name: old and new versions live side by side.
        let root = directory.join("v1");
        if writable && !root.join("tmp").is_dir() {
            for name in ["objects", "outputs", "tools", "tmp"] {
                fs::create_dir_all(root.join(name))?;
            }
            // https://bford.info/cachedir: backups leave it out.
            let tag = b"Signature: 8a477f597d28d172789f06886806bc55\n# thinshim's cache\n";
            fs::write(directory.join("CACHEDIR.TAG"), tag)?;
        }
        Ok(Store { root, writable })
    }

    /// Where everything is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where what hangs on a tool is remembered.
    pub fn tools(&self) -> PathBuf {
        self.root.join("tools")
    }

    /// Where entries are.
    pub fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// Whether anything may be written.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    fn path_of(&self, key: &Digest) -> PathBuf {
        let name = key.to_string();
        self.root.join("objects").join(&name[..2]).join(&name[2..])
    }

    /// What is stored under `key`. A damaged entry is removed where that may be.
    ///
    /// # Errors
    /// The operating system's, save that there is no entry.
    pub fn get(&self, key: &Digest) -> io::Result<Found> {
        let path = self.path_of(key);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
            opened => opened?,
        };
        let meta = file.metadata()?;
        let mut data = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
        file.read_to_end(&mut data)?;
        let Some((object, said)) = parts_of(&data, key) else {
            if self.writable {
                let _ = fs::remove_file(&path);
            }
            return Ok(Found::Damaged);
        };
        if self.writable {
            let now = SystemTime::now();
            let used = meta.modified().unwrap_or(now);
            if now.duration_since(used).is_ok_and(|since| since > USE_STEP) {
                // What counts is the order of uses; a cache that is not ours keeps its own.
                let _ = file.set_times(FileTimes::new().set_modified(now));
            }
        }
        Ok(Found::Hit(Entry { file, data, object, said }))
    }

    /// Stores an object and what the compiler said under `key`, and returns the entry's size.
    ///
    /// # Errors
    /// The operating system's.
    pub fn put(&self, key: &Digest, object: &[u8], said: &[u8]) -> io::Result<u64> {
        let path = self.path_of(key);
        let lengths = [object.len() as u64, said.len() as u64].map(u64::to_le_bytes).concat();
        let digest = digest_of(key, object, said);
        let pieces = [object, said, &lengths, digest.bytes(), MAGIC];
        self.write(&path, &pieces)?;
        Ok(pieces.iter().map(|piece| piece.len() as u64).sum())
    }

    /// Writes a file of the cache: there whole, or not at all.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(&self, path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.root.join("tmp"))?;
        for piece in pieces {
            file.write_all(piece)?;
        }
        // Readable for whoever may enter the directory, writable for nobody.
        file.as_file().set_permissions(Permissions::from_mode(0o444))?;
        if let Err(error) = file.persist(path) {
            let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) else {
                return Err(error.error);
            };
            fs::create_dir_all(parent)?;
            error.file.persist(path).map_err(|error| error.error)?;
        }
        Ok(())
    }

    /// Removes temporary files that killed processes left.
    pub fn sweep(&self) {
        let entries = fs::read_dir(self.root.join("tmp")).into_iter().flatten();
        for entry in entries.filter_map(Result::ok) {
            let old = |time: SystemTime| time.elapsed().is_ok_and(|age| age > ABANDONED);
            if entry.metadata().and_then(|meta| meta.modified()).is_ok_and(old) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn digest_of(key: &Digest, object: &[u8], said: &[u8]) -> Digest {
    Parts::new().with(key.bytes()).with(object).with(said).digest()
}

/// The lengths of object and words in an entry; `None` where it is not what was stored.
fn parts_of(data: &[u8], key: &Digest) -> Option<(usize, usize)> {
    let (contents, trailer) = data.split_at_checked(data.len().checked_sub(TRAILER)?)?;
    let number = |at: usize| Some(u64::from_le_bytes(trailer.get(at..at + 8)?.try_into().ok()?));
    let object = usize::try_from(number(0)?).ok()?;
    let said = usize::try_from(number(8)?).ok()?;
    if object.checked_add(said)? != contents.len() || &trailer[48..] != MAGIC {
        return None;
    }
    let digest = digest_of(key, &contents[..object], &contents[object..]);
    (trailer[16..48] == *digest.bytes()).then_some((object, said))
}

/// Looks at the file of an entry whose name says its key.
///
/// # Errors
/// The operating system's.
pub fn is_whole(path: &Path) -> io::Result<bool> {
    let data = fs::read(path)?;
    let key = key_of(path);
    Ok(key.is_some_and(|key| parts_of(&data, &key).is_some()))
}

fn key_of(path: &Path) -> Option<Digest> {
    let name = path.file_name()?.to_str()?;
    let directory = path.parent()?.file_name()?.to_str()?;
    Digest::from_hex(&format!("{directory}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_length_is_seen() {
        let space = tempfile::tempdir().expect("a directory");
        let store = Store::open(space.path(), true).expect("a store");
        let key = Digest::of(b"key");
        store.put(&key, b"object", b"said").expect("an entry");
        let path = store.path_of(&key);
        let whole = fs::read(&path).expect("an entry");
        let found = |data: &[u8]| {
            let _ = fs::remove_file(&path);
            fs::write(&path, data).expect("a file");
            store.get(&key).expect("an answer")
        };
        for bit in 0..whole.len() * 8 {
            let mut data = whole.clone();
            data[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(found(&data), Found::Damaged), "bit {bit}");
            assert!(!path.exists(), "a damaged entry stays");
        }
        for len in 0..whole.len() {
            assert!(matches!(found(&whole[..len]), Found::Damaged), "{len} bytes");
        }
        assert!(is_whole(&path).is_err());
        let Found::Hit(entry) = found(&whole) else { panic!("no hit") };
        assert!(is_whole(&path).expect("a file"));
        assert_eq!((entry.object(), entry.said()), (&b"object"[..], &b"said"[..]));
        entry.write_to(&space.path().join("out")).expect("a copy");
        fs::write(space.path().join("out"), "spoilt").expect("a file");
        assert!(matches!(store.get(&key), Ok(Found::Hit(_))), "written through");
        // Under another key's name it is not an answer.
        let other = Digest::of(b"other");
        fs::create_dir_all(store.path_of(&other).parent().expect("a parent")).expect("made");
        fs::copy(&path, store.path_of(&other)).expect("a copy");
        assert!(matches!(store.get(&other), Ok(Found::Damaged)));
        assert!(matches!(store.get(&Digest::of(b"none")), Ok(Found::Absent)));
    }
}
