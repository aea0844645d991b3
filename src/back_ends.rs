//! The back ends of a link: run on the tokens that there are, looked at, told of.

use std::fmt::Display;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Instant;

use crate::Failure;
use crate::cache::Cache;
use crate::jobserver::Pool;
use crate::object::elf;
use crate::report::Report;
use crate::report::progress::Progress;
use crate::schedule::{self, Event};
use crate::settings::Settings;
use crate::stop::{Step, Stop};
use crate::sys::signals::Signals;
use crate::thinlto::back_end::{self, BackEnd};
use crate::warm::Compiler;

/// The back ends of a link.
pub struct BackEnds<'a> {
    /// The link's output, by which messages call it.
    pub output: &'a Path,
    /// One for each module.
    pub jobs: &'a [BackEnd],
    /// Their compiler.
    pub clang: &'a Path,
    /// What the environment asks for.
    pub settings: &'a Settings,
    /// What comes to this process.
    pub signals: &'a Signals,
    /// When the link began.
    pub began: Instant,
    /// Where the objects of earlier links are.
    pub cache: Option<&'a Cache>,
    /// Puts the user's names into what clang says.
    pub names: &'a dyn Fn(&[u8]) -> Vec<u8>,
}

/// What back ends are run by.
#[derive(Debug)]
pub struct Means<'a, 's> {
    /// Where they are started.
    pub compiler: &'a mut Compiler<'s>,
    /// The tokens.
    pub pool: &'a mut Pool,
}

/// A back end that failed.
struct Trouble {
    job: usize,
    what: String,
    /// Clang's status, where clang itself said no.
    status: Option<ExitStatus>,
}

impl BackEnds<'_> {
    /// Runs all of them, passes on what they say and adds it to `said`. Returns the number of
    /// patchable-function sections, too.
    ///
    /// # Errors
    /// thinshim's own failures.
    pub fn run(
        &self,
        means: Means<'_, '_>,
        progress: &mut Progress,
        report: &mut Report,
        said: &mut Vec<u8>,
    ) -> Result<(Step, usize), Failure> {
        let Means { compiler, pool } = means;
        let jobs = self.jobs;
        let since = Instant::now();
        let mut trouble: Option<Trouble> = None;
        let (mut done, mut patchable, mut hits) = (0, 0, 0);
        let mut say = |progress: &mut Progress, words: &[u8]| {
            let words = (self.names)(words);
            progress.say(&words);
            said.extend_from_slice(&words);
        };
        let mut room = Vec::new();
        let mut hear = |event: Event| {
            done += 1;
            let found = match event {
                Event::Hit(_, hit) => {
                    say(progress, &hit.said);
                    hits += 1;
                    Ok(hit.native)
                }
                Event::Unready(job, what) => Err(Trouble { job, what, status: None }),
                Event::Ended(ended) => {
                    let job = &jobs[ended.job];
                    log::debug!("back end of {}: {:.3} s", job.module.display(), ended.seconds);
                    say(progress, &ended.said);
                    let found = self.look_at(&ended, &mut room);
                    if let (Ok(_), Some(cache)) = (&found, self.cache) {
                        cache.store(ended.job, &ended.said);
                    }
                    found
                }
            };
            progress.count(done, jobs.len());
            match found {
                Ok(native) => patchable += native.patchable_sections,
                Err(found) => {
                    trouble.get_or_insert(found);
                }
            }
            trouble.is_none()
        };
        let with = schedule::With {
            signals: self.signals,
            memory_floor: self.settings.memory_floor,
            limit: self.settings.back_end_limit,
            cache: self.cache,
        };
        let summary = schedule::run(with, compiler, jobs, pool, &mut hear);
        report.cache_hits = hits;
        let summary = summary.map_err(|error| {
            self.failure(&format!("cannot run {}", self.clang.display()), &error)
        })?;
        report.backends_s = since.elapsed().as_secs_f64();
        report.first_back_end_s =
            summary.first.map(|first| first.duration_since(self.began).as_secs_f64());
        report.backends_run = summary.started;
        report.backends_warm = compiler.warm_jobs();
        report.tokens_max = summary.tokens_max;
        report.tokens_busy = (summary.started > 0).then(|| summary.busy_s / summary.held_s);
        progress.clear();
        let step = match (summary.interrupted, trouble) {
            (Some(signal), _) => Step::Stop(Stop::Interrupted(signal)),
            (None, None) => Step::Go,
            (None, Some(trouble)) => {
                let failure = self.failure_of(&jobs[trouble.job], &trouble.what);
                let Some(status) = trouble.status else { return Err(failure) };
                failure.report();
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                Step::Stop(Stop::Code(code.unwrap_or(1)))
            }
        };
        Ok((step, patchable))
    }

    fn look_at(&self, ended: &schedule::Ended, room: &mut Vec<u8>) -> Result<elf::Native, Trouble> {
        let trouble = |what, status| Trouble { job: ended.job, what, status };
        if ended.status.success() {
            back_end::verify_in(room, &self.jobs[ended.job]).map_err(|what| {
                trouble(format!("{what}; THINSHIM_KEEP=DIR keeps what there is"), None)
            })
        } else if ended.late {
            Err(trouble(self.settings.too_late(), None))
        } else {
            // Where memory is out, Linux kills a process like this.
            let killed = ended.status.signal() == Some(libc::SIGKILL);
            let advice = if killed {
                "; if memory is out: fewer jobs, or a higher THINSHIM_MEM_FLOOR"
            } else {
                ""
            };
            let what = format!("clang ended with {}{advice}", ended.status);
            Err(trouble(what, Some(ended.status)))
        }
    }

    fn failure_of(&self, job: &BackEnd, what: &dyn Display) -> Failure {
        self.failure(&format!("back end of {}", job.module.display()), what)
    }

    fn failure(&self, step: &str, what: &dyn Display) -> Failure {
        Failure::new(format!("link of {}: {step}: {what}", self.output.display()))
    }
}
