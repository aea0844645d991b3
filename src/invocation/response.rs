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
            let special = matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'\\' | b'"' | b'\'');
            // A file may not begin like a byte order mark.
            if special || text.is_empty() && !byte.is_ascii() {
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

impl Error {
    /// Whether the real tool can still do something with the command line: read the file that we
    /// cannot, or refuse it in its own words. Nothing was taken from a pipe.
    ///
    /// A quote left open is for us to refuse: LLVM's tools would go on with half a command line.
    pub fn left_to_tool(&self) -> bool {
        !matches!(self, Self::UnterminatedQuote(_))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::path::Path;

    fn words(text: &str) -> Vec<String> {
        tokenize(text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    /// A response file in a directory of the test's own.
    fn file(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> OsString {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        let mut word = OsString::from("@");
        word.push(path);
        word
    }

    #[test]
    fn words_are_split_as_llvm_splits_them() {
        assert_eq!(words(" a\tb\r\nc\n"), ["a", "b", "c"]);
        assert_eq!(words(r#"a" b"c 'd "e'"#), ["a bc", "d \"e"]);
        // Not as a shell: the backslash speaks inside single quotes, too.
        assert_eq!(words(r"'z\'z' \n \\ 'a\b'"), ["z'z", "n", "\\", "ab"]);
        assert_eq!(words(r#""\"" "\x""#), ["\"", "x"]);
        // Quotes that hold nothing make no word.
        assert_eq!(words(r#"a "" '' b"#), ["a", "b"]);
        assert_eq!(words("a\x0bb \\"), ["a\x0bb", "\\"]);
        assert_eq!(words("a\\\nb"), ["a\nb"]);
    }

    #[test]
    fn a_first_word_like_a_byte_order_mark_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        for mark in [&b"\xff\xfea"[..], b"\xfe\xffa", b"\xef\xbb\xbfa"] {
            let word = OsStr::from_bytes(mark);
            let line = [file(dir.path(), "marked", quote([word, "b".as_ref()]))];
            assert_eq!(expand(&line).unwrap(), [word, "b".as_ref()]);
        }
    }

    #[test]
    fn a_quote_left_open_is_seen() {
        for text in ["\"", "'a", "a 'b\\'", "\"a\\", "\"a\\\""] {
            assert_eq!(tokenize(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn files_are_expanded_in_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let inner = file(dir.path(), "inner", "\u{feff}b 'c d'");
        let outer = file(dir.path(), "outer", quote([inner.as_os_str(), "e".as_ref()]));
        let absent = OsString::from("@/nowhere/at/all");
        let line = ["a".into(), outer, absent.clone(), inner];
        assert!(mentioned_in(&line));
        assert!(!mentioned_in(&["a@b".into(), "".into()]));
        let expected = ["a", "b", "c d", "e", "@/nowhere/at/all", "b", "c d"];
        assert_eq!(expand(&line).unwrap(), expected);
    }

    #[test]
    fn a_file_within_itself_is_an_error_under_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let word = file(dir.path(), "a", "");
        let other = dir.path().join("b");
        std::os::unix::fs::symlink(dir.path().join("a"), &other).unwrap();
        fs::write(dir.path().join("a"), format!("x @{}", other.display())).unwrap();
        let error = expand(&[word]).unwrap_err();
        assert!(matches!(&error, Error::Recursive(path) if *path == other));
        assert!(error.to_string().contains(other.to_str().unwrap()));
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let quote = file(dir.path(), "quote", "a 'b");
        assert!(!expand(&[quote]).unwrap_err().left_to_tool());
        let utf16 = file(dir.path(), "utf16", b"\xff\xfea\0");
        assert!(matches!(expand(&[utf16]).unwrap_err(), Error::Utf16(_)));
        let mut directory = OsString::from("@");
        directory.push(dir.path());
        let error = expand(&[directory]).unwrap_err();
        assert!(matches!(error, Error::NotAFile(_)) && error.left_to_tool());
        assert!(error.to_string().contains(dir.path().to_str().unwrap()));
    }

    #[test]
    fn files_that_double_at_each_step_come_to_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut word = file(dir.path(), "0", "x".repeat(4096));
        for step in 1..24 {
            let twice = quote([word.as_os_str(), &word]);
            word = file(dir.path(), &step.to_string(), twice);
        }
        assert!(matches!(expand(&[word]).unwrap_err(), Error::TooLarge(_)));
        let mut word = file(dir.path(), "0", "x");
        for step in 1..40 {
            word = file(dir.path(), &step.to_string(), quote([word.as_os_str()]));
        }
        assert!(matches!(expand(&[word]).unwrap_err(), Error::TooLarge(_)));
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(
            words in proptest::collection::vec(proptest::collection::vec(1_u8..=255, 1..12), 0..12),
        ) {
            let words: Vec<_> = words.into_iter().map(OsString::from_vec).collect();
            let text = quote(words.iter().map(OsString::as_os_str));
            prop_assert_eq!(tokenize(&text), Some(words));
        }

        #[test]
        fn no_text_makes_the_tokenizer_panic(
            text in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(b'\''), Just(b' ')], 0..64),
        ) {
            let total: usize = tokenize(&text).unwrap_or_default().iter().map(|word| word.len()).sum();
            prop_assert!(total <= text.len());
        }
    }
}
