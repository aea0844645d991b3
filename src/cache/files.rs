//! Digests of files, remembered by the files' signatures.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::digest::{self, Digest};
use super::signature::Signature;
use crate::object::assembly::{Name, Opened};
use crate::object::{module, wrapper};

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    signature: Signature,
    /// A change of the file changes its signature.
    settled: bool,
    /// The digest of its bytes; of a bitcode module, of the bitcode alone: what stands behind it
    /// is not read by clang.
    pub digest: Digest,
    /// What the module's own assembly opens.
    pub module_opens: Opened,
    /// What assembly in its functions opens.
    pub functions_open: Opened,
    /// The module may name libraries for the linker to look for.
    pub libraries: bool,
}

impl Facts {
    /// Adds what the module opens, anywhere in it. One that may name libraries opens what cannot
    /// be told.
    pub fn add_to(&self, opened: &mut Opened) {
        opened.extend(&self.module_opens);
        opened.extend(&self.functions_open);
        opened.unclear |= self.libraries;
    }
}

/// How a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sort {
    /// A bitcode module.
    Module,
    /// Any file.
    Plain,
}

/// The files of a link. Each is looked at once.
#[derive(Debug, Default)]
pub struct Files {
    remembered: HashMap<(Sort, Signature), Facts>,
    seen: HashMap<(Sort, OsString), Arc<Facts>>,
    /// Something was read that was not remembered.
    is_new: bool,
}

const HEADER: &str = "thinshim files 2";

impl Files {
    /// The files that the memo at `path` remembers; none where it cannot be read.
    pub fn load(path: &Path) -> Files {
        let memo = fs::read_to_string(path).unwrap_or_default();
        let mut lines = digest::unsealed(&memo).unwrap_or_default().lines();
        let known = lines.next() == Some(HEADER);
        let remembered = lines
            .filter(|_| known)
            .filter_map(from_line)
            .map(|(sort, facts)| ((sort, facts.signature), facts));
        Files { remembered: remembered.collect(), ..Files::default() }
    }

    /// The memo's text for the files that were looked at; `None` where it says nothing new.
    pub fn to_memo(&self) -> Option<String> {
        let mut text = String::from(HEADER);
        text.push('\n');
        for ((sort, _), facts) in self.seen.iter().filter(|(_, facts)| facts.settled) {
            to_line(*sort, facts, &mut text);
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
        self.seen.iter().any(|((sort, path), facts)| is_another(&[*sort], path, facts))
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
            let facts = read(sort, path, now)?;
            self.is_new |= facts.settled;
            facts
        };
        let facts = Arc::new(facts);
        self.seen.insert((sort, path.to_owned()), Arc::clone(&facts));
        Ok(facts)
    }
}

/// Whether the file at `path` may be another than when its facts were found.
pub fn has_changed(path: &OsStr, facts: &Facts) -> bool {
    is_another(&[Sort::Module, Sort::Plain], path, facts)
}

fn is_another(sorts: &[Sort], path: &OsStr, facts: &Facts) -> bool {
    let Ok(meta) = fs::metadata(path) else { return true };
    if Signature::of(&meta) != facts.signature {
        return true;
    }
    // Two changes in one tick look like one.
    !facts.settled
        && sorts.iter().all(|&sort| {
            read(sort, path, SystemTime::now()).ok().map(|now| now.digest) != Some(facts.digest)
        })
}

fn read(sort: Sort, path: &OsStr, now: SystemTime) -> io::Result<Facts> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    let signature = Signature::of(&meta);
    let mut data = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.read_to_end(&mut data)?;
    let mut facts = Facts {
        signature,
        settled: signature.is_settled(now),
        digest: Digest::of(&data),
        module_opens: Opened::default(),
        functions_open: Opened::default(),
        libraries: false,
    };
    if sort == Sort::Module {
        facts.libraries = true;
        let parsed = wrapper::split(&data).and_then(|parts| {
            facts.digest = Digest::of(parts.bitcode);
            module::facts(parts.bitcode, true).ok()
        });
        match parsed {
            Some(parsed) => {
                facts.module_opens = parsed.module_opens;
                facts.functions_open = parsed.functions_open;
                facts.libraries = !parsed.no_libraries;
            }
            None => facts.module_opens.unclear = true,
        }
    }
    Ok(facts)
}

