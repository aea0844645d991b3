//! What a bitcode module says of itself: its kind of LTO, its triple, the files its assembly opens.
//!
//! Block ids and record codes: LLVM's `llvm/Bitcode/LLVMBitCodes.h`.

use super::assembly::{self, Opened};
use super::bitstream::{self, Malformed, Visit, Visitor};

mod block {
    pub(super) const MODULE: u64 = 8;
    pub(super) const CONSTANTS: u64 = 11;
    pub(super) const FUNCTION: u64 = 12;
    pub(super) const MODULE_STRTAB: u64 = 19;
    pub(super) const THIN_SUMMARY: u64 = 20;
    pub(super) const SYMTAB: u64 = 25;
}

mod code {
    pub(super) const MODULE_TRIPLE: u64 = 2;
    pub(super) const MODULE_ASM: u64 = 4;
    pub(super) const MST_ENTRY: u64 = 1;
    pub(super) const FS_COMBINED: u64 = 4;
    pub(super) const FS_COMBINED_PROFILE: u64 = 5;
    pub(super) const FS_COMBINED_GLOBALVAR_INIT_REFS: u64 = 6;
    pub(super) const SYMTAB_BLOB: u64 = 1;
    pub(super) const FUNCTION_DECLAREBLOCKS: u64 = 1;
    pub(super) const INLINEASM_OLD: u64 = 18;
    pub(super) const INLINEASM_OLD2: u64 = 23;
    pub(super) const INLINEASM_OLD3: u64 = 28;
    pub(super) const INLINEASM: u64 = 30;
}

/// What a bitcode file holds. A file with a split LTO unit holds two modules; this is their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// A module with a ThinLTO summary is in it.
    pub thin: bool,
    /// A module for regular LTO is in it: one with a full summary, or with none.
    pub regular: bool,
    /// The target triple of the first module.
    pub triple: String,
    /// Assembly in it names files (`.incbin`, `.include`).
    pub asm_files: bool,
    /// What the module's own assembly opens.
    pub module_opens: Opened,
    /// What assembly in its functions opens, which goes where they are imported.
    pub functions_open: Opened,
    /// It names no libraries for the linker to look for (`#pragma comment(lib, …)`). Where that
    /// cannot be told, it is false.
    pub no_libraries: bool,
}

struct Reader {
    facts: Facts,
    modules: usize,
    thin_modules: usize,
    look_for_asm: bool,
}

impl Visitor for Reader {
    fn block(&mut self, parent: Option<u64>, id: u64) -> Visit {
        match (parent, id) {
            (None, block::MODULE) => {
                self.modules += 1;
                Visit::Enter
            }
            (None, block::SYMTAB) => Visit::Enter,
            (Some(block::MODULE), block::THIN_SUMMARY) => {
                self.thin_modules += 1;
                Visit::Skip
            }
            (Some(block::MODULE), block::CONSTANTS | block::FUNCTION)
            | (Some(block::FUNCTION), block::CONSTANTS)
                if self.look_for_asm =>
            {
                Visit::Enter
            }
            _ => Visit::Skip,
        }
    }

    fn record(&mut self, block: u64, code: u64, operands: &[u64], blob: &[u8]) -> bool {
        match (block, code) {
            (block::SYMTAB, code::SYMTAB_BLOB) => self.facts.no_libraries = names_none(blob),
            (block::MODULE, code::MODULE_TRIPLE) if self.facts.triple.is_empty() => {
                self.facts.triple = operands.iter().map(|&byte| byte as u8 as char).collect();
            }
            (block::MODULE, code::MODULE_ASM) => {
                let text = bytes(operands);
                self.facts.asm_files |= assembly::names_files(&text);
                self.facts.module_opens.read(&text);
            }
            (
                block::CONSTANTS,
                code::INLINEASM | code::INLINEASM_OLD | code::INLINEASM_OLD2 | code::INLINEASM_OLD3,
            ) => {
                let text = template(operands);
                self.facts.asm_files |= assembly::names_files(&text);
                self.facts.functions_open.read(&text);
            }
            // A function's constants stand before its instructions (BitcodeWriter's
            // writeFunction): at the first instruction the rest can be left unread.
            (block::FUNCTION, code) => return code == code::FUNCTION_DECLAREBLOCKS,
            _ => {}
        }
        true
    }
}

