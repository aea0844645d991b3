//! thinshim's side of a warm compiler.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use nix::unistd::Pid;

use super::wire::{HELLO, Header, Place, STREAMS};
use crate::sys::{child, fd, heap, sigpipe};

/// What `build.rs` made of `preload.rs`; empty where warm compilers cannot be.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/preload.so"));

/// Tells the library its descriptors: the socket, and its own file.
const FDS_VARIABLE: &str = "THINSHIM_WARM_FDS";

/// A compiler that is not there by then never will be.
pub const START_MAX: Duration = Duration::from_secs(10);

/// Whose jobs a warm compiler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jobs {
    /// This process's: they are in its process group, and have what it has.
    Own,
    /// Other processes', each with its own place.
    Others,
}

/// A compiler that is loaded and waits for jobs; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    socket: UnixStream,
    process: Child,
    greeted: bool,
}

impl Server {
    /// Starts `compiler` with the signal mask `mask`; [`Server::ready`] tells whether it came up.
    ///
    /// # Errors
    /// Why this one cannot be warm.
    pub fn start(compiler: &Path, jobs: Jobs, mask: SigSet) -> io::Result<Server> {
        if LIBRARY.is_empty() {
            return Err(io::Error::other("not built for this system"));
        }
        if !is_program(compiler)? {
            // A script would run its commands without a job.
            return Err(io::Error::other(format!("{} is no ELF program", compiler.display())));
        }
        let library = library()?;
        let (socket, theirs) = UnixStream::pair()?;
        // One that has stopped must not stop everybody.
        socket.set_write_timeout(Some(START_MAX))?;
        let mut command = Command::new(compiler);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut preload = env::var_os("LD_PRELOAD").unwrap_or_default();
        if !preload.is_empty() {
            preload.push(":");
        }
        preload.push(format!("/proc/self/fd/{}", library.as_raw_fd()));
        command
            .env("LD_PRELOAD", preload)
            // Once here is better than once in each job.
            .env("LD_BIND_NOW", "1")
            .env(FDS_VARIABLE, format!("{},{}", theirs.as_raw_fd(), library.as_raw_fd()));
        heap::on_huge_pages(&mut command);
        if jobs == Jobs::Others {
            // Out of reach of a terminal's signals, and with nothing that a job could inherit.
            command.current_dir("/").process_group(0);
            fd::inherit_nothing(&mut command);
        }
        fd::inherit(&mut command, vec![theirs.as_raw_fd(), library.as_raw_fd()]);
        child::dies_with_parent(&mut command, Signal::SIGKILL);
        child::with_signal_mask(&mut command, mask);
        sigpipe::pass_on(&mut command);
        let process = command.spawn()?;
        Ok(Server { socket, process, greeted: false })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether the compiler takes jobs; waits until it is loaded.
    pub fn ready(&mut self) -> bool {
        if !self.greeted {
            let mut hello = [0; 4];
            let heard = self
                .socket
                .set_read_timeout(Some(START_MAX))
                .and_then(|()| self.socket.read_exact(&mut hello));
            self.greeted = heard.is_ok()
                && i32::from_ne_bytes(hello) == HELLO
                && self.has_one_thread().is_ok();
        }
        self.greeted
    }

    /// Looks whether the loaded compiler has one thread: of others a fork would have what they have
    /// locked, and not themselves.
    ///
    /// # Errors
    /// It has others, or is gone.
    pub fn has_one_thread(&self) -> io::Result<()> {
        match fs::read_dir(format!("/proc/{}/task", self.id()))?.count() {
            1 => Ok(()),
            count => Err(io::Error::other(format!("it has {count} threads"))),
        }
    }

    /// Starts a job. It becomes a child of this process.
    ///
    /// # Errors
    /// The compiler is gone, or cannot fork.
    pub(super) fn spawn(
        &self,
        argv: &[&OsStr],
        environment: &Environment,
        streams: [BorrowedFd<'_>; STREAMS],
    ) -> io::Result<Pid> {
        let (header, strings) = job(argv.iter().map(|word| word.as_bytes()), environment)?;
        let header = Header { parent: std::process::id(), ..header };
        self.send(header, &strings, &streams.map(|stream| stream.as_raw_fd()))?;
        let mut answer = [0; 4];
        (&self.socket).read_exact(&mut answer)?;
        match i32::from_ne_bytes(answer) {
            pid if pid > 0 => Ok(Pid::from_raw(pid)),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        }
    }

    /// Sends a job, for an answer to come.
    ///
    /// # Errors
    /// The compiler is gone.
    pub fn send(&self, header: Header, strings: &[u8], fds: &[RawFd]) -> io::Result<()> {
        let header = header.to_bytes();
        let sent = sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&header), IoSlice::new(strings)],
            &[ControlMessage::ScmRights(fds)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        let sent = sent.checked_sub(header.len()).ok_or(io::ErrorKind::WriteZero)?;
        (&self.socket).write_all(&strings[sent..])
    }

    /// Readable when there is an answer, or never will be one.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// An answer, if one is there: [`HELLO`] at first, then a job's process or an error's number,
    /// negative.
    ///
    /// # Errors
    /// The compiler is gone.
    pub fn answer(&self) -> io::Result<Option<i32>> {
        let mut answer = [0; 4];
        let flags = MsgFlags::MSG_DONTWAIT;
        match recv(self.socket.as_raw_fd(), &mut answer, flags) {
            Ok(4) => Ok(Some(i32::from_ne_bytes(answer))),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its jobs are ours, and are waited for where they were started.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The library as a file in memory, for `/proc/self/fd` in the child.
fn library() -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"thinshim-preload", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(LIBRARY)?;
    // 0, 1 and 2 become the child's standard streams.
    fd::duplicate(file.as_fd().as_raw_fd(), 3)
}

fn is_program(path: &Path) -> io::Result<bool> {
    let mut magic = [0; 4];
    let read = File::open(path)?.read_exact(&mut magic);
    Ok(read.is_ok() && magic == *b"\x7fELF")
}

/// The strings of a job, and the header that counts them.
///
/// # Errors
/// A string with a NUL, or too many.
pub(super) fn job<'a>(
    argv: impl Iterator<Item = &'a [u8]>,
    environment: &Environment,
) -> io::Result<(Header, Vec<u8>)> {
    let mut strings = Vec::new();
    let mut arguments = 0;
    for argument in argv {
        push(&mut strings, &[argument])?;
        arguments += 1;
    }
    strings.extend_from_slice(&environment.strings);
    let variables = environment.count;
    let bytes = u32::try_from(strings.len())
        .map_err(|_| io::Error::from(io::ErrorKind::ArgumentListTooLong))?;
    let place = Place::default();
    Ok((Header { bytes, arguments, variables, parent: 0, place }, strings))
}

/// An environment, as a job is sent it.
#[derive(Debug)]
pub(super) struct Environment {
    strings: Vec<u8>,
    count: u32,
}

impl Environment {
    /// This process's own.
    ///
    /// # Errors
    /// A variable with a NUL.
    pub(super) fn own() -> io::Result<Environment> {
        Environment::with(env::vars_os())
    }

    /// What `command` would get.
    ///
    /// # Errors
    /// A variable with a NUL.
    pub(super) fn of(command: &Command) -> io::Result<Environment> {
        if command.get_envs().next().is_none() {
            return Environment::own();
        }
        let mut variables: BTreeMap<OsString, OsString> = env::vars_os().collect();
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => variables.insert(name.to_owned(), value.to_owned()),
                None => variables.remove::<OsStr>(name),
            };
        }
        Environment::with(variables)
    }

    fn with(variables: impl IntoIterator<Item = (OsString, OsString)>) -> io::Result<Environment> {
        let mut environment = Environment { strings: Vec::new(), count: 0 };
        for (name, value) in variables {
            push(&mut environment.strings, &[name.as_bytes(), b"=", value.as_bytes()])?;
            environment.count += 1;
        }
        Ok(environment)
    }
}

/// Appends a string with the NUL that ends it.
fn push(strings: &mut Vec<u8>, parts: &[&[u8]]) -> io::Result<()> {
    for part in parts {
        if part.contains(&0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        strings.extend_from_slice(part);
    }
    strings.push(0);
    Ok(())
}
