//! The key of a back end: the digest of everything that its native object depends on.
//!
//! | part | what is in it |
//! | --- | --- |
//! | compiler | [`super::identity`] |
//! | options | the words, and the contents of every file that one of them names |
//! | environment | [`super::environment`] |
//! | module | the linker's name for it, and its bitcode |
//! | index | the bytes of its individual index |
//! | imports | the modules that the index speaks of: names, in the index's order, and bitcode |
//! | files | what assembly opens, of the module and of what it imports: names and contents |
//!
//! Left out, because no byte of the object depends on it: the working directory, the names of the
//! index and of the object, and the directories where assembly looks for files (what it finds
//! there is in the key). The modules' names are in the key as the linker knows them, since LLVM
//! imports in their order: links by relative names share entries between build directories, links
//! by absolute names do not.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::digest::{Digest, Parts};
use super::facts::{self, Facts};
use super::files::Files;
use crate::object::assembly::{Name, Opened};
use crate::object::module;

/// Changes where a key of before must not be taken for one of now.
const VERSION: &[u8] = b"thinshim back end 1";
/// `.include` files that include others, at most this deep.
const INCLUDES_MAX: usize = 16;

/// LLVM's options that print to stdout begin so (`-mllvm -print-pipeline-passes`); what was printed
/// is not in the cache.
const PRINT: [&[u8]; 6] = [b"-print", b"--print", b"-help", b"--help", b"-version", b"--version"];

/// The names of a key's parts, in order.
pub const PARTS: [&str; 7] =
    ["compiler", "options", "environment", "module", "index", "imported modules", "files"];

const INDEX: usize = 4;

/// What a back end is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// Options, less search paths for assembly and the names of index and object.
    pub options: &'a [OsString],
    /// Where assembly looks for files after the working directory.
    pub search_paths: &'a [OsString],
    /// The module.
    pub module: &'a OsStr,
    /// Its individual index.
    pub index: &'a Path,
}

/// A key, and what it was made of.
#[derive(Clone, Debug)]
pub struct Key {
    /// One digest for each of [`PARTS`].
    pub parts: [Digest; PARTS.len()],
    /// The files in it, to be looked at again before anything is stored under it.
    inputs: Vec<(OsString, Arc<Facts>)>,
    index: PathBuf,
}

impl Key {
    /// The key itself.
    pub fn digest(&self) -> Digest {
        let mut parts = Parts::new().with(VERSION);
        self.parts.iter().for_each(|part| parts.add(part.bytes()));
        parts.digest()
    }

    /// The files in it.
    pub fn files(&self) -> impl Iterator<Item = &OsStr> {
        self.inputs.iter().map(|(path, _)| path.as_os_str())
    }

    /// Whether an input is another by now than the one that was looked at.
    pub fn is_outdated(&self) -> bool {
        self.inputs.iter().any(|(path, facts)| facts::has_changed(path, facts))
    }

    /// Whether the index is: to be asked where it is not this process's own.
    pub fn has_another_index(&self) -> bool {
        let now = fs::read(&self.index).map(|index| Digest::of(&index));
        !now.is_ok_and(|now| now == self.parts[INDEX])
    }
}

/// Makes the keys of one link.
#[derive(Debug)]
pub struct Keys {
    /// The files looked at.
    pub files: Files,
    compiler: Digest,
    environment: Digest,
    options: HashMap<Vec<OsString>, Options>,
}

/// Options, looked at.
#[derive(Clone, Debug)]
struct Options {
    digest: Digest,
    files: Vec<(OsString, Arc<Facts>)>,
    /// They name directories for assembly that are not among the search paths.
    search: bool,
}

impl Keys {
    /// Keys for back ends of this compiler in this environment.
    pub fn new(compiler: Digest, environment: Digest, files: Files) -> Keys {
        Keys { files, compiler, environment, options: HashMap::new() }
    }

