//! A process that outlives this one for a moment, to remove its directory: after SIGKILL nobody
//! else can.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{self, Pid};

use super::fd;
use super::fork::{exec, fork_detached};

/// Children die with their link, but not in the same instant: a file that appears while the
/// directory is being removed makes the first try fail.
const REMOVE: &CStr = c"rm -rf -- \"$0\" 2>/dev/null || { sleep 0.2; rm -rf -- \"$0\"; }";

/// As [`REMOVE`], for a link: a linker that got its signal before it had taken note of the file
/// that it writes (`.tmp` and seven digits, `FileOutputBuffer.cpp`) leaves that. Files older than
/// what the link did last in its directory are another's.
const REMOVE_LINK: &CStr = c"\
    sweep() {\n\
        for file in \"$1\".tmp[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]; do\n\
            [ \"$0\" -nt \"$file\" ] || rm -f -- \"$file\"\n\
        done\n\
    }\n\
    sweep \"$1\"; sleep 0.2; sweep \"$1\"\n\
    rm -rf -- \"$0\"";

/// What is guarded.
#[derive(Clone, Copy, Debug)]
pub enum Guarded<'a> {
    /// A directory.
    Directory,
    /// A link's directory.
    Link {
        /// The lock that makes it this link's.
        lock: &'a File,
        /// An absolute path.
        output: &'a Path,
    },
}

/// The guardian of a directory. Dropping it dismisses it: the directory is then ours to remove.
#[derive(Debug)]
pub struct Guardian {
    pid: Pid,
    /// The guardian waits for a byte (we go in peace) or the end (we were killed).
    peace: OwnedFd,
}

impl Guardian {
    /// Sets a guardian for `directory`, an absolute path.
    ///
    /// # Errors
    /// The operating system's.
    pub fn set(directory: &Path, guarded: Guarded<'_>) -> io::Result<Guardian> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        let (ours, peace) = unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let pid = match guarded {
            Guarded::Directory => fork_detached(c"thinshim-guard", [ours], move |[end]| {
                if died(&end) {
                    exec(c"/bin/sh", &[c"sh", c"-c", REMOVE, &path]);
                }
            }),
            Guarded::Link { lock, output } => {
                let output = CString::new(output.as_os_str().as_bytes())?;
                let lock = lock.try_clone()?.into();
                fork_detached(c"thinshim-guard", [ours, lock], move |[end, lock]| {
                    // Nobody else takes the directory before it is gone.
                    if died(&end) && fd::stay_open(lock.as_raw_fd()).is_ok() {
                        exec(c"/bin/sh", &[c"sh", c"-c", REMOVE_LINK, &path, &output]);
                    }
                })
            }
        }?;
        Ok(Guardian { pid, peace })
    }
}

/// Waits until the other end of the pipe has gone, and tells whether that was without a word.
fn died(end: &OwnedFd) -> bool {
    loop {
        match unistd::read(end, &mut [0]) {
            Err(Errno::EINTR) => {}
            word => return word == Ok(0),
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        let _ = unistd::write(&self.peace, &[0]);
        while nix::sys::wait::waitpid(self.pid, None) == Err(Errno::EINTR) {}
    }
}
