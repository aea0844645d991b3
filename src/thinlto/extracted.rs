//! Native members of archives that a module has asked for.
//!
//! lld takes a member out of its archive for a reference in bitcode, before that is compiled: its
//! constructors and all else that is in it are linked, whatever becomes of the reference. Where a
//! back end inlines or removes it, nothing in the native link would ask for the member any more. So
//! these are asked for by name.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::inputs::{Inputs, Piece};
use crate::object::archive::{self, Place};
use crate::object::elf;
use crate::tool::base_name;

/// What the native link has to ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Lazy native inputs that were taken, by their paths.
    pub files: HashSet<OsString>,
    /// A symbol of each member of an archive that was taken.
    pub symbols: Vec<OsString>,
}

/// A member that was taken, and the symbol that was asked for: as people read it.
type Taken = (Vec<u8>, Vec<u8>);

impl Extracted {
    /// Reads what the thin link has told of (`--why-extract`): a heading, and then in each line who
    /// asked, what was taken, and for which symbol.
    pub fn read(text: &[u8], inputs: &Inputs<'_>) -> Extracted {
        let modules: HashSet<&[u8]> =
            inputs.modules.iter().map(|module| module.path.as_bytes()).collect();
        let natives: HashSet<&OsStr> = inputs.pieces.iter().filter_map(lazy_native).collect();
        let in_a_namesake = |name: &[u8]| {
            let mut directories = inputs.namesakes.iter().map(|namesake| &namesake.directory);
            directories.any(|directory| name.starts_with(directory.as_os_str().as_bytes()))
        };
        let mut found = Extracted::default();
        let mut members: BTreeMap<PathBuf, Vec<Taken>> = BTreeMap::new();
        for line in text.split(|&byte| byte == b'\n').skip(1) {
            let columns: Vec<&[u8]> = line.split(|&byte| byte == b'\t').collect();
            let [asked, taken, symbol] = columns[..] else { continue };
            // What native code asks for, it asks for again.
            if !modules.contains(asked) && !in_a_namesake(asked) || modules.contains(taken) {
                continue;
            }
            if natives.contains(OsStr::from_bytes(taken)) {
                found.files.insert(OsStr::from_bytes(taken).to_owned());
            } else if let Some((archive, member)) = split_member(taken) {
                let archive = PathBuf::from(OsStr::from_bytes(archive));
                members.entry(archive).or_default().push((member.to_vec(), symbol.to_vec()));
            }
        }
        for (archive, taken) in members {
            found.symbols.extend(symbols_of(&archive, &taken));
        }
        found
    }
}

fn lazy_native<'a>(piece: &'a Piece<'_>) -> Option<&'a OsStr> {
    match piece {
        Piece::Native { path, lazy: true } => Some(path),
        _ => None,
    }
}

/// `directory/lib.a(member.o)`
fn split_member(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = name.strip_suffix(b")")?;
    let at = inner.iter().rposition(|&byte| byte == b'(')?;
    Some((&inner[..at], &inner[at + 1..]))
}

/// A symbol for each of the members of an archive that were taken.
fn symbols_of(archive: &Path, taken: &[Taken]) -> Vec<OsString> {
    let told = archive.display();
    let Ok(data) = fs::read(archive) else {
        log::warn!("{told}: it cannot be read again");
        return Vec::new();
    };
    let Ok(members) = archive::members(archive, &data) else { return Vec::new() };
    let mut symbols = Vec::new();
    for (name, wanted) in taken {
        let named: Vec<Vec<u8>> = members
            .iter()
            .filter(|member| base_name(member.name.as_os_str()).as_bytes() == name)
            .filter_map(|member| match &member.place {
                Place::Inside(range) => Some(data[range.clone()].to_vec()),
                Place::File(path) => fs::read(path).ok(),
            })
            .collect();
        match symbol_of(&named, wanted) {
            Some(symbol) => symbols.push(symbol),
            None => log::warn!("{told}({}): which one was linked is not told", name.escape_ascii()),
        }
    }
    symbols
}

/// A symbol that one of these members is extracted for: the one that was wanted, or, where that is
/// told as people read it (`f(int)`), any of the only member.
fn symbol_of(members: &[Vec<u8>], wanted: &[u8]) -> Option<OsString> {
    let globals: Vec<Vec<elf::Global<'_>>> =
        members.iter().filter_map(|member| elf::globals(member).ok()).collect();
    let symbol = if globals.iter().flatten().any(|global| global.name == wanted) {
        wanted
    } else {
        let [only] = globals.as_slice() else { return None };
        only.iter().find(|global| !global.weak).or(only.first())?.name
    };
    Some(OsStr::from_bytes(symbol).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_from_files() {
        assert_eq!(split_member(b"l/a(b).a(c.o)"), Some((&b"l/a(b).a"[..], &b"c.o"[..])));
        assert_eq!(split_member(b"c.o"), None);
    }

    #[test]
    fn only_what_bitcode_asked_for_counts() {
        let native = |path: &str| Piece::Native { path: path.into(), lazy: true };
        let inputs = Inputs {
            pieces: vec![native("n.o"), native("other.o")],
            modules: vec![super::super::module::Module {
                path: "m.o".into(),
                size: 0,
                record: None,
                triple: None,
                thin: true,
                regular: false,
            }],
            ..Inputs::default()
        };
        let text = b"reference\textracted\tsymbol\nm.o\tn.o\tf\nn.o\tother.o\tg\nm.o\tm.o\th\n\
            broken\n<internal>\tother.o\tmain\n";
        let found = Extracted::read(text, &inputs);
        assert_eq!(found.files, HashSet::from([OsString::from("n.o")]));
        assert!(found.symbols.is_empty());
        assert_eq!(Extracted::read(b"", &inputs), Extracted::default());
    }
}
