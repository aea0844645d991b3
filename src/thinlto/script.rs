//! Linker scripts as inputs: which files they bring in, and which sections they name.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;

use regex::bytes::Regex;

static COMMENT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?s-u)/\*.*?\*/").ok());
static INPUTS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?-u)\b(?:INPUT|GROUP)\s*\(").ok());
static INCLUDE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?m-u)\bINCLUDE\s+\S").ok());

/// The names in a script's `INPUT` and `GROUP` commands: files, and `-l` names. `None` where the
/// script includes another, which is not followed here.
pub fn inputs(script: &[u8]) -> Option<Vec<OsString>> {
    let text = COMMENT.as_ref()?.replace_all(script, &b" "[..]);
    if INCLUDE.as_ref()?.is_match(&text) {
        return None;
    }
    let mut names = Vec::new();
    for found in INPUTS.as_ref()?.find_iter(&text) {
        names.extend(split(parenthesised(&text[found.end()..])));
    }
    Some(names)
}

/// What stands before the parenthesis that closes one already open.
fn parenthesised(text: &[u8]) -> &[u8] {
    let mut depth = 1;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' if depth == 1 => return &text[..at],
            b')' => depth -= 1,
            _ => {}
        }
    }
    text
}

/// The names in a list; nested `AS_NEEDED ( … )` counts as its contents.
fn split(words: &[u8]) -> impl Iterator<Item = OsString> {
    words
        .split(|byte| byte.is_ascii_whitespace() || b",()".contains(byte))
        .map(|word| word.strip_prefix(b"\"").and_then(|w| w.strip_suffix(b"\"")).unwrap_or(word))
        .filter(|word| !word.is_empty() && *word != b"AS_NEEDED")
        .map(|word| OsStr::from_bytes(word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_read() {
        let script = b"/* GNU ld script INPUT(no) */\nOUTPUT_FORMAT(elf64-x86-64)\n\
            GROUP ( /lib/x86_64-linux-gnu/libc.so.6 /usr/lib/libc_nonshared.a \
            AS_NEEDED ( /lib64/ld-linux-x86-64.so.2 ) -lm )";
        let names = inputs(script).unwrap();
        for name in ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2", "-lm"] {
            assert!(names.contains(&OsString::from(name)), "{names:?}");
        }
        assert!(!names.contains(&OsString::from("no")));
    }

    #[test]
    fn an_include_is_not_followed() {
        assert_eq!(inputs(b"INCLUDE other.lds"), None);
        assert_eq!(inputs(b"SECTIONS { .text : { *(.text) } }"), Some(vec![]));
    }
}
