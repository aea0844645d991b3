//! What symbols are by all modules of a link together.
//!
//! lld merges what each input says of a symbol: one that is hidden anywhere is hidden. What a module
//! declares may be in no native object any more: there, an importer's declaration is the definition's
//! own. And LTO makes a symbol weak that `--wrap` redirects, lest it be inlined: a reference to its
//! wrapper would be weak, too, take nothing out of an archive, and need no definition. So native
//! objects with such symbols are copied, and the symbols made what they are to lld in-process.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{fs, io};

use crate::object::elf;
use crate::object::symbol_table::{Symbol, SymbolTable, Visibility};

/// Symbols that are not all that a definition of theirs says, or that its native object says. A link
/// may have millions: they are known by the hashes of their names.
#[derive(Debug, Default)]
pub struct Resolution {
    restricted: HashMap<u64, Visibility>,
    /// Symbols that `--wrap` redirects, and that a module defines for good.
    strong: HashSet<u64>,
    /// The modules that define one of them.
    concerned: HashSet<usize>,
}

impl Resolution {
    /// What the modules of a link, each by its number and its path, say of symbols that others may
    /// define, and of those that are `wrapped`.
    ///
    /// # Errors
    /// The operating system's, for a module that cannot be read.
    pub fn of<'a>(
        modules: impl Iterator<Item = (usize, &'a Path)>,
        wrapped: impl Iterator<Item = &'a OsStr>,
    ) -> io::Result<Resolution> {
        let wrapped: HashSet<u64> = wrapped.map(|name| hash(name.as_bytes())).collect();
        let mut found = Resolution::default();
        let mut defined: Vec<(usize, u64, Visibility)> = Vec::new();
        for (number, path) in modules {
            let table = SymbolTable::open(path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
            for symbol in table.symbols().filter(|symbol| symbol.global) {
                let name = hash(symbol.name);
                if is_for_others(&symbol) {
                    let known = found.restricted.entry(name).or_insert(symbol.visibility);
                    *known = symbol.visibility.max(*known);
                }
                if symbol.undefined {
                    continue;
                }
                if symbol.visibility < Visibility::Hidden {
                    defined.push((number, name, symbol.visibility));
                }
                if !symbol.weak && wrapped.contains(&name) {
                    found.strong.insert(name);
                    found.concerned.insert(number);
                }
            }
        }
        for (number, name, visibility) in defined {
            if found.restricted.get(&name).is_some_and(|other| *other > visibility) {
                found.concerned.insert(number);
            }
        }
        Ok(found)
    }

    /// Whether every symbol is what its definition says.
    pub fn is_empty(&self) -> bool {
        self.concerned.is_empty()
    }

    /// Whether the native object of a module may have symbols that are to be others.
    pub fn concerns(&self, module: usize) -> bool {
        self.concerned.contains(&module)
    }

    /// Writes the native object `from` to `to`, with symbols that are what they are by all modules.
    /// Returns false, and writes nothing, where they are that already.
    ///
    /// # Errors
    /// The operating system's, and `InvalidData` for what is no object.
    pub fn copy(&self, from: &Path, to: &Path) -> io::Result<bool> {
        let mut object = fs::read(from)?;
        let wanted = |name: &[u8]| {
            let name = hash(name);
            elf::Wanted {
                visibility: self.restricted.get(&name).copied().unwrap_or(Visibility::Default),
                strong: self.strong.contains(&name),
            }
        };
        let changed = elf::change_globals(&mut object, wanted).map_err(|what| {
            let what = format!("{}: {what}", from.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        if changed {
            fs::write(to, object)?;
        }
        Ok(changed)
    }
}

/// Whether a symbol's visibility counts for another module's definition: where a module has the only
/// definition there can be, that says it itself.
fn is_for_others(symbol: &Symbol<'_>) -> bool {
    symbol.visibility > Visibility::Default && (symbol.undefined || symbol.weak)
}

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
