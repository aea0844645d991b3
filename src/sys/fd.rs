//! File descriptors known only by their number, and pipes.
#![expect(unsafe_code, reason = "descriptors known by number have no owner to borrow from")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A private, close-on-exec copy of descriptor number `fd`, at `least` or above. The open file
/// description stays shared: its flags are not ours to change.
pub fn duplicate(fd: RawFd, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl takes any number, and says EBADF for one that is not open.
    let copy = checked(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, least) })?;
    // SAFETY: the kernel has just made `copy`; nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Lets descriptor number `fd` end with the next exec. The flag belongs to this process alone,
/// not to the description that others share.
pub fn close_on_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: touches only the descriptor's own flag; EBADF for one that is not open.
    checked(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

/// Lets `command`'s process, and no other child, inherit the descriptors under their numbers.
pub fn inherit(command: &mut Command, fds: Vec<RawFd>) {
    let keep = move || {
        for &fd in &fds {
            // SAFETY: as in `close_on_exec`.
            checked(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure calls only fcntl, which is async-signal-safe.
    unsafe { command.pre_exec(keep) };
}

/// The bytes that wait in a pipe, without taking them.
pub fn waiting(pipe: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, to which the pointer is good for the call.
    checked(unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Moves at most one byte from pipe to pipe without ever waiting, whatever the flags of the
/// source's description are: the way to read a pipe that is shared and cannot be reopened.
/// `Ok(false)`: nothing there.
pub fn move_byte(from: impl AsFd, to: impl AsFd) -> io::Result<bool> {
    // SAFETY: both are open descriptors, and null offsets are what pipes want.
    let moved = unsafe {
        libc::splice(
            from.as_fd().as_raw_fd(),
            std::ptr::null_mut(),
            to.as_fd().as_raw_fd(),
            std::ptr::null_mut(),
            1,
            libc::SPLICE_F_NONBLOCK,
        )
    };
    match moved {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            error => Err(error),
        },
        count => Ok(count == 1),
    }
}

/// Puts `/dev/null` on 0, 1 and 2 and closes every other descriptor but those in `keep`, all of
/// which must be above 2. For a forked child that shall hold nothing of its parent's open;
/// allocates nothing.
pub(super) fn keep_only(keep: &mut [RawFd]) {
    // SAFETY: a child that asks for this has given up every descriptor outside `keep`; no value
    // that owns one of them is used or dropped afterwards.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for standard in 0..3 {
            if null == -1 {
                libc::close(standard);
            } else {
                libc::dup2(null, standard);
            }
        }
        keep.sort_unstable();
        let mut next = 3;
        for &mut fd in keep {
            close_between(next, fd - 1);
            next = fd + 1;
        }
        close_between(next, RawFd::MAX);
    }
}

/// Closes the descriptors `first..=last`.
///
/// # Safety
/// Nothing may use or drop an owner of one of them afterwards.
unsafe fn close_between(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        // Linux 5.9; some sandboxes refuse what they do not know.
        if libc::syscall(libc::SYS_close_range, first, last, 0) == 0 {
            return;
        }
        let open_max = RawFd::try_from(libc::sysconf(libc::_SC_OPEN_MAX)).unwrap_or(1 << 16);
        for fd in first..=last.min(open_max) {
            libc::close(fd);
        }
    }
}
