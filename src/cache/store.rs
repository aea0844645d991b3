//! Entries on disk: native objects and outputs of links by their key, with what the tools said.
//!
//! An entry is one file: the object, what was said on stderr, and a trailer with the lengths of
//! both and a digest of all of it and the key. It appears by rename, so it is there whole or not
//! at all, and is looked at whole on every hit: a bit that flipped is a miss.
//!
//! A hit hands out a copy that shares the blocks of the entry where the file system can
//! (`FICLONE`), and else its bytes: an entry is never written to, so that what is copied is what is
//! looked at. Never a hard link where anybody might write to it, and so into the cache: only a link's private directory gets entries themselves,
//! under another name. So an entry may be removed at any time, and no link that runs notices.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, linkat};

use super::digest::{Digest, Parts};

const MAGIC: &[u8; 8] = b"THINSHI1";
/// Two lengths, a digest, the magic.
const TRAILER: usize = 8 + 8 + 32 + 8;
/// An entry's time of last use is written down no more often than this.
const USE_STEP: Duration = Duration::from_secs(600);
/// A temporary file this old belongs to nobody who lives.
const ABANDONED: Duration = Duration::from_secs(3600);

/// An output of a link is digested in pieces of this size: it may be larger than what memory has
/// room for.
const PIECE: usize = 256 << 10;
/// To copy an output this large and to look at it takes longer than to start a thread.
const LARGE: u64 = 1 << 20;

/// What entries hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// Native objects of back ends.
    Objects,
    /// Outputs of links.
    Links,
}

impl Shelf {
    /// All of them.
    pub const ALL: [Shelf; 2] = [Shelf::Objects, Shelf::Links];

    fn name(self) -> &'static str {
        match self {
            Shelf::Objects => "objects",
            Shelf::Links => "links",
        }
    }
}

/// What became of a copy.
#[derive(Debug, PartialEq, Eq)]
pub enum Copied {
    /// It is there; this was said when it was made.
    Hit(Vec<u8>),
    /// There is no entry.
    Absent,
    /// The entry is not what was stored.
    Damaged,
}

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

    /// Lets the entry stand at `path`, which nobody writes to and everybody reads as an object: one
    /// file less to be written. What stands behind the object is none of ELF's.
    ///
    /// # Errors
    /// The operating system's.
    pub fn lend_to(&self, path: &Path) -> io::Result<()> {
        // The very file that was looked at: its name may be another's by now.
        let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        // Another file system, or an owner whose files may not be linked to (protected_hardlinks).
        match linkat(CWD, file, CWD, path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(()),
            Err(_) => self.write_to(path),
        }
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
            for name in ["objects", "links", "outputs", "tools", "tmp"] {
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
    pub fn shelf(&self, shelf: Shelf) -> PathBuf {
        self.root.join(shelf.name())
    }

    /// Whether anything may be written.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    fn path_of(&self, shelf: Shelf, key: &Digest) -> PathBuf {
        let name = key.to_string();
        self.shelf(shelf).join(&name[..2]).join(&name[2..])
    }

    /// What is stored under `key`. A damaged entry is removed where that may be.
    ///
    /// # Errors
    /// The operating system's, save that there is no entry.
    pub fn get(&self, key: &Digest) -> io::Result<Found> {
        let path = self.path_of(Shelf::Objects, key);
        let Some(mut file) = open(&path)? else { return Ok(Found::Absent) };
        let meta = file.metadata()?;
        let mut data = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
        file.read_to_end(&mut data)?;
        let Some((object, said)) = parts_of(&data, key) else {
            if self.writable {
                let _ = fs::remove_file(&path);
            }
            return Ok(Found::Damaged);
        };
        self.use_now(&file, &meta);
        Ok(Found::Hit(Entry { file, data, object, said }))
    }

    /// Writes the time of last use down.
    fn use_now(&self, file: &File, meta: &fs::Metadata) {
        let now = SystemTime::now();
        let used = meta.modified().unwrap_or(now);
        if self.writable && now.duration_since(used).is_ok_and(|since| since > USE_STEP) {
            // What counts is the order of uses; a cache that is not ours keeps its own.
            let _ = file.set_times(FileTimes::new().set_modified(now));
        }
    }

    /// Copies the output of a link to a new file at `to`, which is there only after a hit. A
    /// damaged entry is removed where that may be.
    ///
    /// # Errors
    /// The operating system's, save that there is no entry.
    pub fn copy(&self, key: &Digest, to: &Path) -> io::Result<Copied> {
        let path = self.path_of(Shelf::Links, key);
        let Some(file) = open(&path)? else { return Ok(Copied::Absent) };
        let meta = file.metadata()?;
        let copied = copy_checked(&file, meta.len(), key, &File::create(to)?);
        if !matches!(copied, Ok(Some(_))) {
            let _ = fs::remove_file(to);
        }
        let Some(said) = copied? else {
            if self.writable {
                let _ = fs::remove_file(&path);
            }
            return Ok(Copied::Damaged);
        };
        self.use_now(&file, &meta);
        Ok(Copied::Hit(said))
    }

    /// Stores a file, read from its beginning, and what was said under `key`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn put_file(&self, key: &Digest, from: &File, said: &[u8]) -> io::Result<()> {
        let len = from.metadata()?.len();
        let mut to = self.temporary()?;
        let mut parts = copy_and_digest(from, len, key, to.as_file())?;
        if from.metadata()?.len() != len {
            return Err(io::Error::other("the output changed while it was stored"));
        }
        parts.add(said);
        to.as_file_mut().seek(io::SeekFrom::Start(len))?;
        to.write_all(&[said, &trailer(len, said.len() as u64, &parts.digest())].concat())?;
        Store::place(to, &self.path_of(Shelf::Links, key))
    }

    /// Removes the output of a link.
    pub fn forget(&self, key: &Digest) {
        let _ = fs::remove_file(self.path_of(Shelf::Links, key));
    }

    /// Stores an object and what the compiler said under `key`, and returns the entry's size.
    ///
    /// # Errors
    /// The operating system's.
    pub fn put(&self, key: &Digest, object: &[u8], said: &[u8]) -> io::Result<u64> {
        let path = self.path_of(Shelf::Objects, key);
        let digest = digest_of(key, object, said);
        let trailer = trailer(object.len() as u64, said.len() as u64, &digest);
        let pieces = [object, said, &trailer];
        self.write(&path, &pieces)?;
        Ok(pieces.iter().map(|piece| piece.len() as u64).sum())
    }

    /// Writes a file of the cache: there whole, or not at all.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(&self, path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
        let mut file = self.temporary()?;
        for piece in pieces {
            file.write_all(piece)?;
        }
        Store::place(file, path)
    }

    /// A file to be written and then placed. It is locked for as long as it is open: whoever can
    /// lock it, too, knows that its process has died.
    fn temporary(&self) -> io::Result<tempfile::NamedTempFile> {
        loop {
            let file = tempfile::NamedTempFile::new_in(self.root.join("tmp"))?;
            // Some network file systems have no locks: there, age alone tells.
            if file.as_file().lock().is_err() || file.as_file().metadata()?.nlink() > 0 {
                return Ok(file);
            }
            // Swept away before it was locked.
        }
    }

    fn place(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
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
            let path = entry.path();
            let file = File::open(&path);
            let nobody_s = file.as_ref().is_ok_and(|file| file.try_lock().is_ok());
            let old = |time: SystemTime| time.elapsed().is_ok_and(|age| age > ABANDONED);
            if nobody_s || entry.metadata().and_then(|meta| meta.modified()).is_ok_and(old) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// A file; `None` where there is none.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn trailer(object: u64, said: u64, digest: &Digest) -> Vec<u8> {
    let lengths = [object, said].map(u64::to_le_bytes).concat();
    [&lengths[..], digest.bytes(), MAGIC].concat()
}