fn to_line(sort: Sort, facts: &Facts, to: &mut String) {
    let sort = match sort {
        Sort::Module => 'm',
        Sort::Plain => 'p',
    };
    let _ = write!(to, "{sort} {} {}", facts.signature.to_words(), facts.digest);
    if facts.libraries {
        to.push_str(" l");
    }
    for (place, opened) in [('m', &facts.module_opens), ('f', &facts.functions_open)] {
        if opened.unclear {
            let _ = write!(to, " {place}?");
        }
        for Name { name, assembly } in &opened.names {
            let _ = write!(to, " {place}{}", if *assembly { 'a' } else { 'b' });
            for byte in name {
                let _ = write!(to, "{byte:02x}");
            }
        }
    }
    to.push('\n');
}

fn from_line(line: &str) -> Option<(Sort, Facts)> {
    let mut words = line.split(' ');
    let sort = match words.next()? {
        "m" => Sort::Module,
        "p" => Sort::Plain,
        _ => return None,
    };
    let mut facts = Facts {
        signature: Signature::from_words(&mut words)?,
        settled: true,
        digest: Digest::from_hex(words.next()?)?,
        module_opens: Opened::default(),
        functions_open: Opened::default(),
        libraries: false,
    };
    for word in words {
        if word == "l" {
            facts.libraries = true;
            continue;
        }
        let mut bytes = word.bytes();
        let opened = match bytes.next()? {
            b'm' => &mut facts.module_opens,
            b'f' => &mut facts.functions_open,
            _ => return None,
        };
        let assembly = match bytes.next()? {
            b'?' => {
                opened.unclear = true;
                continue;
            }
            b'a' => true,
            b'b' => false,
            _ => return None,
        };
        let hex = word.get(2..)?;
        let name = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok())
            .collect::<Option<Vec<u8>>>()?;
        opened.names.push(Name { name, assembly });
    }
    Some((sort, facts))
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
    use std::time::Duration;

    #[test]
    fn a_memo_reads_what_it_wrote() {
        let space = tempfile::tempdir().expect("a directory");
        let path = space.path().join("file");
        fs::write(&path, b"contents").expect("a file");
        let old = SystemTime::now() + Duration::from_secs(60);
        let mut facts = read(Sort::Plain, path.as_os_str(), old).expect("a file");
        assert!(facts.settled);
        let names = [("a b", true), ("\u{fc}", false)];
        facts.functions_open.names =
            names.map(|(name, assembly)| Name { name: name.into(), assembly }).to_vec();
        facts.module_opens.unclear = true;
        facts.libraries = true;
        let mut line = String::new();
        to_line(Sort::Module, &facts, &mut line);
        assert_eq!(from_line(line.trim_end()), Some((Sort::Module, facts)));
        assert_eq!(from_line("m 1 2"), None);
    }

    /// A memo that lost the name of a file that assembly opens would hide a change of that file.
    #[test]
    fn a_damaged_memo_is_not_believed() {
        let space = tempfile::tempdir().expect("a directory");
        let path = space.path().join("file");
        fs::write(&path, b"contents").expect("a file");
        let old = SystemTime::now() + Duration::from_secs(60);
        let mut facts = read(Sort::Plain, path.as_os_str(), old).expect("a file");
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

    #[test]
    fn changes_within_the_clock_s_tick_are_seen() {
        let space = tempfile::tempdir().expect("a directory");
        let path = space.path().join("file");
        fs::write(&path, b"one").expect("a file");
        let mut files = Files::default();
        let facts = files.plain(path.as_os_str()).expect("a file");
        assert!(!has_changed(path.as_os_str(), &facts));
        assert_eq!(files.to_memo(), None, "a file just written is not remembered");
        // The same inode, size and time stamps: as if all had happened in one tick.
        fs::write(&path, b"two").expect("a file");
        let signature = Signature::of(&fs::metadata(&path).expect("metadata"));
        let forged = Facts { signature, ..(*facts).clone() };
        assert!(has_changed(path.as_os_str(), &forged));
        assert!(!has_changed(path.as_os_str(), &Facts { settled: true, ..forged }));
    }
}
