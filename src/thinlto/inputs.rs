//! The inputs of a link, looked at: which are ThinLTO modules, which archives must be flattened.
//!
//! lld names the members of archives, thin ones too, in a way that no back end can open
//! (`a.a(b.o at 80)`), so an archive with bitcode in it becomes its members: each one a file, lazy
//! where the archive was.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::module::{self, Looker, Module, Sort};
use super::namesake::{Member, Namesake, Source};
use super::script;
use crate::invocation::lld::{Act, Element, Link, State};
use crate::object::archive::{self, Place};
use crate::object::elf;
use crate::object::kind::{self, Kind};
use crate::object::module::modules_of_index;
use crate::tool::base_name;

/// One step of a link's command line, its inputs looked at.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Goes as it stands, to the steps its row names.
    Word(Element<'a>),
    /// A bitcode module.
    Module {
        /// Which, in [`Inputs::modules`].
        index: usize,
        /// It is linked only where something needs it.
        lazy: bool,
    },
    /// A native object that stood in a flattened archive or in a `--start-lib` group.
    Native {
        /// Its file.
        path: OsString,
        /// It is linked only where something needs it.
        lazy: bool,
    },
    /// An archive that keeps its name: which, in [`Inputs::namesakes`].
    Namesake(usize),
}

/// A member to be copied out of its archive before the thin link.
#[derive(Debug, PartialEq, Eq)]
pub struct Extract {
    /// The archive.
    pub archive: PathBuf,
    /// The member's name.
    pub member: OsString,
    /// Its bytes.
    pub bytes: Source,
    /// Where the copy goes.
    pub to: PathBuf,
}

/// A link's inputs.
#[derive(Debug, Default)]
pub struct Inputs<'a> {
    /// The command line, step by step.
    pub pieces: Vec<Piece<'a>>,
    /// The bitcode modules, in order.
    pub modules: Vec<Module>,
    /// Members to be copied out first.
    pub extracts: Vec<Extract>,
    /// Archives that keep their names.
    pub namesakes: Vec<Namesake>,
}

/// The modules whose assembly opens files: their search paths, by the linker's names for them.
#[derive(Debug)]
pub struct Searching<'a>(BTreeMap<&'a OsStr, &'a [OsString]>);

impl<'a> Searching<'a> {
    /// The search paths of the modules that `module` imports from, as its individual index says: of
    /// all, where that cannot be understood.
    pub fn of_imported(&self, module: &OsStr, index: &Path) -> Vec<&'a OsString> {
        if self.0.is_empty() {
            return Vec::new();
        }
        match fs::read(index).ok().as_deref().map(modules_of_index) {
            Some(Ok(names)) => names
                .iter()
                .filter(|name| *name != module.as_bytes())
                .filter_map(|name| self.0.get(OsStr::from_bytes(name)))
                .flat_map(|paths| paths.iter())
                .collect(),
            Some(Err(_)) => self.0.values().flat_map(|paths| paths.iter()).collect(),
            None => Vec::new(),
        }
    }
}

impl Inputs<'_> {
    /// The modules whose assembly opens files.
    pub fn searching(&self) -> Searching<'_> {
        fn paths(module: &Module) -> Option<&[OsString]> {
            module.record.as_ref().map(|record| record.search_paths.as_slice())
        }
        let found = self.modules.iter().filter_map(|module| {
            Some((module.path.as_os_str(), paths(module).filter(|paths| !paths.is_empty())?))
        });
        Searching(found.collect())
    }

    /// Whether a module is linked only where something needs it.
    pub fn is_lazy(&self, module: usize) -> bool {
        !self
            .pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Module { index, lazy: false } if *index == module))
    }

    /// Lets copied members stand in `to` instead of `from`.
    pub fn move_members(&mut self, from: &Path, to: &Path) {
        if from == to {
            return;
        }
        let moved = |path: &Path| path.strip_prefix(from).map(|rest| to.join(rest)).ok();
        for module in &mut self.modules {
            if let Some(path) = moved(Path::new(&module.path)) {
                module.path = path.into();
            }
        }
        for piece in &mut self.pieces {
            if let Piece::Native { path, .. } = piece
                && let Some(new) = moved(Path::new(path))
            {
                *path = new.into();
            }
        }
        for namesake in &mut self.namesakes {
            if let Some(path) = moved(&namesake.directory) {
                namesake.directory = path;
            }
        }
        for extract in &mut self.extracts {
            if let Some(path) = moved(&extract.to) {
                extract.to = path;
            }
        }
    }
}

