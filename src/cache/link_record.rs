//! What is remembered of an output that was linked: the parts of its key, for `thinshim cache
//! why`, and the entries that it has.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::digest::Digest;
use super::files;
use super::link_key::PARTS;

const HEADER: &str = "thinshim link 1";
/// So many outputs of one name are kept: what `git checkout` goes back to. Outputs are large, and
/// each edit makes a new one.
const KEPT: usize = 4;

/// What became of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its output came out of the cache.
    Hit,
    /// It was done; these parts had changed, where there was a link before.
    Linked(Option<String>),
    /// It has no key, for this reason.
    NotKeyed(String),
}

/// An output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What became of its last link.
    pub fate: Fate,
    /// The parts of its key.
    parts: Vec<Digest>,
    /// Its entries, the newest last.
    keys: Vec<Digest>,
}

impl Record {
    /// What is remembered of `output` by the cache at `root`.
    pub fn load(root: &Path, output: &Path) -> Option<Record> {
        let text = fs::read_to_string(files::output_file(root, output, "link")).ok()?;
        from_text(&text)
    }

    /// A link that has no key. Entries of before stay known.
    pub fn not_keyed(before: Option<&Record>, reason: &str) -> Record {
        let (parts, keys) =
            before.map(|old| (old.parts.clone(), old.keys.clone())).unwrap_or_default();
        Record { fate: Fate::NotKeyed(reason.to_owned()), parts, keys }
    }

    /// A link with a key of these parts, and the entries that are one too many.
    pub fn keyed(
        before: Option<&Record>,
        hit: bool,
        parts: [Digest; PARTS.len()],
        key: Digest,
    ) -> (Record, Vec<Digest>) {
        let mut keys = before.map(|old| old.keys.clone()).unwrap_or_default();
        keys.retain(|old| *old != key);
        keys.push(key);
        let surplus = keys.drain(..keys.len().saturating_sub(KEPT)).collect();
        let changed = before.filter(|old| old.parts.len() == PARTS.len()).map(|old| {
            let names = PARTS.iter().zip(&old.parts).zip(&parts);
            let changed: Vec<&str> =
                names.filter(|((_, old), new)| old != new).map(|((name, _), _)| *name).collect();
            changed.join(", ")
        });
        let fate = if hit { Fate::Hit } else { Fate::Linked(changed) };
        (Record { fate, parts: parts.to_vec(), keys }, surplus)
    }

    /// The record as text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        let _ = match &self.fate {
            Fate::Hit => writeln!(text, "hit"),
            Fate::Linked(None) => writeln!(text, "new"),
            Fate::Linked(Some(changed)) => writeln!(text, "linked {changed}"),
            Fate::NotKeyed(reason) => writeln!(text, "none {reason}"),
        };
        for (name, digests) in [("part", &self.parts), ("key", &self.keys)] {
            for digest in digests {
                let _ = writeln!(text, "{name} {digest}");
            }
        }
        text
    }

    /// What became of the link, in a line.
    pub fn tell(&self) -> String {
        match &self.fate {
            Fate::Hit => "its output came out of the cache, nothing was run".to_owned(),
            Fate::Linked(None) => "linked; no earlier link of it was known".to_owned(),
            Fate::Linked(Some(parts)) if parts.is_empty() => {
                "linked; nothing changed, but there was no entry for it".to_owned()
            }
            Fate::Linked(Some(parts)) => format!("linked; changed: {parts}"),
            Fate::NotKeyed(reason) => format!("linked, and its output is never cached: {reason}"),
        }
    }
}

fn from_text(text: &str) -> Option<Record> {
    let mut lines = text.lines();
    if lines.next()? != HEADER {
        return None;
    }
    let (word, rest) = lines.next().map(|line| line.split_once(' ').unwrap_or((line, "")))?;
    let fate = match word {
        "hit" => Fate::Hit,
        "new" => Fate::Linked(None),
        "linked" => Fate::Linked(Some(rest.to_owned())),
        "none" => Fate::NotKeyed(rest.to_owned()),
        _ => return None,
    };
    let mut record = Record { fate, parts: Vec::new(), keys: Vec::new() };
    for line in lines {
        match line.split_once(' ')? {
            ("part", digest) => record.parts.push(Digest::from_hex(digest)?),
            ("key", digest) => record.keys.push(Digest::from_hex(digest)?),
            _ => return None,
        }
    }
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_and_few_are_kept() {
        let parts = [0; PARTS.len()].map(|_| Digest::of(b"one"));
        let key = |at: usize| Digest::of(&[at as u8]);
        let (mut record, surplus) = Record::keyed(None, false, parts, key(0));
        assert_eq!((record.fate.clone(), surplus), (Fate::Linked(None), vec![]));
        for at in 1..KEPT {
            let (next, surplus) = Record::keyed(Some(&record), false, parts, key(at));
            assert!(surplus.is_empty());
            record = next;
        }
        assert_eq!(Record::keyed(Some(&record), true, parts, key(0)).1, []);
        let mut other = parts;
        other[5] = Digest::of(b"two");
        let (next, surplus) = Record::keyed(Some(&record), false, other, key(KEPT));
        assert_eq!(next.fate, Fate::Linked(Some("inputs".into())));
        assert_eq!(surplus, [key(0)]);
        let not = Record::not_keyed(Some(&next), "no luck");
        for record in [next, not, Record::keyed(None, true, parts, key(1)).0] {
            assert_eq!(from_text(&record.to_text()), Some(record));
        }
        assert_eq!(from_text("rubbish"), None);
    }
}
