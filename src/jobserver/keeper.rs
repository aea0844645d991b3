//! The keeper: a process of its own that alone reads tokens, so that no death of thinshim,
//! SIGKILL included, loses one.
//!
//! It has the jobserver's write end open from before it reads the first token (makes count
//! their tokens when the last foreign write end closes), remembers each byte, and puts all of
//! them back when its socket says that thinshim is gone. Signals for thinshim's terminal,
//! session or process group do not reach it.
//!
//! After the fork it neither allocates nor logs: see [`fork_detached`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, shutdown, socketpair,
};
use nix::sys::wait::waitpid;
use nix::unistd::{self, Pid};

use super::discovery::{Ends, Reading};
use crate::sys::fd;
use crate::sys::fork::fork_detached;

/// One message on the socket. To the keeper: demand number `turn` is for `tokens`. From it:
/// after demand number `turn` it holds `tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) turn: u32,
    pub(super) tokens: u32,
}

impl Message {
    const SIZE: usize = 8;

    fn to_bytes(self) -> [u8; Message::SIZE] {
        ((u64::from(self.turn) << 32) | u64::from(self.tokens)).to_le_bytes()
    }

    fn from_bytes(bytes: [u8; Message::SIZE]) -> Message {
        let both = u64::from_le_bytes(bytes);
        let half = |bits| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
        Message { turn: half(both >> 32), tokens: half(both) }
    }
}

/// What a socket had to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Message(Message),
    Nothing,
    /// The other side is gone.
    End,
}

fn hear(socket: &OwnedFd, flags: MsgFlags) -> Heard {
    let mut bytes = [0; Message::SIZE];
    loop {
        return match recv(socket.as_raw_fd(), &mut bytes, flags) {
            Ok(Message::SIZE) => Heard::Message(Message::from_bytes(bytes)),
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => Heard::Nothing,
            Ok(_) | Err(_) => Heard::End,
        };
    }
}

/// thinshim's side of the keeper.
#[derive(Debug)]
pub(super) struct Keeper {
    pid: Pid,
    socket: OwnedFd,
}

impl Keeper {
    /// Forks the keeper of this jobserver.
    pub(super) fn start(ends: Ends) -> io::Result<Keeper> {
        // Messages keep their borders, and the end of either side shows at the other.
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let Ends { read, write, reading } = ends;
        let pid = match reading {
            Reading::Private => fork_detached(NAME, [theirs, read, write], |fds| {
                let [socket, read, write] = fds;
                keep(&socket, &Reader::Private(read), &write);
            })?,
            Reading::Shared => {
                let (from, to) = unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
                fork_detached(NAME, [theirs, read, write, from, to], |fds| {
                    let [socket, read, write, from, to] = fds;
                    keep(&socket, &Reader::Shared { read, from, to }, &write);
                })?
            }
        };
        Ok(Keeper { pid, socket })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable when there is something to hear.
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// False: the keeper is dead. It never waits for anything while messages wait for it, so
    /// this does not block.
    pub(super) fn say(&self, message: Message) -> bool {
        loop {
            match send(self.socket.as_raw_fd(), &message.to_bytes(), MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => {}
                result => return result.is_ok(),
            }
        }
    }

    pub(super) fn hear(&self) -> Heard {
        hear(&self.socket, MsgFlags::MSG_DONTWAIT)
    }
}

/// Waits until every token is back: a make that sees us exit may count them at once.
impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        // The end comes by its exit, so the tokens are back even if a waitpid for any child,
        // elsewhere, reaps it before us.
        while hear(&self.socket, MsgFlags::empty()) != Heard::End {}
        while waitpid(self.pid, None) == Err(Errno::EINTR) {}
    }
}

/// 15 bytes are what the kernel keeps of a name.
const NAME: &std::ffi::CStr = c"thinshim-keeper";

#[derive(Debug)]
enum Reader {
    Private(OwnedFd),
    Shared { read: OwnedFd, from: OwnedFd, to: OwnedFd },
}

impl Reader {
    fn fd(&self) -> &OwnedFd {
        match self {
            Reader::Private(read) | Reader::Shared { read, .. } => read,
        }
    }

    /// A token, if there is one; never waits. Another client may have been faster than poll.
    fn take(&self) -> Result<Option<u8>, Errno> {
        let mut byte = [0];
        let from = match self {
            Reader::Private(read) => read,
            Reader::Shared { read, from, to } => match fd::move_byte(read, to) {
                Ok(true) => from,
                Ok(false) => return Ok(None),
                Err(error) => {
                    return errno_to_take(Errno::from_raw(error.raw_os_error().unwrap_or(0)));
                }
            },
        };
        match unistd::read(from, &mut byte) {
            Ok(1) => Ok(Some(byte[0])),
            Ok(_) => Err(Errno::EPIPE),
            Err(errno) => errno_to_take(errno),
        }
    }
}

