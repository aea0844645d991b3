//! One distributed link: thin link, back ends, native link.

use crate::Failure;
use crate::back_ends::{BackEnds, Means};
use crate::cache::settings::Mode;
use crate::cache::{Cache, CachedLink, Outcome, Start, link};
use crate::decision::Prepared;
use crate::failure;
use crate::invocation::lld::Side;
use crate::invocation::response;
use crate::jobserver::Pool;
use crate::linker;
use crate::object::{archive, elf};
use crate::plan::Plan;
use crate::report::Report;
use crate::report::progress::Progress;
use crate::settings::Settings;
use crate::stop::{Step, Stop, ThinLinked};
use crate::sys::signals::Signals;
use crate::sys::{commit, step};
use crate::thinlto::back_end::BackEnd;
use crate::thinlto::extracted::Extracted;
use crate::thinlto::inputs::{Extract, Inputs, Searching};
use crate::thinlto::namesake::{Made, Source};
use crate::thinlto::native_link::Scripts;
use crate::thinlto::resolution::Resolution;
use crate::thinlto::section_order::SectionOrder;
use crate::thinlto::thin_link::{self, Paths};
use crate::thinlto::{names, native_link};
use crate::warm::{Compiler, Warm};
use crate::workdir::WorkDir;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Links of fewer modules are over before a second thread is of use.
const THREADS_WORTH: usize = 32;

/// Command lines of more bytes go to the linker in a file. The kernel takes 2 MB where the stack
/// may grow to 8 (execve(2)), less below that, the environment included.
const ARGUMENTS_MAX: usize = 128 << 10;

/// A distributed link on its way.
#[derive(Debug)]
pub struct Distribution<'a> {
    linker: &'a Path,
    prepared: Prepared<'a>,
    settings: &'a Settings,
    signals: &'a Signals,
    began: Instant,
    // Before the directory that it writes to.
    cache: Option<Cache>,
    /// Where the output is kept.
    cached_link: Option<CachedLink>,
    work: WorkDir,
    paths: Paths,
    pool: Pool,
    compiler: Compiler<'a>,
    progress: Progress,
    report: Report,
    jobs: Vec<BackEnd>,
    /// For each module, its native object.
    natives: Vec<Option<PathBuf>>,
    /// What the thin link took out of archives for them.
    extracted: Extracted,
    patchable_sections: usize,
    /// Where a copy of each native object with other symbols stands, if one is needed, and what the
    /// user calls that object.
    resolved: Vec<(PathBuf, OsString)>,
    /// What the thin link said: the native link says most of it again.
    thin_said: Vec<u8>,
    /// All that was passed on of what tools said.
    said: Vec<u8>,
}

impl<'a> Distribution<'a> {
    /// Makes the work directory and copies members out of archives.
    ///
    /// # Errors
    /// thinshim's own failures.
    pub fn new(
        linker: &'a Path,
        mut prepared: Prepared<'a>,
        settings: &'a Settings,
        signals: &'a Signals,
    ) -> Result<Self, Failure> {
        let output = &prepared.link.output;
        let work = match &settings.keep {
            Some(directory) => WorkDir::kept(directory),
            None => WorkDir::create(output),
        }
        .map_err(|error| {
            let output = output.display();
            let kept = if settings.keep.is_some() { ", THINSHIM_KEEP's" } else { "" };
            Failure::new(format!("link of {output}: cannot make a work directory{kept}: {error}"))
        })?;
        prepared.inputs.move_members(&WorkDir::members_of(output), &work.members());
        copy_members(&prepared.inputs.extracts)?;
        for namesake in &prepared.inputs.namesakes {
            make(&namesake.for_thin_link())?;
        }
        let paths = Paths::new(&work, &prepared.inputs);
        let pool = Pool::join();
        if let Some(warning) = pool.warning() {
            failure::warn(warning);
        }
        let modules = prepared.inputs.modules.len();
        let cached = settings.cache.as_ref().is_some_and(|cache| cache.mode != Mode::Off);
        let warm = Warm::of(settings.warm, cached);
        let compiler = Compiler::new(
            &prepared.clang,
            modules,
            warm,
            settings.back_end_limit.is_some(),
            signals,
        );
        Ok(Distribution {
            cache: None,
            cached_link: None,
            linker,
            settings,
            signals,
            began: Instant::now(),
            paths,
            report: Report {
                output: output.clone(),
                jobserver: pool.identity(),
                ..Report::default()
            },
            pool,
            compiler,
            progress: Progress::new(output),
            jobs: Vec::new(),
            natives: vec![None; modules],
            extracted: Extracted::default(),
            patchable_sections: 0,
            resolved: Vec::new(),
            thin_said: Vec::new(),
            said: Vec::new(),
            work,
            prepared,
        })
    }

