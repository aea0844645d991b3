//! Names for people: what stands in the work directory is called what the user knows it by.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::inputs::Extract;

/// Puts the modules' own names where lld speaks of their native objects.
pub fn of_modules(text: &[u8], names: &[(PathBuf, &OsStr)]) -> Vec<u8> {
    let Some(directory) = names.first().and_then(|(native, _)| native.parent()) else {
        return text.to_vec();
    };
    replace_below(text, directory, |after| {
        let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number: usize = std::str::from_utf8(&after[..digits]).ok()?.parse().ok()?;
        let (_, module) = names.get(number.checked_sub(1)?)?;
        after[digits..].starts_with(b".o").then(|| (module.as_bytes().to_vec(), digits + 2))
    })
}

/// Puts an archive and its member's name, or the archive's alone, where a tool speaks of a member
/// that was copied out.
pub fn of_archives(text: &[u8], extracts: &[Extract], archive_alone: bool) -> Vec<u8> {
    let members = extracts.first().and_then(|extract| extract.to.parent()?.parent());
    let Some(members) = members else { return text.to_vec() };
    let by_path: HashMap<&[u8], &Extract> = extracts
        .iter()
        .filter_map(|extract| {
            Some((extract.to.strip_prefix(members).ok()?.as_os_str().as_bytes(), extract))
        })
        .collect();
    let lengths: BTreeSet<usize> = by_path.keys().map(|path| path.len()).collect();
    replace_below(text, members, |after| {
        // The longest: a name may begin another.
        let mut lengths = lengths.iter().rev();
        let (len, extract) =
            lengths.find_map(|&len| Some((len, by_path.get(after.get(..len)?)?)))?;
        let mut name = extract.archive.as_os_str().as_bytes().to_vec();
        if !archive_alone {
            let member = extract.to.file_name().unwrap_or_default().as_bytes();
            name.extend([b"(", member, b")"].concat());
        }
        Some((name, len))
    })
}

/// Replaces paths below `directory`: `name` gets what follows the directory and its slash, and
/// says what to put instead of how many bytes of it.
fn replace_below(
    text: &[u8],
    directory: &Path,
    name: impl Fn(&[u8]) -> Option<(Vec<u8>, usize)>,
) -> Vec<u8> {
    let mut prefix = directory.as_os_str().as_bytes().to_vec();
    prefix.push(b'/');
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(prefix.len()).position(|window| window == prefix) {
        out.extend_from_slice(&rest[..at]);
        let after = &rest[at + prefix.len()..];
        let (name, len) = name(after).unwrap_or_else(|| (prefix.clone(), 0));
        out.extend_from_slice(&name);
        rest = &after[len..];
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thinlto::native_link::object_name;

    #[test]
    fn messages_speak_of_modules() {
        let directory = PathBuf::from(".out.thinshim/native");
        let names = [
            (object_name(&directory, 1), OsStr::new("a.o")),
            (object_name(&directory, 2), OsStr::new("lib/b.o")),
        ];
        let said = b">>> .out.thinshim/native/0002.o:(f)\n.out.thinshim/native/9.o x";
        let told = of_modules(said, &names);
        assert_eq!(told, b">>> lib/b.o:(f)\n.out.thinshim/native/9.o x");
    }

    #[test]
    fn messages_speak_of_archives() {
        let extract = |archive: &str, to: &str| Extract {
            archive: archive.into(),
            range: 0..1,
            to: PathBuf::from(".out.thinshim/members").join(to),
        };
        let extracts = [extract("lib/a.a", "0.0/x.o"), extract("b.a", "1.0/x.o")];
        let said = b">>> .out.thinshim/members/1.0/x.o:(f)\n.out.thinshim/members/2.0/y.o x";
        let told = of_archives(said, &extracts, false);
        assert_eq!(told, b">>> b.a(x.o):(f)\n.out.thinshim/members/2.0/y.o x");
        let told = of_archives(b" .out.thinshim/members/0.0/x.o:", &extracts, true);
        assert_eq!(told, b" lib/a.a:");
    }
}
