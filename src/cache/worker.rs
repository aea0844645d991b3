//! The cache of one link, beside its compilers: a thread that digests and compares, copies hits
//! and stores what the back ends wrote.
//!
//! It begins during the thin link, with the modules' digests, and may end during the native link,
//! with the last objects to be stored. The link's event loop hears of its answers by a descriptor;
//! where the thread ends early, for whatever reason, everything that it has not answered for is
//! compiled.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::files::{self, Files};
use super::history::{Fate, History, Line};
use super::key::{Action, Key, Keys};
use super::settings::{Mode, Settings};
use super::store::{Found, Store};
use super::{bound, environment, identity};
use crate::object::elf::Native;
use crate::thinlto::back_end::{self, BackEnd};

/// An answer for one job.
#[derive(Debug)]
pub struct Answer {
    /// Which of the jobs.
    pub job: usize,
    /// Its object is there, and this is known of it; `None`: it must be compiled.
    pub hit: Option<Hit>,
}

/// An object that came out of the cache.
#[derive(Debug)]
pub struct Hit {
    /// What the compiler said when it wrote the object.
    pub said: Vec<u8>,
    /// What the object is.
    pub native: Native,
}

/// What the cache did for a link.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Entries that were not what had been stored.
    pub damaged: usize,
    /// Objects stored.
    pub stored: usize,
    /// Back ends that were not cached, by reason.
    pub not_cached: BTreeMap<String, usize>,
    /// What the user should know.
    pub warnings: Vec<String>,
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

/// What the thread has to know at its start.
#[derive(Clone, Debug)]
pub struct Start {
    /// The cache.
    pub settings: Settings,
    /// The link's output.
    pub output: PathBuf,
    /// The link's private directory.
    pub work: PathBuf,
    /// The back ends' clang.
    pub clang: PathBuf,
    /// The link's modules: those of them that are there already are digested at once.
    pub modules: Vec<OsString>,
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
        for module in std::mem::take(&mut desk.modules) {
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
            let _ = desk.keys.files.module(&module);
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
            desk.remember();
        }
        desk.outcome
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What the thread works with.
struct Desk {
    store: Store,
    limit: u64,
    /// Writing has failed once, and is not tried again.
    broken: bool,
    output: PathBuf,
    work: PathBuf,
    modules: Vec<OsString>,
    jobs: Arc<[BackEnd]>,
    keys: Keys,
    made: HashMap<usize, Made>,
    outcome: Outcome,
}

struct Made {
    key: Result<Key, &'static str>,
    fate: Fate,
}

impl Desk {
    fn open(start: Start) -> Result<Desk, Outcome> {
        let Start { settings, output, work, clang, modules } = start;
        let nothing = |reason: &str| Outcome {
            not_cached: BTreeMap::from([(reason.to_owned(), modules.len())]),
            ..Outcome::default()
        };
        let mut outcome = Outcome::default();
        let directory = &settings.directory;
        let store = Store::open(directory, settings.mode == Mode::On)
            .or_else(|error| {
                // What is there may be read; nothing was asked for by name, nothing is missed.
                if settings.is_default {
                    log::info!("no cache: {}: {error}", directory.display());
                } else {
                    outcome.warnings.push(cannot_write(directory, &error));
                }
                Store::open(directory, false)
            })
            .map_err(|_| nothing("the cache directory cannot be used"))?;
        let environment = environment::digest(env::vars_os()).map_err(nothing)?;
        let (compiler, memo) = identity::of(&clang, &store.tools()).map_err(nothing)?;
        let files = Files::load(&files::output_file(store.root(), &output, "files"));
        let mut desk = Desk {
            limit: settings.limit,
            broken: false,
            output,
            work,
            modules,
            jobs: Arc::default(),
            keys: Keys::new(compiler, environment, files),
            made: HashMap::new(),
            outcome,
            store,
        };
        if let Some((path, text)) = memo {
            desk.write(&path, text.as_bytes());
        }
        Ok(desk)
    }

    fn look_up(&mut self, number: usize) -> Option<Hit> {
        let jobs = Arc::clone(&self.jobs);
        let job = jobs.get(number)?;
        let key = self.keys.of(&Action {
            options: &job.options,
            search_paths: &job.search_paths,
            module: &job.module,
            index: &job.index,
        });
        let hit = match &key {
            Ok(key) => self.fetch(job, key),
            Err(reason) => {
                self.do_not_cache(reason);
                None
            }
        };
        let fate = match (&key, &hit) {
            (Err(_), _) => Fate::NotKeyed,
            (Ok(_), Some(_)) => Fate::Hit,
            (Ok(_), None) => Fate::Compiled,
        };
        self.made.insert(number, Made { key, fate });
        hit
    }

