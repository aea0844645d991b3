//! A child that stays this program.
#![expect(unsafe_code, reason = "fork, and what its child may do")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use super::fd;

/// Forks a child that nothing sent to us or to our terminal or process group reaches, short of
/// SIGKILL to itself: a session of its own, every signal blocked, `/` as its directory, and no
/// descriptor but those in `fds` (0, 1 and 2 are `/dev/null`). It runs `work` and exits.
///
/// `work` must not allocate, lock, log or panic: another thread may have held any lock when
/// the child was made.
pub fn fork_detached<const N: usize>(
    name: &CStr,
    fds: [OwnedFd; N],
    work: impl FnOnce([OwnedFd; N]),
) -> io::Result<Pid> {
    // Out of the way of the standard three, which the child will put /dev/null on.
    let mut raised = Vec::with_capacity(N);
    for fd in &fds {
        raised.push(fd::duplicate(fd.as_raw_fd(), 3)?);
    }
    let Ok(raised) = <[OwnedFd; N]>::try_from(raised) else { unreachable!("N in, N out") };
    let mut numbers = raised.each_ref().map(AsRawFd::as_raw_fd);

    // Blocked before the fork, so that no handler of ours runs in the child in between.
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: the child only makes system calls on memory that it had before the fork, and
    // leaves by _exit, so no lock of another thread and no destructor is ever met.
    let forked = unsafe { fork() };
    if let Ok(ForkResult::Child) = forked {
        let _ = setsid();
        // SAFETY: PR_SET_NAME reads a string that ends in NUL; both calls touch nothing else.
        unsafe {
            libc::prctl(libc::PR_SET_NAME, name.as_ptr());
            libc::chdir(c"/".as_ptr());
        }
        fd::keep_only(&mut numbers);
        std::mem::forget(fds);
        work(raised);
        // SAFETY: ends the process without the parent's exit handlers.
        unsafe { libc::_exit(0) }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    match forked? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => unreachable!("the child has left"),
    }
}

/// Becomes another program, in a child of [`fork_detached`]: nothing is allocated. Returns where
/// that fails.
pub fn exec<const N: usize>(program: &CStr, argv: &[&CStr; N]) {
    const ARGS_MAX: usize = 8;
    let mut pointers = [std::ptr::null(); ARGS_MAX];
    for (pointer, arg) in pointers[..ARGS_MAX - 1].iter_mut().zip(argv) {
        *pointer = arg.as_ptr();
    }
    // SAFETY: the strings and the array, which ends in a null pointer, live until the call returns.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
}