/// Why a link's inputs cannot be distributed.
#[derive(Debug)]
pub enum Trouble {
    /// In-process ThinLTO has to do it, for this reason.
    StepAside(String),
    /// An input cannot be read or understood.
    Unreadable(String),
}

/// Looks at every input of `link`. Members that must be copied out of archives get names below
/// `members`.
///
/// # Errors
/// [`Trouble`]. A file that does not exist is none: the linker itself says so.
pub fn look<'a>(link: &'a Link, members: &Path) -> Result<Inputs<'a>, Trouble> {
    let mut looking = Looking {
        link,
        members,
        looker: Looker::default(),
        inputs: Inputs::default(),
        archives: 0,
        doubt: None,
        scripts: Vec::new(),
        flattened: Vec::new(),
    };
    for element in link.elements() {
        match element {
            Element::Input { path, state } => looking.input(path, state, element)?,
            Element::Library { name, state, .. } => match find_library(link, name, state) {
                Some(path) => looking.input(path.as_os_str(), state, element)?,
                None => looking.inputs.pieces.push(Piece::Word(element)),
            },
            // Laziness is written anew, and groups mean nothing to lld but to its warnings.
            Element::Option { row, .. }
                if matches!(
                    row.act,
                    Act::StartLib | Act::EndLib | Act::StartGroup | Act::EndGroup
                ) => {}
            Element::Option { .. } => looking.inputs.pieces.push(Piece::Word(element)),
        }
    }
    if !looking.inputs.modules.is_empty() {
        looking.values();
        for script in link.scripts_in_force() {
            // Of one that is nowhere the linker itself says so.
            if let Some(path) = find_file(link, script.as_os_str()) {
                looking.script_in_force(&path)?;
            }
        }
        if let Some(doubt) = looking.doubt.take().or_else(|| looking.chosen_by_name()) {
            return Err(Trouble::StepAside(doubt));
        }
    }
    Ok(looking.inputs)
}

struct Looking<'a, 'm> {
    link: &'a Link,
    members: &'m Path,
    looker: Looker,
    inputs: Inputs<'a>,
    archives: usize,
    /// What matters only where there is bitcode.
    doubt: Option<String>,
    /// The scripts, read: by which files they choose sections matters only where there is bitcode.
    scripts: Vec<(PathBuf, Vec<u8>)>,
    /// The members that get other names, as scripts know them: `archive:member`.
    flattened: Vec<OsString>,
}

