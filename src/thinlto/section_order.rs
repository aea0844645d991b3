//! Scripts that put input sections in order by naming each one, such as the kernel's
//! `.tmp_initcalls.lds` (`scripts/generate_initcall_order.pl`).
//!
//! For each description of a script lld goes through all input sections (`computeInputSections` in
//! `lld/ELF/LinkerScript.cpp`): with hundreds of names and a hundred thousand sections, that is most
//! of a native link. Native objects stand in the places of their modules, so the sections mostly
//! come in the script's order already, and one description of many names does the same at once.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use object::ReadCache;

use super::inputs::{Inputs, Piece};
use crate::invocation::lld::{Element, Kind as Output, Link};
use crate::object::archive::{self, Place};
use crate::object::elf::{self, Named};
use crate::object::kind::{self, Kind};

/// From this many names on, it pays to look for them in the objects.
const NAMES_MIN: usize = 32;

/// A script of nothing but output sections, each with the names of its input sections in order.
#[derive(Debug, PartialEq, Eq)]
pub struct SectionOrder {
    outputs: Vec<(String, Vec<String>)>,
}

/// A native input, as the linker comes to it.
struct Input<'a> {
    path: &'a Path,
    /// Linked only where something needs it, so at a place that is not known: an object, and
    /// members of an archive.
    lazy: bool,
    lazy_members: bool,
}

impl<'a> Input<'a> {
    fn object(path: &'a Path, lazy: bool) -> Self {
        Input { path, lazy, lazy_members: true }
    }
}

impl SectionOrder {
    /// The order that a link's only script asks for. `None` where there is no such script, or
    /// something else decides on the order, too.
    pub fn of(link: &Link) -> Option<SectionOrder> {
        let [script] = link.scripts.as_slice() else { return None };
        let decides = |element: Element<'_>| {
            matches!(element, Element::Option { row, .. }
                if ["sort-section", "enable-non-contiguous-regions"].contains(&row.name))
        };
        if link.kind != Output::Relocatable
            || link.gc_sections
            || link.emit_relocs
            || link.elements().any(decides)
        {
            return None;
        }
        parse(&fs::read(script).ok()?)
    }

    /// A script with the same effect on these inputs that has few descriptions. `None`: what there
    /// is in the inputs is not what makes that certain.
    pub fn condensed(
        &self,
        inputs: &Inputs<'_>,
        natives: &[Option<PathBuf>],
        regular: Option<&Path>,
    ) -> Option<String> {
        let names = self.outputs.iter().flat_map(|(_, names)| names);
        let mut places: HashMap<&[u8], Option<usize>> =
            names.map(|name| (name.as_bytes(), None)).collect();
        let longest = places.keys().map(|name| name.len()).max()?;
        let mut count = 0;
        let mut certain = true;
        for input in in_order(inputs, natives, regular)? {
            look(&input, longest, &mut |section, lazy| {
                let Some(place) = places.get_mut(section.name) else { return };
                // One that is dropped with its group, merged with others or moved beside one
                // would not stand where it came.
                certain &= section.plain && !lazy && place.is_none();
                *place = Some(count);
                count += 1;
            })?;
        }
        certain.then(|| self.write(|name| places.get(name.as_bytes()).copied().flatten()))
    }

    /// The script, for sections at these places.
    fn write(&self, place: impl Fn(&str) -> Option<usize>) -> String {
        let mut script = String::from("SECTIONS {\n");
        for (output, names) in &self.outputs {
            let last = names.iter().rposition(|name| place(name).is_some());
            let mut before = None;
            _ = writeln!(script, "  {output} : {{");
            for (at, name) in names.iter().enumerate() {
                let here = place(name);
                let back = here.is_some_and(|here| before.is_some_and(|before| here < before));
                before = here.or(before);
                // The output's section symbol is put among those of the file whose section comes
                // first in the first description that has any (lld before 17), or the last one
                // (`addSectionSymbols` in `lld/ELF/Writer.cpp`).
                let alone = last == Some(at);
                script.push_str(match at {
                    0 => "    *(",
                    _ if back || alone => ")\n    *(",
                    _ => " ",
                });
                script.push_str(name);
            }
            script.push_str(")\n  }\n");
        }
        script.push_str("}\n");
        script
    }
}