/// Copies an entry of `len` bytes and looks at it; what was said, or `None` where it is not what
/// was stored.
fn copy_checked(file: &File, len: u64, key: &Digest, to: &File) -> io::Result<Option<Vec<u8>>> {
    let mut end = [0; TRAILER];
    let Some(contents) = len.checked_sub(TRAILER as u64) else { return Ok(None) };
    file.read_exact_at(&mut end, contents)?;
    let Some((object, said)) = lengths(&end, contents) else { return Ok(None) };
    let mut parts = copy_and_digest(file, object, key, to)?;
    let mut words = vec![0; usize::try_from(said).map_err(io::Error::other)?];
    file.read_exact_at(&mut words, object)?;
    parts.add(&words);
    Ok((end[16..48] == *parts.digest().bytes()).then_some(words))
}

/// Copies `len` bytes to an empty file, and digests them and `key`; a large file's at the same
/// time. Should one be written to meanwhile, its digest may be none of its copy's, which a look at
/// the copy will tell.
fn copy_and_digest(from: &File, len: u64, key: &Digest, to: &File) -> io::Result<Parts> {
    let copy = || {
        if rustix::fs::ioctl_ficlone(to, from).is_ok() {
            return to.set_len(len);
        }
        let copied = io::copy(&mut from.take(len), &mut &*to)?;
        if copied == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    };
    let digest = || {
        let mut parts = Parts::new().with(key.bytes());
        parts.begin(len);
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < len {
            let want = usize::try_from(len - at).unwrap_or(PIECE).min(PIECE);
            from.read_exact_at(&mut piece[..want], at)?;
            parts.more(&piece[..want]);
            at += want as u64;
        }
        Ok(parts)
    };
    thread::scope(|scope| {
        let other = (len >= LARGE).then(|| thread::Builder::new().spawn_scoped(scope, digest));
        let copied = copy();
        let digested = match other {
            Some(Ok(other)) => other.join().unwrap_or_else(|_| digest()),
            _ => digest(),
        };
        copied.and(digested)
    })
}

