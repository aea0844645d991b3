//! The warm compilers of a run: one for each clang and each lld that is asked for, for all of the
//! build.
//!
//! Whoever asks is served only where its job would be the same as its own `exec`: nothing of what
//! a fork cannot be given may differ ([`Circumstances`]), and the compiler's files must be those
//! that were loaded. Everybody else hears nothing and goes on alone.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, getsockopt,
    listen, send, socket, sockopt,
};
use nix::unistd::{Pid, geteuid};

use super::summary::FrontEnds;
use crate::cache::signature::Signed;
use crate::site::{Site, TOKEN, TOKEN_VARIABLE};
use crate::sys::child::Process;
use crate::sys::deadline::Deadline;
use crate::sys::fd;
use crate::sys::step::Beside;
use crate::warm::ask::{self, Part, Request};
use crate::warm::loaded;
use crate::warm::wire::HELLO;
use crate::warm::{Circumstances, Jobs, START_MAX, Server};

/// Builds with more different compilers start the rest as usual.
const SERVERS_MAX: usize = 8;

/// So many may wait for their jobs to begin; the others wait to be accepted. Each of them costs
/// descriptors, and a compiler whose answers nobody takes does nothing more.
const ASKING_MAX: usize = 32;

/// All warm compilers of a run, and their jobs.
#[derive(Debug)]
pub(super) struct Compilers {
    listener: OwnedFd,
    token: [u8; TOKEN],
    common: Vec<u8>,
    /// What the run's children have.
    mask: SigSet,
    /// Lets one more be accepted, and sent away, where there are no descriptors left.
    spare: Option<fs::File>,
    /// Connections that have not said yet what they want.
    new: Vec<Newcomer>,
    known: Vec<Compiler>,
    /// Those that get no more jobs, but have some to tell of.
    retired: Vec<Compiler>,
    jobs: Vec<Job>,
    buffer: Vec<u8>,
    /// What became of those that asked.
    pub(super) front_ends: FrontEnds,
}

/// A connection on which nothing was said yet.
#[derive(Debug)]
struct Newcomer {
    client: OwnedFd,
    /// Whoever comes and says nothing takes the place of others.
    deadline: Deadline,
}

#[derive(Debug)]
struct Compiler {
    program: PathBuf,
    /// `None`: it cannot be warm.
    server: Option<Server>,
    /// It takes no more jobs: one got stuck on its way.
    closed: bool,
    /// By when it has to have loaded.
    deadline: Deadline,
    /// What it has loaded, once it has.
    loaded: Option<Signed>,
    /// Jobs for when it has loaded.
    waiting: VecDeque<Asked>,
    /// Whoever waits for jobs whose numbers it has not told yet, in order.
    sent: VecDeque<(Part, OwnedFd)>,
}

#[derive(Debug)]
struct Asked {
    client: OwnedFd,
    request: Request,
    fds: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Job {
    /// `None`: gone, and the job is told to go, too.
    client: Option<OwnedFd>,
    process: Process,
    /// Since nobody wants it any more: it may tidy up.
    deadline: Deadline,
}

impl Compilers {
    /// Opens the site's socket; `mask` is the signal mask of the run's children.
    ///
    /// # Errors
    /// The operating system's, or what it is in this process that a compiler cannot have.
    pub(super) fn listen(site: &Site, mask: SigSet) -> io::Result<Compilers> {
        let common = Circumstances::read()?.common;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(listener.as_raw_fd(), &UnixAddr::new(&site.compilers())?)?;
        listen(&listener, Backlog::MAXCONN)?;
        Ok(Compilers {
            listener,
            token: token()?,
            common,
            mask,
            spare: spare(),
            new: Vec::new(),
            known: Vec::new(),
            retired: Vec::new(),
            jobs: Vec::new(),
            buffer: vec![0; ask::REQUEST_MAX],
            front_ends: FrontEnds::default(),
        })
    }

    /// Lets `command` and what it starts ask.
    pub(super) fn configure(&self, command: &mut Command) {
        command.env(TOKEN_VARIABLE, String::from_utf8_lossy(&self.token).as_ref());
    }

    /// How many wait for their jobs to begin.
    fn asking(&self) -> usize {
        let of = |compiler: &Compiler| compiler.waiting.len() + compiler.sent.len();
        self.new.len() + self.known.iter().chain(&self.retired).map(of).sum::<usize>()
    }

    fn accept(&mut self) {
        while self.asking() < ASKING_MAX {
            match accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(client) => {
                    let client = fd::own(client);
                    if is_ours(&client) {
                        let deadline = Deadline::of(Some(START_MAX));
                        self.new.push(Newcomer { client, deadline });
                    }
                }
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(Errno::EMFILE | Errno::ENFILE) => return self.send_away(),
                Err(_) => return,
            }
        }
    }

