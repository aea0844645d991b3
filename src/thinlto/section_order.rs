//! Scripts that put input sections in order by naming each one, such as the kernel's
//! `.tmp_initcalls.lds` (`scripts/generate_initcall_order.pl`).
//!
//! For each description of a script lld goes through all input sections (`computeInputSections` in
//! `lld/ELF/LinkerScript.cpp`): with hundreds of names and a hundred thousand sections, that is most
//! of a native link. Native objects stand in the places of their modules, so the sections mostly
//! come in the script's order already, and one description of many names does the same at once.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::inputs::Inputs;
use super::native_inputs;
use crate::invocation::lld::Link;

/// From this many names on, it pays to look for them in the objects.
const NAMES_MIN: usize = 32;

/// Bytes of a name, at most: objects are searched for names as long as the longest.
const NAME_MAX: usize = 255;

/// How the names of sections begin that lld makes, or that it may drop.
const RESERVED: [&str; 15] = [
    "COMMON",
    "LARGE_COMMON",
    ".ARM.",
    ".MIPS.",
    ".comment",
    ".debug",
    ".eh_frame",
    ".gnu.",
    ".llvm",
    ".note",
    ".rel",
    ".riscv.",
    ".shstrtab",
    ".strtab",
    ".symtab",
];

/// A script of nothing but output sections, each with the names of its input sections in order.
#[derive(Debug, PartialEq, Eq)]
pub struct SectionOrder {
    outputs: Vec<(String, Vec<String>)>,
}

impl SectionOrder {
    /// The order that a link's only script asks for. `None` where there is no such script, or
    /// something else decides on the order, too.
    pub fn of(link: &Link) -> Option<SectionOrder> {
        let [script] = link.scripts.as_slice() else { return None };
        if !link.takes_scripts() || link.places_sections || link.orders_sections {
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
        for input in native_inputs::in_order(inputs, natives, regular)? {
            input.sections(longest, &mut |section, lazy| {
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
                // The last description that has any decides where the output's section symbol stands
                // (`addSectionSymbols` in `lld/ELF/Writer.cpp`); behind the last of all comes what
                // no script names and what is called as the output (`addOrphanSections`).
                let apart = last.is_some_and(|last| at == last || at == last + 1);
                script.push_str(match at {
                    0 => "    *(",
                    _ if back || apart => ")\n    *(",
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

/// Reads a script, if it is nothing but an order of at least [`NAMES_MIN`] sections.
pub fn parse(text: &[u8]) -> Option<SectionOrder> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = Words(text);
    words.expect("SECTIONS")?;
    words.expect("{")?;
    let mut outputs: Vec<(String, Vec<String>)> = Vec::new();
    let mut seen = HashSet::new();
    let mut seen_outputs = HashSet::new();
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
        if names.is_empty() || !seen_outputs.insert(output) {
            return None;
        }
        outputs.push((output.to_owned(), names));
    }
    let rest = words.next();
    (rest.is_none() && seen.len() >= NAMES_MIN).then_some(SectionOrder { outputs })
}

/// The word, if it is the whole name of a section of a program: no pattern, nothing that is quoted
/// or computed.
fn name(word: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._$".contains(&byte);
    let usual = word.len() <= NAME_MAX
        && word.bytes().all(plain)
        && word.bytes().any(|byte| byte.is_ascii_alphanumeric())
        && !RESERVED.iter().any(|start| word.starts_with(start));
    usual.then_some(word)
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
            ("*(.x.7)", "*(COMMON)"),
            ("*(.x.7)", "*(.gnu.linkonce.t.x)"),
            ("*(.x.7)", &format!("*(.{})", "x".repeat(NAME_MAX))),
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
        assert_eq!(written(&["e", "a", "x", "d", "y"], &places), "*(e a x) *(d) *(y)");
        assert_eq!(written(&["x", "d", "e"], &places), "*(x d) *(e)");
        assert_eq!(written(&["x", "e", "y"], &places), "*(x) *(e) *(y)");
        assert_eq!(written(&["x", "y"], &places), "*(x y)");
        assert_eq!(written(&["a"], &places), "*(a)");
    }
}