/// The lengths of object and words out of a trailer, where they come to `contents`.
fn lengths(trailer: &[u8], contents: u64) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_le_bytes(trailer.get(at..at + 8)?.try_into().ok()?));
    let (object, said) = (number(0)?, number(8)?);
    let fits = object.checked_add(said) == Some(contents) && trailer.get(48..)? == MAGIC;
    fits.then_some((object, said))
}

fn digest_of(key: &Digest, object: &[u8], said: &[u8]) -> Digest {
    Parts::new().with(key.bytes()).with(object).with(said).digest()
}

/// The lengths of object and words in an entry; `None` where it is not what was stored.
fn parts_of(data: &[u8], key: &Digest) -> Option<(usize, usize)> {
    let (contents, trailer) = data.split_at_checked(data.len().checked_sub(TRAILER)?)?;
    let (object, said) = lengths(trailer, contents.len() as u64)?;
    let (object, said) = (usize::try_from(object).ok()?, usize::try_from(said).ok()?);
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
    fn only_what_nobody_writes_is_swept_away() {
        let space = tempfile::tempdir().expect("a directory");
        let store = Store::open(space.path(), true).expect("a store");
        let left = store.root().join("tmp/left");
        fs::write(&left, "half an entry").expect("a file");
        let mine = store.temporary().expect("a file");
        store.sweep();
        assert!(!left.exists() && mine.path().exists());
        drop(mine);
        // Both at once: no entry is lost.
        std::thread::scope(|threads| {
            let writer = threads.spawn(|| {
                for number in 0..500u32 {
                    let key = Digest::of(&number.to_le_bytes());
                    store.put(&key, b"object", b"said").expect("an entry");
                }
            });
            while !writer.is_finished() {
                store.sweep();
            }
        });
    }

    #[test]
    fn every_flipped_bit_and_every_length_is_seen() {
        let space = tempfile::tempdir().expect("a directory");
        let store = Store::open(space.path(), true).expect("a store");
        let key = Digest::of(b"key");
        store.put(&key, b"object", b"said").expect("an entry");
        let path = store.path_of(Shelf::Objects, &key);
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
        let Found::Hit(entry) = found(&whole) else { panic!("no hit") };
        // Whoever removes it meanwhile, or puts another in its place, takes nothing away.
        let lent = space.path().join("lent");
        fs::rename(&path, space.path().join("meanwhile")).expect("a file");
        entry.lend_to(&lent).expect("a file");
        assert_eq!(fs::read(&lent).expect("a file"), whole);
        fs::remove_file(space.path().join("meanwhile")).expect("a file");
        fs::remove_file(&lent).expect("a file");
        entry.lend_to(&lent).expect("a file");
        assert_eq!(fs::read(&lent).expect("a file"), b"object", "its last name is gone");
        assert!(matches!(found(&whole), Found::Hit(_)));
        // Under another key's name it is not an answer.
        let other = Digest::of(b"other");
        fs::create_dir_all(store.path_of(Shelf::Objects, &other).parent().expect("a parent"))
            .expect("made");
        fs::copy(&path, store.path_of(Shelf::Objects, &other)).expect("a copy");
        assert!(matches!(store.get(&other), Ok(Found::Damaged)));
        assert!(matches!(store.get(&Digest::of(b"none")), Ok(Found::Absent)));
    }

    #[test]
    fn outputs_of_links_are_looked_at_too() {
        let space = tempfile::tempdir().expect("a directory");
        let store = Store::open(space.path(), true).expect("a store");
        let (key, out, copy) =
            (Digest::of(b"key"), space.path().join("out"), space.path().join("copy"));
        let sizes = [0, PIECE - 1, PIECE + 9, usize::try_from(LARGE).expect("a size") + 9];
        for object in sizes.map(|size| vec![7; size]) {
            fs::write(&out, &object).expect("a file");
            store.put_file(&key, &File::open(&out).expect("a file"), b"said").expect("an entry");
            fs::write(&out, "spoilt").expect("a file");
            let path = store.path_of(Shelf::Links, &key);
            assert!(is_whole(&path).expect("a file"));
            assert_eq!(store.copy(&key, &copy).expect("a copy"), Copied::Hit(b"said".into()));
            assert_eq!(fs::read(&copy).expect("a copy"), object);
            fs::remove_file(&copy).expect("a copy");
            let whole = fs::read(&path).expect("an entry");
            let damaged = |data: &[u8]| {
                let _ = fs::remove_file(&path);
                fs::write(&path, data).expect("a file");
                assert_eq!(store.copy(&key, &copy).expect("an answer"), Copied::Damaged);
                assert!(!path.exists() && !copy.exists());
            };
            for at in (0..whole.len()).rev().take(80).chain([0]) {
                let mut data = whole.clone();
                data[at] ^= 4;
                damaged(&data);
                damaged(&whole[..at]);
            }
        }
        assert_eq!(store.copy(&Digest::of(b"none"), &copy).expect("an answer"), Copied::Absent);
    }
}