impl<'a> Looking<'a, '_> {
    fn input(&mut self, path: &OsStr, state: State, element: Element<'a>) -> Result<(), Trouble> {
        if state.binary {
            self.read_once(Path::new(path));
            self.inputs.pieces.push(Piece::Word(element));
            return Ok(());
        }
        let path = path.to_owned();
        match self.looker.look(&path) {
            Ok(Sort::Bitcode(module)) => {
                no_doubt(&module, Path::new(&path).display())?;
                self.module(*module, state.in_lib);
            }
            Ok(Sort::Other(Kind::Archive | Kind::ThinArchive)) => {
                self.archive(&path, state, element)?;
            }
            Ok(Sort::Other(Kind::Elf)) if self.link.fat_lto_objects && is_fat(&path) => {
                return Err(fat(Path::new(&path)));
            }
            Ok(Sort::Other(Kind::Elf)) if state.in_lib => {
                self.inputs.pieces.push(Piece::Native { path, lazy: true });
            }
            Ok(Sort::Other(Kind::Other)) if self.read_once(Path::new(&path)) => {
                self.inputs.pieces.push(Piece::Word(element));
            }
            Ok(Sort::Other(Kind::Other)) => {
                let text = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
                self.script(Path::new(&path), &text)?;
                self.inputs.pieces.push(Piece::Word(element));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(unclear(Path::new(&path).display(), &error));
            }
            // Native; or absent, a directory, not ours to read: the linker says it best.
            Ok(Sort::Other(_)) | Err(_) => self.inputs.pieces.push(Piece::Word(element)),
        }
        Ok(())
    }

    fn module(&mut self, module: Module, lazy: bool) {
        self.inputs.pieces.push(Piece::Module { index: self.inputs.modules.len(), lazy });
        self.inputs.modules.push(module);
    }

    fn archive(
        &mut self,
        path: &OsString,
        state: State,
        element: Element<'a>,
    ) -> Result<(), Trouble> {
        let data = fs::read(path).map_err(|error| unreadable(path, &error))?;
        let archive_path = Path::new(path);
        let members = archive::members(archive_path, &data).map_err(|error| {
            Trouble::Unreadable(format!("the archive {}: {error}", archive_path.display()))
        })?;
        let lazy = !state.whole_archive;
        let mut sorted = Vec::with_capacity(members.len());
        let number = self.archives;
        for (index, member) in members.into_iter().enumerate() {
            match member.place {
                Place::File(file) => {
                    if self.link.fat_lto_objects && is_fat(file.as_os_str()) {
                        return Err(fat(&file));
                    }
                    let file = file.into_os_string();
                    let told = Path::new(&file).display();
                    let sort = self.looker.look(&file).map_err(|error| match error.kind() {
                        io::ErrorKind::InvalidData => unclear(&told, &error),
                        _ => unreadable(&file, &error),
                    })?;
                    if let Sort::Bitcode(module) = &sort {
                        no_doubt(module, &told)?;
                    }
                    sorted.push((file, sort, None));
                }
                Place::Inside(range) => {
                    let bytes = &data[range.clone()];
                    if self.link.fat_lto_objects && holds_fat(bytes) {
                        return Err(fat(archive_path));
                    }
                    let name = base_name(member.name.as_os_str());
                    let to = self.members.join(format!("{number}.{index}")).join(name);
                    let told = format!("{}({})", archive_path.display(), name.display());
                    let name = to.clone().into_os_string();
                    let sort = match kind::of(bytes) {
                        Kind::Bitcode => {
                            let module = module::from_bytes(&name, bytes)
                                .map_err(|error| unclear(&told, &error))?;
                            no_doubt(&module, &told)?;
                            Sort::Bitcode(Box::new(module))
                        }
                        other => Sort::Other(other),
                    };
                    let bytes = Source { file: archive_path.to_owned(), range: Some(range) };
                    let member = base_name(member.name.as_os_str()).to_owned();
                    let extract = Extract { archive: archive_path.to_owned(), member, bytes, to };
                    sorted.push((name, sort, Some(extract)));
                }
            }
        }
        if !sorted.iter().any(|(_, sort, _)| matches!(sort, Sort::Bitcode(_))) {
            self.inputs.pieces.push(Piece::Word(element));
            return Ok(());
        }
        self.archives += 1;
        for (file, _, extract) in &sorted {
            let member = extract.as_ref().map_or_else(|| base_name(file), |at| &at.member);
            self.flattened.push([path.as_os_str(), member].join(OsStr::new(":")));
        }
        let excluded = self.link.exclude_libs.iter();
        if excluded.clone().any(|name| name == "ALL" || name == base_name(path)) {
            return self.namesake(archive_path, sorted, state.whole_archive);
        }
        for (file, sort, extract) in sorted {
            match sort {
                Sort::Bitcode(module) => self.module(*module, lazy),
                Sort::Other(Kind::Elf) => {
                    self.inputs.pieces.push(Piece::Native { path: file, lazy });
                }
                // lld warns of such a member and leaves it out.
                Sort::Other(_) => continue,
            }
            self.inputs.extracts.extend(extract);
        }
        Ok(())
    }

    /// An archive whose name matters.
    fn namesake(
        &mut self,
        archive: &Path,
        sorted: Vec<(OsString, Sort, Option<Extract>)>,
        whole: bool,
    ) -> Result<(), Trouble> {
        let directory = self.members.join((self.archives - 1).to_string());
        // lld leaves out what is no object.
        let objects = |sort: &Sort| matches!(sort, Sort::Bitcode(_) | Sort::Other(Kind::Elf));
        let mut sizes = Vec::new();
        let mut kept = Vec::new();
        for (file, sort, extract) in sorted.into_iter().filter(|(_, sort, _)| objects(sort)) {
            let name = match &extract {
                Some(extract) => extract.member.clone(),
                None => base_name(&file).to_owned(),
            };
            let bytes = extract
                .map_or_else(|| Source { file: file.clone().into(), range: None }, |at| at.bytes);
            let size = match &bytes.range {
                Some(range) => range.len() as u64,
                None => fs::metadata(&file).map_err(|error| unreadable(&file, &error))?.len(),
            };
            sizes.push((name.clone(), size));
            kept.push((name, bytes, sort));
        }
        let names = Namesake::names(archive, &sizes);
        let first_piece = self.inputs.pieces.len();
        let mut members = Vec::new();
        for ((name, bytes, sort), lld_s_name) in kept.into_iter().zip(names) {
            let mut module = None;
            if let Sort::Bitcode(mut found) = sort {
                let to = directory.join(lld_s_name);
                found.path = to.clone().into();
                module = Some(self.inputs.modules.len());
                self.module(*found, false);
                self.inputs.extracts.push(Extract {
                    archive: archive.to_owned(),
                    member: name.clone(),
                    bytes: bytes.clone(),
                    to,
                });
            }
            members.push(Member { name, bytes, module });
        }
        // The archive stands for its modules.
        self.inputs.pieces.truncate(first_piece);
        self.inputs.pieces.push(Piece::Namesake(self.inputs.namesakes.len()));
        let original = archive.to_owned();
        self.inputs.namesakes.push(Namesake { original, directory, whole, members });
        Ok(())
    }

    /// The reason why this link cannot be distributed, where a script chooses sections by the name of a
    /// file that has another name then: in-process, a module's native object is
    /// `directory/output.lto.module.o` (`BitcodeCompiler::compile` in `lld/ELF/LTO.cpp`), and a
    /// member stays one of its archive.
    fn chosen_by_name(&self) -> Option<String> {
        let modules = self.inputs.modules.iter().map(|module| &module.path);
        let mut patterns = self.scripts.iter().flat_map(|(script, text)| {
            script::file_patterns(text).into_iter().map(move |pattern| (pattern, script))
        });
        patterns.find_map(|(pattern, script)| {
            // Members first: as a module, one has a name that the user has never seen.
            let mut names = self.flattened.iter().chain(modules.clone());
            let chosen = names.find(|name| {
                names_for_scripts(name, self.link.output.as_os_str())
                    .any(|name| pattern.matches(&name))
            })?;
            Some(format!(
                "the linker script {} chooses by the names of files ({} may be {})",
                script.display(),
                pattern.text().display(),
                Path::new(chosen).display()
            ))
        })
    }

    /// Both the thin link and the native link read what the command line names: of what can be read
    /// only once, the second gets nothing. Says whether this is such a file.
    fn read_once(&mut self, path: &Path) -> bool {
        let once = module::is_read_once(path);
        if once {
            let doubt = format!("{} can be read only once", path.display());
            self.doubt.get_or_insert(doubt);
        }
        once
    }

    /// The files that options may name: the value, or what follows a `=` in it.
    fn values(&mut self) {
        let link = self.link;
        for element in link.elements() {
            let Element::Option { value, row, .. } = element else { continue };
            if !element.in_thin_link() || !row.form.takes_value() || row.act == Act::Output {
                continue;
            }
            let bytes = value.as_bytes();
            let after = bytes.iter().position(|&byte| byte == b'=').map(|at| &bytes[at + 1..]);
            for name in std::iter::once(bytes).chain(after) {
                self.read_once(Path::new(OsStr::from_bytes(name)));
            }
        }
    }

    fn script_in_force(&mut self, path: &Path) -> Result<(), Trouble> {
        if self.read_once(path) {
            return Ok(());
        }
        match fs::read(path) {
            Ok(text) => self.script(path, &text),
            Err(error) => {
                let doubt = format!("the linker script {}: {error}", path.display());
                self.doubt.get_or_insert(doubt);
                Ok(())
            }
        }
    }

    /// A script that brings in bitcode is more than the steps can take apart.
    fn script(&mut self, path: &Path, text: &[u8]) -> Result<(), Trouble> {
        self.scripts.push((path.to_owned(), text.to_owned()));
        let Some(names) = script::inputs(text) else {
            let doubt = format!("the linker script {} includes another", path.display());
            self.doubt.get_or_insert(doubt);
            return Ok(());
        };
        for name in names {
            let found = match name.as_bytes().strip_prefix(b"-l") {
                Some(library) => {
                    find_library(self.link, OsStr::from_bytes(library), State::default())
                }
                None => find_file(self.link, &name),
            };
            let Some(found) = found else { continue };
            self.read_once(&found);
            if holds_bitcode(&found) {
                return Err(Trouble::StepAside(format!(
                    "the linker script {} brings in {}, which holds bitcode",
                    path.display(),
                    found.display()
                )));
            }
        }
        Ok(())
    }
}

