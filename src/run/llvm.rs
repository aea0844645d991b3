//! `make LLVM=/path/`: a kernel's Makefile then names clang and ld.lld by that path, and PATH is
//! not asked. Variables of make's own command line win over its assignments.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::makefile;
use crate::jobserver;
use crate::tool;

/// What to add to the command line of a make: nothing, unless it says `LLVM=/path/`, or the
/// environment does and the makefile is one that would heed it.
pub(super) fn variables(args: &[OsString]) -> Vec<OsString> {
    let own = tool::own_path().into_os_string();
    let given = jobserver::variables(&env::var_os("MAKEFLAGS").unwrap_or_default());
    let exported = exported(args);
    // A make's own words come after those from the make above it, and all of them win over the
    // environment.
    let words = exported.iter().chain(&given).chain(args);
    let words: Vec<&OsStr> = words.map(OsString::as_os_str).collect();
    added(&words, &own, |path| tool::find(path).is_some())
}

/// The environment's `LLVM=/path/`, for makefiles of the kernel's kind alone: below a script that
/// exports it, others have a CC of their own, which `added` would replace.
fn exported(args: &[OsString]) -> Option<OsString> {
    let path = env::var_os("LLVM").filter(|path| path.as_bytes().ends_with(b"/"))?;
    if !makefile::mentions(args, "LLVM_PREFIX") {
        return None;
    }
    let mut word = OsString::from("LLVM=");
    word.push(path);
    Some(word)
}

fn added(words: &[&OsStr], own: &OsStr, exists: impl Fn(&OsStr) -> bool) -> Vec<OsString> {
    let Some(prefix) = value(words, "LLVM").filter(|path| path.as_bytes().ends_with(b"/")) else {
        return Vec::new();
    };
    // Recipes split the value at blanks and give it to a shell.
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,@".contains(byte);
    if ![prefix, own].iter().all(|path| path.as_bytes().iter().all(plain)) {
        return Vec::new();
    }
    [("CC", "clang"), ("LD", "ld.lld")]
        .into_iter()
        .filter(|(variable, _)| value(words, variable).is_none())
        .filter_map(|(variable, name)| {
            let mut path = prefix.to_owned();
            path.push(name);
            exists(&path).then(|| {
                let mut word = OsString::from(variable);
                word.push("=");
                word.push(own);
                word.push(" ");
                word.push(path);
                word
            })
        })
        .collect()
}

/// The last value of a variable, `NAME=value` or `NAME:=value`.
fn value<'a>(words: &[&'a OsStr], name: &str) -> Option<&'a OsStr> {
    words.iter().rev().find_map(|word| {
        let rest = word.as_bytes().strip_prefix(name.as_bytes())?;
        let value = rest.strip_prefix(b"=").or_else(|| rest.strip_prefix(b":="))?;
        Some(OsStr::from_bytes(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_adds_anything() {
        let both = "CC=/b/thinshim /l/bin/clang|LD=/b/thinshim /l/bin/ld.lld";
        for (line, expected) in [
            ("-j4 LLVM=/l/bin/ all", both),
            ("LLVM=1 LLVM:=/l/bin/", both),
            ("LLVM=/l/bin/ CC=gcc", "LD=/b/thinshim /l/bin/ld.lld"),
            ("LLVM=/l/bin/ LLVM=1", ""),
            ("LLVM=/l/bin", ""),
            ("LLVM=-22", ""),
            ("LLVM=/o/bin/", ""),
            ("LLVM=/l/$bin/", ""),
            ("XLLVM=/l/bin/ all", ""),
        ] {
            let words: Vec<&OsStr> = line.split(' ').map(OsStr::new).collect();
            let exists = |path: &OsStr| path.as_bytes().starts_with(b"/l/");
            let added = added(&words, OsStr::new("/b/thinshim"), exists);
            assert_eq!(added.join(OsStr::new("|")), expected, "{line}");
        }
        let words = [OsStr::new("LLVM=/l/bin/")];
        assert!(added(&words, OsStr::new("/b c/thinshim"), |_| true).is_empty());
    }
}