/// The native link's inputs. `None` where one is looked for, or is not what it seems.
fn in_order<'a>(
    inputs: &'a Inputs<'_>,
    natives: &'a [Option<PathBuf>],
    regular: Option<&'a Path>,
) -> Option<Vec<Input<'a>>> {
    let mut files = Vec::with_capacity(inputs.pieces.len());
    for piece in &inputs.pieces {
        files.push(match piece {
            Piece::Word(Element::Option { .. }) => continue,
            Piece::Word(Element::Input { path, state }) if !state.binary => Input {
                path: Path::new(*path),
                lazy: state.in_lib,
                lazy_members: !state.whole_archive,
            },
            Piece::Module { index, .. } => match &natives[*index] {
                Some(native) => Input::object(native, false),
                None => continue,
            },
            Piece::Native { path, lazy } => Input::object(Path::new(path), *lazy),
            Piece::Word(_) | Piece::Namesake(_) => return None,
        });
    }
    files.extend(regular.map(|path| Input::object(path, false)));
    Some(files)
}

/// Shows the sections of an input whose names are no longer than `longest`, in order, with whether
/// their object is lazy. `None` where it is not an object or an archive of objects.
fn look(input: &Input<'_>, longest: usize, see: &mut dyn FnMut(Named<'_>, bool)) -> Option<()> {
    let mut file = File::open(input.path).ok()?;
    let mut head = [0; 8];
    file.read_exact(&mut head).and_then(|()| file.rewind()).ok()?;
    match kind::of(&head) {
        Kind::Elf => {
            elf::named_sections(&ReadCache::new(file), longest, |at| see(at, input.lazy)).ok()
        }
        Kind::Archive | Kind::ThinArchive => {
            let data = fs::read(input.path).ok()?;
            for member in archive::members(input.path, &data).ok()? {
                match member.place {
                    Place::Inside(range) => {
                        let see = |at: Named<'_>| see(at, input.lazy_members);
                        elf::named_sections(data.get(range)?, longest, see).ok()?;
                    }
                    Place::File(path) => {
                        look(&Input::object(&path, input.lazy_members), longest, see)?;
                    }
                }
            }
            Some(())
        }
        Kind::Bitcode | Kind::Other => None,
    }
}

/// Reads a script, if it is nothing but an order of at least [`NAMES_MIN`] sections.
fn parse(text: &[u8]) -> Option<SectionOrder> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = Words(text);
    words.expect("SECTIONS")?;
    words.expect("{")?;
    let mut outputs: Vec<(String, Vec<String>)> = Vec::new();
    let mut seen = HashSet::new();
    loop {
        let output = match words.next()? {
            "}" => break,
            output => name(output)?,
        };
        words.expect(":")?;
        words.expect("{")?;
        let mut names = Vec::new();
        loop {
            match words.next()? {
                "}" => break,
                ";" => {}
                "*" => {
                    words.expect("(")?;
                    let name = name(words.next()?)?;
                    words.expect(")")?;
                    // A section goes to the first that names it.
                    seen.insert(name).then_some(())?;
                    names.push(name.to_owned());
                }
                _ => return None,
            }
        }
        let known = outputs.iter().any(|(known, _)| known == output);
        if known || names.is_empty() {
            return None;
        }
        outputs.push((output.to_owned(), names));
    }
    let rest = words.next();
    (rest.is_none() && seen.len() >= NAMES_MIN).then_some(SectionOrder { outputs })
}