fn errno_to_take(errno: Errno) -> Result<Option<u8>, Errno> {
    if matches!(errno, Errno::EAGAIN | Errno::EINTR) { Ok(None) } else { Err(errno) }
}

/// The tokens in hand, by their bytes: a jobserver may tell them apart.
struct Tokens {
    counts: [u32; 256],
    total: u32,
}

impl Tokens {
    fn add(&mut self, byte: u8) {
        self.counts[usize::from(byte)] += 1;
        self.total += 1;
    }

    /// Puts tokens back until at most `most` are left.
    fn reduce(&mut self, most: u32, jobserver: &OwnedFd) {
        for (byte, count) in (0..=u8::MAX).zip(&mut self.counts) {
            while *count > 0 && self.total > most {
                put_back(byte, jobserver);
                *count -= 1;
                self.total -= 1;
            }
        }
    }
}

/// Gives up only when nobody is left who could read it.
fn put_back(byte: u8, jobserver: &OwnedFd) {
    loop {
        match unistd::write(jobserver, &[byte]) {
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(jobserver.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut fds, PollTimeout::NONE);
            }
            Err(Errno::EINTR) => {}
            _ => return,
        }
    }
}

/// The keeper's life.
fn keep(socket: &OwnedFd, jobserver: &Reader, back: &OwnedFd) {
    let mut tokens = Tokens { counts: [0; 256], total: 0 };
    let mut demand = Message { turn: 0, tokens: 0 };
    let mut told = Message { turn: 0, tokens: 0 };
    let mut broken = false;
    loop {
        let state = Message { turn: demand.turn, tokens: tokens.total };
        if state != told {
            // Only the newest state counts, so a full socket costs nothing but a later try.
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            if send(socket.as_raw_fd(), &state.to_bytes(), flags).is_ok() {
                told = state;
            }
        }
        let wants = tokens.total < demand.tokens && !broken;
        let mut socket_events = PollFlags::POLLIN;
        socket_events.set(PollFlags::POLLOUT, state != told);
        let mut fds = [
            PollFd::new(socket.as_fd(), socket_events),
            PollFd::new(jobserver.fd().as_fd(), PollFlags::POLLIN),
        ];
        let asked = if wants { &mut fds[..] } else { &mut fds[..1] };
        if poll(asked, PollTimeout::NONE).is_err() {
            continue;
        }
        let readable = wants && fds[1].any() == Some(true);
        loop {
            match hear(socket, MsgFlags::MSG_DONTWAIT) {
                Heard::Message(message) => demand = message,
                Heard::Nothing => break,
                Heard::End => {
                    tokens.reduce(0, back);
                    return;
                }
            }
        }
        tokens.reduce(demand.tokens, back);
        // One at a time: others wait for tokens, too.
        if readable && tokens.total < demand.tokens {
            match jobserver.take() {
                Ok(Some(byte)) => tokens.add(byte),
                Ok(None) => {}
                Err(_) => broken = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::{Read, Write};

    proptest! {
        #[test]
        fn messages(turn: u32, tokens: u32) {
            let message = Message { turn, tokens };
            prop_assert_eq!(Message::from_bytes(message.to_bytes()), message);
        }

        /// Whatever the bytes are, those that came go back.
        #[test]
        fn bytes_stay_what_they_are(mut bytes in prop::collection::vec(any::<u8>(), 0..40), part in 0..40u32) {
            let (read, write) = unistd::pipe().expect("a pipe");
            let mut tokens = Tokens { counts: [0; 256], total: 0 };
            for &byte in &bytes {
                tokens.add(byte);
            }
            tokens.reduce(part, &write);
            prop_assert_eq!(tokens.total, part.min(u32::try_from(bytes.len()).expect("few")));
            tokens.reduce(0, &write);
            drop(write);
            let mut back = Vec::new();
            File::from(read).read_to_end(&mut back).expect("a read");
            bytes.sort_unstable();
            back.sort_unstable();
            prop_assert_eq!(back, bytes);
        }
    }

    /// A description that others share is never waited on, and its flags stay.
    #[test]
    fn a_shared_pipe() {
        let (read, write) = unistd::pipe().expect("a pipe");
        let (from, to) = unistd::pipe().expect("a pipe");
        let reader = Reader::Shared { read, from, to };
        assert_eq!(reader.take(), Ok(None));
        File::from(write.try_clone().expect("a copy")).write_all(b"ab").expect("a write");
        assert_eq!(reader.take(), Ok(Some(b'a')));
        assert_eq!(reader.take(), Ok(Some(b'b')));
        assert_eq!(reader.take(), Ok(None));
    }
}
