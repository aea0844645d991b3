//! What the keys of a link were made of, for `thinshim cache why`: one line for each module, and
//! what changed in it since the link before.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::key::{Key, PARTS};

const HEADER: &[u8] = b"thinshim history 1";
/// So many imported modules are named; a reader of more would look for a pattern, not for names.
const NAMED_MAX: usize = 3;

/// A part's digest, cut short: it only tells now from before.
type Short = [u8; 8];

/// What became of a back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its object came out of the cache.
    Hit,
    /// It ran.
    Compiled,
    /// It ran, and has no key.
    NotKeyed,
}

/// A module of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The linker's name for it.
    pub module: OsString,
    /// What became of its back end.
    pub fate: Fate,
    /// The parts of its key; all zero where it has none.
    parts: [Short; PARTS.len()],
    /// What changed, in words; `None` where there was no link before.
    pub changed: Option<String>,
}

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Its output, absolute.
    pub output: PathBuf,
    /// Where it ran: names of modules are relative to it.
    pub directory: PathBuf,
    /// Its modules.
    pub lines: Vec<Line>,
}

impl Line {
    /// The line of a module that has a key.
    pub fn keyed(module: &OsStr, fate: Fate, key: &Key) -> Line {
        let parts = key.parts.map(|part| short(&part));
        Line { module: module.to_owned(), fate, parts, changed: None }
    }

    /// The line of a module that has none, for a reason.
    pub fn not_keyed(module: &OsStr, reason: &str) -> Line {
        let parts = [Short::default(); PARTS.len()];
        Line {
            module: module.to_owned(),
            fate: Fate::NotKeyed,
            parts,
            changed: Some(reason.into()),
        }
    }
}

fn short(digest: &Digest) -> Short {
    let mut short = Short::default();
    short.copy_from_slice(&digest.bytes()[..8]);
    short
}

impl History {
    /// Says of each module what changed since `before`. `imports` tells what a module imports.
    pub fn compare<'a>(&mut self, before: &History, imports: impl Fn(&OsStr) -> Vec<&'a OsStr>) {
        let known: HashMap<&OsStr, &Line> =
            before.lines.iter().map(|line| (line.module.as_os_str(), line)).collect();
        let differs = |line: &Line, part: usize| {
            known
                .get(line.module.as_os_str())
                .is_some_and(|old| old.parts[part] != line.parts[part])
        };
        let module = PARTS.iter().position(|name| *name == "module").unwrap_or(0);
        let edited: HashSet<OsString> = self
            .lines
            .iter()
            .filter(|line| differs(line, module))
            .map(|line| line.module.clone())
            .collect();
        let told: Vec<Option<String>> = self
            .lines
            .iter()
            .map(|line| {
                if line.fate == Fate::NotKeyed {
                    return line.changed.clone();
                }
                known.get(line.module.as_os_str())?;
                let parts = (0..PARTS.len()).filter(|&part| differs(line, part));
                let words: Vec<String> = parts
                    .map(|part| match PARTS[part] {
                        "imported modules" => named(&imports(&line.module), &edited),
                        name => name.to_owned(),
                    })
                    .collect();
                Some(words.join(", "))
            })
            .collect();
        for (line, told) in self.lines.iter_mut().zip(told) {
            line.changed = told;
        }
    }

    /// The history as a file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        for path in [&self.output, &self.directory] {
            bytes.push(b'\n');
            bytes.extend_from_slice(path.as_os_str().as_bytes());
        }
        for line in &self.lines {
            bytes.push(b'\n');
            bytes.push(match line.fate {
                Fate::Hit => b'h',
                Fate::Compiled => b'c',
                Fate::NotKeyed => b'n',
            });
            for byte in line.parts.as_flattened() {
                bytes.extend_from_slice(format!("{byte:02x}").as_bytes());
            }
            let changed = line.changed.as_deref().unwrap_or("?");
            bytes.push(b'\t');
            bytes.extend_from_slice(changed.replace(['\t', '\n'], " ").as_bytes());
            bytes.push(b'\t');
            bytes.extend_from_slice(line.module.as_bytes());
        }
        bytes
    }

    /// Reads what [`History::to_bytes`] wrote; lines that it would not have written are left out.
    pub fn from_bytes(bytes: &[u8]) -> Option<History> {
        let mut lines = bytes.split(|&byte| byte == b'\n');
        if lines.next()? != HEADER {
            return None;
        }
        let mut path = || Some(PathBuf::from(OsStr::from_bytes(lines.next()?)));
        let (output, directory) = (path()?, path()?);
        Some(History { output, directory, lines: lines.filter_map(line).collect() })
    }

    /// Whether `object`, an absolute path, is one of the modules.
    pub fn has_module(&self, object: &Path) -> bool {
        self.lines.iter().any(|line| self.directory.join(&line.module) == object)
    }
}

fn line(text: &[u8]) -> Option<Line> {
    let mut fields = text.splitn(3, |&byte| byte == b'\t');
    let (fate, hex) = fields.next()?.split_first()?;
    let fate = match fate {
        b'h' => Fate::Hit,
        b'c' => Fate::Compiled,
        b'n' => Fate::NotKeyed,
        _ => return None,
    };
    let hex = std::str::from_utf8(hex).ok()?;
    let mut parts = [Short::default(); PARTS.len()];
    for (at, byte) in parts.as_flattened_mut().iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    let changed = String::from_utf8_lossy(fields.next()?).into_owned();
    let changed = (changed != "?").then_some(changed);
    Some(Line { module: OsString::from_vec(fields.next()?.to_vec()), fate, parts, changed })
}

/// The imported modules that were edited, by name.
fn named(imports: &[&OsStr], edited: &HashSet<OsString>) -> String {
    let names: Vec<String> = imports
        .iter()
        .filter(|name| edited.contains(**name))
        .map(|name| name.display().to_string())
        .collect();
    let more = if names.len() > NAMED_MAX {
        format!(" and {} more", names.len() - NAMED_MAX)
    } else {
        String::new()
    };
    match names.len() {
        0 => "the list of imported modules".into(),
        len => format!("imported modules ({}{more})", names[..len.min(NAMED_MAX)].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(module: &str, parts: [u8; 7]) -> Line {
        let parts = parts.map(|part| [part; 8]);
        Line { module: module.into(), fate: Fate::Compiled, parts, changed: None }
    }

    #[test]
    fn what_changed_is_told() {
        let before = History {
            output: "/b/out".into(),
            directory: "/b".into(),
            lines: vec![line("a.o", [1; 7]), line("b.o", [1; 7])],
        };
        let mut now = before.clone();
        now.lines = vec![
            line("a.o", [1, 1, 1, 2, 2, 1, 1]),
            line("b.o", [1, 1, 1, 1, 1, 2, 1]),
            line("c.o", [1; 7]),
            Line::not_keyed("d.o".as_ref(), "no\tluck"),
        ];
        now.compare(&before, |_| vec!["a.o".as_ref()]);
        let told: Vec<_> = now.lines.iter().map(|line| line.changed.as_deref()).collect();
        assert_eq!(
            told,
            [Some("module, index"), Some("imported modules (a.o)"), None, Some("no\tluck")]
        );
        let mut read = History::from_bytes(&now.to_bytes()).expect("a history");
        read.lines[3].changed = Some("no\tluck".into());
        assert_eq!(read, now);
        assert!(now.has_module(Path::new("/b/c.o")) && !now.has_module(Path::new("/c.o")));
        assert_eq!(History::from_bytes(b"rubbish"), None);
    }
}
