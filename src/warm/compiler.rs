//! Where back ends are started: in a warm compiler, the run's or the link's own, or anew for each.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::call::Caller;
use super::server::{Environment, Jobs, Server};
use crate::jobserver;
use crate::sys::child::{self, Process};
use crate::sys::signals::Signals;
use crate::sys::{heap, sigpipe};

/// Fewer jobs than this are over before a warm compiler has paid for its own start.
const JOBS_WORTH: usize = 3;

/// When a warm compiler is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warm {
    /// Never.
    Off,
    /// With the first job: there may be none.
    AtNeed,
    /// At once, so that it loads while the caller goes on.
    AtOnce,
}

impl Warm {
    /// As `wanted`; with a cache there may be no job at all.
    pub fn of(wanted: bool, cached: bool) -> Warm {
        match (wanted, cached) {
            (false, _) => Warm::Off,
            (true, false) => Warm::AtOnce,
            (true, true) => Warm::AtNeed,
        }
    }
}

/// A compiler that takes jobs.
#[derive(Debug)]
pub struct Compiler<'a> {
    path: PathBuf,
    signals: &'a Signals,
    /// Has the jobs done by the run above, which has a warm compiler for the whole build.
    caller: Option<Caller>,
    groups: bool,
    server: Option<Server>,
    at_need: bool,
    warm_jobs: usize,
    /// What every warm job has: its environment, and nothing on its standard input.
    warm_start: Option<(Environment, File)>,
}

impl<'a> Compiler<'a> {
    /// The compiler at `path`, for about `jobs` jobs; warm where that pays and can be. `groups`: the
    /// jobs are to have process groups of their own.
    pub fn new(
        path: &Path,
        jobs: usize,
        warm: Warm,
        groups: bool,
        signals: &'a Signals,
    ) -> Compiler<'a> {
        let at_need = warm != Warm::Off && jobs >= JOBS_WORTH;
        let path = path.to_owned();
        // The run's jobs are in the group of whoever asks.
        let caller = (warm != Warm::Off && !groups).then(|| Caller::new(signals)).flatten();
        let warm_start = warm_start(&path).inspect_err(|error| log::debug!("none warm: {error}"));
        let mut compiler = Compiler {
            path,
            signals,
            caller,
            groups,
            server: None,
            at_need,
            warm_jobs: 0,
            warm_start: warm_start.ok(),
        };
        if warm == Warm::AtOnce && compiler.caller.is_none() {
            compiler.start_server();
        }
        compiler
    }

    fn start_server(&mut self) {
        // Once: one that cannot come up, or has died, is not tried again.
        if !std::mem::take(&mut self.at_need) {
            return;
        }
        match Server::start(&self.path, Jobs::Own, self.signals.mask_before()) {
            Ok(server) => {
                log::debug!("the warm compiler is {}", server.id());
                self.server = Some(server);
            }
            Err(reason) => log::debug!("no warm compiler: {reason}"),
        }
    }

    /// Starts a job with nothing on its standard input, and its errors into `said`. It knows of no
    /// jobserver, and dies with this process.
    ///
    /// # Errors
    /// Where it cannot be started at all.
    pub fn spawn(&mut self, args: &[OsString], said: &File) -> io::Result<Process> {
        let group = self.groups;
        if let Some(process) = self.spawn_elsewhere(args, said) {
            self.warm_jobs += 1;
            return Ok(process);
        }
        if let Some(process) = self.spawn_warm(args, said) {
            self.warm_jobs += 1;
            return Ok(if group { process.leads_group() } else { process });
        }
        let mut command = command(&self.path);
        command.args(args).stdin(Stdio::null()).stderr(said.try_clone()?);
        heap::on_huge_pages(&mut command);
        child::dies_with_parent(&mut command, Signal::SIGKILL);
        child::with_signal_mask(&mut command, self.signals.mask_before());
        if group {
            command.process_group(0);
        }
        let process = Process::from(&command.spawn()?);
        Ok(if group { process.leads_group() } else { process })
    }

    /// Jobs that the warm compiler took.
    pub fn warm_jobs(&self) -> usize {
        self.warm_jobs
    }

    fn spawn_elsewhere(&mut self, args: &[OsString], said: &File) -> Option<Process> {
        let caller = self.caller.as_ref()?;
        let (environment, null) = self.warm_start.as_ref()?;
        let stdout = io::stdout();
        let streams = [null.as_fd(), stdout.as_fd(), said.as_fd()];
        caller
            .spawn(self.path.as_os_str(), &argv(&self.path, args), environment, streams)
            .inspect_err(|error| {
                log::debug!("not in the run's warm compiler: {error}");
                self.caller = None;
            })
            .ok()
    }

    fn spawn_warm(&mut self, args: &[OsString], said: &File) -> Option<Process> {
        self.start_server();
        let server = self.server.as_mut()?;
        let (environment, null) = self.warm_start.as_ref()?;
        let started = if server.ready() {
            let stdout = io::stdout();
            let argv = argv(&self.path, args);
            server.spawn(&argv, environment, [null.as_fd(), stdout.as_fd(), said.as_fd()])
        } else {
            Err(io::Error::other("it did not come up"))
        };
        match started {
            Ok(pid) => Some(Process::from(pid)),
            Err(error) => {
                log::debug!("no warm compiler: {error}");
                self.server = None;
                None
            }
        }
    }
}

/// A compiler that knows of no jobserver.
fn command(path: &Path) -> Command {
    let mut command = Command::new(path);
    jobserver::scrub(&mut command);
    sigpipe::pass_on(&mut command);
    command
}

fn argv<'a>(path: &'a Path, args: &'a [OsString]) -> Vec<&'a OsStr> {
    std::iter::once(path.as_os_str()).chain(args.iter().map(OsString::as_os_str)).collect()
}

fn warm_start(path: &Path) -> io::Result<(Environment, File)> {
    Ok((Environment::of(&command(path))?, File::open("/dev/null")?))
}
