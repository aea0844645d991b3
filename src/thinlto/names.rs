//! Names for people: what stands in the work directory is called what the user knows it by.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::inputs::Inputs;

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
/// that was copied out, and the archive's name where it speaks of a namesake.
pub fn of_archives(text: &[u8], inputs: &Inputs<'_>, archive_alone: bool) -> Vec<u8> {
    let first = inputs.extracts.first().filter(|_| !text.is_empty());
    let members = first.and_then(|extract| extract.to.parent()?.parent());
    let Some(members) = members else { return text.to_vec() };
    let below = |path: &Path| {
        path.strip_prefix(members).ok().map(|path| path.as_os_str().as_bytes().to_vec())
    };
    let copies = inputs.extracts.iter().filter_map(|extract| {
        let mut name = extract.archive.as_os_str().as_bytes().to_vec();
        if !archive_alone {
            name.extend([b"(", extract.member.as_bytes(), b")"].concat());
        }
        Some((below(&extract.to)?, name))
    });
    let namesakes = inputs.namesakes.iter().flat_map(|namesake| {
        let original = namesake.original.as_os_str().as_bytes();
        namesake.paths().filter_map(move |path| Some((below(&path)?, original.to_vec())))
    });
    let by_path: HashMap<Vec<u8>, Vec<u8>> = copies.chain(namesakes).collect();
    let lengths: BTreeSet<usize> = by_path.keys().map(Vec::len).collect();
    replace_below(text, members, |after| {
        // The longest: a name may begin another.
        let mut lengths = lengths.iter().rev();
        lengths.find_map(|&len| Some((by_path.get(after.get(..len)?)?.clone(), len)))
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
    use crate::thinlto::inputs::Extract;
    use crate::thinlto::namesake::{Namesake, Source};
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
            member: "x.o".into(),
            bytes: Source { file: archive.into(), range: Some(0..1) },
            to: PathBuf::from(".out.thinshim/members").join(to),
        };
        let inputs = Inputs {
            extracts: vec![
                extract("lib/a.a", "0.0/x.o"),
                extract("b.a", "1.0/x.o"),
                extract("l/c.a", "2/c.a(x.o at 8)"),
            ],
            namesakes: vec![Namesake {
                original: "l/c.a".into(),
                directory: ".out.thinshim/members/2".into(),
                whole: false,
                members: Vec::new(),
            }],
            ..Inputs::default()
        };
        for (said, told) in [
            ("1.0/x.o:(f) 2.0/y.o x", "b.a(x.o):(f) 2.0/y.o x"),
            ("2/c.a(x.o at 8): odd", "l/c.a(x.o): odd"),
            ("2/0/c.a(x.o):(f)", "l/c.a(x.o):(f)"),
            ("2/c.a: no", "l/c.a: no"),
        ] {
            let said = format!(">>> .out.thinshim/members/{said}");
            let told = format!(">>> {told}");
            let heard = of_archives(said.as_bytes(), &inputs, false);
            assert_eq!(String::from_utf8_lossy(&heard), told);
        }
        let told = of_archives(b" .out.thinshim/members/0.0/x.o:", &inputs, true);
        assert_eq!(told, b" lib/a.a:");
    }
}