    /// Lets the report count from `began` on, when all that came before this was still to be done.
    pub fn count_from(&mut self, began: Instant) {
        self.began = began;
    }

    /// Lets the link's output be kept in the cache, or the report say why it is not.
    pub fn keep_output_in(&mut self, cached: Result<CachedLink, Option<&'static str>>) {
        match cached {
            Ok(mut cached) => {
                if let Some(damaged) = cached.damaged.take() {
                    self.progress.say(format!("thinshim: warning: {damaged}\n").as_bytes());
                    self.report.cache_damaged += 1;
                }
                self.cached_link = Some(cached);
            }
            Err(reason) => self.report.link_not_cached = reason,
        }
    }

    /// Goes all the way, or says why in-process ThinLTO has to.
    ///
    /// # Errors
    /// thinshim's own failures; those of the tools are in [`Stop`].
    pub fn all_steps(&mut self) -> Result<Result<Stop, String>, Failure> {
        self.start_cache();
        match self.thin_link()? {
            ThinLinked::Go => {}
            ThinLinked::Stop(stop) => return Ok(Ok(stop)),
            ThinLinked::InProcess(reason) => return Ok(Err(reason)),
        }
        if let Step::Stop(stop) = self.back_ends()? {
            return Ok(Ok(stop));
        }
        self.work.discard_index();
        if let Some(cache) = &mut self.cache {
            cache.close();
        }
        let stop = self.native_link()?;
        if let Stop::Status(status) = &stop
            && status.success()
        {
            self.finish_cache();
            self.report.append().map_err(|error| self.fail("its report", &error))?;
            self.progress.finish(&self.report);
        }
        Ok(Ok(stop))
    }

    /// Lets the cache begin: what it digests, it digests beside the thin link.
    fn start_cache(&mut self) {
        let settings = self.settings.cache.clone();
        let Some(settings) = settings.filter(|settings| settings.mode != Mode::Off) else { return };
        let modules = self.prepared.inputs.modules.iter().filter(|module| module.thin);
        let start = Start {
            settings,
            output: self.prepared.link.output.clone(),
            work: self.work.path().to_owned(),
            private: self.settings.keep.is_none(),
            clang: self.prepared.clang.clone(),
            modules: modules.map(|module| module.path.clone()).collect(),
        };
        match Cache::start(start) {
            Ok(cache) => self.cache = Some(cache),
            Err(error) => log::warn!("no cache: {error}"),
        }
    }

    fn finish_cache(&mut self) {
        let Some(cache) = self.cache.take() else { return };
        let outcome = cache.finish();
        for warning in &outcome.warnings {
            self.progress.say(format!("thinshim: warning: {warning}\n").as_bytes());
        }
        if let Some(cached) = self.cached_link.take() {
            self.report.link_not_cached = self.keep_output(cached, &outcome).err();
        }
        self.report.take(outcome);
    }

