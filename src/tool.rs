//! The real tools: where they are, past thinshim itself.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Which tool a name means. Clang and lld behave by their names, so names alone decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `clang`, `clang++`, with or without a version.
    Clang,
    /// `ld.lld`, with or without a version.
    Lld,
    /// A compiler launcher: its next word is the compiler.
    Launcher,
}

/// The kind of the tool called `name`, a bare name or a path.
pub fn kind(name: &OsStr) -> Option<Kind> {
    let base = base_name(name).to_str()?;
    let is = |stem: &str| {
        base.strip_prefix(stem).is_some_and(|rest| {
            rest.is_empty()
                || rest.strip_prefix('-').is_some_and(|version| {
                    !version.is_empty()
                        && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
                })
        })
    };
    if is("clang") || is("clang++") {
        Some(Kind::Clang)
    } else if is("ld.lld") {
        Some(Kind::Lld)
    } else if matches!(base, "ccache" | "sccache" | "distcc" | "icecc") {
        Some(Kind::Launcher)
    } else {
        None
    }
}

/// A program that runs others, many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builder {
    /// GNU make.
    Make,
    /// ninja.
    Ninja,
}

/// The builder called `name`, a bare name or a path.
pub fn builder(name: &OsStr) -> Option<Builder> {
    match base_name(name).to_str()? {
        "make" | "gmake" => Some(Builder::Make),
        "ninja" | "ninja-build" => Some(Builder::Ninja),
        _ => None,
    }
}

/// The last component of `name`.
pub fn base_name(name: &OsStr) -> &OsStr {
    let bytes = name.as_bytes();
    let start = bytes.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    OsStr::from_bytes(&bytes[start..])
}

/// This program's own file.
pub fn own_path() -> PathBuf {
    env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"))
}

/// Finds the real tool: `name` as it is where it has a slash, else the first executable on PATH
/// that is not thinshim under another name.
pub fn find(name: &OsStr) -> Option<PathBuf> {
    let own = std::fs::metadata("/proc/self/exe").ok().map(|meta| (meta.dev(), meta.ino()));
    let is_real = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|meta| {
            meta.is_file() && meta.mode() & 0o111 != 0 && Some((meta.dev(), meta.ino())) != own
        })
    };
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return is_real(&path).then_some(path);
    }
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    env::split_paths(&path).map(|dir| dir.join(name)).find(|path| is_real(path))
}

/// A tool beside `tool`, symlinks resolved: the clang of the linker's LLVM, or its `ld.lld`.
pub fn beside(tool: &Path, name: impl AsRef<Path>) -> Option<PathBuf> {
    let real = std::fs::canonicalize(tool).ok()?;
    find(real.parent()?.join(name).as_os_str())
}

/// A tool as `clang` finds it: by its path, or by its name after a `-B`, in `COMPILER_PATH`, beside
/// clang, on PATH (clang's `Driver::GetProgramPath`).
pub fn as_clang_finds(clang: &Path, name: &OsStr, prefixes: &[OsString]) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return find(name);
    }
    let compiler_path = env::var_os("COMPILER_PATH").unwrap_or_default();
    let directories =
        env::split_paths(&compiler_path).filter(|path| path.as_os_str() != "").map(OsString::from);
    let first = prefixes.iter().cloned().chain(directories).find_map(|prefix| {
        let mut path = prefix;
        if Path::new(&path).is_dir() {
            path.push("/");
        }
        path.push(name);
        path.as_bytes().contains(&b'/').then(|| find(&path)).flatten()
    });
    first.or_else(|| beside(clang, name)).or_else(|| find(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_tool() {
        for (name, expected) in [
            ("clang", Some(Kind::Clang)),
            ("clang++-22", Some(Kind::Clang)),
            ("/usr/lib/llvm-22/bin/clang-22.1", Some(Kind::Clang)),
            ("ld.lld-19", Some(Kind::Lld)),
            ("ccache", Some(Kind::Launcher)),
            ("clang-format", None),
            ("clang-", None),
            ("gcc", None),
        ] {
            assert_eq!(kind(OsStr::new(name)), expected, "{name}");
        }
    }
}
