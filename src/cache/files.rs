//! Digests of files, remembered by the files' signatures.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use super::digest::{self, Digest};
use super::facts::{self, Facts, Reader, Sort};
use super::signature::Signature;

/// The files of a link. Each is looked at once.
#[derive(Debug, Default)]
pub struct Files {
    remembered: HashMap<(Sort, Signature), Facts>,
    /// The modules among them, by what is in them: made where it is first asked for.
    contents: Option<HashMap<Digest, Signature>>,
    reader: Reader,
    seen: HashMap<(Sort, OsString), Arc<Facts>>,
    /// Something was read that was not remembered.
    is_new: bool,
}

const HEADER: &str = "thinshim files 3";
/// So many new bytes keep one thread busy for longer than it takes to have two.
const MUCH: u64 = 4 << 20;

impl Files {
    /// The files that the memo at `path` remembers; none where it cannot be read.
    pub fn load(path: &Path) -> Files {
        let memo = fs::read_to_string(path).unwrap_or_default();
        let mut lines = digest::unsealed(&memo).unwrap_or_default().lines();
        let known = lines.next() == Some(HEADER);
        let remembered = lines
            .filter(|_| known)
            .filter_map(facts::from_line)
            .map(|(sort, facts)| ((sort, facts.signature), facts));
        Files { remembered: remembered.collect(), ..Files::default() }
    }

    /// The memo's text for the files that were looked at; `None` where it says nothing new.
    pub fn to_memo(&self) -> Option<String> {
        let mut text = String::from(HEADER);
        text.push('\n');
        for ((sort, _), facts) in self.seen.iter().filter(|(_, facts)| facts.settled) {
            facts::to_line(*sort, facts, &mut text);
        }
        self.is_new.then(|| digest::sealed(&text))
    }

    /// A bitcode module's facts.
    ///
    /// # Errors
    /// The operating system's.
    pub fn module(&mut self, path: &OsStr) -> io::Result<Arc<Facts>> {
        self.look(Sort::Module, path)
    }

    /// A file's facts.
    ///
    /// # Errors
    /// The operating system's; `InvalidInput` where it is no regular file.
    pub fn plain(&mut self, path: &OsStr) -> io::Result<Arc<Facts>> {
        self.look(Sort::Plain, path)
    }

    /// Looks at many files: two threads read what is new of them, where that is much. What cannot be
    /// read is met again by who asks for it.
    pub fn plain_all<'a>(&mut self, paths: impl Iterator<Item = &'a OsStr>) {
        let now = SystemTime::now();
        let (mut new, mut bytes) = (Vec::new(), 0);
        for path in paths {
            let key = (Sort::Plain, path.to_owned());
            let Ok(meta) = fs::metadata(path) else { continue };
            if !meta.is_file() || self.seen.contains_key(&key) {
                continue;
            }
            if let Some(facts) = self.remembered.get(&(Sort::Plain, Signature::of(&meta))) {
                self.seen.insert(key, Arc::new(facts.clone()));
            } else {
                bytes += meta.len();
                new.push(path);
            }
        }
        if bytes < MUCH {
            return;
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let mut reader = Reader::default();
            let turns = std::iter::repeat_with(|| new.get(next.fetch_add(1, Ordering::Relaxed)));
            let read = turns.map_while(Option::<&_>::copied).filter_map(|path| {
                let facts = reader.read(Sort::Plain, path, now, |_| None).ok()?;
                Some((path, facts))
            });
            read.collect::<Vec<_>>()
        };
        let found = thread::scope(|scope| {
            let helper = thread::Builder::new().spawn_scoped(scope, work);
            let mut found = work();
            if let Ok(helper) = helper {
                found.extend(helper.join().unwrap_or_default());
            }
            found
        });
        for (path, facts) in found {
            self.is_new |= facts.settled;
            self.seen.insert((Sort::Plain, path.to_owned()), Arc::new(facts));
        }
    }

    /// The digest of a file that was looked at.
    pub fn known(&self, path: &OsStr) -> Option<Digest> {
        Some(self.seen.get(&(Sort::Plain, path.to_owned()))?.digest)
    }

    /// All files that were looked at, modules aside.
    pub fn all_plain(&self) -> Vec<(OsString, Digest)> {
        let plain = self.seen.iter().filter(|((sort, _), _)| *sort == Sort::Plain);
        plain.map(|((_, path), facts)| (path.clone(), facts.digest)).collect()
    }

    /// Whether any file that was looked at may be another by now.
    pub fn have_changed(&self) -> bool {
        self.seen.iter().any(|((sort, path), facts)| facts::is_another(&[*sort], path, facts))
    }

    fn look(&mut self, sort: Sort, path: &OsStr) -> io::Result<Arc<Facts>> {
        if let Some(facts) = self.seen.get(&(sort, path.to_owned())) {
            return Ok(Arc::clone(facts));
        }
        let now = SystemTime::now();
        let meta = fs::metadata(path)?;
        if !meta.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let facts = if let Some(facts) = self.remembered.get(&(sort, Signature::of(&meta))) {
            facts.clone()
        } else {
            let Files { remembered, contents, reader, .. } = self;
            let facts = reader.read(sort, path, now, |digest| {
                let contents = contents.get_or_insert_with(|| {
                    let modules = remembered.iter().filter(|((sort, _), _)| *sort == Sort::Module);
                    modules.map(|((_, signature), facts)| (facts.digest, *signature)).collect()
                });
                remembered.get(&(Sort::Module, *contents.get(&digest)?))
            })?;
            self.is_new |= facts.settled;
            facts
        };
        let facts = Arc::new(facts);
        self.seen.insert((sort, path.to_owned()), Arc::clone(&facts));
        Ok(facts)
    }
}

