//! The key of a link: the digest of everything that its output depends on.
//!
//! | part | what is in it |
//! | --- | --- |
//! | linker, compiler | [`super::identity`]; no compiler where the linker is alone |
//! | environment | [`super::environment`] |
//! | command line | all words but the output's name and the number of threads |
//! | options | those of each module's back end, and the contents of the files that they name |
//! | inputs | the contents of every input, thin archives' members and files of options included |
//! | files | what the modules' assembly opens, wherever it might be found |
//!
//! A link has a key where all of that can be told from its command line: `-r` links that name
//! their inputs. All others look for libraries.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::digest::{Digest, Parts};
use super::key::{Keys, native, possible_files};
use crate::invocation::lld::{Act, Element, Fate, Kind, Link};
use crate::object::archive::{self, Place};
use crate::object::assembly::{Name, Opened};
use crate::object::kind;
use crate::thinlto::inputs::{Inputs, Piece};
use crate::thinlto::script;

/// Changes where a key of before must not be taken for one of now: whenever the steps of a link
/// are put together in another way.
const VERSION: &[u8] = concat!("thinshim link 3, ", env!("CARGO_PKG_VERSION")).as_bytes();
/// `.include` files that include others, at most this deep.
const INCLUDES_MAX: usize = 16;

const EXTRACTED: Reason = "members are copied out of an archive";
const LIBRARIES: Reason = "it looks for libraries";

/// The names of a key's parts, in order.
pub const PARTS: [&str; 7] =
    ["linker", "compiler", "environment", "command line", "options", "inputs", "files"];

/// The parts that are known before it is known what the modules' assembly opens.
pub const FIRST: usize = PARTS.len() - 1;

/// Why a link has no key.
pub type Reason = &'static str;

/// What is linked.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// The command line.
    pub link: &'a Link,
    /// Its inputs.
    pub inputs: &'a Inputs<'a>,
    /// The options of each module's back end; none where the linker is alone.
    pub options: &'a [Arc<[OsString]>],
}

/// What can be told from a command line alone.
///
/// # Errors
/// Why the link has no key.
pub fn check(action: &Action<'_>) -> Result<(), Reason> {
    let Action { link, inputs, .. } = action;
    if link.kind != Kind::Relocatable {
        return Err("it is no -r link");
    }
    if !link.output_given {
        return Err("a script may name its output");
    }
    if !link.side_outputs.is_empty() {
        return Err("it writes more than its output");
    }
    if !inputs.extracts.is_empty() {
        return Err(EXTRACTED);
    }
    if inputs.modules.iter().any(|module| module.regular || !module.thin) {
        return Err("lld itself compiles a part of it");
    }
    for element in link.elements() {
        match element {
            Element::Library { .. } => return Err(LIBRARIES),
            Element::Option { row, value, .. } => match row.name {
                "build-id=" if value == "uuid" => return Err("its output is never the same"),
                // The last writes into the file that is there, whose other names stay its names.
                "error-handling-script" | "shuffle-sections" | "stats" | "no-mmap-output-file" => {
                    return Err("an option is not for links that are kept");
                }
                _ => {}
            },
            Element::Input { .. } => {}
        }
    }
    // lld writes that to stdout (`FileOutputBuffer::create`).
    if link.output == Path::new("-") {
        return Err("its output is no regular file");
    }
    // Devices and symlinks keep their meaning; what is not there will be a file.
    match fs::symlink_metadata(&link.output) {
        Ok(meta) if !meta.is_file() => Err("its output is no regular file"),
        _ => Ok(()),
    }
}

/// The first parts: of the command line, the options and the inputs.
///
/// # Errors
/// Why the link has no key.
pub fn first(keys: &mut Keys, action: &Action<'_>) -> Result<[Digest; 3], Reason> {
    let mut inputs = Parts::new();
    Ok([
        command_line(action, keys, &mut inputs)?,
        options(keys, action.options)?,
        contents(keys, action.inputs, inputs)?,
    ])
}

