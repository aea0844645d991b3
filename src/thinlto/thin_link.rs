//! The thin link: lld computes the index and stops.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::inputs::{Inputs, Piece};
use super::names;
use crate::invocation::lld::Element;
use crate::workdir::WorkDir;

/// A directory for `..` to climb out of. No path of a module should name it.
const BELOW: &str = "__below__";

/// Where the thin link leaves what it computes.
#[derive(Debug, PartialEq, Eq)]
pub struct Paths {
    /// What lld puts before each module's path to name its individual index: ends in a slash.
    pub prefix: OsString,
    /// The list of modules to compile, each with the prefix.
    pub list: PathBuf,
    /// The native object of the regular-LTO partition.
    pub regular: PathBuf,
    /// Which members of archives it took, and for whom.
    pub extracted: PathBuf,
    /// Named as the output, written by nobody.
    output: PathBuf,
}

impl Paths {
    /// The paths for a link of these inputs.
    pub fn new(work: &WorkDir, inputs: &Inputs<'_>) -> Paths {
        // lld joins prefix and path as text: each `..` in a path climbs out of one directory of
        // the prefix, so it gets as many as the deepest climber needs.
        let climbs = |path: &OsString| {
            Path::new(path).components().filter(|part| *part == Component::ParentDir).count()
        };
        let depth = inputs.modules.iter().map(|module| climbs(&module.path)).max().unwrap_or(0);
        let mut prefix = work.index().as_os_str().to_owned();
        for _ in 0..depth {
            prefix.push("/");
            prefix.push(BELOW);
        }
        prefix.push("/");
        Paths {
            prefix,
            list: work.path().join("modules"),
            regular: work.path().join("regular.o"),
            extracted: work.path().join("extracted"),
            output: work.path().join("thin-link"),
        }
    }

    /// The individual index of a module.
    pub fn index_of(&self, module: &OsStr) -> PathBuf {
        let mut path = self.prefix.clone();
        path.push(module);
        path.push(".thinlto.bc");
        path.into()
    }
}

/// The thin link's arguments. `imports`: it also writes lists of what each module imports, for
/// people; what is in them is in the indexes, too.
pub fn args(
    inputs: &Inputs<'_>,
    paths: &Paths,
    threads: Option<usize>,
    imports: bool,
) -> Vec<OsString> {
    let mut args = Arguments::default();
    for piece in &inputs.pieces {
        match piece {
            Piece::Word(element) if element.in_thin_link() => args.element(element),
            Piece::Word(_) => {}
            Piece::Module { index, lazy } => args.input(&inputs.modules[*index].path, *lazy),
            Piece::Native { path, lazy } => args.input(path, *lazy),
            Piece::Namesake(index) => {
                args.input(inputs.namesakes[*index].for_thin_link().path.as_os_str(), false);
            }
        }
    }
    let mut args = args.finish();
    let option = |name: &str, value: &OsStr| {
        let mut option = OsString::from(name);
        option.push(value);
        option
    };
    let mut replace = OsString::from("--thinlto-prefix-replace=;");
    replace.push(&paths.prefix);
    args.extend([
        option("--thinlto-index-only=", paths.list.as_os_str()),
        replace,
        option("--lto-obj-path=", paths.regular.as_os_str()),
        option("--why-extract=", paths.extracted.as_os_str()),
        OsString::from("-o"),
        paths.output.clone().into_os_string(),
    ]);
    args.extend(imports.then(|| OsString::from("--thinlto-emit-imports-files")));
    args.extend(threads.map(|threads| OsString::from(format!("--threads={threads}"))));
    args
}

/// The modules to compile, in the index's order, out of the list that the thin link wrote.
///
/// # Errors
/// A sentence, for a list that names what nobody had taken for a module of the link, or that lacks
/// one.
pub fn listed(inputs: &Inputs<'_>, paths: &Paths, list: &[u8]) -> Result<Vec<usize>, String> {
    let mut by_path: HashMap<&OsStr, usize> = HashMap::with_capacity(inputs.modules.len());
    for (index, module) in inputs.modules.iter().enumerate() {
        by_path.entry(&module.path).or_insert(index);
    }
    let listed: Vec<usize> = list
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            line.strip_prefix(paths.prefix.as_bytes())
                .and_then(|path| by_path.get(OsStr::from_bytes(path)).copied())
                .ok_or_else(|| {
                    let name = line.strip_prefix(paths.prefix.as_bytes()).unwrap_or(line);
                    format!("the linker brings in {}, which holds bitcode", name.escape_ascii())
                })
        })
        .collect::<Result<_, _>>()?;
    match without_index(inputs, &listed).or_else(|| with_one_index(inputs, paths, &listed)) {
        Some(reason) => {
            let told = names::of_archives(reason.as_bytes(), inputs, false);
            Err(String::from_utf8_lossy(&told).into_owned())
        }
        None => Ok(listed),
    }
}

/// Why the list will not do: a module is linked in any case and not in it, so that its code would
/// be nowhere.
fn without_index(inputs: &Inputs<'_>, listed: &[usize]) -> Option<String> {
    // A module that is named twice is listed once.
    let listed: HashSet<&OsStr> =
        listed.iter().map(|&index| inputs.modules[index].path.as_os_str()).collect();
    let mut linked = inputs.pieces.iter().filter_map(|piece| match piece {
        Piece::Module { index, lazy: false } => Some(&inputs.modules[*index]),
        _ => None,
    });
    let module = linked.find(|module| {
        module.thin && !listed.contains(module.path.as_os_str()) && module.is_thin_bitcode()
    })?;
    Some(format!("the thin link wrote no index for {}", Path::new(&module.path).display()))
}

