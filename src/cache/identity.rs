//! Which compiler this is: its program, the libraries that the loader gives it, its version, and
//! the configuration files that it reads by itself.
//!
//! Finding out costs two runs of the compiler and the digests of some 200 MB, so the answer is
//! remembered with the signature of every file that it hangs on, and of every directory where
//! another library or configuration file could appear.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::digest::{self, Digest, Parts};
use super::signature::{Signature, Signed};
use crate::invocation::{clang, response};

const HEADER: &str = "thinshim tool 3";

/// Why a compiler is not known.
pub type Unknown = &'static str;

/// A file that remembers an identity, and its text, to be written.
pub type Memo = (PathBuf, String);

/// The identity of the compiler at `program`, which `memo`, a directory, may remember.
///
/// # Errors
/// Why it cannot be told.
pub fn of(program: &Path, memo: &Path) -> Result<(Digest, Option<Memo>), Unknown> {
    with_loader(program, None, memo, &loader())
}

/// As [`of`], for the linker at `program`: lld is what it is called.
///
/// # Errors
/// Why it cannot be told.
pub fn of_linker(program: &Path, memo: &Path) -> Result<(Digest, Option<Memo>), Unknown> {
    with_loader(program, Some("ld.lld"), memo, &loader())
        .map_err(|_| "which linker it is cannot be told")
}

fn loader() -> [OsString; 4] {
    ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "GLIBC_TUNABLES"]
        .map(|name| env::var_os(name).unwrap_or_default())
}

fn with_loader(
    program: &Path,
    called: Option<&str>,
    memo: &Path,
    loader: &[OsString; 4],
) -> Result<(Digest, Option<Memo>), Unknown> {
    const UNREADABLE: Unknown = "the compiler cannot be read";
    let program = fs::canonicalize(program).map_err(|_| UNREADABLE)?;
    // lld has no configuration files, and does without the check of what they say.
    let is_configured = called.is_none();
    let called = called.map_or(program.as_os_str(), OsStr::new).to_owned();
    let mut name = Parts::new().with(program.as_os_str().as_bytes());
    for value in loader {
        name.add(value.as_bytes());
    }
    let memo = memo.join(format!("{}", name.digest()));
    if let Some(digest) = fs::read(&memo).ok().and_then(|text| remembered(&text)) {
        return Ok((digest, None));
    }
    let now = SystemTime::now();
    let head = fs::read(&program).map_err(|_| UNREADABLE)?;
    if !is_dynamic(&head) {
        // A script would be run by what follows; what it runs in turn nobody can tell.
        return Err("the compiler is no program with shared libraries");
    }
    drop(head);
    let libraries = libraries(&program).map_err(|_| "the compiler's libraries cannot be told")?;
    let mut files = BTreeSet::from([program.clone()]);
    for library in &libraries {
        files.insert(fs::canonicalize(library).map_err(|_| UNREADABLE)?);
    }
    let version = said(Command::new(&program).arg0(&called).arg("--version"))
        .map_err(|_| "the compiler does not tell its version")?;
    // Those of other targets stand there, too.
    let beside = program.parent().unwrap_or(Path::new("/"));
    let mut configurations: BTreeSet<PathBuf> = configuration_files(beside).into_iter().collect();
    for line in version.split(|&byte| byte == b'\n') {
        if let Some(path) = line.strip_prefix(b"Configuration file: ") {
            // It may include others, which stand beside it.
            let directory = Path::new(OsStr::from_bytes(path)).parent().unwrap_or(Path::new("/"));
            configurations.extend(configuration_files(directory));
        }
    }
    for file in configurations.iter().filter(|_| is_configured) {
        let words = words(file).map_err(|_| UNREADABLE)?;
        let words = words.ok_or("the compiler's configuration cannot be understood")?;
        if !includes(file, &words).iter().all(|file| configurations.contains(file)) {
            return Err("the compiler's configuration includes files from elsewhere");
        }
        if clang::depends_on_more(&words) {
            return Err("the compiler's configuration names files, or the processor");
        }
    }
    files.extend(configurations);
    // By the names that the loader uses: a symlink on the way may lead elsewhere one day.
    let names = files.iter().chain(&libraries);
    let mut watched: BTreeSet<PathBuf> =
        names.filter_map(|file| file.parent().map(Path::to_owned)).collect();
    watched.extend(libraries);
    watched.extend(["/etc/ld.so.cache", "/etc/ld.so.preload"].map(PathBuf::from));
    watched.extend(env::split_paths(&loader[0]).filter(|path| !path.as_os_str().is_empty()));
    let mut parts = Parts::new().with(&version);
    let mut text = String::new();
    let mut settled = true;
    for file in &files {
        let meta = fs::metadata(file).map_err(|_| UNREADABLE)?;
        parts.add(file.file_name().unwrap_or_default().as_bytes());
        parts.add(Digest::of_file(file).map_err(|_| UNREADABLE)?.bytes());
        settled &= remember(file, Some(Signature::of(&meta)), now, &mut text);
    }
    for path in &watched {
        settled &= remember(path, Signature::at(path), now, &mut text);
    }
    let digest = parts.digest();
    let memo = settled.then(|| (memo, digest::sealed(&format!("{HEADER}\n{digest}\n{text}"))));
    Ok((digest, memo))
}