/// The words, and the files that options name.
fn command_line(
    action: &Action<'_>,
    keys: &mut Keys,
    inputs: &mut Parts,
) -> Result<Digest, Reason> {
    const SCRIPTS: Reason = "a linker script brings in other files";
    let mut parts = Parts::new().with(VERSION);
    for element in action.link.elements() {
        let (words, value, row) = match element {
            Element::Input { path, .. } => {
                parts.add(path.as_bytes());
                continue;
            }
            Element::Library { .. } => return Err(LIBRARIES),
            Element::Option { words, value, row } => (words, value, row),
        };
        if matches!(row.act, Act::Output | Act::Threads | Act::ThinltoJobs) {
            continue;
        }
        for word in words {
            parts.add(word.as_bytes());
            if word.as_bytes().ends_with(b"=native") {
                parts.add(native()?.bytes());
            }
        }
        if row.fate == Fate::Drop || !row.form.takes_value() {
            continue;
        }
        let found = named(keys, value, inputs)?;
        let searched =
            matches!(row.act, Act::Script | Act::DefaultScript) || row.name == "version-script";
        if searched && !found && !action.link.library_paths.is_empty() {
            return Err("a script is looked for in the library paths");
        }
    }
    for path in action.link.scripts_in_force() {
        let text = fs::read(path).map_err(|_| SCRIPTS)?;
        if script::inputs(&text).is_none_or(|names| !names.is_empty()) {
            return Err(SCRIPTS);
        }
    }
    Ok(parts.digest())
}

/// Adds the files that an option's value may name; says whether the whole value names one.
fn named(keys: &mut Keys, value: &OsStr, inputs: &mut Parts) -> Result<bool, Reason> {
    let mut whole = false;
    // A value may begin as options do.
    let odd = value.as_bytes().starts_with(b"-").then(|| value.to_owned());
    for name in possible_files(value).into_iter().chain(odd) {
        match keys.files.plain(&name) {
            Ok(facts) => {
                whole |= name == value;
                inputs.add(name.as_bytes());
                inputs.add(facts.digest.bytes());
            }
            Err(error)
                if error.kind() == io::ErrorKind::InvalidInput && !Path::new(&name).is_dir() =>
            {
                return Err("an option names what is no regular file");
            }
            Err(_) => {}
        }
    }
    Ok(whole)
}

/// The back ends' options: modules of one kind share theirs.
fn options(keys: &mut Keys, options: &[Arc<[OsString]>]) -> Result<Digest, Reason> {
    let mut parts = Parts::new();
    let mut last: Option<(&Arc<[OsString]>, Digest)> = None;
    for words in options {
        let digest = match &last {
            Some((known, digest)) if Arc::ptr_eq(known, words) => *digest,
            _ => keys.options_digest(words)?,
        };
        parts.add(digest.bytes());
        last = Some((words, digest));
    }
    Ok(parts.digest())
}

/// What stands in the inputs.
fn contents(keys: &mut Keys, inputs: &Inputs<'_>, mut parts: Parts) -> Result<Digest, Reason> {
    const UNREADABLE: Reason = "an input cannot be read";
    keys.files.plain_all(inputs.pieces.iter().filter_map(|piece| match piece {
        Piece::Module { index, .. } => Some(inputs.modules[*index].path.as_os_str()),
        Piece::Native { path, .. } => Some(path.as_os_str()),
        Piece::Word(Element::Input { path, .. }) => Some(*path),
        Piece::Namesake(_) | Piece::Word(_) => None,
    }));
    let mut add = |keys: &mut Keys, path: &OsStr| -> Result<(), Reason> {
        let facts = keys.files.plain(path).map_err(|_| UNREADABLE)?;
        parts.add(path.as_bytes());
        parts.add(facts.digest.bytes());
        Ok(())
    };
    for piece in &inputs.pieces {
        match piece {
            Piece::Module { index, .. } => add(keys, &inputs.modules[*index].path)?,
            Piece::Native { path, .. } => add(keys, path)?,
            Piece::Word(Element::Input { path, state }) => {
                add(keys, path)?;
                if state.binary {
                    continue;
                }
                let mut head = [0; 8];
                let got = File::open(path)
                    .and_then(|mut file| file.read(&mut head))
                    .map_err(|_| UNREADABLE)?;
                match kind::of(&head[..got]) {
                    kind::Kind::ThinArchive => {
                        for member in members(path)? {
                            add(keys, member.as_os_str())?;
                        }
                    }
                    kind::Kind::Other => {
                        let text = fs::read(path).map_err(|_| UNREADABLE)?;
                        if script::inputs(&text).is_none_or(|names| !names.is_empty()) {
                            return Err("a linker script brings in other files");
                        }
                    }
                    _ => {}
                }
            }
            Piece::Namesake(_) => return Err(EXTRACTED),
            Piece::Word(_) => {}
        }
    }
    Ok(parts.digest())
}

