//! The bitcode wrapper header, and the options record that travels behind the bitcode.
//!
//! Every LLVM tool accepts the wrapper (`llvm/Bitcode/BitcodeReader.h`, `isBitcodeWrapper`) and
//! ignores what stands after `offset + size`, so the record survives `mv`, `cp` and archives.

/// First word of a wrapper, little-endian.
const MAGIC: u32 = 0x0B17_C0DE;
/// Five words: magic, version, offset, size, cputype.
const HEADER_LEN: usize = 20;

/// A bitcode file's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The bitstream itself.
    pub bitcode: &'a [u8],
    /// What stands behind it; empty for a file without a wrapper.
    pub tail: &'a [u8],
}

/// Takes a bitcode file apart, wrapped or not. `None` where it is not bitcode.
pub fn split(file: &[u8]) -> Option<Parts<'_>> {
    if file.starts_with(b"BC\xC0\xDE") {
        return Some(Parts { bitcode: file, tail: &[] });
    }
    let word = |index: usize| {
        let bytes = file.get(index * 4..index * 4 + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if word(0)? != MAGIC {
        return None;
    }
    let offset = word(2)? as usize;
    let end = offset.checked_add(word(3)? as usize)?;
    let bitcode = file.get(offset..end)?;
    bitcode.starts_with(b"BC\xC0\xDE").then_some(Parts { bitcode, tail: &file[end..] })
}

/// Where the bitcode of a wrapped file ends, told by its header alone; `None` without a wrapper.
pub fn end(header: &[u8]) -> Option<u64> {
    let word = |index: usize| {
        let bytes = header.get(index * 4..index * 4 + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    (word(0)? == MAGIC).then_some(u64::from(word(2)?) + u64::from(word(3)?))
}

/// The header for `bitcode_len` bytes of bitcode. `None` past 4 GiB, which it cannot express.
pub fn header(bitcode_len: usize) -> Option<[u8; HEADER_LEN]> {
    let words = [MAGIC, 0, HEADER_LEN as u32, u32::try_from(bitcode_len).ok()?, 0];
    let mut header = [0; HEADER_LEN];
    for (bytes, word) in header.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..40)
    }

    proptest! {
        #[test]
        fn what_was_wrapped_comes_apart(more in bytes(), tail in bytes()) {
            let bitcode = [b"BC\xC0\xDE", more.as_slice()].concat();
            let header = header(bitcode.len()).unwrap();
            let file = [&header, bitcode.as_slice(), &tail].concat();
            prop_assert_eq!(split(&file), Some(Parts { bitcode: &bitcode, tail: &tail }));
            prop_assert_eq!(end(&header), Some((file.len() - tail.len()) as u64));
        }

        #[test]
        fn no_header_reaches_past_the_file(words in any::<[u32; 4]>(), small in any::<bool>(), more in bytes()) {
            let mut file = MAGIC.to_le_bytes().to_vec();
            for word in words {
                file.extend((if small { word % 40 } else { word }).to_le_bytes());
            }
            file.extend(more);
            if let Some(parts) = split(&file) {
                prop_assert_eq!(end(&file), Some((file.len() - parts.tail.len()) as u64));
            }
        }
    }

    #[test]
    fn wrapped_bitcode_comes_apart() {
        let bitcode = b"BC\xC0\xDEmore";
        let mut file = header(bitcode.len()).unwrap().to_vec();
        file.extend_from_slice(bitcode);
        file.extend_from_slice(b"tail");
        assert_eq!(split(&file), Some(Parts { bitcode, tail: b"tail" }));
        assert_eq!(split(bitcode), Some(Parts { bitcode, tail: b"" }));
    }

    #[test]
    fn a_header_that_lies_is_not_bitcode() {
        let mut file = header(1 << 20).unwrap().to_vec();
        file.extend_from_slice(b"BC\xC0\xDE");
        assert_eq!(split(&file), None);
        assert_eq!(split(b"\x7fELF"), None);
        assert_eq!(split(b""), None);
    }
}
