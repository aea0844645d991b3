//! The native link: native objects in the places of the bitcode.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::extracted::Extracted;
use super::inputs::{Inputs, Piece};
use super::thin_link::Arguments;
use crate::invocation::lld::{Act, Element, Link, Row};

/// Merges sections of which a kernel with call padding has one a function. They are tied to their
/// functions by `SHF_LINK_ORDER`, and lld compares each with all earlier ones of that name
/// (`getOutputSection` in `lld/ELF/LinkerScript.cpp`): a cost that grows with the
/// square of their number. The final link merges them in any case.
pub const MERGE_PATCHABLE: &str =
    "SECTIONS {\n  __patchable_function_entries : { *(__patchable_function_entries) }\n}\n";

/// From this many such sections on, merging pays: below, the pairs are few.
const PATCHABLE_MIN: usize = 1000;

/// The linker scripts of thinshim's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scripts<'a> {
    /// In the place of the link's one script: the same order of sections, found sooner.
    pub order: Option<&'a Path>,
    /// Behind the link's own: [`MERGE_PATCHABLE`].
    pub merge: Option<&'a Path>,
}

/// The native link's arguments. `natives` has the native object of each module that the thin link
/// took, `extracted` what it took out of archives, `regular` is the object of the regular-LTO
/// partition.
pub fn args(
    inputs: &Inputs<'_>,
    natives: &[Option<PathBuf>],
    extracted: &Extracted,
    regular: Option<&Path>,
    scripts: Scripts<'_>,
    threads: Option<usize>,
) -> Vec<OsString> {
    let mut args = Arguments::default();
    for piece in &inputs.pieces {
        match piece {
            Piece::Word(element) if element.in_native_link() => {
                let is_script =
                    matches!(element, Element::Option { row, .. } if row.act == Act::Script);
                match scripts.order.filter(|_| is_script) {
                    Some(order) => args.script(order),
                    None => args.element(element),
                }
            }
            Piece::Word(_) => {}
            // Extracted by the thin link or not at all: a lazy object would be lost where the
            // last reference to it has been optimised away.
            Piece::Module { index, .. } => {
                if let Some(native) = &natives[*index] {
                    args.input(native.as_os_str(), false);
                }
            }
            Piece::Native { path, lazy } => {
                args.input(path, *lazy && !extracted.files.contains(path));
            }
            Piece::Namesake(index) => {
                for made in inputs.namesakes[*index].for_native_link(natives) {
                    if made.whole {
                        args.whole(made.path.as_os_str());
                    } else {
                        args.input(made.path.as_os_str(), false);
                    }
                }
            }
        }
    }
    if let Some(regular) = regular {
        if has_option(inputs, |row| row.act == Act::Format) {
            args.default_format();
        }
        args.input(regular.as_os_str(), false);
    }
    if let Some(script) = scripts.merge {
        args.script(script);
    }
    let mut args = args.finish();
    if has_option(inputs, |row| row.name == "version-script") {
        // The thin link, like in-process ThinLTO, has looked for the names in scripts among the
        // modules' symbols. Not all of them outlive the back ends.
        args.push("--undefined-version".into());
    }
    let gc_sections = has_option(inputs, |row| row.name == "gc-sections");
    args.extend(extracted.symbols.iter().map(|symbol| asking_for(symbol, gc_sections)));
    args.extend(threads.map(|threads| OsString::from(format!("--threads={threads}"))));
    args
}

/// The option that extracts a symbol's member. `--undefined` makes it one that `--gc-sections` keeps;
/// for a glob, lld walks all symbols.
fn asking_for(symbol: &OsStr, gc_sections: bool) -> OsString {
    if !gc_sections {
        let mut option = OsString::from("--undefined=");
        option.push(symbol);
        return option;
    }
    let mut option = b"--undefined-glob=".to_vec();
    for &byte in symbol.as_bytes() {
        if b"*?[]\\".contains(&byte) {
            option.push(b'\\');
        }
        option.push(byte);
    }
    OsString::from_vec(option)
}

fn has_option(inputs: &Inputs<'_>, wanted: impl Fn(&Row) -> bool) -> bool {
    inputs.pieces.iter().any(|piece| match piece {
        Piece::Word(Element::Option { row, .. }) => wanted(row),
        _ => false,
    })
}

/// Whether merging the patchable sections pays and is safe: the link's scripts do not speak of those
/// sections themselves.
pub fn wants_merge(link: &Link, sections: usize) -> bool {
    link.takes_scripts()
        && sections >= PATCHABLE_MIN
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
