//! What symbols are by all modules of a link together.
//!
//! lld merges what each input says of a symbol: one that is hidden anywhere is hidden. What a module
//! declares may be in no native object any more: there, an importer's declaration is the definition's
//! own. And a back end makes a symbol weak that `--wrap` redirects, lest it be inlined; the wrapper's
//! would then be a weak reference, which nobody needs to define. So native objects with such symbols
//! are copied, and the symbols made what they are to lld in-process.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
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
    /// The modules that define one of them.
    concerned: Vec<usize>,
}

/// A definition of a module, kept until all modules are known.
struct Definition {
    name: u64,
    visibility: Visibility,
    weak: bool,
}

impl Resolution {
    /// What the modules of a link, each by its number and its path, say of symbols that others may
    /// define. `wrapped` are the symbols of `--wrap`, `natives` the link's other inputs.
    ///
    /// # Errors
    /// The operating system's, for an input that cannot be read.
    pub fn of<'a>(
        modules: impl Iterator<Item = (usize, &'a Path)>,
        natives: impl Iterator<Item = &'a Path>,
        mut wrapped: HashSet<Vec<u8>>,
    ) -> io::Result<Resolution> {
        let mut restricted: HashMap<Vec<u8>, Visibility> = HashMap::new();
        let mut defined: Vec<(usize, Vec<Definition>)> = Vec::new();
        for (number, path) in modules {
            let table = SymbolTable::open(path)?;
            let mut definitions = Vec::new();
            for symbol in table.symbols().filter(|symbol| symbol.global) {
                if symbol.visibility > Visibility::Default && (symbol.undefined || symbol.weak) {
                    restrict(&mut restricted, &symbol);
                }
                if !symbol.undefined {
                    symbol.name.strip_prefix(b"__wrap_").map(|name| wrapped.remove(name));
                    let Symbol { name, visibility, weak, .. } = symbol;
                    definitions.push(Definition { name: hash(name), visibility, weak });
                }
            }
            defined.push((number, definitions));
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
        let visibilities: HashMap<u64, Visibility> =
            restricted.iter().map(|(name, visibility)| (hash(name), *visibility)).collect();
        let strong: HashSet<u64> = wrapped.iter().map(|name| hash(name)).collect();
        let concerned = |definition: &Definition| {
            !definition.weak && strong.contains(&definition.name)
                || visibilities
                    .get(&definition.name)
                    .is_some_and(|other| *other > definition.visibility)
        };
        let concerned = defined
            .iter()
            .filter(|(_, definitions)| definitions.iter().any(concerned))
            .map(|(number, _)| *number)
            .collect();
        Ok(Resolution { restricted, wrapped, concerned })
    }

    /// Whether every symbol is what its definition says.
    pub fn is_empty(&self) -> bool {
        self.restricted.is_empty() && self.wrapped.is_empty()
    }

    /// The modules whose native objects may have symbols that are to be others.
    pub fn concerned(&self) -> &[usize] {
        &self.concerned
    }

    /// Writes the native object `from` of the module at `module` to `to`, with symbols that are what
    /// they are by all modules. Returns false, and writes nothing, where they are that already.
    /// `None`: it is that of the partition for regular LTO.
    ///
    /// # Errors
    /// The operating system's, and `InvalidData` for what is no object.
    pub fn copy(&self, module: Option<&Path>, from: &Path, to: &Path) -> io::Result<bool> {
        let table = match module {
            Some(module) if !self.wrapped.is_empty() => SymbolTable::open(module)?,
            _ => SymbolTable::default(),
        };
        let strong: HashSet<&[u8]> = table
            .symbols()
            .filter(|symbol| !symbol.undefined && !symbol.weak)
            .map(|symbol| symbol.name)
            .filter(|&name| self.wrapped.contains(name))
            .collect();
        let mut object = fs::read(from)?;
        let wanted = |name: &[u8]| elf::Wanted {
            visibility: self.restricted.get(name).copied().unwrap_or(Visibility::Default),
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
}

/// A symbol's visibility counts for another module's definition, but where a module has the only
/// definition there can be: that says it itself.
fn restrict(restricted: &mut HashMap<Vec<u8>, Visibility>, symbol: &Symbol<'_>) {
    match restricted.get_mut(symbol.name) {
        Some(known) => *known = symbol.visibility.max(*known),
        None => {
            restricted.insert(symbol.name.to_owned(), symbol.visibility);
        }
    }
}

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
