//! The visibility that symbols have by all modules of a link together.
//!
//! lld merges what each input says of a symbol: one that is hidden anywhere is hidden. What a module
//! declares may be in no native object any more: there, an importer's declaration is the definition's
//! own. So native objects whose symbols others declare to be less visible are copied, with these as
//! visible as in-process.

use std::collections::HashMap;
use std::path::Path;
use std::{fs, io};

use crate::object::elf;
use crate::object::symbol_table::{Symbol, SymbolTable, Visibility};

/// Symbols that are less visible than one of their definitions says.
#[derive(Debug, Default)]
pub struct Visibilities(HashMap<Vec<u8>, Visibility>);

impl Visibilities {
    /// What the modules of a link, at these paths, say of symbols that others may define.
    ///
    /// # Errors
    /// The operating system's, for a module that cannot be read.
    pub fn declared<'a>(modules: impl Iterator<Item = &'a Path>) -> io::Result<Visibilities> {
        let mut declared: HashMap<Vec<u8>, Visibility> = HashMap::new();
        for path in modules {
            let table = SymbolTable::open(path)?;
            if table.is_visible_to_all() {
                continue;
            }
            for symbol in table.symbols().filter(is_for_others) {
                match declared.get_mut(symbol.name) {
                    Some(known) => *known = symbol.visibility.max(*known),
                    None => {
                        declared.insert(symbol.name.to_owned(), symbol.visibility);
                    }
                }
            }
        }
        Ok(Visibilities(declared))
    }

    /// Whether every symbol is as visible as its definition says.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the module at `path` says of a symbol that it is more visible.
    ///
    /// # Errors
    /// The operating system's.
    pub fn concern(&self, path: &Path) -> io::Result<bool> {
        let table = SymbolTable::open(path)?;
        let concern = |symbol: Symbol<'_>| {
            !symbol.undefined && self.of(symbol.name).is_some_and(|other| other > symbol.visibility)
        };
        Ok(table.symbols().any(concern))
    }

    /// Writes the native object `from` to `to`, with its symbols as visible as they are by all
    /// modules. Returns false, and writes nothing, where they are already.
    ///
    /// # Errors
    /// The operating system's, and `InvalidData` for what is no object.
    pub fn copy(&self, from: &Path, to: &Path) -> io::Result<bool> {
        let mut object = fs::read(from)?;
        let changed = elf::restrict(&mut object, |name| self.of(name)).map_err(|what| {
            let what = format!("{}: {what}", from.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        if changed {
            fs::write(to, object)?;
        }
        Ok(changed)
    }

    /// How visible a symbol is at most; `None`: nobody says less than its definition.
    fn of(&self, name: &[u8]) -> Option<Visibility> {
        self.0.get(name).copied()
    }
}

/// Whether a symbol's visibility counts for another module's definition: where a module has the only
/// definition there can be, that says it itself.
fn is_for_others(symbol: &Symbol<'_>) -> bool {
    symbol.global && symbol.visibility > Visibility::Default && (symbol.undefined || symbol.weak)
}