/// Whether a symbol table names no dependent libraries: the last range of its header, which is the
/// same from LLVM 9 on (`storage::Header` in `llvm/Object/IRSymtab.h`).
fn names_none(symtab: &[u8]) -> bool {
    const VERSIONS: std::ops::RangeInclusive<u32> = 2..=4;
    const COUNT_AT: usize = 72;
    let word = |at: usize| {
        let bytes = symtab.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    word(0).is_some_and(|version| VERSIONS.contains(&version)) && word(COUNT_AT) == Some(0)
}

/// Characters, one an operand.
fn bytes(operands: &[u64]) -> Vec<u8> {
    operands.iter().map(|&byte| byte as u8).collect()
}

/// The text of inline assembly: after a type (since LLVM 14) and flags stand its length and its
/// characters, then those of the constraints. What has another shape is taken whole.
fn template(operands: &[u64]) -> Vec<u8> {
    let at = |index: usize| operands.get(index).and_then(|&value| usize::try_from(value).ok());
    for start in [2, 1] {
        let text = at(start).and_then(|len| start.checked_add(1)?.checked_add(len));
        let Some(end) = text.filter(|&end| end < operands.len()) else { continue };
        if at(end).and_then(|len| end.checked_add(1)?.checked_add(len)) == Some(operands.len()) {
            return bytes(&operands[start + 1..end]);
        }
    }
    bytes(operands)
}

/// The modules that an individual index speaks of: those that its back end may open, and the
/// back end's own.
///
/// # Errors
/// [`Malformed`] where it is not a well-formed bitstream, or where its names are longer than itself:
/// LLVM's writer spends six bits on a character, an abbreviation may spend none.
pub fn modules_of_index(index: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    struct Names {
        names: Vec<Vec<u8>>,
        /// Bytes of names that may follow; `None` after too many.
        left: Option<usize>,
    }
    impl Visitor for Names {
        fn block(&mut self, parent: Option<u64>, id: u64) -> Visit {
            match (parent, id) {
                (None, block::MODULE) | (_, block::MODULE_STRTAB) => Visit::Enter,
                _ => Visit::Skip,
            }
        }

        fn record(&mut self, block: u64, code: u64, operands: &[u64], _blob: &[u8]) -> bool {
            if block == block::MODULE_STRTAB && code == code::MST_ENTRY {
                let name = operands.get(1..).unwrap_or_default();
                self.left = self.left.and_then(|left| left.checked_sub(name.len().max(1)));
                if self.left.is_none() {
                    return false;
                }
                self.names.push(bytes(name));
            }
            true
        }
    }
    let mut names = Names { names: Vec::new(), left: Some(index.len() * 2) };
    bitstream::walk(index, &mut names)?;
    names.left.map(|_| names.names).ok_or(Malformed)
}

/// Whether the back end of the module `own` has to define a symbol: its individual index speaks of
/// a function or variable of it that is alive, and that others than itself may use. False where the
/// index is not understood.
pub fn defines_symbols(index: &[u8], own: &[u8]) -> bool {
    struct Summaries<'a> {
        own: &'a [u8],
        module: Option<u64>,
        defined: bool,
    }
    impl Visitor for Summaries<'_> {
        fn block(&mut self, parent: Option<u64>, id: u64) -> Visit {
            match (parent, id) {
                (None, block::MODULE)
                | (Some(block::MODULE), block::MODULE_STRTAB | block::THIN_SUMMARY) => Visit::Enter,
                _ => Visit::Skip,
            }
        }

        fn record(&mut self, block: u64, code: u64, operands: &[u64], _blob: &[u8]) -> bool {
            match (block, code, operands) {
                (block::MODULE_STRTAB, code::MST_ENTRY, [id, name @ ..])
                    if name.iter().map(|&byte| byte as u8).eq(self.own.iter().copied()) =>
                {
                    self.module = Some(*id);
                }
                (
                    block::THIN_SUMMARY,
                    code::FS_COMBINED | code::FS_COMBINED_PROFILE,
                    [_, module, flags, ..],
                ) if self.module == Some(*module) => self.defined |= is_defined(*flags),
                (
                    block::THIN_SUMMARY,
                    code::FS_COMBINED_GLOBALVAR_INIT_REFS,
                    [_, module, flags, of_variable, ..],
                ) if self.module == Some(*module) => {
                    self.defined |= is_defined(*flags) && is_kept(*of_variable);
                }
                _ => {}
            }
            true
        }
    }
    let mut summaries = Summaries { own, module: None, defined: false };
    bitstream::walk(index, &mut summaries).is_ok() && summaries.defined
}

