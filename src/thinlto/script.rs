//! Linker scripts as inputs: which files they bring in, and by which names of files they choose
//! sections.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use regex::bytes::Regex;

/// A script's tokens (`lld/ELF/ScriptLexer.cpp`), less comments: a quoted string, quotes included; a
/// word; or any other character. In expressions newer releases of lld cut words smaller, and so may
/// have more comments: what stands in those is a token here.
fn tokens(script: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = script;
    std::iter::from_fn(move || {
        rest = behind_space(rest);
        let length = match rest {
            [] => return None,
            // Without its end lld takes none of it.
            [b'"', text @ ..] => text.iter().position(|&byte| byte == b'"')? + 2,
            _ => rest.iter().position(|&byte| !is_of_word(byte)).unwrap_or(rest.len()).max(1),
        };
        let (token, more) = rest.split_at(length);
        rest = more;
        Some(token)
    })
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.$/\\~=+[]*?-!^:".contains(&byte)
}

/// What follows blanks and comments: `/*` begins one where no word has begun, as in `lib/*(.text)`.
fn behind_space(mut text: &[u8]) -> &[u8] {
    loop {
        text = match text {
            [b'/', b'*', comment @ ..] => behind(comment, b"*/"),
            [b'#', comment @ ..] => behind(comment, b"\n"),
            [b' ' | b'\t'..=b'\r', rest @ ..] => rest,
            _ => return text,
        }
    }
}

/// What follows `end`; nothing where it is not there.
fn behind<'a>(text: &'a [u8], end: &[u8]) -> &'a [u8] {
    let at = text.windows(end.len()).position(|window| window == end);
    at.map_or(&[], |at| &text[at + end.len()..])
}

/// The names in a script's `INPUT` and `GROUP` commands: files, and `-l` names. `None` where the
/// script includes another, which is not followed here.
pub fn inputs(script: &[u8]) -> Option<Vec<OsString>> {
    let mut names = Vec::new();
    let mut tokens = tokens(script).peekable();
    while let Some(token) = tokens.next() {
        match token {
            b"INCLUDE" => return None,
            b"INPUT" | b"GROUP" => names.extend(list(&mut tokens)),
            _ => {}
        }
    }
    Some(names)
}

/// The names in a list that stands next, if one does; those of a nested one (`AS_NEEDED ( … )`) are
/// among them.
fn list<'a>(tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a [u8]>>) -> Vec<OsString> {
    let mut names = Vec::new();
    if tokens.next_if_eq(&&b"("[..]).is_none() {
        return names;
    }
    let mut depth = 1;
    for token in tokens {
        match token {
            b"(" => depth += 1,
            b")" => depth -= 1,
            b"," | b"AS_NEEDED" => {}
            name => names.push(OsStr::from_bytes(unquoted(name)).to_owned()),
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn unquoted(token: &[u8]) -> &[u8] {
    let bare = token.strip_prefix(b"\"").and_then(|token| token.strip_suffix(b"\""));
    bare.unwrap_or(token)
}

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
    // A kernel's script says `*` a thousand times.
    let mut names = BTreeSet::new();
    let mut tokens = tokens(script).peekable();
    while let Some(token) = tokens.next() {
        if token == b"EXCLUDE_FILE" {
            names.extend(list(&mut tokens));
        } else if tokens.peek() == Some(&&b"("[..]) && (token[0] == b'"' || is_of_word(token[0])) {
            names.insert(OsStr::from_bytes(unquoted(token)).to_owned());
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
    fn comments_are_lld_s() {
        let words = |script: &str| {
            let words =
                tokens(script.as_bytes()).map(|word| String::from_utf8_lossy(word).into_owned());
            words.collect::<Vec<_>>().join(" ")
        };
        for (script, expected) in [
            ("a /* b */ c", "a c"),
            ("a/* b */ c", "a/* b */ c"),
            ("*lib/*.o(.text) /* end */", "*lib/*.o ( .text )"),
            ("# lib/* is first\na /* b */", "a"),
            ("(/**/a/**/)", "( a/**/ )"),
            ("a # b", "a"),
            ("a /* b", "a"),
            ("\"a # /* b\"c", "\"a # /* b\" c"),
            ("a \"b", "a"),
            ("x=y;{.z:>w}", "x=y ; { .z: > w }"),
        ] {
            assert_eq!(words(script), expected, "{script}");
        }
    }

    #[test]
    fn an_include_is_not_followed() {
        for script in [
            "INCLUDE\"other.lds\"",
            "INCLUDE# x\nother.lds",
            "# see lib/*\nINCLUDE other.lds\n/* end */",
            "SECTIONS { .x : { lib/*(.x) } }\nINCLUDE other.lds\n/* end */",
        ] {
            assert_eq!(inputs(script.as_bytes()), None, "{script}");
        }
        assert_eq!(inputs(b"/* INCLUDE other.lds */ NOINCLUDE \"INCLUDE\""), Some(vec![]));
        assert_eq!(inputs(b"INCLUDE other.lds"), None);
        assert_eq!(inputs(b"SECTIONS { .text : { *(.text) } }"), Some(vec![]));
    }
}