    /// Where there are no descriptors, whoever asks goes on alone; the socket would be readable for
    /// as long as they wait.
    fn send_away(&mut self) {
        if self.spare.take().is_some() {
            if let Ok(client) = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                drop(fd::own(client));
            }
            self.spare = spare();
        }
    }

    /// Hears those that have not said yet what they want.
    fn hear(&mut self) {
        let now = Instant::now();
        for mut newcomer in std::mem::take(&mut self.new) {
            match fd::receive::<{ ask::FDS }>(newcomer.client.as_fd(), &mut self.buffer) {
                Ok(None) if newcomer.deadline.due(now).is_some() => {
                    log::debug!("a connection, and no request");
                }
                Ok(None) => self.new.push(newcomer),
                Ok(Some((length, fds))) => self.take(newcomer.client, length, fds),
                Err(error) => log::debug!("a request: {error}"),
            }
        }
    }

    fn take(&mut self, client: OwnedFd, length: usize, fds: Vec<OwnedFd>) {
        let Some(message) = self.buffer[..length].strip_prefix(&self.token) else { return };
        let request = Request::from_bytes(message);
        // Only a front end says that it runs on its own.
        let part = request.as_ref().map_or(Part::FrontEnd, |request| request.part);
        let asked = request
            .filter(|request| request.common == self.common && fds.len() == ask::FDS)
            .map(|request| Asked { client, request, fds });
        let refused = match asked {
            Some(asked) => self.give(asked),
            None => Err(()),
        };
        if refused.is_err() {
            self.front_ends.plain += front_ends([part]);
        }
    }

    /// Gives a job to its compiler, which is started where there is none yet.
    fn give(&mut self, asked: Asked) -> Result<(), ()> {
        let known = self.known.iter().position(|one| one.program == asked.request.program);
        let at = match known {
            Some(at) => {
                let compiler = &self.known[at];
                if compiler.loaded.as_ref().is_some_and(Signed::has_changed) {
                    log::debug!("{} has changed", compiler.program.display());
                    let another = Compiler::start(&asked.request.program, self.mask).ok_or(())?;
                    self.retired.push(std::mem::replace(&mut self.known[at], another));
                }
                at
            }
            None if self.known.len() < SERVERS_MAX => {
                let compiler = Compiler::start(&asked.request.program, self.mask).ok_or(())?;
                self.known.push(compiler);
                self.known.len() - 1
            }
            None => return Err(()),
        };
        let compiler = &mut self.known[at];
        if compiler.server.is_none() || compiler.closed {
            return Err(());
        }
        if compiler.loaded.is_none() {
            compiler.waiting.push_back(asked);
            return Ok(());
        }
        compiler.send(asked)
    }

    /// Hears the compilers: one is loaded, jobs have begun.
    fn hear_compilers(&mut self) {
        for compiler in self.known.iter_mut().chain(&mut self.retired) {
            while let Some(server) = &compiler.server {
                let late = compiler.deadline.due(Instant::now()).is_some();
                let heard = match server.answer() {
                    Ok(None) if !late => break,
                    Ok(Some(HELLO)) if compiler.loaded.is_none() => {
                        compiler.begin().map(|refused| self.front_ends.plain += refused)
                    }
                    Ok(Some(number)) if compiler.loaded.is_some() => {
                        let Some((part, client)) = compiler.sent.pop_front() else { break };
                        if number > 0 {
                            let process = Process::from(Pid::from_raw(number));
                            self.jobs.push(Job::new(client, process));
                            self.front_ends.warm += front_ends([part]);
                        } else {
                            self.front_ends.plain += front_ends([part]);
                        }
                        Ok(())
                    }
                    _ => Err(io::Error::other("it did not come up, or has died")),
                };
                if let Err(reason) = heard {
                    log::debug!("no warm {}: {reason}", compiler.program.display());
                    self.front_ends.plain += compiler.end();
                }
            }
        }
        self.retired.retain(|compiler| compiler.server.is_some() && !compiler.sent.is_empty());
    }

    /// Passes signals on, ends the jobs of those that are gone, and tells the ends of others.
    fn look_after_jobs(&mut self) {
        let now = Instant::now();
        self.jobs.retain_mut(|job| {
            job.hear(now);
            match job.process.try_wait() {
                Ok(None) => true,
                Ok(Some(status)) => {
                    job.tell(status);
                    false
                }
                Err(_) => false,
            }
        });
    }
}

impl Job {
    fn new(client: OwnedFd, process: Process) -> Job {
        Job { client: Some(client), process, deadline: Deadline::of(None) }
    }

    fn hear(&mut self, now: Instant) {
        let mut word = [0; 4];
        while let Some(client) = &self.client {
            match fd::receive::<0>(client.as_fd(), &mut word) {
                Ok(None) => break,
                Ok(Some((4, _))) => {
                    if let Ok(signal) = Signal::try_from(i32::from_ne_bytes(word)) {
                        self.process.signal(signal);
                    }
                }
                _ => {
                    self.client = None;
                    self.deadline = Deadline::of(Some(Duration::ZERO));
                }
            }
        }
        if let Some(signal) = self.deadline.due(now) {
            self.process.signal(signal);
        }
    }

