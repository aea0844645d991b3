//! The processes above this one, and a jobserver's pipe among their descriptors.
//!
//! A recipe without `+` inherits nothing from make 4.3 or from 4.4's `--jobserver-style=pipe`
//! but reads the numbers in MAKEFLAGS. `/proc/PID/fd/N` of the make opens the same pipe with a
//! private description, which needs the same user and nothing else.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use nix::unistd::{Pid, geteuid, getpid, getppid};

/// The open ends of a pipe, each with a description of our own.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) pid: i32,
    pub read: OwnedFd,
    pub(super) write: OwnedFd,
}

/// The pipe at `read` and `write` of the nearest process above us that may own a jobserver.
/// Makes first: they are the ones that leave their children without the descriptors.
pub(super) fn find_pipe(read: RawFd, write: RawFd) -> Option<Pipe> {
    // In a PID namespace that has not mounted a /proc of its own, its numbers mean others.
    if fs::read_link("/proc/self").ok()?.as_os_str() != getpid().to_string().as_str() {
        return None;
    }
    let ancestors: Vec<_> = Ancestors::new().collect();
    [Role::Make, Role::Cargo, Role::Thinshim].into_iter().find_map(|role| {
        let mut of_role = ancestors.iter().filter(|process| process.role() == Some(role));
        of_role.find_map(|process| process.pipe(read, write).ok())
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Or ninja.
    Make,
    Cargo,
    Thinshim,
}

/// Loose, for the names that distributions give: `gmake`, `make-4.4`, `ninja-build`,
/// `.cargo-wrapped`. What proves the pipe is the pipe.
fn role(name: &[u8]) -> Option<Role> {
    let has = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
    if has(b"make") || has(b"ninja") {
        Some(Role::Make)
    } else if has(b"cargo") {
        Some(Role::Cargo)
    } else {
        has(b"thinshim").then_some(Role::Thinshim)
    }
}

#[derive(Debug)]
struct Process {
    pid: i32,
    comm: Vec<u8>,
}

impl Process {
    /// By its name or by its program: scripts and links rename one of the two.
    fn role(&self) -> Option<Role> {
        role(&self.comm).or_else(|| {
            let program = fs::read_link(format!("/proc/{}/exe", self.pid)).ok()?;
            role(program.file_name()?.as_bytes())
        })
    }

    fn pipe(&self, read: RawFd, write: RawFd) -> io::Result<Pipe> {
        let refuse = |why: &str| Err(io::Error::other(why.to_owned()));
        let user = geteuid().as_raw();
        if fs::metadata(format!("/proc/{}", self.pid))?.uid() != user {
            return refuse("another user's process");
        }
        let paths = [read, write].map(|fd| PathBuf::from(format!("/proc/{}/fd/{fd}", self.pid)));
        // Looked at before it is opened: opening a device can have effects.
        for (path, need) in paths.iter().zip([0o400, 0o200]) {
            let pipe = fs::metadata(path)?;
            if !pipe.file_type().is_fifo() || pipe.uid() != user {
                return refuse("not a pipe of ours");
            }
            // The link's own mode tells how the owner has it open (proc(5)).
            if fs::symlink_metadata(path)?.mode() & need == 0 {
                return refuse("the wrong end of the pipe");
            }
        }
        // A thinshim has pipes for ends of its own; what it hosts has a name in a directory.
        if self.role() == Some(Role::Thinshim)
            && fs::read_link(&paths[0])?.as_os_str().as_bytes().starts_with(b"pipe:")
        {
            return refuse("a private pipe");
        }
        let open = |path: &PathBuf, options: &mut OpenOptions| -> io::Result<File> {
            options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
        };
        let read = open(&paths[0], OpenOptions::new().read(true))?;
        let write = open(&paths[1], OpenOptions::new().write(true))?;
        let (one, other) = (read.metadata()?, write.metadata()?);
        if !one.file_type().is_fifo() || (one.dev(), one.ino()) != (other.dev(), other.ino()) {
            return refuse("two different files");
        }
        Ok(Pipe { pid: self.pid, read: read.into(), write: write.into() })
    }
}

/// From the parent up to the first process.
struct Ancestors {
    next: i32,
}

impl Ancestors {
    fn new() -> Ancestors {
        Ancestors { next: Pid::as_raw(getppid()) }
    }
}

impl Iterator for Ancestors {
    type Item = Process;

    fn next(&mut self) -> Option<Process> {
        // 0 is the kernel, or a parent outside our PID namespace.
        let pid = Some(self.next).filter(|&pid| pid > 0)?;
        let (comm, parent) = parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)?;
        self.next = parent;
        Some(Process { pid, comm })
    }
}

/// Name and parent out of `/proc/PID/stat`: `7 (any (thing) S 3 ...`. The name ends at the
/// last `)`, since it may contain anything.
fn parse_stat(stat: &[u8]) -> Option<(Vec<u8>, i32)> {
    let open = stat.iter().position(|&byte| byte == b'(')?;
    let close = stat.iter().rposition(|&byte| byte == b')').filter(|&close| close > open)?;
    let fields = OsStr::from_bytes(&stat[close + 1..]).to_str()?;
    let parent = fields.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((stat[open + 1..close].to_vec(), parent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        for name in ["make", "gmake", "make-4.4", "ninja", "ninja-build", "gnumake"] {
            assert_eq!(role(name.as_bytes()), Some(Role::Make), "{name}");
        }
        assert_eq!(role(b"cargo"), Some(Role::Cargo));
        assert_eq!(role(b"thinshim"), Some(Role::Thinshim));
        assert_eq!(role(b"sh"), None);
        assert_eq!(role(b""), None);
    }

    #[test]
    fn our_own_line() {
        let stat = fs::read("/proc/self/stat").expect("/proc");
        let (_, parent) = parse_stat(&stat).expect("a stat line");
        assert_eq!(parent, getppid().as_raw());
        assert_eq!(Ancestors::new().next().map(|process| process.pid), Some(parent));
    }

    #[test]
    fn half_lines() {
        for text in ["", "1", "1 (", "1 (a", "1 )a(", "1 (a)", "1 (a) S", "1 (a) S x"] {
            assert_eq!(parse_stat(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_name(name: Vec<u8>, parent in 0..i32::MAX) {
            let mut line = b"42 (".to_vec();
            line.extend(&name);
            line.extend(format!(") S {parent} 42 42 0 -1 4194304").as_bytes());
            prop_assert_eq!(parse_stat(&line), Some((name, parent)));
        }
    }
}