/// Whether a summary's flags (`getEncodedGVSummaryFlags` in LLVM's `BitcodeWriter.cpp`, linkages in
/// `llvm/IR/GlobalValue.h`) are those of a symbol that the module's object must have.
fn is_defined(flags: u64) -> bool {
    const EXTERNAL: u64 = 0;
    const WEAK_ANY: u64 = 4;
    const WEAK_ODR: u64 = 5;
    const COMMON: u64 = 10;
    let live = flags >> 5 & 1 == 1;
    live && matches!(flags & 0xf, EXTERNAL | WEAK_ANY | WEAK_ODR | COMMON)
}

/// Whether the flags of a variable (`getEncodedGVarFlags`) let others read what is written to it. One
/// that is only read or only written is in no object where all who use it have its value.
fn is_kept(flags: u64) -> bool {
    const READ_ONLY: u64 = 1;
    const WRITE_ONLY: u64 = 2;
    flags & (READ_ONLY | WRITE_ONLY) == 0
}

/// Reads the facts of a bitcode file (without its wrapper). `look_for_asm` reads the function
/// blocks too, which costs more.
///
/// # Errors
/// [`Malformed`] where the file is not a well-formed bitstream with at least one module.
pub fn facts(bitcode: &[u8], look_for_asm: bool) -> Result<Facts, Malformed> {
    let mut reader = Reader { facts: Facts::default(), modules: 0, thin_modules: 0, look_for_asm };
    bitstream::walk(bitcode, &mut reader)?;
    if reader.modules == 0 {
        return Err(Malformed);
    }
    reader.facts.thin = reader.thin_modules > 0;
    reader.facts.regular = reader.modules > reader.thin_modules;
    Ok(reader.facts)
}

#[cfg(test)]
mod tests {
    use super::super::bits::Bits;
    use super::*;

    /// An index of modules whose names each take nothing but their abbreviation's number.
    fn index_of_literals(entries: usize) -> Vec<u8> {
        let literal = |bits: Bits, value| bits.fixed(1, 1).vbr(value, 8);
        // The code, an id, ten characters.
        let mut body = Bits::default().fixed(2, 3).vbr(12, 5);
        body = literal(literal(body, code::MST_ENTRY), 0);
        body = (0..10).fold(body, |body, _| literal(body, b'a'.into()));
        body = (0..entries).fold(body, |body, _| body.fixed(4, 3)).fixed(0, 3);
        let strtab = Bits::default().block(3, block::MODULE_STRTAB, None, body).fixed(0, 3);
        Bits::default().block(2, block::MODULE, None, strtab).stream()
    }

    #[test]
    fn an_index_names_no_more_than_fits_into_it() {
        assert_eq!(modules_of_index(&index_of_literals(2)).unwrap(), [b"aaaaaaaaaa"; 2]);
        assert_eq!(modules_of_index(&index_of_literals(10_000)), Err(Malformed));
    }
}