/// The files of a thin archive.
fn members(archive: &OsStr) -> Result<Vec<PathBuf>, Reason> {
    const BROKEN: Reason = "an archive cannot be read";
    let data = fs::read(archive).map_err(|_| BROKEN)?;
    let members = archive::members(Path::new(archive), &data).map_err(|_| BROKEN)?;
    let file = |member: archive::Member| match member.place {
        Place::File(path) => Some(path),
        Place::Inside(_) => None,
    };
    Ok(members.into_iter().filter_map(file).collect())
}

/// The directories in which the modules' assembly looks for files.
pub fn search_paths(inputs: &Inputs<'_>) -> Vec<OsString> {
    let mut paths: Vec<OsString> = Vec::new();
    for path in
        inputs.modules.iter().flat_map(|module| &module.record).flat_map(|r| &r.search_paths)
    {
        if !paths.contains(path) {
            paths.push(path.clone());
        }
    }
    paths
}

/// The last part: every file that might be meant by what assembly opens. Which one of them a back
/// end finds depends on what is imported where, and that on the other parts alone.
///
/// # Errors
/// Why the link has no key.
pub fn files(
    keys: &mut Keys,
    opened: &Opened,
    search_paths: &[OsString],
) -> Result<Digest, Reason> {
    let mut parts = Parts::new();
    add_files(keys, opened, search_paths, &mut parts, 0)?;
    Ok(parts.digest())
}

fn add_files(
    keys: &mut Keys,
    opened: &Opened,
    search_paths: &[OsString],
    parts: &mut Parts,
    depth: usize,
) -> Result<(), Reason> {
    if opened.unclear || depth > INCLUDES_MAX {
        return Err("a module brings in what cannot be told");
    }
    for Name { name, assembly } in &opened.names {
        parts.add(name);
        let name = OsStr::from_bytes(name);
        // As LLVM: the directory, a slash, the name, even where that is absolute.
        let below = search_paths.iter().map(|directory| {
            let mut path = directory.clone();
            path.push("/");
            path.push(name);
            path
        });
        let mut found = false;
        for path in std::iter::once(name.to_owned()).chain(below) {
            match keys.files.plain(&path) {
                Ok(facts) => {
                    found = true;
                    parts.add(facts.digest.bytes());
                }
                Err(error)
                    if error.kind() == io::ErrorKind::InvalidInput
                        && !Path::new(&path).is_dir() =>
                {
                    return Err("assembly opens what is no regular file");
                }
                Err(_) => {
                    parts.add(b"none");
                    continue;
                }
            }
            if *assembly {
                let text = fs::read(&path).map_err(|_| "assembly opens what cannot be read")?;
                let mut more = Opened::default();
                more.read(&text);
                add_files(keys, &more, search_paths, parts, depth + 1)?;
            }
        }
        // It may be no name, but a macro's argument.
        if !found {
            return Err("assembly opens a file that is not to be found");
        }
    }
    Ok(())
}

/// The key itself.
pub fn digest(first: &[Digest; FIRST], files: &Digest) -> Digest {
    let mut parts = Parts::new().with(VERSION);
    first.iter().chain([files]).for_each(|part| parts.add(part.bytes()));
    parts.digest()
}
