//! A link as its command line has it.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::lto::LtoOptions;
use super::row::{Fate, Row, Side};

/// A link. Everything in it is what the command line says; no file was looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub(super) words: Vec<OsString>,
    pub(super) items: Vec<Item>,
    /// Where the output goes: the last `-o`, or `a.out`.
    pub output: PathBuf,
    /// Whether `-o` said so. Without it a linker script's `OUTPUT()` has the say.
    pub output_given: bool,
    /// What is linked.
    pub kind: Kind,
    /// The directories of `-L`, in order, as given (`=dir` is relative to the sysroot).
    pub library_paths: Vec<OsString>,
    /// The last `--sysroot`.
    pub sysroot: Option<PathBuf>,
    /// The last `-m`.
    pub emulation: Option<OsString>,
    /// The linker scripts of `-T`, in order. lld looks for them in the library paths, too.
    pub scripts: Vec<PathBuf>,
    /// The last `--default-script`, in force where there is no `-T`.
    pub default_script: Option<PathBuf>,
    /// The archives of `--exclude-libs`, split (`ALL` is every archive).
    pub exclude_libs: Vec<OsString>,
    /// The options of code generation.
    pub lto: LtoOptions,
    /// What the link writes besides its output, in order.
    pub side_outputs: Vec<SideOutput>,
    /// The value of `--threads`.
    pub threads: Option<OsString>,
    /// The value of `--thinlto-jobs`, or of clang's `-flto-jobs`.
    pub thinlto_jobs: Option<OsString>,
    /// `--gc-sections`.
    pub gc_sections: bool,
    /// `--icf=all`, `--icf=safe`.
    pub icf: bool,
    /// `--emit-relocs`.
    pub emit_relocs: bool,
    /// Something other than scripts and the order of inputs decides on the order of sections.
    pub places_sections: bool,
    /// An option asks for an order of single sections: by their symbols, by a profile, by chance.
    pub orders_sections: bool,
    /// `--fat-lto-objects`: ELF objects with bitcode in `.llvm.lto` count as bitcode.
    pub fat_lto_objects: bool,
    /// `--lto=thin`: modules made for either kind of LTO count as thin ones.
    pub unified_thin: bool,
}

/// What is linked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// `-r`
    Relocatable,
    /// `-shared`
    Shared,
    /// `-pie`
    Pie,
    /// A program with fixed addresses.
    #[default]
    Exec,
}

/// Where an input stands: what the options before it have switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// `--whole-archive`
    pub whole_archive: bool,
    /// `--start-group`, or `--start-lib`
    pub in_group: bool,
    /// `--start-lib`: the object is lazy.
    pub in_lib: bool,
    /// `--as-needed`
    pub as_needed: bool,
    /// `-Bstatic`: `-l` finds archives only. `-r` implies it.
    pub is_static: bool,
    /// `--format=binary`: the file's bytes are linked, whatever they are.
    pub binary: bool,
}

/// A file, or a stretch of text, that the link makes besides its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideOutput {
    /// The option that asks for it.
    pub row: &'static Row,
    /// The name given. Empty for [`Side::Stdout`] and [`Side::BesideOutput`].
    pub value: OsString,
}

/// One step through the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element<'a> {
    /// An input file.
    Input {
        /// Its name, which is the one word.
        path: &'a OsStr,
        /// Where it stands.
        state: State,
    },
    /// `-l`.
    Library {
        /// The words as given.
        words: &'a [OsString],
        /// The name, without `lib` and suffix; after a colon a file's name.
        name: &'a OsStr,
        /// Where it stands.
        state: State,
    },
    /// Any other option.
    Option {
        /// The words as given.
        words: &'a [OsString],
        /// Its value; empty where the option has none.
        value: &'a OsStr,
        /// What the table says.
        row: &'static Row,
    },
}

/// An [`Element`] as positions in the words: a link of thousands of inputs copies none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) words: Range<usize>,
    pub(super) value: Value,
    pub(super) what: What,
}

/// Where a value stands: the word, and the offset into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) word: usize,
    pub(super) at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Input(State),
    Library(State),
    Option(&'static Row),
}

impl Link {
    /// Everything on the command line, in order. The words of all elements, one after the other,
    /// are the command line itself.
    pub fn elements(&self) -> impl ExactSizeIterator<Item = Element<'_>> {
        self.items.iter().map(|item| {
            let words = &self.words[item.words.clone()];
            let value = item.value.of(&self.words);
            match item.what {
                What::Input(state) => Element::Input { path: value, state },
                What::Library(state) => Element::Library { words, name: value, state },
                What::Option(row) => Element::Option { words, value, row },
            }
        })
    }

    /// The command line as it was given.
    pub fn words(&self) -> &[OsString] {
        &self.words
    }

    /// The scripts in force: those of `-T`, else the default one.
    pub fn scripts_in_force(&self) -> impl Iterator<Item = &Path> {
        let default = self.default_script.as_deref().filter(|_| self.scripts.is_empty());
        self.scripts.iter().map(PathBuf::as_path).chain(default)
    }

    /// The files that the native link writes under names of the user's, the output aside.
    pub fn side_files(&self) -> impl Iterator<Item = OsString> {
        let file = |side: &SideOutput| match side.row.side {
            Side::File | Side::DependencyFile => side.value.clone(),
            Side::BesideOutput => {
                let mut file = self.output.clone().into_os_string();
                file.push(".time-trace");
                file
            }
            Side::Stdout | Side::Nothing => OsString::new(),
        };
        self.side_outputs.iter().map(file).filter(|name| !name.is_empty() && name != "-")
    }

    /// Whether scripts of thinshim's own may have a part in this link: an intermediate one that keeps
    /// every section, and writes no file that names its scripts.
    pub fn takes_scripts(&self) -> bool {
        let names_scripts =
            self.side_outputs.iter().any(|side| side.row.side == Side::DependencyFile);
        self.kind == Kind::Relocatable && !self.gc_sections && !self.emit_relocs && !names_scripts
    }

    /// Whether the link removes, folds or orders sections, so that it matters whether functions and
    /// data have their own.
    pub fn picks_sections(&self) -> bool {
        self.gc_sections || self.icf || self.orders_sections
    }

    /// The symbols that `--wrap` redirects.
    pub fn wrapped(&self) -> impl Iterator<Item = &OsStr> {
        self.elements().filter_map(|element| match element {
            Element::Option { row, value, .. } if row.name == "wrap" => Some(value),
            _ => None,
        })
    }

    /// Whether the link has something to say on stdout.
    pub fn is_talkative(&self) -> bool {
        self.side_outputs.iter().any(|side| side.row.side == Side::Stdout || side.value == "-")
    }
}

impl Element<'_> {
    /// Whether the thin link gets this element: as it stands, or what the inputs are exchanged for.
    pub fn in_thin_link(&self) -> bool {
        match self {
            Self::Option { row, .. } => {
                matches!(row.fate, Fate::Keep | Fate::ThinOnly | Fate::BackEnd)
            }
            Self::Input { .. } | Self::Library { .. } => true,
        }
    }

    /// Whether the native link gets this element, likewise.
    pub fn in_native_link(&self) -> bool {
        match self {
            Self::Option { row, .. } => matches!(row.fate, Fate::Keep | Fate::NativeOnly),
            Self::Input { .. } | Self::Library { .. } => true,
        }
    }
}

impl Value {
    pub(super) fn of(self, words: &[OsString]) -> &OsStr {
        words.get(self.word).map_or(OsStr::new(""), |word| {
            OsStr::from_bytes(word.as_bytes().get(self.at..).unwrap_or_default())
        })
    }
}