    fn keep_output(&self, mut cached: CachedLink, outcome: &Outcome) -> Result<(), &'static str> {
        if !outcome.not_cached.is_empty() {
            return Err("a back end of it is not cached");
        }
        if link::names(&self.said, self.work.path()) {
            return Err("what it said names its private directory");
        }
        cached.keep(&self.said, outcome.brought.as_ref())
    }

    fn fail(&self, step: &str, error: &dyn std::fmt::Display) -> Failure {
        let output = self.prepared.link.output.display();
        Failure::new(format!("link of {output}: {step}: {error}"))
    }

    /// The thin link, and the back ends that follow from it.
    ///
    /// # Errors
    /// thinshim's own failures.
    pub fn thin_link(&mut self) -> Result<ThinLinked, Failure> {
        let since = Instant::now();
        let args = self.thin_link_args();
        let directory = self.paths.list.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory.join("native"))
            .and_then(|()| self.work.create_index())
            .and_then(|()| fs::create_dir_all(Path::new(&self.paths.prefix)))
            .map_err(|error| self.fail("cannot make a work directory", &error))?;
        let ended = self.run_linker(&args)?;
        self.report.thin_link_s = since.elapsed().as_secs_f64();
        if let Some(signal) = ended.interrupted {
            return Ok(ThinLinked::Stop(Stop::Interrupted(signal)));
        }
        if !ended.status.success() {
            let said = self.with_archive_names(&ended.said, false);
            self.progress.say(&said);
            return Ok(ThinLinked::Stop(Stop::Status(ended.status)));
        }
        self.thin_said = ended.said;
        let list = fs::read(&self.paths.list)
            .map_err(|error| self.fail("the thin link left no list of modules", &error))?;
        let listed = match thin_link::listed(&self.prepared.inputs, &self.paths, &list) {
            Ok(listed) => listed,
            Err(reason) => return Ok(ThinLinked::InProcess(reason)),
        };
        // Up to lld 14 the thin link ends before it would write that.
        let extracted = fs::read(&self.paths.extracted).unwrap_or_default();
        self.extracted = Extracted::read(&extracted, &self.prepared.inputs);
        if self.settings.keep.is_some() {
            self.keep_names(&listed)?;
        }
        let searching = self.prepared.inputs.searching();
        let job = |(at, &index)| self.job(at + 1, index, &searching);
        self.jobs = listed.iter().enumerate().map(job).collect();
        for (job, index) in self.jobs.iter().zip(listed) {
            self.natives[index] = Some(job.output.clone());
        }
        self.report.modules = self.jobs.len();
        Ok(ThinLinked::Go)
    }

    fn thin_link_args(&self) -> Vec<OsString> {
        let threads = self.prepared.link.threads.is_none().then_some(1);
        let keep = self.settings.keep.is_some();
        thin_link::args(&self.prepared.inputs, &self.paths, threads, keep)
    }

    /// A long command line as the name of a response file: what was short for the user (a response
    /// file, an archive) may be more than the kernel takes when it stands in words.
    fn in_a_file(&self, args: &[OsString]) -> Result<Option<OsString>, Failure> {
        // The kernel wants a pointer for each word, and a byte for its end.
        let bytes: usize = args.iter().map(|word| word.len() + 9).sum();
        let comes_back = |word: &OsString| !word.is_empty() && word.as_bytes()[0] != b'@';
        if bytes <= ARGUMENTS_MAX || !args.iter().all(comes_back) {
            return Ok(None);
        }
        let path = self.work.path().join("arguments");
        fs::write(&path, response::quote(args.iter().map(OsString::as_os_str)))
            .map_err(|error| self.fail("cannot write the linker's arguments", &error))?;
        let mut word = OsString::from("@");
        word.push(path);
        Ok(Some(word))
    }

    fn run_linker(&mut self, args: &[OsString]) -> Result<step::Ended, Failure> {
        log::debug!("{} {args:?}", self.linker.display());
        let mut command = Command::new(self.linker);
        match self.in_a_file(args)? {
            Some(word) => command.arg(word),
            None => command.args(args),
        };
        let mut said_on_stdout = false;
        let fail = |error| self.fail(&format!("cannot run {}", self.linker.display()), &error);
        // What is kept says nothing on stdout.
        let hears = self.prepared.link.is_talkative() || self.cached_link.is_some();
        let heard = hears.then(step::capture_file).transpose().map_err(fail)?;
        // lld tells its flavour by its name, and a symlink's target may have another.
        let name = OsStr::new("ld.lld");
        let output = &self.prepared.link.output;
        let ended = linker::hear(&mut command, name, heard.as_ref(), output, self.signals);
        let ended = ended.map_err(fail)?;
        if let Some(file) = heard {
            let text = step::captured(file).map_err(fail)?;
            said_on_stdout = !text.is_empty();
            let text = self.with_module_names(&text);
            // Nobody may be there to read it, which is no reason to end otherwise.
            let _ = std::io::stdout().write_all(&self.with_archive_names(&text, false));
        }
        if said_on_stdout && self.cached_link.take().is_some() {
            self.report.link_not_cached = Some(link::ON_STDOUT);
        }
        Ok(ended)
    }

    /// The native objects and the modules that they are of.
    fn modules(&self) -> Vec<(PathBuf, &OsStr)> {
        self.jobs.iter().map(|job| (job.output.clone(), job.module.as_os_str())).collect()
    }

    /// Puts the user's names in the places of native objects' own.
    fn with_module_names(&self, text: &[u8]) -> Vec<u8> {
        let resolved: Vec<(PathBuf, &OsStr)> =
            self.resolved.iter().map(|(copy, name)| (copy.clone(), name.as_os_str())).collect();
        names::of_modules(&names::of_modules(text, &self.modules()), &resolved)
    }

    /// The names of the modules in the order of their native objects, for who keeps the directory.
    fn keep_names(&self, listed: &[usize]) -> Result<(), Failure> {
        let mut names = Vec::new();
        for &index in listed {
            names.extend_from_slice(self.prepared.inputs.modules[index].path.as_bytes());
            names.push(b'\n');
        }
        fs::write(self.work.path().join("modules"), names)
            .map_err(|error| self.fail("cannot write the names of the modules", &error))
    }

    fn job(&self, number: usize, index: usize, searching: &Searching<'_>) -> BackEnd {
        let module = &self.prepared.inputs.modules[index];
        let output = native_link::object_name(&self.work.path().join("native"), number);
        let shard = self.paths.index_of(&module.path);
        let options = std::sync::Arc::clone(&self.prepared.options[index]);
        let own = module.record.iter().flat_map(|record| &record.search_paths);
        // Assembly that is inlined still opens the files that it names.
        let search_paths: Vec<OsString> =
            own.chain(searching.of_imported(&module.path, &shard)).cloned().collect();
        BackEnd::new(module, shard, output, options, search_paths)
    }

    fn back_ends(&mut self) -> Result<Step, Failure> {
        let inputs = &self.prepared.inputs;
        let with = BackEnds {
            output: &self.prepared.link.output,
            jobs: &self.jobs,
            clang: &self.prepared.clang,
            settings: self.settings,
            signals: self.signals,
            began: self.began,
            cache: self.cache.as_ref(),
            names: &|said| names::of_archives(said, inputs, false),
        };
        let means = Means { compiler: &mut self.compiler, pool: &mut self.pool };
        let (step, patchable) =
            with.run(means, &mut self.progress, &mut self.report, &mut self.said)?;
        self.patchable_sections = patchable;
        Ok(step)
    }

    /// The object of the regular-LTO partition, where there is anything in it.
    fn regular(&self) -> Option<PathBuf> {
        let data = fs::read(&self.paths.regular).ok()?;
        let has_contents = elf::read(&data).is_ok_and(|native| native.has_contents);
        has_contents.then(|| self.paths.regular.clone())
    }

    /// The inputs of the link.
    pub fn inputs(&self) -> &Inputs<'a> {
        &self.prepared.inputs
    }

    /// The back ends that follow from the thin link.
    pub fn jobs(&self) -> &[BackEnd] {
        &self.jobs
    }

    /// What the thin link has left, and what it said.
    pub fn left(&self) -> (&Paths, &[u8]) {
        (&self.paths, &self.thin_said)
    }

    /// The native link alone, of native objects from elsewhere: one for each module, `None` for
    /// those that the thin link did not take.
    ///
    /// # Errors
    /// thinshim's own failures.
    pub fn link_natives(
        &mut self,
        natives: Vec<Option<PathBuf>>,
        patchable_sections: usize,
        regular: Option<&Path>,
    ) -> Result<Stop, Failure> {
        self.report.modules = natives.iter().flatten().count();
        self.natives = natives;
        self.patchable_sections = patchable_sections;
        if let Some(regular) = regular {
            regular.clone_into(&mut self.paths.regular);
        }
        let stop = self.native_link()?;
        if matches!(&stop, Stop::Status(status) if status.success()) {
            self.report.append().map_err(|error| self.fail("its report", &error))?;
        }
        Ok(stop)
    }

    fn native_link(&mut self) -> Result<Stop, Failure> {
        let since = Instant::now();
        let regular = self.resolve_natives(self.regular())?;
        let order = self.order_script(regular.as_deref())?;
        let merge = self.merge_script()?;
        for namesake in &self.prepared.inputs.namesakes {
            for archive in namesake.for_native_link(&self.natives) {
                make(&archive)?;
            }
        }
        let threads = self.prepared.link.threads.is_none().then(|| self.threads());
        let args = native_link::args(
            &self.prepared.inputs,
            &self.natives,
            &self.extracted,
            regular.as_deref(),
            Scripts { order: order.as_deref(), merge: merge.as_deref() },
            threads,
        );
        let ended = self.run_linker(&args)?;
        self.pool.set_demand(0);
        self.report.native_link_s = since.elapsed().as_secs_f64();
        let said = self.with_module_names(&ended.said);
        let said = self.with_archive_names(&said, false);
        let unsaid = unsaid(&self.with_archive_names(&self.thin_said, false), &said);
        for said in [unsaid, said] {
            self.progress.say(&said);
            self.said.extend_from_slice(&said);
        }
        if let Some(signal) = ended.interrupted {
            return Ok(Stop::Interrupted(signal));
        }
        if ended.status.success() {
            self.name_modules_in_side_files()?;
        }
        Ok(Stop::Status(ended.status))
    }

    /// Puts copies in the places of native objects whose symbols are others by all modules together
    /// than by themselves. Returns the object in the place of `regular`.
    fn resolve_natives(&mut self, regular: Option<PathBuf>) -> Result<Option<PathBuf>, Failure> {
        let inputs = &self.prepared.inputs;
        let linked = |index: usize| {
            self.natives[index].is_some() || !inputs.modules[index].thin && !inputs.is_lazy(index)
        };
        let modules = (0..inputs.modules.len()).filter(|&index| linked(index));
        let modules = modules.map(|index| (index, Path::new(&inputs.modules[index].path)));
        let resolution = Resolution::of(modules, self.prepared.link.wrapped())
            .map_err(|error| self.fail("cannot read a module's symbols", &error))?;
        if resolution.is_empty() {
            return Ok(regular);
        }
        let directory = self.work.path().join("resolved");
        let fail = |error: io::Error| self.fail("cannot copy a native object", &error);
        fs::create_dir_all(&directory).map_err(fail)?;
        let mut copies = Vec::new();
        let mut resolved = Vec::new();
        for (index, native) in self.natives.iter().enumerate() {
            let Some(native) = native else { continue };
            let copy = native_link::object_name(&directory, resolved.len() + 1);
            let module = &inputs.modules[index].path;
            // Steps that run one by one have native objects that the user knows.
            let known = if self.jobs.is_empty() { native.as_os_str() } else { module };
            if resolution.concerns(index) && resolution.copy(native, &copy).map_err(fail)? {
                copies.push((copy.clone(), index));
            }
            resolved.push((copy, known.to_owned()));
        }
        let copy = directory.join("regular.o");
        let regular = match regular {
            Some(object) if resolution.copy(&object, &copy).map_err(fail)? => Some(copy),
            regular => regular,
        };
        if copies.is_empty() {
            resolved.clear();
        }
        for (copy, index) in copies {
            self.natives[index] = Some(copy);
        }
        self.resolved = resolved;
        Ok(regular)
    }

    /// How many threads the native link may have: its own, and one for each token that is free.
    fn threads(&mut self) -> usize {
        if self.report.modules < THREADS_WORTH {
            return 1;
        }
        linker::threads(&mut self.pool)
    }

    fn with_archive_names(&self, text: &[u8], archive_alone: bool) -> Vec<u8> {
        names::of_archives(text, &self.prepared.inputs, archive_alone)
    }

    fn merge_script(&self) -> Result<Option<PathBuf>, Failure> {
        if !native_link::wants_merge(self.prepared.link, self.patchable_sections) {
            return Ok(None);
        }
        self.script("merge.lds", native_link::MERGE_PATCHABLE).map(Some)
    }

    fn order_script(&self, regular: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
        let condensed = SectionOrder::of(self.prepared.link)
            .and_then(|order| order.condensed(&self.prepared.inputs, &self.natives, regular));
        condensed.map(|text| self.script("order.lds", &text)).transpose()
    }

    fn script(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.work.path().join(name);
        fs::write(&path, text)
            .map_err(|error| self.fail("cannot write a linker script", &error))?;
        Ok(path)
    }

    /// A map or a dependency file speaks of inputs: of the user's, not of ours.
    fn name_modules_in_side_files(&self) -> Result<(), Failure> {
        for file in self.prepared.link.side_files() {
            let path = Path::new(&file);
            if !path.metadata().is_ok_and(|meta| meta.is_file()) {
                continue;
            }
            let renamed =
                fs::read(path).and_then(|text| {
                    let named = self.with_module_names(&text);
                    // Make knows archives, not what is in them.
                    let dependencies =
                        self.prepared.link.side_outputs.iter().any(|side| {
                            side.row.side == Side::DependencyFile && side.value == file
                        });
                    let named = self.with_archive_names(&named, dependencies);
                    if named == text {
                        return Ok(());
                    }
                    commit::replace(path, |to| to.write_all(&named))
                });
            renamed.map_err(|error| self.fail(&path.display().to_string(), &error))?;
        }
        Ok(())
    }

    /// What is run, as a value.
    pub fn plan(&self) -> Plan {
        let link = self.prepared.link;
        Plan {
            output: link.output.clone(),
            linker: self.linker.to_owned(),
            clang: self.prepared.clang.clone(),
            thin_link: self.thin_link_args(),
            back_ends: self.jobs.clone(),
            native_link: native_link::args(
                &self.prepared.inputs,
                &self.natives,
                &self.extracted,
                self.regular().as_deref(),
                Scripts::default(),
                link.threads.is_none().then_some(1),
            ),
        }
    }
}