/// The word, if it is a section's whole name: no pattern, nothing that is quoted or computed.
fn name(word: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._$".contains(&byte);
    (word.bytes().any(|byte| byte.is_ascii_alphanumeric()) && word.bytes().all(plain))
        .then_some(word)
}

/// The words of a script; punctuation is a word of its own.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_ascii_start();
        let end = match text.bytes().next()? {
            b'{' | b'}' | b'(' | b')' | b';' | b':' | b'*' => 1,
            _ => text
                .find(|at: char| at.is_ascii_whitespace() || "{}();:*".contains(at))
                .unwrap_or(text.len()),
        };
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        Some(word)
    }

    fn expect(&mut self, wanted: &str) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(names: &[&str]) -> String {
        let mut text = String::from("/* none */ SECTIONS { .a : {");
        for (at, name) in names.iter().enumerate() {
            if at == 20 {
                text.push_str("} .b : {");
            }
            _ = writeln!(text, "*({name});");
        }
        text + "}}"
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|at| format!(".x.{at}")).collect()
    }

    #[test]
    fn only_an_order_is_read() {
        let names = names(40);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = script(&names).replace("/* none */", "");
        let order = parse(text.as_bytes()).unwrap();
        assert_eq!(
            order.outputs[1],
            (".b".to_owned(), names[20..].iter().map(|&n| n.into()).collect())
        );
        for (from, to) in [
            ("*(.x.7)", "*(.x.*)"),
            ("*(.x.7)", "*(.x.7 .y)"),
            ("*(.x.7)", "*(SORT(.x.7))"),
            ("*(.x.7)", "KEEP(*(.x.7))"),
            ("*(.x.7)", "a.o(.x.7)"),
            ("*(.x.7)", "*(.x.6)"),
            ("*(.x.7)", "*(\".x.7\")"),
            ("*(.x.7)", "start = .;"),
            ("*(.x.7)", "BYTE(0)"),
            ("} .b : {", "} .a : {"),
            ("} .b : {", "} .b : {} .c : {"),
            ("} .b : {", "} .b 0 : {"),
            ("} .b : {", "} .b (NOLOAD) : {"),
            ("} .b : {", "} /DISCARD/ : {"),
            ("} .b : {", "} >ram .b : {"),
            ("}}", "} . = 3; }"),
            ("}}", "}} ENTRY(x)"),
            ("}}", "}"),
            ("SECTIONS", "/* */ SECTIONS"),
        ] {
            let other = text.replace(from, to);
            assert_ne!(other, text);
            assert_eq!(parse(other.as_bytes()), None, "{to}");
        }
        assert_eq!(parse(script(&names[..NAMES_MIN - 1]).as_bytes()), None);
        assert_eq!(parse(b"\xff"), None);
    }

    #[test]
    fn few_descriptions_have_the_same_effect() {
        let order = |names: &[&str]| SectionOrder {
            outputs: vec![(".out".into(), names.iter().map(|&name| name.to_owned()).collect())],
        };
        let written = |names: &[&str], places: &[(&str, usize)]| {
            let text = order(names).write(|name| {
                places.iter().find(|(known, _)| *known == name).map(|&(_, place)| place)
            });
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            words[5..words.len() - 2].join(" ")
        };
        let places = [("a", 3), ("b", 5), ("c", 4), ("d", 9), ("e", 2)];
        assert_eq!(written(&["a", "b", "d"], &places), "*(a b) *(d)");
        assert_eq!(written(&["a", "b", "c", "d"], &places), "*(a b) *(c) *(d)");
        assert_eq!(written(&["e", "a", "x", "d", "y"], &places), "*(e a x) *(d y)");
        assert_eq!(written(&["x", "d", "e"], &places), "*(x d) *(e)");
        assert_eq!(written(&["x", "e", "y"], &places), "*(x) *(e y)");
        assert_eq!(written(&["x", "y"], &places), "*(x y)");
        assert_eq!(written(&["a"], &places), "*(a)");
    }
}