/// Why the list will not do: two modules have one file for their indexes, as `/usr/a.o` and
/// `usr/a.o` have below the prefix.
fn with_one_index(inputs: &Inputs<'_>, paths: &Paths, listed: &[usize]) -> Option<String> {
    let mut by_index: HashMap<PathBuf, &OsStr> = HashMap::with_capacity(listed.len());
    listed.iter().find_map(|&index| {
        let module = inputs.modules[index].path.as_os_str();
        let before = by_index.insert(cleaned(&paths.index_of(module)), module)?;
        (before != module).then(|| {
            let [before, module] = [before, module].map(|module| Path::new(module).display());
            format!("{before} and {module} have one name below a directory")
        })
    })
}

/// A path without `.` and `..`. Below the prefix there are no symlinks.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

/// A command line in the making: adjacent lazy inputs share a `--start-lib` group.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    args: Vec<OsString>,
    in_lib: bool,
}

impl Arguments {
    fn lib(&mut self, lazy: bool) {
        if self.in_lib != lazy {
            self.args.push(if lazy { "--start-lib" } else { "--end-lib" }.into());
            self.in_lib = lazy;
        }
    }

    /// Puts an element as it was given.
    pub(super) fn element(&mut self, element: &Element<'_>) {
        self.lib(false);
        match element {
            Element::Input { path, .. } => self.args.push((*path).to_owned()),
            Element::Library { words, .. } | Element::Option { words, .. } => {
                self.args.extend_from_slice(words);
            }
        }
    }

    pub(super) fn input(&mut self, path: &OsStr, lazy: bool) {
        self.lib(lazy);
        self.args.push(path.to_owned());
    }

    /// An archive of which all is linked, whatever the command line says here.
    pub(super) fn whole(&mut self, path: &OsStr) {
        self.lib(false);
        self.args.extend(["--push-state".into(), "--whole-archive".into(), path.to_owned()]);
        self.args.push("--pop-state".into());
    }

    /// What follows is read for what it is, whatever the command line says here.
    pub(super) fn default_format(&mut self) {
        self.lib(false);
        self.args.push("--format=default".into());
    }

    /// A linker script.
    pub(super) fn script(&mut self, path: &Path) {
        self.lib(false);
        self.args.extend(["-T".into(), path.as_os_str().to_owned()]);
    }

    pub(super) fn finish(mut self) -> Vec<OsString> {
        self.lib(false);
        self.args
    }
}

#[cfg(test)]
mod tests {
    use super::super::module::Module;
    use super::*;

    fn paths() -> Paths {
        Paths {
            prefix: "w/index/".into(),
            list: "w/modules".into(),
            regular: "w/regular.o".into(),
            extracted: "w/extracted".into(),
            output: "w/thin-link".into(),
        }
    }

    /// Modules that are nowhere; each is lazy, or not.
    fn modules(named: &[(&str, bool)]) -> Inputs<'static> {
        let module = |&(path, _): &(&str, bool)| Module {
            path: path.into(),
            size: 0,
            record: None,
            triple: None,
            thin: true,
            regular: false,
        };
        let piece = |(index, &(_, lazy)): (usize, &(&str, bool))| Piece::Module { index, lazy };
        Inputs {
            pieces: named.iter().enumerate().map(piece).collect(),
            modules: named.iter().map(module).collect(),
            ..Inputs::default()
        }
    }

    #[test]
    fn what_is_linked_has_an_index() {
        let inputs = modules(&[("/no/a.o", false), ("/no/b.o", true), ("/no/a.o", false)]);
        let read = |list: &str| listed(&inputs, &paths(), list.as_bytes());
        assert_eq!(read("w/index//no/a.o\n"), Ok(vec![0]));
        assert_eq!(read("w/index//no/b.o\nw/index//no/a.o\n"), Ok(vec![1, 0]));
        for list in ["", "w/index//no/b.o\n"] {
            assert_eq!(read(list), Err("the thin link wrote no index for /no/a.o".to_owned()));
        }
        assert!(read("w/index//no/a.o\nw/index//no/c.o\n").is_err());
    }

    #[test]
    fn modules_have_an_index_each() {
        let read = |one: &str, other: &str| {
            let inputs = modules(&[(one, true), (other, true)]);
            let list = format!("w/index/{one}\nw/index/{other}\n");
            listed(&inputs, &paths(), list.as_bytes())
        };
        for (one, other) in [
            ("/usr/a.o", "usr/a.o"),
            ("a.o", "./a.o"),
            ("x//a.o", "y/../x/a.o"),
            ("../index/a.o", "a.o"),
        ] {
            let reason = read(one, other).unwrap_err();
            assert_eq!(reason, format!("{one} and {other} have one name below a directory"));
        }
        for (one, other) in [("a.o", "b/a.o"), ("a.o", "../a.o"), ("/a.o", "/b/a.o")] {
            assert_eq!(read(one, other), Ok(vec![0, 1]), "{one} {other}");
        }
    }
}
