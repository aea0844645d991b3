//! The event loop: back ends as children, as many at once as there are tokens.
//!
//! One thread owns all state. It waits for a job to end, a token to come, the cache's answer, or
//! a signal. A job that the cache has takes no token.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::cache::{Cache, Hit};
use crate::jobserver::Pool;
use crate::sys::child::Process;
use crate::sys::deadline::Deadline;
use crate::sys::memory::{self, Gauge};
use crate::sys::signals::{Arrived, Signals};
use crate::sys::step;
use crate::thinlto::back_end::{self, BackEnd};
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
    /// It was ended because it took too long.
    pub late: bool,
}

/// What happens to a job.
#[derive(Debug)]
pub enum Event {
    /// Its object came out of the cache.
    Hit(usize, Hit),
    /// Its back end was not started, for what a sentence says of its inputs.
    Unready(usize, String),
    /// Its back end has ended.
    Ended(Ended),
}

/// What the jobs are run with.
#[derive(Clone, Copy, Debug)]
pub struct With<'a> {
    /// What comes to this process.
    pub signals: &'a Signals,
    /// With less memory free, nothing is started beside what runs.
    pub memory_floor: u64,
    /// A back end that takes longer is ended.
    pub limit: Option<Duration>,
    /// Asked for every job first.
    pub cache: Option<&'a Cache>,
}

/// How the whole went.
#[derive(Debug, Default)]
pub struct Summary {
    /// Back ends started.
    pub started: usize,
    /// When the first was started.
    pub first: Option<Instant>,
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

/// What to ask for instead of `tokens`: a little less, so that a pool of thousands of jobs does
/// not tell the keeper of each that has ended.
fn coarse(tokens: usize) -> usize {
    const PRECISION: u32 = 5;
    let bits = usize::BITS - tokens.leading_zeros();
    let dropped = bits.saturating_sub(PRECISION);
    tokens >> dropped << dropped
}

struct Running {
    job: usize,
    process: Process,
    said: File,
    since: Instant,
    deadline: Deadline,
}

/// Runs the jobs, the largest module first, so that no core waits for one late giant.
///
/// `hear` hears of each job that ends; when it answers `false`, no other is started.
///
/// # Errors
/// Where no child can be started or waited for; children that run are ended first.
pub fn run(
    with: With<'_>,
    compiler: &mut Compiler<'_>,
    jobs: &[BackEnd],
    pool: &mut Pool,
    hear: &mut dyn FnMut(Event) -> bool,
) -> io::Result<Summary> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&job| std::cmp::Reverse(jobs[job].size));
    let mut asked = VecDeque::new();
    if let Some(cache) = with.cache {
        cache.ask(jobs, &order);
        asked.extend(std::mem::take(&mut order));
    }
    let mut scheduler = Scheduler {
        with,
        compiler,
        jobs,
        asked,
        waiting: order.into(),
        running: Vec::new(),
        summary: Summary::default(),
        clock: Instant::now(),
    };
    let result = scheduler.run(pool, hear);
    if result.is_err() {
        scheduler.end_all(Signal::SIGKILL);
        for running in scheduler.running.drain(..) {
            let _ = running.process.wait();
        }
    }
    result.map(|()| scheduler.summary)
}

struct Scheduler<'a, 's> {
    with: With<'a>,
    compiler: &'a mut Compiler<'s>,
    jobs: &'a [BackEnd],
    /// The cache has not answered for these; it does so in their order.
    asked: VecDeque<usize>,
    waiting: VecDeque<usize>,
    running: Vec<Running>,
    summary: Summary,
    clock: Instant,
}

impl Scheduler<'_, '_> {
    fn run(&mut self, pool: &mut Pool, hear: &mut dyn FnMut(Event) -> bool) -> io::Result<()> {
        let mut gauge = Gauge::new(self.with.memory_floor);
        loop {
            let wanted = self.running.len() + self.waiting.len();
            if wanted == 0 && self.asked.is_empty() {
                // The last ones may have ended together.
                pool.set_demand(0);
                return Ok(());
            }
            let running = self.running.len().saturating_sub(1);
            pool.set_demand(coarse(wanted.saturating_sub(1)).max(running));
            let mut short_of_memory = false;
            while self.running.len() <= pool.held() && !self.waiting.is_empty() {
                short_of_memory = !self.running.is_empty()
                    && gauge.is_low(Instant::now(), memory::available_bytes);
                if short_of_memory {
                    break;
                }
                self.start(hear)?;
            }
            if self.running.is_empty() && self.asked.is_empty() {
                continue;
            }
            if short_of_memory {
                // A token that no job can use is somebody else's.
                pool.set_demand(self.running.len().saturating_sub(1));
            }
            self.wait(pool, short_of_memory)?;
            self.end_late();
            self.hear_cache(hear);
            self.reap(hear)?;
        }
    }

