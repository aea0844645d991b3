//! What is known of a file, and the line of a memo that says it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::time::SystemTime;

use super::digest::Digest;
use super::signature::Signature;
use crate::object::assembly::{Name, Opened};
use crate::object::{module, wrapper};

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the system says of it.
    pub signature: Signature,
    /// A change of the file changes its signature.
    pub settled: bool,
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
pub enum Sort {
    /// A bitcode module.
    Module,
    /// Any file.
    Plain,
}

/// Reads files and finds out what there is to know of them.
#[derive(Debug, Default)]
pub struct Reader(Vec<u8>);

/// What a reader keeps of its memory for the next file.
const KEPT: usize = 4 << 20;

impl Reader {
    /// Reads the file at `path`, at `now` or later. `of_module` knows the facts of modules by their
    /// digests: what is in a module hangs on nothing else, and to look for it costs more.
    ///
    /// # Errors
    /// The operating system's.
    pub fn read<'a>(
        &mut self,
        sort: Sort,
        path: &OsStr,
        now: SystemTime,
        of_module: impl FnOnce(Digest) -> Option<&'a Facts>,
    ) -> io::Result<Facts> {
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        let signature = Signature::of(&meta);
        let settled = signature.is_settled(now);
        let data = &mut self.0;
        data.clear();
        data.shrink_to(KEPT);
        file.read_to_end(data)?;
        let plain = |digest| Facts {
            signature,
            settled,
            digest,
            module_opens: Opened::default(),
            functions_open: Opened::default(),
            libraries: false,
        };
        if sort == Sort::Plain {
            return Ok(plain(Digest::of(data)));
        }
        let unclear = Opened { unclear: true, ..Opened::default() };
        let Some(parts) = wrapper::split(data) else {
            return Ok(Facts { libraries: true, module_opens: unclear, ..plain(Digest::of(data)) });
        };
        let digest = Digest::of(parts.bitcode);
        if let Some(known) = of_module(digest) {
            return Ok(Facts { signature, settled, digest, ..known.clone() });
        }
        Ok(match module::facts(parts.bitcode, true) {
            Ok(found) => Facts {
                module_opens: found.module_opens,
                functions_open: found.functions_open,
                libraries: !found.no_libraries,
                ..plain(digest)
            },
            Err(_) => Facts { libraries: true, module_opens: unclear, ..plain(digest) },
        })
    }
}

/// Whether the file at `path` may be another than when its facts were found.
pub fn has_changed(path: &OsStr, facts: &Facts) -> bool {
    is_another(&[Sort::Module, Sort::Plain], path, facts)
}

/// As [`has_changed`], for facts of one of these sorts.
pub fn is_another(sorts: &[Sort], path: &OsStr, facts: &Facts) -> bool {
    let Ok(meta) = fs::metadata(path) else { return true };
    if Signature::of(&meta) != facts.signature {
        return true;
    }
    // Two changes in one tick look like one.
    !facts.settled
        && sorts.iter().all(|&sort| {
            let now = Reader::default().read(sort, path, SystemTime::now(), |_| Some(facts));
            now.ok().map(|now| now.digest) != Some(facts.digest)
        })
}

/// Adds the line of a memo.
pub fn to_line(sort: Sort, facts: &Facts, to: &mut String) {
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

/// Reads what [`to_line`] writes.
pub fn from_line(line: &str) -> Option<(Sort, Facts)> {
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
        let mut facts =
            Reader::default().read(Sort::Plain, path.as_os_str(), old, |_| None).expect("a file");
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

    #[test]
    fn changes_within_the_clock_s_tick_are_seen() {
        let space = tempfile::tempdir().expect("a directory");
        let path = space.path().join("file");
        fs::write(&path, b"one").expect("a file");
        let now = SystemTime::now();
        let facts = Reader::default().read(Sort::Plain, path.as_os_str(), now, |_| None);
        let facts = facts.expect("a file");
        assert!(!facts.settled, "a file just written is not remembered");
        assert!(!has_changed(path.as_os_str(), &facts));
        // The same inode, size and time stamps: as if all had happened in one tick.
        fs::write(&path, b"two").expect("a file");
        let signature = Signature::of(&fs::metadata(&path).expect("metadata"));
        let forged = Facts { signature, ..facts.clone() };
        assert!(has_changed(path.as_os_str(), &forged));
        assert!(!has_changed(path.as_os_str(), &Facts { settled: true, ..forged }));
    }
}