/// Copies members out of their archives.
fn copy_members(extracts: &[Extract]) -> Result<(), Failure> {
    // Members of one archive come one after the other: it is read once, and one at a time.
    let mut read: Option<(&Path, Vec<u8>)> = None;
    for extract in extracts {
        let Source { file: archive, range } = &extract.bytes;
        let archive = archive.as_path();
        let fail = |error: std::io::Error| {
            Failure::new(format!("cannot copy a member out of {}: {error}", archive.display()))
        };
        let data = match read.take() {
            Some((path, data)) if path == archive => data,
            _ => fs::read(archive).map_err(fail)?,
        };
        let (_, data) = read.insert((archive, data));
        let bytes = data
            .get(range.clone().unwrap_or(0..data.len()))
            .ok_or_else(|| fail(std::io::Error::other("it has changed while it was being read")))?;
        if let Some(directory) = extract.to.parent() {
            fs::create_dir_all(directory).map_err(fail)?;
        }
        fs::write(&extract.to, bytes).map_err(fail)?;
    }
    Ok(())
}

/// Writes an archive that a step is to have.
fn make(made: &Made) -> Result<(), Failure> {
    let fail = |file: &Path, error: std::io::Error| {
        Failure::new(format!("cannot make {} of {}: {error}", made.path.display(), file.display()))
    };
    let mut files: HashMap<&Path, Vec<u8>> = HashMap::new();
    for (_, Source { file, .. }) in &made.members {
        if !files.contains_key(file.as_path()) {
            files.insert(file, fs::read(file).map_err(|error| fail(file, error))?);
        }
    }
    let mut members: Vec<(&OsStr, &[u8])> = Vec::with_capacity(made.members.len());
    for (name, Source { file, range }) in &made.members {
        let data = &files[file.as_path()];
        let bytes = data.get(range.clone().unwrap_or(0..data.len())).ok_or_else(|| {
            fail(file, std::io::Error::other("it has changed while it was being read"))
        })?;
        members.push((name, bytes));
    }
    let directory = made.path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&made.path, archive::write(&members)))
        .map_err(|error| fail(directory, error))
}

/// The lines of the first text that the second has not.
fn unsaid(first: &[u8], second: &[u8]) -> Vec<u8> {
    let said: std::collections::HashSet<&[u8]> = second.split(|&byte| byte == b'\n').collect();
    let mut lines = Vec::new();
    for line in first.split_inclusive(|&byte| byte == b'\n') {
        if !said.contains(line.strip_suffix(b"\n").unwrap_or(line)) {
            lines.extend_from_slice(line);
        }
    }
    lines
}