    fn start(&mut self, hear: &mut dyn FnMut(Event) -> bool) -> io::Result<()> {
        let Some(job) = self.waiting.pop_front() else { return Ok(()) };
        if let Err(what) = back_end::check_inputs(&self.jobs[job]) {
            if !hear(Event::Unready(job, what)) {
                self.start_no_more();
            }
            return Ok(());
        }
        let said = step::capture_file()?;
        // What it leaves lies in the work directory.
        let process = self.compiler.spawn(&self.jobs[job].args(), &said)?;
        log::debug!("back end of {} is {process}", self.jobs[job].module.display());
        self.tick(None);
        let deadline = Deadline::of(self.with.limit);
        let since = Instant::now();
        self.summary.first.get_or_insert(since);
        self.running.push(Running { job, process, said, since, deadline });
        self.summary.started += 1;
        self.summary.tokens_max = self.summary.tokens_max.max(self.running.len());
        Ok(())
    }

    /// Waits until something happens.
    fn wait(&mut self, pool: &mut Pool, short_of_memory: bool) -> io::Result<()> {
        let mut timeout = Deadline::first(self.running.iter().map(|running| &running.deadline));
        if short_of_memory {
            let look_again = PollTimeout::from(MEMORY_POLL_MS);
            timeout = if timeout.is_some() { timeout.min(look_again) } else { look_again };
        }
        let (signalled, pooled) = {
            let mut fds = vec![PollFd::new(self.with.signals.fd(), PollFlags::POLLIN)];
            let cache = self.with.cache.filter(|_| !self.asked.is_empty()).map(Cache::event_fd);
            let told = self.running.iter().filter_map(|running| running.process.fd());
            let more = pool.event_fd().into_iter().chain(cache).chain(told);
            fds.extend(more.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::any).unwrap_or(false);
            let pooled = pool.event_fd().is_some() && ready(fds.get(1));
            (ready(fds.first()), pooled)
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

    /// Takes the cache's answers. What it will not answer for any more is compiled.
    fn hear_cache(&mut self, hear: &mut dyn FnMut(Event) -> bool) {
        let Some(cache) = self.with.cache else { return };
        cache.hush();
        while let Some(&next) = self.asked.front() {
            match cache.answer() {
                Ok(None) => return,
                Ok(Some(answer)) => {
                    debug_assert_eq!(answer.job, next, "answers come in order");
                    self.asked.pop_front();
                    match answer.hit {
                        None => self.waiting.push_back(answer.job),
                        Some(hit) => {
                            if !hear(Event::Hit(answer.job, hit)) {
                                self.start_no_more();
                            }
                        }
                    }
                }
                Err(_) => self.waiting.extend(self.asked.drain(..)),
            }
        }
    }

    fn start_no_more(&mut self) {
        self.waiting.clear();
        self.asked.clear();
    }

    fn hear_signals(&mut self) -> io::Result<()> {
        while let Some(Arrived { signal, .. }) = self.with.signals.next()? {
            if signal != Signal::SIGCHLD {
                self.summary.interrupted.get_or_insert(signal);
                self.start_no_more();
                self.end_all(signal);
            }
        }
        Ok(())
    }

    /// Ends back ends that take too long.
    fn end_late(&mut self) {
        let now = Instant::now();
        for running in &mut self.running {
            if let Some(signal) = running.deadline.due(now) {
                running.process.signal(signal);
            }
        }
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

    fn reap(&mut self, hear: &mut dyn FnMut(Event) -> bool) -> io::Result<()> {
        let mut at = 0;
        while at < self.running.len() {
            let Some(status) = self.running[at].process.try_wait()? else {
                at += 1;
                continue;
            };
            let running = self.running.swap_remove(at);
            let said = step::captured(running.said)?;
            let seconds = running.since.elapsed().as_secs_f64();
            let late = running.deadline.passed() && !status.success();
            if !hear(Event::Ended(Ended { job: running.job, status, said, seconds, late })) {
                self.start_no_more();
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_little_less(tokens: usize) {
            prop_assert!(coarse(tokens) <= tokens && tokens - coarse(tokens) <= tokens / 16);
        }
    }

    #[test]
    fn few_words_for_many_jobs() {
        let words: std::collections::BTreeSet<usize> = (0..10_000).map(coarse).collect();
        assert!(words.len() < 200, "{}", words.len());
        assert!((0..32).all(|tokens| coarse(tokens) == tokens));
    }
}