    /// The key of `action`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of(&mut self, action: &Action<'_>) -> Result<Key, &'static str> {
        const MODULE: &str = "a module cannot be read";
        let options = self.options(action.options)?;
        let mut inputs = options.files.clone();
        let index = fs::read(action.index).map_err(|_| "an index cannot be read")?;
        let own = self.files.module(action.module).map_err(|_| MODULE)?;
        inputs.push((action.module.to_owned(), Arc::clone(&own)));
        let module = Parts::new().with(action.module.as_bytes()).with(own.digest.bytes()).digest();
        let mut opened = own.module_opens.clone();
        opened.extend(&own.functions_open);
        let mut imports = Parts::new();
        // An empty index is none: clang then compiles the module for itself.
        if !index.is_empty() {
            let names = module::modules_of_index(&index)
                .map_err(|_| "an index that thinshim cannot read")?;
            for name in names.iter().filter(|name| *name != action.module.as_bytes()) {
                let path = OsStr::from_bytes(name);
                let facts = self.files.module(path).map_err(|_| MODULE)?;
                imports.add(name);
                imports.add(facts.digest.bytes());
                // A module's own assembly stays at home.
                opened.extend(&facts.functions_open);
                inputs.push((path.to_owned(), facts));
            }
        }
        let mut found = Parts::new();
        if !opened.is_empty() {
            if options.search {
                return Err("assembly looks for files along an option's path");
            }
            self.opened(&opened, action.search_paths, &mut found, &mut inputs, 0)?;
        }
        Ok(Key {
            parts: [
                self.compiler,
                options.digest,
                self.environment,
                module,
                Digest::of(&index),
                imports.digest(),
                found.digest(),
            ],
            inputs,
            index: action.index.to_owned(),
        })
    }

    /// Adds what assembly finds under the names that it opens, as LLVM's `SourceMgr` looks for
    /// it: the name as it is, then below each search path.
    fn opened(
        &mut self,
        opened: &Opened,
        search_paths: &[OsString],
        parts: &mut Parts,
        inputs: &mut Vec<(OsString, Arc<Facts>)>,
        depth: usize,
    ) -> Result<(), &'static str> {
        if opened.unclear || depth > INCLUDES_MAX {
            return Err("assembly opens files whose names cannot be told");
        }
        for Name { name, assembly } in &opened.names {
            let name = OsStr::from_bytes(name);
            parts.add(name.as_bytes());
            // As LLVM: the directory, a slash, the name, even where that is absolute.
            let below = search_paths.iter().map(|directory| {
                let mut path = directory.clone();
                path.push("/");
                path.push(name);
                PathBuf::from(path)
            });
            let mut found = None;
            for path in std::iter::once(PathBuf::from(name)).chain(below) {
                match self.files.plain(path.as_os_str()) {
                    Ok(facts) => {
                        found = Some((path.into_os_string(), facts));
                        break;
                    }
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput && !path.is_dir() => {
                        return Err("assembly opens what is no regular file");
                    }
                    Err(_) => {}
                }
            }
            let Some((path, facts)) = found else {
                return Err("assembly opens a file that is not to be found");
            };
            parts.add(facts.digest.bytes());
            if *assembly {
                let text = fs::read(&path).map_err(|_| "assembly opens what cannot be read")?;
                let mut more = Opened::default();
                more.read(&text);
                self.opened(&more, search_paths, parts, inputs, depth + 1)?;
            }
            inputs.push((path, facts));
        }
        Ok(())
    }

    /// The digest of options and of what stands in the files that they name.
    ///
    /// # Errors
    /// Why there is none.
    pub fn options_digest(&mut self, words: &[OsString]) -> Result<Digest, &'static str> {
        self.options(words).map(|options| options.digest)
    }

    fn options(&mut self, words: &[OsString]) -> Result<Options, &'static str> {
        if let Some(options) = self.options.get(words) {
            return Ok(options.clone());
        }
        let mut parts = Parts::new();
        let mut named = Vec::new();
        let mut search = false;
        for word in words {
            parts.add(word.as_bytes());
            let text = word.as_bytes();
            search |= text.starts_with(b"-Wa,") && text.windows(2).any(|two| two == b"-I");
            search |= text == b"-Xassembler";
            if text.ends_with(b"=native") {
                parts.add(native()?.bytes());
            }
            let option = text.strip_prefix(b"-mllvm=").unwrap_or(text);
            if PRINT.iter().any(|start| option.starts_with(start)) {
                return Err("an option makes clang print");
            }
            for path in files_of(word) {
                match self.files.plain(&path) {
                    Ok(facts) => {
                        parts.add(path.as_bytes());
                        parts.add(facts.digest.bytes());
                        named.push((path, facts));
                    }
                    Err(error)
                        if error.kind() == io::ErrorKind::InvalidInput
                            && !Path::new(&path).is_dir() =>
                    {
                        return Err("an option names what is no regular file");
                    }
                    Err(_) => {}
                }
            }
        }
        let options = Options { digest: parts.digest(), files: named, search };
        self.options.insert(words.to_vec(), options.clone());
        Ok(options)
    }
}

