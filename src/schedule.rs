//! The event loop: back ends as children, as many at once as there are tokens.
//!
//! One thread owns all state. It waits for a child to end, a token to come, or a signal.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::jobserver::{self, Pool};
use crate::sys::child::Process;
use crate::sys::signals::{Arrived, Signals};
use crate::sys::{memory, step};
use crate::thinlto::back_end::BackEnd;
use crate::warm::Compiler;

/// A back end that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Which of the jobs.
    pub job: usize,
    /// How clang ended.
    pub status: ExitStatus,
    /// What clang said on stderr.
    pub said: Vec<u8>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// How the whole went.
#[derive(Debug, Default)]
pub struct Summary {
    /// Back ends started.
    pub started: usize,
    /// Most back ends at once.
    pub tokens_max: usize,
    /// Seconds that back ends ran, summed over all.
    pub busy_s: f64,
    /// Seconds that tokens were in hand, the implicit one included, summed over all.
    pub held_s: f64,
    /// A signal that ended the whole before its time.
    pub interrupted: Option<Signal>,
}

/// While less memory than the floor is free, the loop looks again after this long.
const MEMORY_POLL_MS: u16 = 200;

struct Running {
    job: usize,
    process: Process,
    said: File,
    since: Instant,
}

/// Runs the jobs, the largest module first, so that no core waits for one late giant.
///
/// `ended` hears of each job that ends; when it answers `false`, no other is started.
///
/// # Errors
/// Where no child can be started or waited for; children that run are ended first.
pub fn run(
    clang: &Path,
    compiler: &mut Compiler<'_>,
    jobs: &[BackEnd],
    pool: &mut Pool,
    signals: &Signals,
    memory_floor: u64,
    ended: &mut dyn FnMut(Ended) -> bool,
) -> io::Result<Summary> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&job| std::cmp::Reverse(jobs[job].size));
    let mut scheduler = Scheduler {
        clang,
        compiler,
        jobs,
        waiting: order.into(),
        running: Vec::new(),
        summary: Summary::default(),
        signals,
        clock: Instant::now(),
    };
    let result = scheduler.run(pool, memory_floor, ended);
    if result.is_err() {
        scheduler.end_all(Signal::SIGKILL);
        for running in scheduler.running.drain(..) {
            let _ = running.process.wait();
        }
    }
    result.map(|()| scheduler.summary)
}

struct Scheduler<'a, 's> {
    clang: &'a Path,
    compiler: &'a mut Compiler<'s>,
    jobs: &'a [BackEnd],
    waiting: VecDeque<usize>,
    running: Vec<Running>,
    summary: Summary,
    signals: &'a Signals,
    clock: Instant,
}

impl Scheduler<'_, '_> {
    fn run(
        &mut self,
        pool: &mut Pool,
        memory_floor: u64,
        ended: &mut dyn FnMut(Ended) -> bool,
    ) -> io::Result<()> {
        loop {
            let wanted = self.running.len() + self.waiting.len();
            if wanted == 0 {
                return Ok(());
            }
            pool.set_demand(wanted - 1);
            let mut short_of_memory = false;
            while self.running.len() <= pool.held() && !self.waiting.is_empty() {
                short_of_memory = !self.running.is_empty()
                    && memory_floor > 0
                    && memory::available_bytes().is_some_and(|free| free < memory_floor);
                if short_of_memory {
                    break;
                }
                self.start()?;
            }
            if short_of_memory {
                // A token that no job can use is somebody else's.
                pool.set_demand(self.running.len() - 1);
            }
            self.wait(pool, short_of_memory)?;
            self.reap(ended)?;
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let Some(job) = self.waiting.pop_front() else { return Ok(()) };
        let said = step::capture_file()?;
        let mut command = Command::new(self.clang);
        command.args(&self.jobs[job].args);
        jobserver::scrub(&mut command);
        // What it leaves lies in the work directory.
        let process = self.compiler.spawn(command, &said)?;
        log::debug!("back end of {} is {}", self.jobs[job].module.display(), process.id());
        self.tick(None);
        self.running.push(Running { job, process, said, since: Instant::now() });
        self.summary.started += 1;
        self.summary.tokens_max = self.summary.tokens_max.max(self.running.len());
        Ok(())
    }

    /// Waits until something happens.
    fn wait(&mut self, pool: &mut Pool, short_of_memory: bool) -> io::Result<()> {
        let timeout =
            if short_of_memory { PollTimeout::from(MEMORY_POLL_MS) } else { PollTimeout::NONE };
        let (signalled, pooled) = {
            let mut fds = vec![PollFd::new(self.signals.fd(), PollFlags::POLLIN)];
            fds.extend(pool.event_fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::any).unwrap_or(false);
            (ready(fds.first()), ready(fds.get(1)))
        };
        self.tick(Some(pool));
        if pooled {
            pool.pump();
        }
        if signalled {
            self.hear_signals()?;
        }
        Ok(())
    }

    fn hear_signals(&mut self) -> io::Result<()> {
        while let Some(Arrived { signal, .. }) = self.signals.next()? {
            if signal != Signal::SIGCHLD {
                self.summary.interrupted.get_or_insert(signal);
                self.waiting.clear();
                self.end_all(signal);
            }
        }
        Ok(())
    }

    /// Accounts for the time since the last tick.
    fn tick(&mut self, pool: Option<&Pool>) {
        let seconds = self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
        let running = self.running.len();
        self.summary.busy_s += running as f64 * seconds;
        let held = pool.map_or(running, |pool| (pool.held() + 1).max(running));
        self.summary.held_s += held as f64 * seconds;
    }

    fn reap(&mut self, ended: &mut dyn FnMut(Ended) -> bool) -> io::Result<()> {
        let mut at = 0;
        while at < self.running.len() {
            let Some(status) = self.running[at].process.try_wait()? else {
                at += 1;
                continue;
            };
            let running = self.running.swap_remove(at);
            let said = step::captured(running.said)?;
            let seconds = running.since.elapsed().as_secs_f64();
            if !ended(Ended { job: running.job, status, said, seconds }) {
                self.waiting.clear();
            }
        }
        Ok(())
    }

    fn end_all(&self, signal: Signal) {
        for running in &self.running {
            running.process.signal(signal);
        }
    }
}