/// What a script may call a module or a member (`archive:member`) of that name. More than lld's own
/// answer, which is another one in each release.
fn names_for_scripts(name: &OsStr, output: &OsStr) -> impl Iterator<Item = Vec<u8>> {
    let name = name.as_bytes();
    let (directory, base) = name.split_at(after(name, b'/'));
    let (archive, member) = base.split_at(after(base, b':'));
    let native = [directory, base_name(output).as_bytes(), b".lto.", member].concat();
    let mut names =
        vec![name.to_vec(), [b":", name].concat(), [&native, &b".o"[..]].concat(), native];
    if !archive.is_empty() {
        names.push([directory, archive].concat());
    }
    names.into_iter()
}

/// Where the part after the last `byte` begins.
fn after(name: &[u8], byte: u8) -> usize {
    name.iter().rposition(|&at| at == byte).map_or(0, |at| at + 1)
}

/// lld links the bitcode of such an object, which no index of ours would know by its name.
fn fat(path: &Path) -> Trouble {
    Trouble::StepAside(format!("{} holds bitcode beside its code", path.display()))
}

fn is_fat(path: &OsStr) -> bool {
    fs::read(path).is_ok_and(|data| holds_fat(&data))
}

fn holds_fat(data: &[u8]) -> bool {
    elf::read(data).is_ok_and(|native| native.fat)
}