/// Where the memo of a link to `output` stands in the cache at `root`, and the history beside it.
pub fn output_file(root: &Path, output: &Path, suffix: &str) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let name = std::path::absolute(output).unwrap_or_else(|_| output.to_owned());
    let digest = Digest::of(name.as_os_str().as_bytes());
    root.join("outputs").join(format!("{digest}.{suffix}"))
}

/// Lets a memo that says nothing new count as used.
pub fn touch(memo: &Path) {
    let now = fs::FileTimes::new().set_modified(SystemTime::now());
    let _ = File::open(memo).and_then(|file| file.set_times(now));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::assembly::{Name, Opened};
    use std::time::Duration;

    /// A memo that lost the name of a file that assembly opens would hide a change of that file.
    #[test]
    fn a_damaged_memo_is_not_believed() {
        let space = tempfile::tempdir().expect("a directory");
        let path = space.path().join("file");
        fs::write(&path, b"contents").expect("a file");
        let old = SystemTime::now() + Duration::from_secs(60);
        let mut facts =
            Reader::default().read(Sort::Plain, path.as_os_str(), old, |_| None).expect("a file");
        facts.module_opens.names = vec![Name { name: b"data".into(), assembly: false }];
        let seen = HashMap::from([((Sort::Module, path.clone().into()), Arc::new(facts))]);
        let files = Files { seen, is_new: true, ..Files::default() };
        let memo = files.to_memo().expect("a memo").into_bytes();
        let remembered = |data: &[u8]| {
            fs::write(space.path().join("memo"), data).expect("a file");
            Files::load(&space.path().join("memo")).remembered.len()
        };
        assert_eq!(remembered(&memo), 1);
        for at in 0..memo.len() {
            assert_eq!(remembered(&memo[..at]), 0, "{at} bytes are left");
            let mut data = memo.clone();
            data[at] ^= 1;
            assert_eq!(remembered(&data), 0, "byte {at} is another");
        }
    }

    fn remembering(path: &Path, facts: Facts, memo: &Path) -> Files {
        let seen = HashMap::from([((Sort::Module, path.into()), Arc::new(facts))]);
        let files = Files { seen, is_new: true, ..Files::default() };
        fs::write(memo, files.to_memo().expect("a memo")).expect("a file");
        Files::load(memo)
    }

    #[test]
    fn a_module_opens_what_one_with_its_contents_did() {
        let space = tempfile::tempdir().expect("a directory");
        let path = space.path().join("module");
        fs::write(&path, b"BC\xC0\xDEno bitcode").expect("a file");
        let old = SystemTime::now() + Duration::from_secs(60);
        let facts = Reader::default().read(Sort::Module, path.as_os_str(), old, |_| None);
        let mut facts = facts.expect("a file");
        assert!(facts.module_opens.unclear);
        // What nobody finds in it: so it must come out of the memo.
        facts.module_opens = Opened::default();
        facts.functions_open.names = vec![Name { name: b"data".into(), assembly: false }];
        let memo = space.path().join("memo");
        let same = space.path().join("same");
        fs::copy(&path, &same).expect("a file");
        let mut files = remembering(&path, facts.clone(), &memo);
        let found = files.module(same.as_os_str()).expect("a file");
        assert_eq!(found.functions_open, facts.functions_open);
        assert!(!found.module_opens.unclear);
        assert_eq!(found.digest, facts.digest);
        assert_ne!(found.signature, facts.signature);
        fs::write(&same, b"BC\xC0\xDEno bitcodf").expect("a file");
        let mut files = remembering(&path, facts.clone(), &memo);
        let other = files.module(same.as_os_str()).expect("a file");
        assert!(other.module_opens.unclear && other.functions_open.names.is_empty());
        assert_ne!(other.digest, facts.digest);
    }

    #[test]
    fn many_files_at_once_are_as_one_by_one() {
        let space = tempfile::tempdir().expect("a directory");
        let size = usize::try_from(MUCH / 4).expect("a size");
        let paths: Vec<PathBuf> = (0..7).map(|at| space.path().join(at.to_string())).collect();
        for (at, path) in (0..).zip(&paths) {
            fs::write(path, vec![at; size]).expect("a file");
        }
        let gone = space.path().join("gone");
        let all = paths.iter().chain([&gone]).map(|path| path.as_os_str());
        let (mut at_once, mut one_by_one) = (Files::default(), Files::default());
        at_once.plain_all(all.clone());
        assert_eq!(at_once.seen.len(), paths.len());
        for path in &paths {
            let path = path.as_os_str();
            one_by_one.plain(path).expect("a file");
            assert_eq!(at_once.known(path), one_by_one.known(path));
        }
        assert!(at_once.plain(gone.as_os_str()).is_err());
    }
}
