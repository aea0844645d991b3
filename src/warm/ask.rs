//! How a call of thinshim asks the `thinshim run` above it for a job in a warm compiler.
//!
//! One message with the streams and the working directory, over a socket of the run's private
//! directory. The job itself answers [`wire::HELLO`] as it begins; the run tells how it ended. A
//! signal goes the other way as its number; the end of the connection is the job's end. Whoever
//! hears no HELLO does as if there were no run.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};

use super::server::START_MAX;
use super::wire::{HELLO, Header, STREAMS};
use crate::site::TOKEN;
use crate::sys::told::Told;

/// Descriptors of a request: the standard streams and the working directory.
pub const FDS: usize = STREAMS + 1;

/// Longest request, in bytes. A socket's buffer is smaller by default.
pub const REQUEST_MAX: usize = 1 << 20;

/// What a job is to the build: the run tells how many of its front ends were served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A front end.
    FrontEnd,
    /// A back end, or a linker.
    Step,
}

impl Part {
    fn word(self) -> u32 {
        self as u32
    }

    fn of_word(word: u32) -> Option<Part> {
        [Part::FrontEnd, Part::Step].into_iter().find(|part| part.word() == word)
    }
}

/// A request, less its descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it is for.
    pub part: Part,
    /// The compiler, or the linker.
    pub program: PathBuf,
    /// [`super::Circumstances::common`] of whoever asks.
    pub common: Vec<u8>,
    /// The job, but for its parent.
    pub header: Header,
    /// Its strings.
    pub strings: Vec<u8>,
}

impl Request {
    /// As it is sent after the token: the header; its part and the lengths of the next two; and all
    /// three.
    fn parts(&self) -> Option<([u8; 12], [&[u8]; 3])> {
        let program = self.program.as_os_str().as_bytes();
        let mut words = [0; 12];
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).ok();
        let values = [self.part.word(), length(program)?, length(&self.common)?];
        for (place, value) in words.chunks_exact_mut(4).zip(values) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
        Some((words, [program, &self.common, &self.strings]))
    }

    /// Reads a message, less its token; `None` where it is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Request> {
        let (header, bytes) = bytes.split_first_chunk::<{ Header::SIZE }>()?;
        let header = Header::from_bytes(*header);
        let (part, bytes) = bytes.split_first_chunk::<4>()?;
        let part = Part::of_word(u32::from_ne_bytes(*part))?;
        let length = |bytes: &[u8; 4]| u32::from_ne_bytes(*bytes) as usize;
        let (program, bytes) = bytes.split_first_chunk::<4>()?;
        let (common, bytes) = bytes.split_first_chunk::<4>()?;
        let (program, bytes) = bytes.split_at_checked(length(program))?;
        let (common, strings) = bytes.split_at_checked(length(common))?;
        (strings.len() == header.bytes as usize).then(|| Request {
            part,
            program: PathBuf::from(OsStr::from_bytes(program)),
            common: common.to_owned(),
            header,
            strings: strings.to_owned(),
        })
    }
}

/// A connection to the run.
#[derive(Debug)]
pub struct Connection(Told);

impl Connection {
    /// Connects to the run's socket at `path`.
    ///
    /// # Errors
    /// The operating system's: there is none.
    pub fn open(path: &Path) -> io::Result<Connection> {
        let kind = SockType::SeqPacket;
        let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Connection(socket.into()))
    }

    /// Says only that a front end runs on its own.
    pub fn tell(&self, token: &[u8; TOKEN]) {
        let _ = self.0.send(token);
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
        let (words, [program, common, strings]) =
            request.parts().ok_or(io::ErrorKind::ArgumentListTooLong)?;
        let header = request.header.to_bytes();
        let parts: [&[u8]; 6] = [token, &header, &words, program, common, strings];
        let fds = fds.map(|fd| fd.as_raw_fd());
        sendmsg::<()>(
            self.0.as_fd().as_raw_fd(),
            &parts.map(IoSlice::new),
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    /// Waits for the job to begin. `None`: there will be none.
    pub fn begin(self) -> Option<Told> {
        let limit = PollTimeout::try_from(START_MAX).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        // No signal that means anything interrupts this: they are held back.
        let has_word = poll(&mut fds, limit).is_ok_and(|count| count > 0);
        (has_word && self.0.word() == Some(HELLO)).then_some(self.0)
    }

    /// What the run says of the job.
    pub fn told(&self) -> &Told {
        &self.0
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
            part: Part::Step,
            program: PathBuf::from("/usr/bin/clang"),
            common: b"Uid: 0\n".to_vec(),
            header,
            strings: b"a\0b\0".to_vec(),
        };
        let (words, parts) = request.parts().expect("short");
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(words);
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
