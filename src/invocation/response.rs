//! Response files: `@file` on a command line, as LLVM's tools expand it.
//!
//! Source: `ExpansionContext::expandResponseFiles` and `TokenizeGNUCommandLine` in LLVM's
//! `CommandLine.cpp`; checked against lld 14, 16, 19 and 22. The grammar is not a shell's: a
//! backslash quotes the next byte inside single quotes, too; an empty word is dropped even where
//! it was quoted; a file named in a file is relative to the working directory; `@file` stays a
//! word like any other where there is no such file.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The bytes of all files together, each counted as often as it is named: files that name others
/// twice double at each step.
const BYTES_MAX: usize = 64 << 20;
/// Files that are open within each other.
const DEPTH_MAX: usize = 32;

/// Why a command line could not be expanded. Each names the file.
#[derive(Debug)]
pub enum Error {
    /// A quote is open at the end. LLVM closes it without a word.
    UnterminatedQuote(PathBuf),
    /// The file names itself, by way of others or not. LLVM stops expanding there.
    Recursive(PathBuf),
    /// More than [`expand`] is ready to take.
    TooLarge(PathBuf),
    /// UTF-16, which LLVM converts.
    Utf16(PathBuf),
    /// A pipe or the like: who reads it takes it from the tool behind us.
    NotAFile(PathBuf),
    /// The file is there and cannot be read.
    Read(PathBuf, io::Error),
}

/// Whether anything on the command line looks like a response file.
pub fn mentioned_in(words: &[OsString]) -> bool {
    words.iter().any(|word| word.as_bytes().first() == Some(&b'@'))
}

/// Replaces each `@file` by the words in the file.
///
/// # Errors
/// Where LLVM's tools would go on with half of the words, and where the files are not worth the
/// memory.
pub fn expand(words: &[OsString]) -> Result<Vec<OsString>, Error> {
    let mut expansion =
        Expansion { words: Vec::with_capacity(words.len()), open: vec![], left: BYTES_MAX };
    for word in words {
        expansion.word(word.clone())?;
    }
    Ok(expansion.words)
}

/// Splits the text of a response file into words. `None` where a quote is open at the end.
pub fn tokenize(text: &[u8]) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    let mut word = Vec::new();
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => take(&mut word, &mut words),
            // A backslash at the very end stands for itself.
            b'\\' => word.push(bytes.next().unwrap_or(b'\\')),
            b'"' | b'\'' => loop {
                match bytes.next()? {
                    b'\\' => word.push(bytes.next()?),
                    end if end == byte => break,
                    other => word.push(other),
                }
            },
            _ => word.push(byte),
        }
    }
    take(&mut word, &mut words);
    Some(words)
}

/// Writes words as a response file, one a line, such that [`tokenize`] and LLVM read them back.
///
/// Two kinds of words do not come back: the empty one is dropped, and one that begins with `@`
/// and names a file that is there is expanded.
pub fn quote<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> Vec<u8> {
    let mut text = Vec::new();
    for word in words {
        for &byte in word.as_bytes() {
            if matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'\\' | b'"' | b'\'') {
                text.push(b'\\');
            }
            text.push(byte);
        }
        text.push(b'\n');
    }
    text
}

/// Ends a word. LLVM knows no empty ones.
fn take(word: &mut Vec<u8>, words: &mut Vec<OsString>) {
    if !word.is_empty() {
        words.push(OsString::from_vec(std::mem::take(word)));
    }
}

struct Expansion {
    words: Vec<OsString>,
    /// The files being expanded, by device and inode: one file has many names.
    open: Vec<(u64, u64)>,
    left: usize,
}

impl Expansion {
    fn word(&mut self, word: OsString) -> Result<(), Error> {
        let Some(name) = word.as_bytes().strip_prefix(b"@") else {
            self.words.push(word);
            return Ok(());
        };
        let path = PathBuf::from(OsStr::from_bytes(name));
        match self.file(&path)? {
            None => self.words.push(word),
            Some((identity, text)) => {
                let words = tokenize(&text).ok_or(Error::UnterminatedQuote(path))?;
                drop(text);
                self.open.push(identity);
                for word in words {
                    self.word(word)?;
                }
                self.open.pop();
            }
        }
        Ok(())
    }

    /// The identity and the text of a response file, `None` where there is no such file.
    #[expect(clippy::type_complexity, reason = "the one place that has it")]
    fn file(&mut self, path: &PathBuf) -> Result<Option<((u64, u64), Vec<u8>)>, Error> {
        let read = |error| Error::Read(path.clone(), error);
        // Looked at before it is opened: to open a FIFO is to wait for its writer.
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read(error)),
        };
        if !metadata.is_file() {
            return Err(Error::NotAFile(path.clone()));
        }
        let identity = (metadata.dev(), metadata.ino());
        if self.open.contains(&identity) {
            return Err(Error::Recursive(path.clone()));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(Error::TooLarge(path.clone()));
        }
        let mut text = Vec::new();
        let limit = self.left as u64 + 1;
        File::open(path).map_err(read)?.take(limit).read_to_end(&mut text).map_err(read)?;
        // Each file costs something, lest empty ones go on for ever.
        let cost = text.len().max(1);
        self.left = self.left.checked_sub(cost).ok_or_else(|| Error::TooLarge(path.clone()))?;
        if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
            return Err(Error::Utf16(path.clone()));
        }
        if text.starts_with(b"\xef\xbb\xbf") {
            text.drain(..3);
        }
        Ok(Some((identity, text)))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, why) = match self {
            Self::UnterminatedQuote(path) => (path, "a quote is not closed"),
            Self::Recursive(path) => (path, "it names itself"),
            Self::TooLarge(path) => (path, "too many words, or too many files within files"),
            Self::Utf16(path) => (path, "it is in UTF-16"),
            Self::NotAFile(path) => (path, "not a regular file"),
            Self::Read(path, error) => {
                return write!(f, "response file {}: {error}", path.display());
            }
        };
        write!(f, "response file {}: {why}", path.display())
    }
}

impl std::error::Error for Error {}
