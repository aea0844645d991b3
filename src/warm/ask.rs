//! How a call of thinshim asks the `thinshim run` above it for a job in a warm compiler.
//!
//! One message with the streams and the working directory, over a socket of the run's private
//! directory. The job itself answers [`wire::HELLO`] as it begins; the run tells how it ended. A
//! signal goes the other way as its number; the end of the connection is the job's end. Whoever
//! hears no HELLO does as if there were no run.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send,
    sendmsg, socket,
};

use super::wire::{Header, STREAMS};
use crate::site::TOKEN;

/// Descriptors of a request: the standard streams and the working directory.
pub const FDS: usize = STREAMS + 1;

/// Longest request, in bytes. A socket's buffer is smaller by default.
pub const REQUEST_MAX: usize = 1 << 20;

/// A request, less its descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The compiler.
    pub program: PathBuf,
    /// [`super::Circumstances::common`] of whoever asks.
    pub common: Vec<u8>,
    /// The job, but for its parent.
    pub header: Header,
    /// Its strings.
    pub strings: Vec<u8>,
}

impl Request {
    /// As it is sent after the token: the header, the lengths of the next two, and all three.
    fn parts(&self) -> Option<([u8; 8], [&[u8]; 3])> {
        let program = self.program.as_os_str().as_bytes();
        let mut lengths = [0; 8];
        lengths[..4].copy_from_slice(&u32::try_from(program.len()).ok()?.to_ne_bytes());
        lengths[4..].copy_from_slice(&u32::try_from(self.common.len()).ok()?.to_ne_bytes());
        Some((lengths, [program, &self.common, &self.strings]))
    }

    /// Reads a message, less its token; `None` where it is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Request> {
        let (header, bytes) = bytes.split_first_chunk::<{ Header::SIZE }>()?;
        let header = Header::from_bytes(*header);
        let length = |bytes: &[u8; 4]| u32::from_ne_bytes(*bytes) as usize;
        let (program, bytes) = bytes.split_first_chunk::<4>()?;
        let (common, bytes) = bytes.split_first_chunk::<4>()?;
        let (program, bytes) = bytes.split_at_checked(length(program))?;
        let (common, strings) = bytes.split_at_checked(length(common))?;
        (strings.len() == header.bytes as usize).then(|| Request {
            program: PathBuf::from(OsStr::from_bytes(program)),
            common: common.to_owned(),
            header,
            strings: strings.to_owned(),
        })
    }
}

/// A connection to the run.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl Connection {
    /// Connects to the run's socket at `path`.
    ///
    /// # Errors
    /// The operating system's: there is none.
    pub fn open(path: &Path) -> io::Result<Connection> {
        let kind = SockType::SeqPacket;
        let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Connection(socket))
    }

    /// Says only that a compiler runs on its own.
    pub fn tell(&self, token: &[u8; TOKEN]) {
        let _ = send(self.0.as_raw_fd(), token, MsgFlags::MSG_NOSIGNAL);
    }

    /// Asks for a job.
    ///
    /// # Errors
    /// The operating system's: the run is gone, the request is too long.
    pub fn ask(
        &self,
        token: &[u8; TOKEN],
        request: &Request,
        fds: [BorrowedFd<'_>; FDS],
    ) -> io::Result<()> {
        let (lengths, [program, common, strings]) =
            request.parts().ok_or(io::ErrorKind::ArgumentListTooLong)?;
        let header = request.header.to_bytes();
        let parts: [&[u8]; 6] = [token, &header, &lengths, program, common, strings];
        let fds = fds.map(|fd| fd.as_raw_fd());
        sendmsg::<()>(
            self.0.as_raw_fd(),
            &parts.map(IoSlice::new),
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    /// Passes a signal on to the job.
    pub fn signal(&self, number: i32) {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let _ = send(self.0.as_raw_fd(), &number.to_ne_bytes(), flags);
    }

    /// The next word about the job: waits for it. `None`: there will be none.
    pub fn word(&self) -> Option<i32> {
        let mut word = [0; 4];
        loop {
            match recv(self.0.as_raw_fd(), &mut word, MsgFlags::empty()) {
                Ok(4) => return Some(i32::from_ne_bytes(word)),
                Err(Errno::EINTR) => {}
                _ => return None,
            }
        }
    }

    /// Readable when there is a word.
    pub fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warm::wire::Place;
    use proptest::prelude::*;

    #[test]
    fn requests_come_back() {
        let place = Place { group: 7, umask: 0o22, blocked: 1 << 63, ignored: 3 };
        let header = Header { bytes: 4, arguments: 1, variables: 1, parent: 0, place };
        let request = Request {
            program: PathBuf::from("/usr/bin/clang"),
            common: b"Uid: 0\n".to_vec(),
            header,
            strings: b"a\0b\0".to_vec(),
        };
        let (lengths, parts) = request.parts().expect("short");
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(lengths);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        assert_eq!(Request::from_bytes(&bytes), Some(request));
        for end in 0..bytes.len() {
            assert_eq!(Request::from_bytes(&bytes[..end]), None, "{end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            Request::from_bytes(&bytes);
        }
    }
}
