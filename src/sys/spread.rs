//! Directories for thousands of files that soon go again.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// Makes a directory at `path`, below a new one that is its parent's alone, where the file system
/// is not likely to hold files that went a moment ago.
///
/// An ext4 without a journal gives a file no inode that was another's less than a minute ago, five
/// where the inode's block is still to be written, and looks at each of them before it takes one
/// (`recently_deleted`, fs/ext4/ialloc.c): who makes thousands of files where thousands have just
/// gone waits for seconds. The new directories below one with the flag `T` (chattr(1)) go to parts
/// of the file system that hang on their names, and a directory's files go where it is. Other file
/// systems need nothing of the kind; most refuse the flag.
///
/// # Errors
/// The operating system's.
pub fn create_dir(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir(parent)?;
        let directory = File::open(parent)?;
        let _ = ioctl_getflags(&directory)
            .and_then(|flags| ioctl_setflags(&directory, flags | IFlags::TOPDIR));
    }
    fs::create_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_has_the_flag_where_there_is_one() {
        let space = tempfile::tempdir().expect("a directory");
        let path = space.path().join("parent/below");
        create_dir(&path).expect("a directory");
        assert!(path.is_dir());
        let flags = |path: &Path| File::open(path).map(ioctl_getflags);
        let other = File::open(space.path()).expect("a directory");
        let can = ioctl_getflags(&other)
            .and_then(|flags| ioctl_setflags(&other, flags | IFlags::TOPDIR))
            .and_then(|()| ioctl_getflags(&other))
            .is_ok_and(|flags| flags.contains(IFlags::TOPDIR));
        let has = flags(path.parent().expect("a parent")).expect("a directory");
        assert_eq!(has.is_ok_and(|flags| flags.contains(IFlags::TOPDIR)), can);
        let below = flags(&path).expect("a directory");
        assert!(!below.is_ok_and(|flags| flags.contains(IFlags::TOPDIR)), "its directories stay");
    }
}
