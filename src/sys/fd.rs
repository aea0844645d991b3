//! File descriptors known only by their number, and pipes.
#![expect(unsafe_code, reason = "descriptors known by number have no owner to borrow from")]

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

/// `linux/close_range.h`: Linux 5.11.
const CLOSE_RANGE_CLOEXEC: libc::c_int = 4;

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

/// The owner of descriptor number `fd`, which a system call has just made.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: nobody else knows of it yet.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Lets descriptor number `fd` end with the next exec. The flag belongs to this process alone,
/// not to the description that others share.
pub fn close_on_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: touches only the descriptor's own flag; EBADF for one that is not open.
    checked(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

/// Lets descriptor number `fd` go on after the next exec.
pub fn stay_open(fd: RawFd) -> io::Result<()> {
    // SAFETY: as in `close_on_exec`.
    checked(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map(drop)
}

/// Lets `command`'s process inherit no descriptor but its standard streams and those that
/// [`inherit`] is called for afterwards.
pub fn inherit_nothing(command: &mut Command) {
    let close = || {
        // SAFETY: touches only flags of descriptors, close-on-exec at that: they stay open for
        // whoever owns them here.
        if unsafe { libc::syscall(libc::SYS_close_range, 3, RawFd::MAX, CLOSE_RANGE_CLOEXEC) } == 0
        {
            return Ok(());
        }
        // Before Linux 5.11. More than the limit were never opened, as a rule.
        // SAFETY: sysconf reads a limit.
        let open_max = RawFd::try_from(unsafe { libc::sysconf(libc::_SC_OPEN_MAX) });
        for fd in 3..open_max.unwrap_or(1 << 16).min(1 << 16) {
            let _ = close_on_exec(fd);
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure calls only what is async-signal-safe.
    unsafe { command.pre_exec(close) };
}

/// Lets `command`'s process, and no other child, inherit the descriptors under their numbers.
pub fn inherit(command: &mut Command, fds: Vec<RawFd>) {
    let keep = move || {
        for &fd in &fds {
            stay_open(fd)?;
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

/// Receives one message and the descriptors that come with it, close-on-exec. `None`: there is
/// none now. No bytes: the other side is gone.
///
/// # Errors
/// The operating system's; the message or its descriptors did not fit.
pub fn receive<const N: usize>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(N))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = match recvmsg(socket, &mut parts, &mut control, flags) {
        Ok(message) => message,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Those that came are ours, even where not all of them did.
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(numbers) = message {
            fds.extend(numbers);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some((message.bytes, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
    };
    use std::io::{IoSlice, Read};
    use std::os::fd::AsRawFd;

    /// Nobody would ever close them.
    #[test]
    fn descriptors_of_a_message_that_does_not_fit_are_closed() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("sockets");
        let (mut read, write) = io::pipe().expect("a pipe");
        let numbers = [write.as_raw_fd(); 8];
        let rights = [ControlMessage::ScmRights(&numbers)];
        let text = [IoSlice::new(b"x")];
        sendmsg::<()>(one.as_raw_fd(), &text, &rights, MsgFlags::empty(), None).expect("sent");
        drop(write);
        receive::<1>(other.as_fd(), &mut [0; 8]).expect_err("it does not fit");
        drop((one, other));
        assert_eq!(read.read(&mut [0; 1]).expect("the end"), 0);
    }
}
