//! The options record: what a compile knew, for the back end to know.
//!
//! Layout: `THINSHIM`, then entries of one tag byte, a little-endian u32 length, and that many
//! bytes. A reader skips a lower-case tag it does not know; an unknown upper-case tag makes the
//! record unreadable, for newer writers that must be understood. Zeros fill the file up to whole
//! words, which LLVM's bitcode reader insists on. The record names no program and no output: whoever reads it checks its options against the table again.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

const MAGIC: &[u8] = b"THINSHIM";
/// `initStream` in LLVM's `BitcodeReader.cpp` refuses files of another size.
const WORD: usize = 4;

mod tag {
    pub(super) const OPTION: u8 = b'O';
    pub(super) const SEARCH_PATH: u8 = b'S';
    pub(super) const DOUBT: u8 = b'D';
}

/// What an object says of the compile that made it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// The back-end options, in the order of the command line, exactly quoted.
    pub options: Vec<OsString>,
    /// Absolute directories in which assembly looks for `.incbin` and `.include` files; empty
    /// where the module's assembly opens none.
    pub search_paths: Vec<OsString>,
    /// An option of the compile that nobody here understands: links of this object step aside.
    pub doubt: Option<OsString>,
}

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It ends in the middle of an entry.
    Truncated,
    /// An entry that must be understood is not.
    Unknown(u8),
}

impl Record {
    /// The record's bytes, for a file that is a whole number of words without them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut put = |tag: u8, value: &OsStr| {
            bytes.push(tag);
            let len = u32::try_from(value.len()).unwrap_or(u32::MAX); // argv is far shorter
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&value.as_bytes()[..len as usize]);
        };
        self.options.iter().for_each(|option| put(tag::OPTION, option));
        self.search_paths.iter().for_each(|path| put(tag::SEARCH_PATH, path));
        self.doubt.iter().for_each(|option| put(tag::DOUBT, option));
        bytes.resize(bytes.len().next_multiple_of(WORD), 0);
        bytes
    }

    /// Reads the record out of what stands behind the bitcode; `None` where there is none.
    ///
    /// # Errors
    /// [`Unreadable`], for a record that begins and does not end, or is newer than this reader.
    pub fn from_tail(tail: &[u8]) -> Result<Option<Record>, Unreadable> {
        let Some(mut rest) = tail.strip_prefix(MAGIC) else { return Ok(None) };
        let mut record = Record::default();
        while rest.first().is_some_and(|&tag| tag != 0) {
            let (head, after) = rest.split_first_chunk::<5>().ok_or(Unreadable::Truncated)?;
            let [tag, len @ ..] = *head;
            let len = u32::from_le_bytes(len) as usize;
            let (value, after) = after.split_at_checked(len).ok_or(Unreadable::Truncated)?;
            let value = OsString::from_vec(value.to_vec());
            match tag {
                tag::OPTION => record.options.push(value),
                tag::SEARCH_PATH => record.search_paths.push(value),
                tag::DOUBT => record.doubt = Some(value),
                unknown if unknown.is_ascii_lowercase() => {}
                unknown => return Err(Unreadable::Unknown(unknown)),
            }
            rest = after;
        }
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words() -> impl Strategy<Value = Vec<OsString>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)
            .prop_map(|words| words.into_iter().map(OsString::from_vec).collect())
    }

    proptest! {
        #[test]
        fn reads_what_it_wrote(options in words(), search_paths in words(), doubt in words()) {
            let record = Record { options, search_paths, doubt: doubt.first().cloned() };
            prop_assert_eq!(Record::from_tail(&record.to_bytes()), Ok(Some(record)));
        }

        #[test]
        fn survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::from_tail(&bytes);
            let mut tail = MAGIC.to_vec();
            tail.extend(bytes);
            let _ = Record::from_tail(&tail);
        }
    }

    #[test]
    fn a_newer_entry_is_skipped_or_refused_by_its_case() {
        let mut tail = Record::default().to_bytes();
        tail.extend_from_slice(b"z\x03\0\0\0abc");
        assert_eq!(Record::from_tail(&tail), Ok(Some(Record::default())));
        tail.extend_from_slice(b"Z\x03\0\0\0abc");
        assert_eq!(Record::from_tail(&tail), Err(Unreadable::Unknown(b'Z')));
    }
}
