//! The files that a warm compiler has loaded: while they are what they were, so is the compiler.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cache::signature::{Signature, Signed};

/// What the loader looks at to find libraries; a new one is another compiler, perhaps.
const LOADER: [&str; 2] = ["/etc/ld.so.cache", "/etc/ld.so.preload"];

/// What the compiler `pid` has mapped by now.
///
/// # Errors
/// The operating system's; or a file is another by now.
pub fn by(pid: u32) -> io::Result<Signed> {
    let maps = fs::read(format!("/proc/{pid}/maps"))?;
    let mut files: Vec<(PathBuf, Option<Signature>)> = Vec::new();
    for (inode, path) in mapped(&maps) {
        if files.last().is_some_and(|(last, _)| last == path) {
            continue;
        }
        let meta = fs::metadata(path)?;
        if meta.ino() != inode {
            return Err(io::Error::other(format!("{} has changed", path.display())));
        }
        files.push((path.to_owned(), Some(Signature::of(&meta))));
    }
    let mut loaded: Signed = files.into_iter().collect();
    loaded.extend(LOADER.map(PathBuf::from));
    Ok(loaded)
}

/// Inodes and paths in a `/proc/PID/maps` (proc(5)). Files in memory (ours) are none.
fn mapped(maps: &[u8]) -> impl Iterator<Item = (u64, &Path)> {
    maps.split(|&byte| byte == b'\n').filter_map(|line| {
        let path = &line[line.iter().position(|&byte| byte == b'/')?..];
        let inode = line.split(|&byte| byte == b' ').nth(4)?;
        let inode = str::from_utf8(inode).ok()?.parse().ok()?;
        (!path.starts_with(b"/memfd:")).then(|| (inode, Path::new(OsStr::from_bytes(path))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let maps = b"7f1-7f2 r-xp 00000000 fe:00 1234                       /usr/lib/a b.so\n\
            7f3-7f4 rw-p 00000000 00:00 0 \n\
            7f5-7f6 r-xp 00000000 00:01 77      /memfd:thinshim-preload (deleted)\n\
            7ff-7ff rw-p 00000000 00:00 0                          [stack]\n";
        let files: Vec<_> = mapped(maps).collect();
        assert_eq!(files, [(1234, Path::new("/usr/lib/a b.so"))]);
    }

    #[test]
    fn of_this_process() {
        let loaded = by(std::process::id()).expect("files");
        assert!(!loaded.has_changed());
        assert_ne!(loaded.digest(), Signed::now(LOADER.map(PathBuf::from)).digest());
    }
}
