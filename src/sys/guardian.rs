//! A process that outlives this one for a moment, to remove its directory: after SIGKILL nobody
//! else can.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{self, Pid};

use super::fork::fork_detached;

/// Back ends die with their link, but not in the same instant: a file that appears while the
/// directory is being removed makes the first try fail.
const REMOVE: &CStr = c"rm -rf -- \"$0\" 2>/dev/null || { sleep 0.2; rm -rf -- \"$0\"; }";

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
    pub fn set(directory: &Path) -> io::Result<Guardian> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        let (ours, peace) = unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let argv = [c"sh", c"-c", REMOVE, path.as_c_str()];
        let pid = fork_detached(c"thinshim-guard", [ours], move |[end]| {
            let mut byte = [0];
            loop {
                match unistd::read(&end, &mut byte) {
                    Err(Errno::EINTR) => {}
                    Ok(0) => break,
                    _ => return,
                }
            }
            super::fork::exec(c"/bin/sh", &argv);
        })?;
        Ok(Guardian { pid, peace })
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        let _ = unistd::write(&self.peace, &[0]);
        while nix::sys::wait::waitpid(self.pid, None) == Err(Errno::EINTR) {}
    }
}