/// The files that an option of a back end could read.
fn files_of(word: &OsStr) -> impl Iterator<Item = OsString> {
    let here = matches!(word.as_bytes(), b"-fprofile-use" | b"-fprofile-instr-use");
    let names = possible_files(word).into_iter().chain(here.then(|| OsString::from(".")));
    // A directory of profiles means the one of this name in it.
    names.flat_map(|name| {
        let inside = Path::new(&name).join("default.profdata").into_os_string();
        [name, inside]
    })
}

/// The parts of an option that could name a file: the word, and what follows each `=` and `,`.
/// Which options really name one, clang alone knows; one too many costs a digest.
pub(super) fn possible_files(word: &OsStr) -> Vec<OsString> {
    let text = word.as_bytes();
    let whole = (!text.starts_with(b"-")).then_some(text);
    let after = text
        .iter()
        .enumerate()
        .filter(|(_, byte)| b"=,".contains(byte))
        .map(|(at, _)| &text[at + 1..]);
    whole
        .into_iter()
        .chain(after)
        .filter(|name| !name.is_empty())
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}

/// What `native` means here, as a part of a key.
///
/// # Errors
/// Why there is none.
pub(super) fn native() -> Result<Digest, &'static str> {
    processor().ok_or("-march=native on a processor that does not tell")
}

/// The lines of `/proc/cpuinfo` that tell one model from another.
fn processor() -> Option<Digest> {
    const TELLING: [&str; 9] = [
        "vendor_id",
        "cpu family",
        "model",
        "stepping",
        "flags",
        "Features",
        "CPU part",
        "isa",
        "cpu",
    ];
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let first = text.split("\n\n").next()?;
    let mut parts = Parts::new();
    for line in first.lines() {
        let name = line.split(':').next().unwrap_or_default().trim_end();
        if TELLING.contains(&name) {
            parts.add(line.as_bytes());
        }
    }
    Some(parts.digest())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(words: &[&str]) -> Digest {
        let digest = Digest::of(b"");
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Keys::new(digest, digest, Files::default()).options(&words).expect("options").digest
    }

    #[test]
    fn files_that_options_name_are_in_the_key() {
        let space = tempfile::tempdir().expect("a directory");
        let path = space.path().join("default.profdata");
        let (file, directory) = (path.display().to_string(), space.path().display().to_string());
        let options = [
            format!("-fprofile-use={file}"),
            format!("-fprofile-use={directory}"),
            format!("-fbasic-block-sections=list={file}"),
            format!("-Wa,{file},x"),
            file.clone(),
        ];
        let digests = || -> Vec<Digest> {
            options
                .iter()
                .map(|option| digest_of(&["-O2", option.split(",x").next().unwrap()]))
                .collect()
        };
        let absent = digests();
        fs::write(&path, "one").expect("a file");
        let one = digests();
        fs::write(&path, "two").expect("a file");
        let two = digests();
        for at in 0..options.len() {
            assert!(absent[at] != one[at] && one[at] != two[at], "{}", options[at]);
        }
    }

    #[test]
    fn a_profile_without_a_name_is_in_the_working_directory() {
        let word = OsStr::new("-fprofile-use");
        let named: Vec<OsString> = files_of(word).collect();
        assert!(named.contains(&OsString::from("./default.profdata")), "{named:?}");
        assert!(files_of(OsStr::new("-fprofile-generate")).next().is_none());
    }

    #[test]
    fn the_host_s_processor_counts_only_where_it_is_asked_for() {
        assert!(processor().is_some());
        let plain = Parts::new().with(b"-march=native").digest();
        assert_ne!(digest_of(&["-march=native"]), plain);
        assert_eq!(digest_of(&["-march=x86-64"]), Parts::new().with(b"-march=x86-64").digest());
    }
}
