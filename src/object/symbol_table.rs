//! The symbol table of a bitcode file, as the linker reads it: names, kinds and visibilities
//! (`storage::Header` and `storage::Symbol` in LLVM's `llvm/Object/IRSymtab.h`, the same from LLVM 9
//! on).
//!
//! Of the file only the blocks that hold it are read: a module in front of them is jumped over.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::bitstream::{self, Visit, Visitor};
use super::wrapper;

mod block {
    pub(super) const STRTAB: u64 = 23;
    pub(super) const SYMTAB: u64 = 25;
}

/// The code of the one record in either block.
const BLOB: u64 = 1;

/// Bytes of a `storage::Symbol`, and where its flags are in it.
const SYMBOL: usize = 24;
const FLAGS_AT: usize = 20;
/// Where the header has the first symbol's place, and their number.
const SYMBOLS_AT: usize = 28;

/// Longer names are left out: many may claim the same bytes.
const NAME_MAX: usize = 1 << 16;

/// Who may see a symbol, the strictest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visibility {
    /// Everybody, and another definition may take its place.
    Default,
    /// Everybody.
    Protected,
    /// The linked output alone.
    Hidden,
}

/// A symbol of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its name in the object file.
    pub name: &'a [u8],
    /// What the module says of who sees it.
    pub visibility: Visibility,
    /// The module has no definition of it.
    pub undefined: bool,
    /// Another module's definition may take the place of this one's.
    pub weak: bool,
    /// It is no symbol of the module's alone.
    pub global: bool,
}

/// A symbol table.
#[derive(Debug, Default)]
pub struct SymbolTable {
    table: Vec<u8>,
    names: Vec<u8>,
}

impl SymbolTable {
    /// Reads that of the bitcode file at `path`. It is empty where the file has none that can be
    /// understood.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path) -> io::Result<SymbolTable> {
        let file = File::open(path)?;
        let mut read = SymbolTable::default();
        if let Some(blocks) = last_blocks(&file)? {
            // What was read before it broke off is good.
            let _ = bitstream::walk(&blocks, &mut read);
        }
        Ok(read)
    }

    /// Its symbols.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.words().filter_map(|symbol| {
            let start = word(symbol, 0)? as usize;
            let end = start.checked_add(word(symbol, 4)? as usize)?;
            Some(Symbol {
                name: self.names.get(start..end).filter(|name| name.len() <= NAME_MAX)?,
                visibility: flags::visibility(symbol),
                undefined: flags::has(symbol, flags::UNDEFINED),
                weak: flags::has(symbol, flags::WEAK) || flags::has(symbol, flags::COMMON),
                global: flags::has(symbol, flags::GLOBAL),
            })
        })
    }

    fn words(&self) -> impl Iterator<Item = &[u8]> {
        let place = || {
            let start = word(&self.table, SYMBOLS_AT)? as usize;
            let size = (word(&self.table, SYMBOLS_AT + 4)? as usize).checked_mul(SYMBOL)?;
            self.table.get(start..start.checked_add(size)?)
        };
        place().unwrap_or_default().chunks_exact(SYMBOL)
    }
}

impl Visitor for SymbolTable {
    fn block(&mut self, parent: Option<u64>, id: u64) -> Visit {
        match (parent, id) {
            (None, block::SYMTAB | block::STRTAB) => Visit::Enter,
            _ => Visit::Skip,
        }
    }

    fn record(&mut self, block: u64, code: u64, _operands: &[u64], blob: &[u8]) -> bool {
        match (block, code) {
            (block::SYMTAB, BLOB) => blob.clone_into(&mut self.table),
            (block::STRTAB, BLOB) => blob.clone_into(&mut self.names),
            _ => {}
        }
        true
    }
}

/// `Symbol::FlagBits`
mod flags {
    use super::{FLAGS_AT, Visibility, word};

    pub(super) const UNDEFINED: u32 = 3;
    pub(super) const WEAK: u32 = 4;
    pub(super) const COMMON: u32 = 5;
    pub(super) const GLOBAL: u32 = 10;

    fn of(symbol: &[u8]) -> u32 {
        word(symbol, FLAGS_AT).unwrap_or_default()
    }

    pub(super) fn has(symbol: &[u8], bit: u32) -> bool {
        of(symbol) >> bit & 1 == 1
    }

    /// The lowest two bits, in the order of `GlobalValue::VisibilityTypes`.
    pub(super) fn visibility(symbol: &[u8]) -> Visibility {
        match of(symbol) & 3 {
            1 => Visibility::Hidden,
            2 => Visibility::Protected,
            _ => Visibility::Default,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// A bitstream of the file's last blocks, from its symbol table or its names on: they stand behind all
/// modules. `None`: it is no bitcode, or has none.
fn last_blocks(file: &File) -> io::Result<Option<Vec<u8>>> {
    // More than the block in front of a module takes, which says who wrote it.
    let mut head = [0; 128];
    let got = file.read_at(&mut head, 0)?;
    let head = &head[..got];
    let size = file.metadata()?.len();
    let (start, end) = match wrapper::end(head) {
        Some(end) => (word(head, 8).map_or(u64::MAX, u64::from), end.min(size)),
        None => (0, size),
    };
    let mut at = start.saturating_add(4);
    // A block begins with two words: its kind, and how many words follow.
    while at.saturating_add(8) <= end {
        let known = usize::try_from(at).ok().and_then(|at| head.get(at..at + 8));
        let mut words = [0; 8];
        match known {
            Some(known) => words.copy_from_slice(known),
            None => file.read_exact_at(&mut words, at)?,
        }
        let (Some(kind), Some(length)) = (word(&words, 0), word(&words, 4)) else { break };
        // The abbreviation ENTER_SUBBLOCK in two bits, and the block's number in one chunk of eight.
        if kind & 3 != 1 || kind & 0x200 != 0 {
            break;
        }
        if [block::SYMTAB, block::STRTAB].contains(&u64::from(kind >> 2 & 0x7f)) {
            let mut stream = b"BC\xC0\xDE".to_vec();
            let from = stream.len();
            let Ok(bytes) = usize::try_from(end - at) else { break };
            // A sparse file may claim any size.
            stream.try_reserve_exact(bytes)?;
            stream.resize(from + bytes, 0);
            file.read_exact_at(&mut stream[from..], at)?;
            return Ok(Some(stream));
        }
        at = at.saturating_add(8 + u64::from(length) * 4);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_strictest_wins() {
        assert!(Visibility::Hidden > Visibility::Protected);
        assert!(Visibility::Protected > Visibility::Default);
    }

    proptest! {
        #[test]
        fn any_bytes(more: Vec<u8>) {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(b"BC\xC0\xDE").unwrap();
            file.write_all(&more).unwrap();
            let table = SymbolTable::open(file.path()).unwrap();
            table.symbols().count();
        }

        #[test]
        fn any_table(table: Vec<u8>, names: Vec<u8>) {
            SymbolTable { table, names }.symbols().count();
        }
    }
}
