//! The cache of one link, beside its compilers: a thread that digests and compares, copies hits
//! and stores what the back ends wrote.
//!
//! It begins during the thin link, with the modules' digests, and may end during the native link,
//! with the last objects to be stored. The link's event loop hears of its answers by a descriptor;
//! where the thread ends early, for whatever reason, everything that it has not answered for is
//! compiled.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::desk::{Desk, Hit, Outcome, Start};
use crate::thinlto::back_end::BackEnd;

/// An answer for one job.
#[derive(Debug)]
pub struct Answer {
    /// Which of the jobs.
    pub job: usize,
    /// Its object is there, and this is known of it; `None`: it must be compiled.
    pub hit: Option<Hit>,
}

enum Ask {
    /// Answer for these jobs, in this order.
    Jobs(Arc<[BackEnd]>, Vec<usize>),
    /// A job was compiled, and this was said.
    Store(usize, Vec<u8>),
}

/// The link's end of the cache.
#[derive(Debug)]
pub struct Cache {
    asks: Option<Sender<Ask>>,
    answers: Receiver<Answer>,
    bell: Arc<EventFd>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Outcome>>,
}

impl Cache {
    /// Starts the thread. Signals that the caller holds back are held back in it, too.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(start: Start) -> io::Result<Cache> {
        let (asks, asked) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let stop = Arc::new(AtomicBool::new(false));
        let worker =
            Worker { asked, answer, bell: Bell(Arc::clone(&bell)), stop: Arc::clone(&stop) };
        let thread = thread::Builder::new()
            .name("thinshim-cache".into())
            .spawn(move || worker.work(start))?;
        Ok(Cache { asks: Some(asks), answers, bell, stop, thread: Some(thread) })
    }

    /// Asks for `jobs`, in this order.
    pub fn ask(&self, jobs: &[BackEnd], order: &[usize]) {
        self.send(Ask::Jobs(jobs.into(), order.to_vec()));
    }

    /// Stores the object of a job that was compiled and verified.
    pub fn store(&self, job: usize, said: &[u8]) {
        self.send(Ask::Store(job, said.to_vec()));
    }

    fn send(&self, ask: Ask) {
        // A thread that has ended answers nothing, which is an answer.
        let _ = self.asks.as_ref().map(|asks| asks.send(ask));
    }

    /// Readable when there may be an answer.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The next answer, without waiting.
    ///
    /// # Errors
    /// The thread has ended, and there will be no more.
    pub fn answer(&self) -> Result<Option<Answer>, Gone> {
        match self.answers.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Gone),
        }
    }

    /// Makes [`Cache::event_fd`] unreadable until something new happens. To be called before the
    /// answers are taken.
    pub fn hush(&self) {
        let _ = self.bell.read();
    }

    /// Nothing more will be asked or stored: what is left to be written down is written meanwhile.
    pub fn close(&mut self) {
        self.asks = None;
    }

    /// Waits until everything is stored.
    pub fn finish(mut self) -> Outcome {
        self.end()
    }

    fn end(&mut self) -> Outcome {
        self.asks = None;
        let Some(thread) = self.thread.take() else { return Outcome::default() };
        thread.join().unwrap_or_else(|_| Outcome {
            warnings: vec!["the cache's thread failed; THINSHIM_CACHE=off does without it".into()],
            ..Outcome::default()
        })
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.end();
    }
}

/// The thread has ended.
#[derive(Debug)]
pub struct Gone;

/// Rings once more when the thread ends, however that is.
struct Bell(Arc<EventFd>);

impl Bell {
    fn ring(&self) {
        let _ = self.0.write(1);
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}

struct Worker {
    asked: Receiver<Ask>,
    // Before the bell: whoever hears its last sound finds the channel closed.
    answer: Sender<Answer>,
    bell: Bell,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn work(self, start: Start) -> Outcome {
        let mut desk = match Desk::open(start) {
            Ok(desk) => desk,
            Err(outcome) => return outcome,
        };
        let mut first = None;
        for module in desk.take_modules() {
            if self.is_stopped() {
                break;
            }
            // As soon as keys are asked for, digests are found as they are needed.
            match self.asked.try_recv() {
                Ok(ask) => {
                    first = Some(ask);
                    break;
                }
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {}
            }
            desk.digest(&module);
        }
        for ask in first.into_iter().chain(self.asked.iter()) {
            if self.is_stopped() {
                return desk.outcome;
            }
            match ask {
                Ask::Jobs(jobs, order) => {
                    desk.jobs = jobs;
                    for job in order {
                        if self.is_stopped() {
                            return desk.outcome;
                        }
                        let hit = desk.look_up(job);
                        if self.answer.send(Answer { job, hit }).is_err() {
                            return desk.outcome;
                        }
                        self.bell.ring();
                    }
                }
                Ask::Store(job, said) => desk.store(job, &said),
            }
        }
        if !self.is_stopped() {
            desk.sum_up();
            desk.remember();
        }
        desk.outcome
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
