//! Linker scripts as inputs: which files they bring in, and by which names of files they choose
//! sections.

use std::collections::BTreeSet;
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
    let mut at = 0;
    while let Some(found) = INPUTS.as_ref()?.find_at(&text, at) {
        let list = parenthesised(&text[found.end()..]);
        names.extend(split(list));
        at = found.end() + list.len();
    }
    Some(names)
}

static CHOICE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?-u)("[^"]*"|[^\s(){};,"]+)\s*\("#).ok());

/// A pattern by which a script's input section description chooses among files
/// (`InputSectionDescription` in `lld/ELF/LinkerScript.h`); or what only looks like one, such as the
/// operand of a multiplication: no file has such a name.
#[derive(Debug)]
pub struct FilePattern {
    text: Vec<u8>,
    /// `None`: what it matches is not known.
    regex: Option<Regex>,
}

impl FilePattern {
    fn new(text: &[u8]) -> Self {
        Self { text: text.to_vec(), regex: Regex::new(&glob(text)).ok() }
    }

    /// As it is written.
    pub fn text(&self) -> &OsStr {
        OsStr::from_bytes(&self.text)
    }

    /// Whether a file by this name would be chosen: a path, or `archive:member`, `archive:` for all
    /// of an archive.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.regex.as_ref().is_none_or(|regex| regex.is_match(name))
    }
}

/// The patterns by which a script's input section descriptions choose files, those of
/// `EXCLUDE_FILE` too; `*`, which chooses all, is not among them.
pub fn file_patterns(script: &[u8]) -> Vec<FilePattern> {
    let (Some(comment), Some(choice)) = (COMMENT.as_ref(), CHOICE.as_ref()) else {
        return vec![FilePattern { text: script.to_vec(), regex: None }];
    };
    let text = comment.replace_all(script, &b" "[..]);
    // A kernel's script says `*` a thousand times.
    let mut names = BTreeSet::new();
    let mut at = 0;
    while let Some(found) = choice.captures_at(&text, at) {
        let (Some(whole), Some(word)) = (found.get(0), found.get(1)) else { break };
        at = whole.end();
        let word = word.as_bytes();
        if word == b"EXCLUDE_FILE" {
            let excluded = parenthesised(&text[at..]);
            names.extend(split(excluded));
            at += excluded.len();
        } else {
            let bare = word.strip_prefix(b"\"").and_then(|word| word.strip_suffix(b"\""));
            names.insert(OsStr::from_bytes(bare.unwrap_or(word)).to_owned());
        }
    }
    names.remove(OsStr::new("*"));
    names.iter().map(|name| FilePattern::new(name.as_bytes())).collect()
}

/// The regular expression of a glob (`GlobPattern` in LLVM's `Support`, which lld uses).
fn glob(text: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut regex = String::from("(?s-u)^");
    let mut in_class = false;
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => {
                _ = write!(regex, "\\x{byte:02x}");
                escaped = false;
            }
            b'\\' => escaped = true,
            b'*' if !in_class => regex.push_str(".*"),
            b'?' if !in_class => regex.push('.'),
            b'[' if !in_class => {
                regex.push('[');
                in_class = true;
            }
            b'!' | b'^' if in_class && text[at - 1] == b'[' => regex.push('^'),
            b'-' if in_class => regex.push('-'),
            b']' if in_class => {
                regex.push(']');
                in_class = false;
            }
            byte => _ = write!(regex, "\\x{byte:02x}"),
        }
    }
    regex.push('$');
    regex
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
    fn the_files_that_a_script_chooses_by_are_found() {
        let script = b"SECTIONS { .first : { KEEP (*two.a:native.o(.text*)) \"odd name.o\"(.a) }\n\
            .rest (NOLOAD) : AT(ADDR(.first) + 2*(4)) { *(EXCLUDE_FILE(*crtend.o x[!a-c]?.o) .text*) \
            /* *no.o(.text) */ *(SORT(.init*)) } }";
        let patterns = file_patterns(script);
        let matching = |name: &str| {
            let found = patterns.iter().filter(|pattern| pattern.matches(name.as_bytes()));
            found.map(|pattern| pattern.text().to_string_lossy()).collect::<Vec<_>>()
        };
        assert_eq!(matching("lib/two.a:native.o"), ["*two.a:native.o"]);
        assert_eq!(matching("odd name.o"), ["odd name.o"]);
        assert_eq!(matching("/usr/lib/crtend.o"), ["*crtend.o"]);
        assert_eq!(matching("xd1.o"), ["x[!a-c]?.o"]);
        for name in ["xa1.o", "native.o", "no.o", "main.o", "two.a:other.o"] {
            assert!(matching(name).is_empty(), "{name}: {:?}", matching(name));
        }
    }

    #[test]
    fn what_is_no_glob_may_match_anything() {
        assert!(FilePattern::new(b"x[z-a].o").matches(b"main.o"));
        assert!(file_patterns(b"SECTIONS { .text : { *(.text) } }").is_empty());
    }

    #[test]
    fn an_include_is_not_followed() {
        assert_eq!(inputs(b"INCLUDE other.lds"), None);
        assert_eq!(inputs(b"SECTIONS { .text : { *(.text) } }"), Some(vec![]));
    }
}
