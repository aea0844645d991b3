//! The cache of one link at work: keys made, entries fetched and stored, the next link's memo
//! written.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::digest::Digest;
use super::files::{self, Files};
use super::history::{Fate, History, Line};
use super::key::{Action, Key, Keys};
use super::settings::{Mode, Settings};
use super::signature::Signed;
use super::store::{Found, Store};
use super::{bound, environment, identity};
use crate::object::assembly::Opened;
use crate::object::elf::Native;
use crate::thinlto::back_end::{self, BackEnd};

/// An object that came out of the cache.
#[derive(Debug)]
pub struct Hit {
    /// What the compiler said when it wrote the object.
    pub said: Vec<u8>,
    /// What the object is.
    pub native: Native,
}

/// What the modules of a link bring in besides themselves.
#[derive(Clone, Debug, Default)]
pub struct Brought {
    /// The names that their assembly opens.
    pub opened: Opened,
    /// The files that were found by those names or named by options, as they were then.
    pub files: Vec<(OsString, Digest)>,
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
    /// What the link's modules bring in besides themselves; `None` where not all were looked at.
    pub brought: Option<Brought>,
    /// What the user should know.
    pub warnings: Vec<String>,
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
    /// The objects go where nobody but this link reads them, and nobody writes.
    pub private: bool,
    /// The back ends' clang.
    pub clang: PathBuf,
    /// The link's modules: those of them that are there already are digested at once.
    pub modules: Vec<OsString>,
}

/// The cache of one link.
#[derive(Debug)]
pub struct Desk {
    store: Store,
    limit: u64,
    /// Writing has failed once, and is not tried again.
    broken: bool,
    output: PathBuf,
    work: PathBuf,
    private: bool,
    compiler: Signed,
    modules: Vec<OsString>,
    /// The link's jobs, by whose numbers they are asked for.
    pub jobs: Arc<[BackEnd]>,
    keys: Keys,
    made: HashMap<usize, Made>,
    /// What was done until now.
    pub outcome: Outcome,
}

#[derive(Debug)]
struct Made {
    key: Result<Key, &'static str>,
    fate: Fate,
}

impl Desk {
    /// Opens the cache.
    ///
    /// # Errors
    /// What is to be told of a link that does without.
    pub fn open(start: Start) -> Result<Desk, Outcome> {
        let Start { settings, output, work, private, clang, modules } = start;
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
        let installed = identity::installed(&clang).map_err(nothing)?;
        let (compiler, memo) = identity::of(&clang, &store.tools()).map_err(nothing)?;
        let files = Files::load(&files::output_file(store.root(), &output, "files"));
        let desk = Desk {
            limit: settings.limit,
            broken: false,
            output,
            work,
            private,
            compiler: installed,
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

    /// The modules that the link begins with; handed out once.
    pub fn take_modules(&mut self) -> Vec<OsString> {
        std::mem::take(&mut self.modules)
    }

    /// Digests a module before it is needed.
    pub fn digest(&mut self, module: &OsStr) {
        let _ = self.keys.files.module(module);
    }

    /// Fetches the object of a job, where it is there.
    pub fn look_up(&mut self, number: usize) -> Option<Hit> {
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
        let stands =
            if self.private { entry.lend_to(&job.output) } else { entry.write_to(&job.output) };
        match stands {
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

    /// Stores the object of a job that was compiled and verified.
    pub fn store(&mut self, number: usize, said: &[u8]) {
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
        if key.is_outdated() || !self.private && key.has_another_index() {
            self.do_not_cache("an input changed while it was compiled");
            return;
        }
        if self.compiler.has_changed() {
            self.do_not_cache("the compiler changed meanwhile");
            return;
        }
        let digest = key.digest();
        let stored = fs::read(&job.output).and_then(|object| {
            // Not what the event loop has looked at?
            back_end::verify_bytes(job, &object).map_err(io::Error::other)?;
            let bytes = (object.len() + said.len()) as u64;
            if bound::is_too_large(bytes, self.limit) {
                return Ok(None);
            }
            bound::count(&self.store, bytes, self.limit)?;
            self.store.put(&digest, &object, said).map(Some)
        });
        match stored {
            Ok(Some(_)) => self.outcome.stored += 1,
            Ok(None) => self.do_not_cache(bound::TOO_LARGE),
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
    fn write(&self, path: &Path, data: &[u8]) {
        if !self.broken
            && self.store.is_writable()
            && let Err(error) = self.store.write(path, &[data])
        {
            log::info!("cache: {}: {error}", path.display());
        }
    }

    /// Finds out what the modules bring in, for who wants to keep the link's output.
    pub fn sum_up(&mut self) {
        let jobs = Arc::clone(&self.jobs);
        let mut opened = Opened::default();
        for job in jobs.iter() {
            let Ok(facts) = self.keys.files.module(&job.module) else { return };
            facts.add_to(&mut opened);
        }
        self.outcome.brought = Some(Brought { opened, files: self.keys.files.all_plain() });
    }

    /// Writes down what the next link of this output is to know.
    pub fn remember(&mut self) {
        if !self.store.is_writable() || self.broken {
            return;
        }
        let memo = files::output_file(self.store.root(), &self.output, "files");
        match self.keys.files.to_memo() {
            Some(text) => self.write(&memo, text.as_bytes()),
            None => files::touch(&memo),
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

pub(super) fn cannot_write(directory: &Path, error: &io::Error) -> String {
    format!(
        "cannot write to the cache {}: {error}; nothing more is stored by this link \
         (THINSHIM_CACHE=read only reads, THINSHIM_CACHE_DIR names another)",
        directory.display()
    )
}
