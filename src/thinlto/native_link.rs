//! The native link: native objects in the places of the bitcode.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use super::inputs::{Extract, Inputs, Piece};
use super::thin_link::Arguments;
use crate::invocation::lld::{Kind, Link};

/// Merges sections of which a kernel with call padding has one a function. They are tied to their
/// functions by `SHF_LINK_ORDER`, and lld compares each with all earlier ones of that name
/// (`getOutputSection` in `lld/ELF/LinkerScript.cpp`): minutes, where the merged section takes
/// none. The final link merges them in any case.
pub const MERGE_PATCHABLE: &str =
    "SECTIONS {\n  __patchable_function_entries : { *(__patchable_function_entries) }\n}\n";

/// From this many such sections on, merging pays: below, the pairs are few.
const PATCHABLE_MIN: usize = 1000;

/// The native link's arguments. `natives` has the native object of each module that the thin link
/// took, `regular` that of the regular-LTO partition.
pub fn args(
    inputs: &Inputs<'_>,
    natives: &[Option<PathBuf>],
    regular: Option<&Path>,
    merge_script: Option<&Path>,
    threads: Option<usize>,
) -> Vec<OsString> {
    let mut args = Arguments::default();
    for piece in &inputs.pieces {
        match piece {
            Piece::Word(element) if element.in_native_link() => args.element(element),
            Piece::Word(_) => {}
            // Extracted by the thin link or not at all: a lazy object would be lost where the
            // last reference to it has been optimised away.
            Piece::Module { index, .. } => {
                if let Some(native) = &natives[*index] {
                    args.input(native.as_os_str(), false);
                }
            }
            Piece::Native { path, lazy } => args.input(path, *lazy),
        }
    }
    if let Some(regular) = regular {
        args.input(regular.as_os_str(), false);
    }
    let mut args = args.finish();
    if let Some(script) = merge_script {
        args.extend([OsString::from("-T"), script.as_os_str().to_owned()]);
    }
    args.extend(threads.map(|threads| OsString::from(format!("--threads={threads}"))));
    args
}

/// Whether merging the patchable sections pays and is safe: an intermediate link that keeps every
/// section, whose scripts do not speak of those sections themselves.
pub fn wants_merge(link: &Link, sections: usize) -> bool {
    link.kind == Kind::Relocatable
        && sections >= PATCHABLE_MIN
        && !link.gc_sections
        && !link.emit_relocs
        && link.scripts_in_force().all(|script| {
            fs::read(script).is_ok_and(|text| {
                let name = crate::object::elf::PATCHABLE;
                !text.windows(name.len()).any(|window| window == name)
            })
        })
}

/// A native object's name in the work directory: numbered in the index's order, from one.
pub fn object_name(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("{number:04}.o"))
}

/// Puts the modules' own names where lld speaks of their native objects.
pub fn with_module_names(text: &[u8], names: &[(PathBuf, &OsStr)]) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let Some(directory) = names.first().and_then(|(native, _)| native.parent()) else {
        return text.to_vec();
    };
    let mut prefix = directory.as_os_str().as_bytes().to_vec();
    prefix.push(b'/');
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(prefix.len()).position(|window| window == prefix) {
        out.extend_from_slice(&rest[..at]);
        let after = &rest[at + prefix.len()..];
        let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(&after[..digits]).ok().and_then(|n| n.parse().ok());
        let name = number.and_then(|number: usize| names.get(number.checked_sub(1)?));
        match name {
            Some((_, module)) if after[digits..].starts_with(b".o") => {
                out.extend_from_slice(module.as_bytes());
                rest = &after[digits + 2..];
            }
            _ => {
                out.extend_from_slice(&prefix);
                rest = after;
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

/// Puts an archive and its member's name, or the archive's alone, where a tool speaks of a member
/// that was copied out.
pub fn with_archive_names(text: &[u8], extracts: &[Extract], archive_alone: bool) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let members = extracts.first().and_then(|extract| extract.to.parent()?.parent());
    let Some(members) = members else { return text.to_vec() };
    let below = |extract: &'_ Extract| {
        extract.to.strip_prefix(members).map(|path| path.as_os_str().as_bytes().to_vec())
    };
    let by_path: HashMap<Vec<u8>, &Extract> =
        extracts.iter().filter_map(|extract| Some((below(extract).ok()?, extract))).collect();
    let lengths: BTreeSet<usize> = by_path.keys().map(Vec::len).collect();
    let mut prefix = members.as_os_str().as_bytes().to_vec();
    prefix.push(b'/');
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(prefix.len()).position(|window| window == prefix) {
        out.extend_from_slice(&rest[..at]);
        let after = &rest[at + prefix.len()..];
        // The longest: a name may begin another.
        let found = lengths.iter().rev().find_map(|&len| by_path.get(after.get(..len)?));
        if let Some(extract) = found {
            out.extend_from_slice(extract.archive.as_os_str().as_bytes());
            let name = extract.to.file_name().unwrap_or_default().as_bytes();
            if !archive_alone {
                out.extend([b"(", name, b")"].concat());
            }
            rest = &after[below(extract).map_or(0, |path| path.len())..];
        } else {
            out.extend_from_slice(&prefix);
            rest = after;
        }
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_speak_of_modules() {
        let directory = PathBuf::from(".out.thinshim/native");
        let names = [
            (object_name(&directory, 1), OsStr::new("a.o")),
            (object_name(&directory, 2), OsStr::new("lib/b.o")),
        ];
        let said = b">>> .out.thinshim/native/0002.o:(f)\n.out.thinshim/native/9.o x";
        let told = with_module_names(said, &names);
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
        let told = with_archive_names(said, &extracts, false);
        assert_eq!(told, b">>> b.a(x.o):(f)\n.out.thinshim/members/2.0/y.o x");
        let told = with_archive_names(b" .out.thinshim/members/0.0/x.o:", &extracts, true);
        assert_eq!(told, b" lib/a.a:");
    }
}
