//! What symbols are by all modules of a link together.
//!
//! lld merges what each input says of a symbol: one that is hidden anywhere is hidden. What a module
//! declares may be in no native object any more: there, an importer's declaration is the definition's
//! own. And a back end makes a symbol weak that `--wrap` redirects, lest it be inlined; the wrapper's
//! would then be a weak reference, which nobody needs to define. So native objects with such symbols
//! are copied, and the symbols made what they are to lld in-process.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::{fs, io};

use crate::object::elf;
use crate::object::symbol_table::{Symbol, SymbolTable, Visibility};

/// Symbols that are not all that a definition of theirs says, or that its native object says.
#[derive(Debug, Default)]
pub struct Resolution {
    restricted: HashMap<Vec<u8>, Visibility>,
    /// Symbols that `--wrap` redirects to what no input defines.
    wrapped: HashSet<Vec<u8>>,
}

impl Resolution {
    /// What the modules of a link, at these paths, say of symbols that others may define. `wrapped`
    /// are the symbols of `--wrap`, `natives` the link's other inputs.
    ///
    /// # Errors
    /// The operating system's, for an input that cannot be read.
    pub fn of<'a>(
        modules: impl Iterator<Item = &'a Path>,
        natives: impl Iterator<Item = &'a Path>,
        mut wrapped: HashSet<Vec<u8>>,
    ) -> io::Result<Resolution> {
        let mut restricted: HashMap<Vec<u8>, Visibility> = HashMap::new();
        for path in modules {
            let table = SymbolTable::open(path)?;
            if !wrapped.is_empty() {
                for symbol in table.symbols().filter(|symbol| !symbol.undefined) {
                    symbol.name.strip_prefix(b"__wrap_").map(|name| wrapped.remove(name));
                }
            }
            if table.is_visible_to_all() {
                continue;
            }
            for symbol in table.symbols().filter(is_for_others) {
                match restricted.get_mut(symbol.name) {
                    Some(known) => *known = symbol.visibility.max(*known),
                    None => {
                        restricted.insert(symbol.name.to_owned(), symbol.visibility);
                    }
                }
            }
        }
        // A name in another input is the wrapper's definition, or a reference that is missed.
        for path in natives {
            if wrapped.is_empty() {
                break;
            }
            let input = fs::read(path)?;
            wrapped.retain(|name| {
                let wrapper = [b"__wrap_", name.as_slice(), b"\0"].concat();
                !input.windows(wrapper.len()).any(|window| window == wrapper)
            });
        }
        Ok(Resolution { restricted, wrapped })
    }

    /// Whether every symbol is what its definition says.
    pub fn is_empty(&self) -> bool {
        self.restricted.is_empty() && self.wrapped.is_empty()
    }

    /// Writes the native object `from` of the module at `module` to `to`, with symbols that are what
    /// they are by all modules. Returns false, and writes nothing, where they are that already.
    ///
    /// # Errors
    /// The operating system's, and `InvalidData` for what is no object.
    pub fn copy(&self, module: &Path, from: &Path, to: &Path) -> io::Result<bool> {
        let table = SymbolTable::open(module)?;
        let defined = || table.symbols().filter(|symbol| !symbol.undefined);
        let is_restricted = |symbol: Symbol<'_>| {
            self.visibility(symbol.name).is_some_and(|other| other > symbol.visibility)
        };
        let strong: HashSet<&[u8]> = defined()
            .filter(|symbol| !symbol.weak && self.wrapped.contains(symbol.name))
            .map(|symbol| symbol.name)
            .collect();
        if strong.is_empty() && !defined().any(is_restricted) {
            return Ok(false);
        }
        self.copy_with(&strong, from, to)
    }

    /// The same for the object of the partition for regular LTO.
    ///
    /// # Errors
    /// Those of [`Resolution::copy`].
    pub fn copy_regular(&self, from: &Path, to: &Path) -> io::Result<bool> {
        self.copy_with(&HashSet::new(), from, to)
    }

    fn copy_with(&self, strong: &HashSet<&[u8]>, from: &Path, to: &Path) -> io::Result<bool> {
        let mut object = fs::read(from)?;
        let wanted = |name: &[u8]| elf::Wanted {
            visibility: self.visibility(name).unwrap_or(Visibility::Default),
            strong: strong.contains(name),
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

    /// How visible a symbol is at most; `None`: nobody says less than its definition.
    fn visibility(&self, name: &[u8]) -> Option<Visibility> {
        self.restricted.get(name).copied()
    }
}

/// Whether a symbol's visibility counts for another module's definition: where a module has the only
/// definition there can be, that says it itself.
fn is_for_others(symbol: &Symbol<'_>) -> bool {
    symbol.global && symbol.visibility > Visibility::Default && (symbol.undefined || symbol.weak)
}
