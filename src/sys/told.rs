//! A process of which another one, its parent, tells over a socket how it ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv, send};

/// The socket. Each message is a word of 32 bits, in the machine's byte order: a signal's number
/// on the way there; on the way back at last a status as wait(2) has it. Whoever closes it does not
/// want the process any more.
#[derive(Debug)]
pub struct Told(OwnedFd);

impl From<OwnedFd> for Told {
    fn from(socket: OwnedFd) -> Told {
        Told(socket)
    }
}

impl AsFd for Told {
    /// Readable when there is a word.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Told {
    /// Passes a signal on.
    pub fn signal(&self, signal: Signal) {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let _ = send(self.0.as_raw_fd(), &(signal as i32).to_ne_bytes(), flags);
    }

    /// The next word: waits for it. `None`: there will be none.
    pub fn word(&self) -> Option<i32> {
        loop {
            match self.receive(MsgFlags::empty()) {
                Ok(word) => return word,
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<ExitStatus> {
        match self.receive(MsgFlags::MSG_DONTWAIT) {
            Ok(Some(status)) => Some(ExitStatus::from_raw(status)),
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // Its parent is gone, and has taken it along.
            Ok(None) | Err(_) => Some(ExitStatus::from_raw(Signal::SIGKILL as i32)),
        }
    }

    fn receive(&self, flags: MsgFlags) -> nix::Result<Option<i32>> {
        let mut word = [0; 4];
        let length = recv(self.0.as_raw_fd(), &mut word, flags)?;
        Ok((length == word.len()).then(|| i32::from_ne_bytes(word)))
    }

    /// Sends bytes as one message.
    ///
    /// # Errors
    /// The operating system's.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }
}
