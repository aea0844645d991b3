//! Digests: BLAKE3, of parts that cannot run into each other.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

/// A digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of one piece of data.
    pub fn of(data: &[u8]) -> Digest {
        Digest(blake3::hash(data).into())
    }

    /// The digest of a large file.
    ///
    /// # Errors
    /// The operating system's.
    pub fn of_file(path: &Path) -> io::Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Ok(Digest(hasher.finalize().into()))
    }

    /// The digest's bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A digest from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn from_hex(text: &str) -> Option<Digest> {
        blake3::Hash::from_hex(text).ok().map(|hash| Digest(hash.into()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// Puts a digest together from parts, each with its length: two lists of parts that differ never
/// give the same bytes.
#[derive(Debug, Default)]
pub struct Parts(blake3::Hasher);

impl Parts {
    /// Nothing yet.
    pub fn new() -> Parts {
        Parts::default()
    }

    /// Adds a part.
    #[must_use]
    pub fn with(mut self, part: &[u8]) -> Parts {
        self.add(part);
        self
    }

    /// Adds a part.
    pub fn add(&mut self, part: &[u8]) {
        self.begin(part.len() as u64);
        self.more(part);
    }

    /// Begins a part of so many bytes, which [`Parts::more`] brings.
    pub fn begin(&mut self, len: u64) {
        self.0.update(&len.to_le_bytes());
    }

    /// The next bytes of a part that was begun.
    pub fn more(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all parts.
    pub fn digest(&self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// A text with its digest as its last line: a memo of which a part is lost must not be believed.
pub fn sealed(text: &str) -> String {
    format!("{text}{}\n", Digest::of(text.as_bytes()))
}

/// The text of a memo that [`sealed`] made; `None` where it is not as it was.
pub fn unsealed(memo: &str) -> Option<&str> {
    let end = memo.strip_suffix('\n')?.rfind('\n')? + 1;
    let (text, digest) = memo.split_at(end);
    (Digest::from_hex(digest.trim_end())? == Digest::of(text.as_bytes())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let one = Parts::new().with(b"ab").with(b"c").digest();
        assert_ne!(one, Parts::new().with(b"a").with(b"bc").digest());
        assert_ne!(one, Parts::new().with(b"abc").digest());
        assert_eq!(Digest::from_hex(&one.to_string()), Some(one));
        assert_eq!(Digest::from_hex("00"), None);
    }
}