/// The program of a tool and LLVM's libraries beside it, by their signatures: enough to see that it
/// was exchanged on this machine, and quick without a memo. Not for entries of the cache: another
/// machine's files have other signatures.
///
/// # Errors
/// Why it cannot be told.
pub fn installed(program: &Path) -> Result<Signed, Unknown> {
    let program = fs::canonicalize(program).map_err(|_| "the compiler cannot be read")?;
    let directory = program.parent().unwrap_or(Path::new("/"));
    let is_llvm_s = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_bytes();
        ["libLLVM", "libclang-cpp", "liblld"].iter().any(|stem| name.starts_with(stem.as_bytes()))
    };
    let entries = ["../lib", "../lib64"].map(|name| fs::read_dir(directory.join(name)));
    let entries = entries.into_iter().flatten().flatten().filter_map(Result::ok);
    let mut files: BTreeSet<PathBuf> =
        entries.map(|entry| entry.path()).filter(is_llvm_s).collect();
    files.insert(program);
    Ok(Signed::now(files))
}

/// Adds a path and its signature to the memo; says whether the signature can be relied on.
fn remember(path: &Path, signature: Option<Signature>, now: SystemTime, text: &mut String) -> bool {
    let words = signature.map_or_else(|| "-".to_owned(), |signature| signature.to_words());
    let Some(name) = path.to_str().filter(|name| !name.contains('\n')) else { return false };
    let _ = writeln!(text, "{words} {name}");
    signature.is_none_or(|signature| signature.is_settled(now))
}

/// The identity out of a memo in which every signature still holds.
fn remembered(text: &[u8]) -> Option<Digest> {
    let mut lines = digest::unsealed(std::str::from_utf8(text).ok()?)?.lines();
    if lines.next() != Some(HEADER) {
        return None;
    }
    let digest = Digest::from_hex(lines.next()?)?;
    for line in lines {
        let (signature, path) = if let Some(path) = line.strip_prefix("- ") {
            (None, path)
        } else {
            let mut words = line.splitn(6, ' ');
            (Some(Signature::from_words(&mut words)?), words.next()?)
        };
        if Signature::at(Path::new(path)) != signature {
            return None;
        }
    }
    Some(digest)
}

/// An ELF program with an interpreter: `LD_TRACE_LOADED_OBJECTS` then lists its libraries
/// instead of running it.
fn is_dynamic(program: &[u8]) -> bool {
    use object::read::elf::{FileHeader, ProgramHeader};
    fn class<H: FileHeader<Endian = object::Endianness>>(data: &[u8]) -> Option<bool> {
        let header = H::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, data).ok()?;
        Some(segments.iter().any(|segment| segment.p_type(endian) == object::elf::PT_INTERP))
    }
    class::<object::elf::FileHeader64<object::Endianness>>(program)
        .or_else(|| class::<object::elf::FileHeader32<object::Endianness>>(program))
        .unwrap_or(false)
}

