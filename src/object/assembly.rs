//! Files that assembly opens: what `.incbin` and `.include` name.
//!
//! The text is not assembled here, so a directive may be built out of a macro's arguments or an
//! asm operand. Where that could be, the text is called unclear.

/// Files that are told apart, at most: beyond, the text counts as unclear. Real assembly opens a
/// handful, and each new one is compared with all before it.
const NAMES_MAX: usize = 1024;

/// Begins LLVM's alternate macros, whose arguments are words without a backslash.
const ALTMACRO: &[u8] = b".altmacro";

/// A file that assembly opens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The name, as written.
    pub name: Vec<u8>,
    /// It is assembly itself (`.include`), and may open more.
    pub assembly: bool,
}

/// What a piece of assembly opens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The files' names.
    pub names: Vec<Name>,
    /// It may open files whose names cannot be told from the text.
    pub unclear: bool,
}

impl Opened {
    /// Adds what `text` opens.
    pub fn read(&mut self, text: &[u8]) {
        // In it, any word may be a macro's argument.
        self.unclear |= is_computed(text) || find(text, ALTMACRO).is_some();
        let mut rest = text;
        while let Some(at) = find(rest, b".inc") {
            let after = &rest[at + 4..];
            let word = after.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
            let (word, after) = after.split_at(word);
            rest = after;
            let binary = word.eq_ignore_ascii_case(b"bin");
            let assembly = word.eq_ignore_ascii_case(b"lude");
            if binary || assembly {
                match literal(after) {
                    Some(name) => self.add(&Name { name: name.to_vec(), assembly }),
                    None => self.unclear = true,
                }
            } else if after.first().is_some_and(|byte| b"\\$({".contains(byte)) {
                self.unclear = true;
            }
        }
    }

    /// Adds what another piece opens.
    pub fn extend(&mut self, other: &Opened) {
        self.unclear |= other.unclear;
        other.names.iter().for_each(|name| self.add(name));
    }

    fn add(&mut self, name: &Name) {
        if self.names.contains(name) {
            return;
        }
        if self.names.len() < NAMES_MAX {
            self.names.push(name.clone());
        } else {
            self.unclear = true;
        }
    }

    /// Nothing is opened.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.unclear
    }
}

/// Whether the text has `.incbin` or `.include` in it, or may put them together. LLVM reads
/// directives in any case.
pub fn names_files(text: &[u8]) -> bool {
    [&b".incbin"[..], b".include", ALTMACRO].iter().any(|word| find(text, word).is_some())
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word))
}

/// The quoted name after a directive, where it means just its bytes.
fn literal(after: &[u8]) -> Option<&[u8]> {
    let start = after.iter().position(|byte| !b" \t".contains(byte))?;
    let quoted = after[start..].strip_prefix(b"\"")?;
    let name = &quoted[..quoted.iter().position(|&byte| byte == b'"')?];
    // Escapes, a macro's arguments, operands and dialects of inline assembly.
    let plain = !name.is_empty() && !name.iter().any(|byte| b"\\$\n{|}\0".contains(byte));
    plain.then_some(name)
}

/// A statement whose first word holds a macro's argument may be any directive.
fn is_computed(text: &[u8]) -> bool {
    text.contains(&b'\\')
        && text.split(|byte| b"\n;".contains(byte)).any(|statement| {
            let mut words = statement
                .split(|byte| b" \t".contains(byte))
                .filter(|word| !word.is_empty())
                .skip_while(|word| word.ends_with(b":"));
            words.next().is_some_and(|word| {
                let word = word.rsplit(|&byte| byte == b':').next().unwrap_or_default();
                word.contains(&b'\\')
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(text: &str) -> Opened {
        let mut opened = Opened::default();
        opened.read(text.as_bytes());
        opened
    }

    #[test]
    fn plain_names_are_told() {
        for (text, names) in [
            (".incbin \"a.bin\"", vec!["a.bin"]),
            ("x:\n\t.INCBIN\t\"dir/a b\", 4, 8\n.include \"c.s\"; nop", vec!["dir/a b", "c.s"]),
            (".incbin\"a\"\n.incbin \"a\"", vec!["a"]),
            (".increment x", vec![]),
            ("mov \\x, %eax", vec![]),
        ] {
            let found = opened(text);
            let told: Vec<&str> =
                found.names.iter().map(|name| std::str::from_utf8(&name.name).unwrap()).collect();
            assert_eq!((told, found.unclear), (names, false), "{text}");
        }
    }

    #[test]
    fn too_many_names_are_unclear() {
        let line = |number| format!(".incbin \"{number}\"\n");
        let text = |count| (0..count).map(line).collect::<Vec<_>>().concat();
        assert!(!opened(&text(NAMES_MAX)).unclear);
        let many = opened(&text(NAMES_MAX + 1));
        assert!(many.unclear && many.names.len() == NAMES_MAX);
    }

    #[test]
    fn files_may_be_named_without_their_directives() {
        assert!(names_files(b".altmacro\nm .inc bin"));
        assert!(!names_files(b"nop"));
    }

    #[test]
    fn what_cannot_be_told_is_unclear() {
        for text in [
            ".incbin \\file",
            ".incbin \"\\file\"",
            ".incbin \"a$0\"",
            ".inc\\x \"a\"",
            ".inc${0} \"a\"",
            ".macro m a b\n\\a\\b \"f\"\n.endm\nm .inc bin",
            "1: \\op \"f\"",
            "1:\\op \"f\"",
            ".incbin <a>",
            ".include",
            ".include2 \"a\"",
            ".altmacro\n.macro m a b\na&b \"f\"\n.endm\nm .inc bin",
            ".ALTMACRO\n.macro m f\n.incbin \"f\"\n.endm\nm a",
        ] {
            assert!(opened(text).unclear, "{text}");
        }
    }
}