    fn tell(&self, status: ExitStatus) {
        let word = status.into_raw().to_ne_bytes();
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        if let Some(client) = &self.client {
            let _ = send(client.as_raw_fd(), &word, flags);
        }
    }
}

impl Compiler {
    /// `None`: not at the moment.
    fn start(program: &Path, mask: SigSet) -> Option<Compiler> {
        let server = Server::start(program, Jobs::Others, mask);
        match &server {
            Ok(server) => log::debug!("the warm {} is {}", program.display(), server.id()),
            Err(reason) => log::debug!("no warm {}: {reason}", program.display()),
        }
        // Of descriptors, of processes, of memory there may be more again.
        let passes = [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM].map(Some);
        if server.as_ref().is_err_and(|error| passes.contains(&error.raw_os_error())) {
            return None;
        }
        Some(Compiler {
            program: program.to_owned(),
            deadline: Deadline::of(server.is_ok().then_some(START_MAX)),
            server: server.ok(),
            closed: false,
            loaded: None,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
        })
    }

    /// It has loaded: does what has waited for that; how many front ends it will not do.
    fn begin(&mut self) -> io::Result<u64> {
        let Some(server) = &self.server else { return Ok(0) };
        server.has_one_thread()?;
        self.loaded = Some(loaded::by(server.id())?);
        self.deadline = Deadline::of(None);
        let mut refused = 0;
        while let Some(asked) = self.waiting.pop_front() {
            let part = asked.request.part;
            if self.send(asked).is_err() {
                refused += front_ends([part]);
            }
        }
        Ok(refused)
    }

    /// Gives it a job. Who asked goes on alone where that cannot be; what was sent before is done.
    fn send(&mut self, asked: Asked) -> Result<(), ()> {
        let Some(server) = self.server.as_ref().filter(|_| !self.closed) else { return Err(()) };
        let Asked { client, mut request, fds } = asked;
        request.header.parent = std::process::id();
        let mut numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        numbers.push(client.as_raw_fd());
        if let Err(error) = server.send(request.header, &request.strings, &numbers) {
            log::debug!("a job for the warm {}: {error}", self.program.display());
            // More descriptors are on their way than a user may have (unix(7)), for this moment.
            self.closed = error.raw_os_error() != Some(libc::ETOOMANYREFS);
            return Err(());
        }
        self.sent.push_back((request.part, client));
        Ok(())
    }

    /// Ends it, but not its jobs; how many front ends will now not be done.
    fn end(&mut self) -> u64 {
        self.server = None;
        self.deadline = Deadline::of(None);
        let waiting = self.waiting.drain(..).map(|asked| asked.request.part);
        front_ends(waiting.chain(self.sent.drain(..).map(|(part, _)| part)))
    }
}

impl Beside for Compilers {
    fn fds(&self) -> Vec<PollFd<'_>> {
        let all = self.known.iter().chain(&self.retired);
        let servers = all.filter_map(|one| Some(one.server.as_ref()?.socket()));
        let new = self.new.iter().map(|newcomer| &newcomer.client);
        let clients = new.chain(self.jobs.iter().filter_map(|job| job.client.as_ref()));
        let listener = (self.asking() < ASKING_MAX).then(|| self.listener.as_fd());
        listener
            .into_iter()
            .chain(servers)
            .chain(clients.map(AsFd::as_fd))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect()
    }

    fn deadlines(&self) -> Vec<&Deadline> {
        let all = self.known.iter().chain(&self.retired);
        let jobs = self.jobs.iter().map(|job| &job.deadline);
        let new = self.new.iter().map(|newcomer| &newcomer.deadline);
        all.map(|compiler| &compiler.deadline).chain(new).chain(jobs).collect()
    }

    fn turn(&mut self) {
        self.hear_compilers();
        self.accept();
        self.hear();
        self.look_after_jobs();
    }

    fn is_busy(&self) -> bool {
        let mut all = self.known.iter().chain(&self.retired);
        !self.jobs.is_empty() || all.any(|compiler| !compiler.sent.is_empty())
    }

    fn end(&mut self) {
        self.jobs.iter().for_each(|job| job.process.signal(Signal::SIGKILL));
    }
}

/// A descriptor to be given up.
fn spare() -> Option<fs::File> {
    fs::File::open("/dev/null").ok()
}

/// How many of them are front ends.
fn front_ends(parts: impl IntoIterator<Item = Part>) -> u64 {
    parts.into_iter().filter(|&part| part == Part::FrontEnd).map(|_| 1).sum()
}

/// Whether the other side of a connection is this user's.
fn is_ours(client: &OwnedFd) -> bool {
    getsockopt(client, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == geteuid().as_raw())
}

/// Random letters.
fn token() -> io::Result<[u8; TOKEN]> {
    let mut token = [0; TOKEN];
    fs::File::open("/dev/urandom")?.read_exact(&mut token)?;
    Ok(token.map(|byte| b'a' + byte % 16))
}