    fn fetch(&mut self, job: &BackEnd, key: &Key) -> Option<Hit> {
        let entry = match self.store.get(&key.digest()) {
            Ok(Found::Hit(entry)) => entry,
            Ok(Found::Absent) => return None,
            Ok(Found::Damaged) => {
                self.damaged(job, key);
                return None;
            }
            Err(error) => {
                log::info!("cache: {}: {error}", key.digest());
                return None;
            }
        };
        // What was right when it was stored may be wrong for whoever asks now.
        let native = match back_end::verify_bytes(job, entry.object()) {
            Ok(native) => native,
            Err(what) => {
                log::info!("cache: {}: {what}", key.digest());
                self.damaged(job, key);
                return None;
            }
        };
        match entry.write_to(&job.output) {
            Ok(()) => Some(Hit { said: entry.said().to_vec(), native }),
            Err(error) => {
                log::info!("cache: {}: {error}", job.output.display());
                None
            }
        }
    }

    fn damaged(&mut self, job: &BackEnd, key: &Key) {
        self.outcome.damaged += 1;
        let module = Path::new(&job.module).display();
        if self.outcome.damaged == 1 {
            self.outcome.warnings.push(format!(
                "the cache entry {} was damaged, so {module} is compiled again; \
                 `thinshim cache verify` looks at all entries",
                key.digest()
            ));
        }
    }

    fn do_not_cache(&mut self, reason: &str) {
        *self.outcome.not_cached.entry(reason.to_owned()).or_default() += 1;
    }

    fn store(&mut self, number: usize, said: &[u8]) {
        let jobs = Arc::clone(&self.jobs);
        let (Some(job), Some(made)) = (jobs.get(number), self.made.get(&number)) else { return };
        let Ok(key) = &made.key else { return };
        if self.broken || !self.store.is_writable() {
            return;
        }
        let work = self.work.as_os_str().as_bytes();
        if !said.is_empty() && said.windows(work.len()).any(|window| window == work) {
            self.do_not_cache("clang's words name the link's private directory");
            return;
        }
        if key.is_outdated() {
            self.do_not_cache("an input changed while it was compiled");
            return;
        }
        let digest = key.digest();
        let stored = fs::read(&job.output).and_then(|object| {
            // Not what the event loop has looked at?
            back_end::verify_bytes(job, &object).map_err(io::Error::other)?;
            bound::count(&self.store, (object.len() + said.len()) as u64, self.limit)?;
            self.store.put(&digest, &object, said)
        });
        match stored {
            Ok(_) => self.outcome.stored += 1,
            Err(error) => self.cannot_write(&error),
        }
    }

    fn cannot_write(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.broken, true) {
            let directory = self.store.root().parent().unwrap_or(self.store.root());
            self.outcome.warnings.push(cannot_write(directory, error));
        }
    }

    /// Writes what makes the next link quicker: nothing is lost where it cannot be.
    fn write(&mut self, path: &Path, data: &[u8]) {
        if !self.broken
            && self.store.is_writable()
            && let Err(error) = self.store.write(path, &[data])
        {
            log::info!("cache: {}: {error}", path.display());
            self.broken = error.kind() == io::ErrorKind::ReadOnlyFilesystem;
        }
    }

    /// Writes down what the next link of this output is to know.
    fn remember(&mut self) {
        if !self.store.is_writable() || self.broken {
            return;
        }
        let memo = files::output_file(self.store.root(), &self.output, "files");
        match self.keys.files.to_memo() {
            Some(text) => self.write(&memo, text.as_bytes()),
            None => touch(&memo),
        }
        let path = files::output_file(self.store.root(), &self.output, "history");
        let before = fs::read(&path).ok().and_then(|bytes| History::from_bytes(&bytes));
        let mut history = History {
            output: std::path::absolute(&self.output).unwrap_or_default(),
            directory: env::current_dir().unwrap_or_default(),
            lines: Vec::with_capacity(self.jobs.len()),
        };
        let mut imports: HashMap<&OsStr, &Key> = HashMap::new();
        for (number, job) in self.jobs.iter().enumerate() {
            let Some(made) = self.made.get(&number) else { continue };
            history.lines.push(match &made.key {
                Ok(key) => {
                    imports.insert(&job.module, key);
                    Line::keyed(&job.module, made.fate, key)
                }
                Err(reason) => Line::not_keyed(&job.module, reason),
            });
        }
        history.compare(&before.unwrap_or_default(), |module| {
            imports.get(module).map(|key| key.files().collect()).unwrap_or_default()
        });
        self.write(&path, &history.to_bytes());
    }
}

fn touch(path: &Path) {
    let now = fs::FileTimes::new().set_modified(std::time::SystemTime::now());
    let _ = fs::File::open(path).and_then(|file| file.set_times(now));
}

fn cannot_write(directory: &Path, error: &io::Error) -> String {
    format!(
        "cannot write to the cache {}: {error}; nothing more is stored by this link \
         (THINSHIM_CACHE=read only reads, THINSHIM_CACHE_DIR names another)",
        directory.display()
    )
}