/// The files that the loader gives to `program`, as `ldd` finds and names them.
fn libraries(program: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let listed = said(Command::new(program).env("LD_TRACE_LOADED_OBJECTS", "1"))?;
    let mut files = BTreeSet::new();
    for line in listed.split(|&byte| byte == b'\n') {
        let Some(start) = line.iter().position(|&byte| byte == b'/') else { continue };
        let end = line.windows(3).rposition(|three| three == b" (0").unwrap_or(line.len());
        let path = OsString::from_vec(line.get(start..end).unwrap_or_default().to_vec());
        files.insert(PathBuf::from(path));
    }
    if files.is_empty() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(files) }
}

fn configuration_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let is_configuration =
        |path: &PathBuf| path.extension().is_some_and(|end| end == "cfg") && path.is_file();
    entries.map(|entry| entry.path()).filter(is_configuration).collect()
}

/// The files that a configuration file includes, relative to its own directory where they do not
/// say otherwise (clang's manual, "Configuration files").
fn includes(file: &Path, words: &[OsString]) -> Vec<PathBuf> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let named = |word: &OsString| {
        Some(directory.join(OsStr::from_bytes(word.as_bytes().strip_prefix(b"@")?)))
    };
    words.iter().filter_map(named).collect()
}

/// The words of a configuration file. `None`: a quote is open.
fn words(file: &Path) -> io::Result<Option<Vec<OsString>>> {
    let text = fs::read(file)?;
    let lines = text.split(|&byte| byte == b'\n');
    let lines = lines.filter(|line| !line.trim_ascii_start().starts_with(b"#"));
    let words: Option<Vec<Vec<OsString>>> = lines.map(response::tokenize).collect();
    Ok(words.map(|lines| lines.concat()))
}

fn said(command: &mut Command) -> io::Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    if output.status.success() { Ok(output.stdout) } else { Err(io::ErrorKind::Other.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_no_compiler_to_be_known() {
        let space = tempfile::tempdir().expect("a directory");
        let script = space.path().join("clang");
        let left = space.path().join("left");
        fs::write(&script, format!("#!/bin/sh\ntouch {}\n", left.display())).expect("a file");
        assert!(of(&script, space.path()).is_err());
        assert!(!left.exists());
    }

    #[test]
    fn configurations_include_others() {
        let space = tempfile::tempdir().expect("a directory");
        let file = space.path().join("clang.cfg");
        fs::write(&file, "# @not.cfg\n-O2 @more.cfg\n@/etc/other -DX='@y'\n").expect("a file");
        let expected = [space.path().join("more.cfg"), PathBuf::from("/etc/other")];
        assert_eq!(includes(&file, &words(&file).expect("a file").expect("words")), expected);
    }

    /// Any program whose `--version` succeeds will do.
    #[test]
    fn what_is_remembered_holds_while_nothing_changes() {
        let space = tempfile::tempdir().expect("a directory");
        // Cargo gives tests a library path that it has just written to.
        let cat = || with_loader(Path::new("/bin/cat"), None, space.path(), &Default::default());
        let (digest, memo) = cat().expect("a program");
        let (path, text) = memo.expect("/bin/cat is not new");
        assert_eq!(remembered(text.as_bytes()), Some(digest));
        fs::write(&path, &text).expect("a file");
        assert_eq!(cat(), Ok((digest, None)));
        let inner = digest::unsealed(&text).expect("a seal");
        let other = inner.replacen("\n- ", "\n1 2 3 4 5 ", 1);
        assert_ne!(other, inner, "no ld.so.preload on this machine");
        assert_eq!(remembered(digest::sealed(&other).as_bytes()), None);
        for at in 0..text.len() {
            assert_eq!(remembered(&text.as_bytes()[..at]), None, "{at} bytes are left");
        }
    }
}