/// A module that lld may understand better.
fn unclear(module: impl Display, error: &io::Error) -> Trouble {
    Trouble::StepAside(format!("{module}: {error}"))
}

/// # Errors
/// A module whose compile nobody here understood.
fn no_doubt(module: &Module, told: impl Display) -> Result<(), Trouble> {
    let doubt = module.record.as_ref().and_then(|record| record.doubt.as_ref());
    doubt.map_or(Ok(()), |doubt| {
        Err(Trouble::StepAside(format!(
            "{told} was compiled with {}, which thinshim does not understand",
            doubt.display()
        )))
    })
}

fn unreadable(path: &OsString, error: &io::Error) -> Trouble {
    Trouble::Unreadable(format!("cannot read the input {}: {error}", Path::new(path).display()))
}

/// Whether the file is bitcode, or an archive that holds some.
fn holds_bitcode(path: &Path) -> bool {
    let Ok(sort) = module::look(&path.as_os_str().to_owned()) else { return false };
    match sort {
        Sort::Bitcode(_) => true,
        Sort::Other(Kind::Archive | Kind::ThinArchive) => {
            let Ok(data) = fs::read(path) else { return false };
            let Ok(members) = archive::members(path, &data) else { return false };
            members.iter().any(|member| match &member.place {
                Place::Inside(range) => kind::of(&data[range.clone()]) == Kind::Bitcode,
                Place::File(file) => {
                    matches!(module::look(&file.as_os_str().to_owned()), Ok(Sort::Bitcode(_)))
                }
            })
        }
        Sort::Other(_) => false,
    }
}

/// A `-L` directory: one that starts with `=` or `$SYSROOT` is relative to the sysroot.
fn library_directory(link: &Link, directory: &OsStr) -> PathBuf {
    let bytes = directory.as_bytes();
    let below = bytes.strip_prefix(b"=").or_else(|| bytes.strip_prefix(b"$SYSROOT"));
    match (below, &link.sysroot) {
        (Some(below), Some(sysroot)) => {
            let mut path = sysroot.clone().into_os_string();
            path.push(OsStr::from_bytes(below));
            path.into()
        }
        (Some(below), None) => PathBuf::from(OsStr::from_bytes(below)),
        (None, _) => PathBuf::from(directory),
    }
}

/// Finds a `-l` library as lld does (`searchLibrary` in `lld/ELF/DriverUtils.cpp`).
fn find_library(link: &Link, name: &OsStr, state: State) -> Option<PathBuf> {
    let directories = || link.library_paths.iter().map(|path| library_directory(link, path));
    let named = |suffix: &str| {
        let mut file = OsString::from("lib");
        file.push(name);
        file.push(suffix);
        file
    };
    if let Some(file) = name.as_bytes().strip_prefix(b":") {
        return directories().map(|dir| dir.join(OsStr::from_bytes(file))).find(|p| p.is_file());
    }
    for directory in directories() {
        if !state.is_static {
            let shared = directory.join(named(".so"));
            if shared.is_file() {
                return Some(shared);
            }
        }
        let archive = directory.join(named(".a"));
        if archive.is_file() {
            return Some(archive);
        }
    }
    None
}

/// Finds a script, or a file that one names, as lld does: as it is, or in the library paths
/// (`searchScript` in `lld/ELF/DriverUtils.cpp`).
fn find_file(link: &Link, name: &OsStr) -> Option<PathBuf> {
    std::iter::once(PathBuf::from(name))
        .chain(link.library_paths.iter().map(|path| library_directory(link, path).join(name)))
        .find(|path| path.exists())
}
