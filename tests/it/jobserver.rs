//! Tokens under real makes: found, used, and never lost, however a client ends.
//!
//! The client in the recipes is this test's own binary, started again with [`ROLE`] set.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use thinshim::jobserver::{Environment, Host, Pool, Source, scrub};

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
    if end == "work" {
        return work(&mut pool, tokens, report);
    }
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
        "drop" => {
            drop(pool);
            let children = waitpid(None, None);
            assert_eq!(children, Err(Errno::ECHILD), "a child is left");
        }
        "int-group" => kill(Pid::from_raw(0), Signal::SIGINT).expect("a signal"),
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
    command.args(["--exact", "jobserver::client"]).env(ROLE, role(end, tokens, report));
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

/// A tool that scripts/test takes from `PyPI`: the one that `variable` names, or what it left.
fn wheel_tool(variable: &str, tool: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").expect("HOME")).join(".cache"),
        PathBuf::from,
    );
    let path = cache.join("thinshim-dev/pypi/bin").join(tool);
    assert!(path.is_file(), "no {}: set {variable}, or run scripts/test once", path.display());
    path
}

pub(crate) fn make44() -> PathBuf {
    wheel_tool("THINSHIM_TEST_MAKE44", "make")
}

pub(crate) fn ninja() -> PathBuf {
    wheel_tool("THINSHIM_TEST_NINJA113", "ninja")
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
        "{flags}{ROLE}='{role}' '{}' --exact jobserver::client >/dev/null 2>&1",
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

/// ^C reaches make and client alike, and not the keeper.
#[test]
fn an_interrupt_of_the_whole_build() {
    for make in Make::ALL {
        let dir = tempfile::tempdir().expect("a directory");
        let report = dir.path().join("report");
        let makefile = format!("all:\n\t{}\n", recipe("@", "int-group", 3, &report));
        let mut make = make.command();
        let output = run_make(make.arg("-j4").process_group(0), &makefile, dir.path());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && !said.contains("INTERNAL"), "{make:?}: {output:?}");
    }
}

/// Many clients under one make, some of which are killed: written down by themselves and
/// added up here, there are never more jobs at once than make was told.
#[test]
fn never_more_jobs_than_tokens() {
    const JOBS: usize = 3;
    const CLIENTS: usize = 8;
    for make in Make::ALL {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        fs::write(&log, "").expect("a log");
        let mut makefile = String::from("all:");
        for client in 0..CLIENTS {
            write!(makefile, " {client}").expect("a string");
        }
        for client in 0..CLIENTS {
            let recipe = recipe("-@", "work", client, &log);
            write!(makefile, "\n{client}:\n\t{recipe}").expect("a string");
        }
        makefile.push('\n');
        let output = run_make(make.command().arg(format!("-j{JOBS}")), &makefile, dir.path());
        assert!(output.status.success() && quiet(&output), "{make:?}: {output:?}");
        let log = fs::read_to_string(log).expect("a log");
        let mut running = [0_usize; CLIENTS];
        let mut ended = 0;
        for line in log.lines() {
            let (client, what) = line.split_once(' ').expect("a line");
            let count = &mut running[client.parse::<usize>().expect("a client")];
            match what {
                "start" => *count += 1,
                "end" => *count -= 1,
                "gone" => {
                    *count = 0;
                    ended += 1;
                }
                odd => panic!("{odd}"),
            }
            assert!(running.iter().sum::<usize>() <= JOBS, "{make:?}: {log}");
        }
        assert_eq!(ended, CLIENTS, "{make:?}: {log}");
    }
}

/// Starts and ends pretended jobs, in an order that `seed` gives, as far as the tokens reach.
/// Every third seed is killed in the middle.
fn work(pool: &mut Pool, seed: usize, log: &str) {
    let log = File::options().append(true).open(log).expect("a log");
    // One write each, so that the lines of all clients stand in the order of what happened.
    let write = |what: &str| {
        (&log).write_all(format!("{seed} {what}\n").as_bytes()).expect("a line");
    };
    let mut random = seed as u64;
    let (mut ready, mut running) = (40, 0);
    while ready + running > 0 {
        pool.set_demand(usize::saturating_sub(ready.min(6) + running, 1));
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let may_start = ready > 0 && running < 1 + pool.held();
        if may_start && (running == 0 || random >> 62 != 0) {
            (ready, running) = (ready - 1, running + 1);
            write("start");
        } else {
            write("end");
            running -= 1;
        }
        if seed.is_multiple_of(3) && ready == 15 {
            write("gone");
            raise(Signal::SIGKILL).expect("a signal");
        }
        if pool.event_fd().is_some() {
            pool.pump();
        }
        std::thread::yield_now();
    }
    write("gone");
}

/// A host in a directory of its own.
pub(crate) struct HostSpace {
    host: Host,
    _dir: tempfile::TempDir,
}

impl std::ops::Deref for HostSpace {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

pub(crate) fn host(jobs: usize) -> HostSpace {
    let dir = tempfile::tempdir().expect("a directory");
    let jobs = NonZeroUsize::new(jobs).expect("jobs");
    let host = Host::new(jobs, &dir.path().join("jobserver")).expect("a jobserver");
    HostSpace { host, _dir: dir }
}

/// Waits until all the tokens are in the pool.
pub(crate) fn all_tokens_come_back(host: &Host) {
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

/// Kills at any moment of a client's life: each word of its talk with the keeper, in turn.
#[test]
fn a_kill_at_any_moment_loses_nothing() {
    let host = host(4);
    for moment in 0..60 {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        let mut command = client_command("work", 1, &log);
        let mut client = command.env("MAKEFLAGS", host.makeflags()).spawn().expect("a client");
        // The fifo tells how far the client is; it may run on until the signal arrives.
        let mut lines = vec![0; moment];
        File::open(&log).expect("a log").read_exact(&mut lines).expect("lines");
        client.kill().expect("a signal");
        client.wait().expect("a child");
        all_tokens_come_back(&host);
    }
}

/// The host's flags serve every make, with `+` and without, down to a single job.
#[test]
fn makes_join_a_host() {
    for make in [Make::Debian43, Make::Fifo44] {
        for (plus, kind) in [("", "reopened"), ("+", "inherited")] {
            for jobs in [1, 2, 4] {
                let host = host(jobs);
                let dir = tempfile::tempdir().expect("a directory");
                let report = dir.path().join("report");
                let flags = format!("-@{plus}");
                let makefile = format!("all:\n\t{}\n", recipe(&flags, "kill", jobs - 1, &report));
                let mut command = make.command();
                host.configure(&mut command);
                let output = run_make(&mut command, &makefile, dir.path());
                let case = format!("{make:?} {jobs} {plus}: {output:?}");
                assert!(output.status.success() && quiet(&output), "{case}");
                let report = fs::read_to_string(&report).expect(&case);
                assert_eq!(report, format!("{kind} {} None", jobs - 1), "{case}");
                all_tokens_come_back(&host);
            }
        }
    }
}

/// Both kinds of flags: those that makes want, and those that upstream's ninja wants.
#[test]
fn ninja_joins_a_host() {
    let ninja = ninja();
    let host = host(4);
    for flags in [host.makeflags(), host.ninja_makeflags()] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut rules = String::new();
        for edge in 0..6 {
            let report = dir.path().join(edge.to_string());
            let recipe = recipe("", "drop", 0, &report);
            writeln!(rules, "rule r{edge}\n  command = {recipe}\nbuild {edge}: r{edge}")
                .expect("a string");
        }
        let report = dir.path().join("last");
        let recipe = recipe("", "drop", 3, &report);
        writeln!(rules, "rule last\n  command = {recipe}\nbuild last: last 0 1 2 3 4 5")
            .expect("a string");
        fs::write(dir.path().join("build.ninja"), rules).expect("rules");
        let mut command = Command::new(&ninja);
        host.configure(&mut command);
        let output = command.env("MAKEFLAGS", flags).current_dir(dir.path()).output();
        let output = output.expect("ninja");
        assert!(output.status.success(), "{output:?}");
        let report = fs::read_to_string(&report).expect("a report");
        assert!(report.ends_with(" 3 None") && !report.starts_with("unreach"), "{report}");
        all_tokens_come_back(&host);
    }
}

/// Cargo joins the host, and a build script finds it in turn.
#[test]
fn cargo_joins_a_host() {
    let host = host(3);
    let dir = tempfile::tempdir().expect("a directory");
    let report = dir.path().join("report");
    let manifest =
        "[package]\nname = \"it\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n";
    let script = format!(
        "fn main() {{ std::process::Command::new({:?}).args([\"--exact\", \"jobserver::client\"])\
         .env({ROLE:?}, {:?}).status().unwrap(); }}",
        env::current_exe().expect("a name"),
        role("kill", 2, &report),
    );
    fs::create_dir(dir.path().join("src")).expect("a directory");
    for (name, text) in [("Cargo.toml", manifest), ("build.rs", &script), ("src/lib.rs", "")] {
        fs::write(dir.path().join(name), text).expect("a file");
    }
    let mut command = Command::new(env!("CARGO"));
    host.configure(&mut command);
    command.args(["build", "--offline"]).current_dir(dir.path());
    let output = command.env("CARGO_TARGET_DIR", dir.path().join("target")).output();
    let output = output.expect("cargo");
    assert!(output.status.success(), "{output:?}");
    let report = fs::read_to_string(&report).expect("a report");
    assert_eq!(report, "inherited 2 None");
    all_tokens_come_back(&host);
}

/// A client that takes only the fifo, as upstream's ninja does, and what that starts.
#[test]
fn a_host_has_a_fifo() {
    let host = host(3);
    let dir = tempfile::tempdir().expect("a directory");
    let report = dir.path().join("report");
    let mut command = client_command("drop", 2, &report);
    assert!(command.env("MAKEFLAGS", host.ninja_makeflags()).status().expect("a client").success());
    assert_eq!(fs::read_to_string(&report).expect("a report"), "fifo 2 None");
    assert_eq!(host.available().expect("a count"), 2);
}

/// The keeper holds nothing of its maker's open and hears none of its maker's signals.
#[test]
fn the_keeper_is_a_stranger() {
    let host = host(2);
    let mut pool = join(&host);
    take(&mut pool, 1);
    let keeper = pool.keeper().expect("a keeper");
    let proc = PathBuf::from(format!("/proc/{keeper}"));
    let comm = fs::read_to_string(proc.join("comm")).expect("a name");
    assert_eq!(comm, "thinshim-keeper\n");
    assert_eq!(nix::unistd::getsid(Some(keeper)), Ok(keeper));
    assert_eq!(fs::read_link(proc.join("cwd")).expect("a directory"), Path::new("/"));
    let mut open = Vec::new();
    for entry in fs::read_dir(proc.join("fd")).expect("descriptors") {
        let target = fs::read_link(entry.expect("an entry").path()).expect("a link");
        open.push(target.to_string_lossy().into_owned());
    }
    open.sort();
    let fifo = host.path().to_string_lossy().into_owned();
    assert_eq!(open[..5], ["/dev/null", "/dev/null", "/dev/null", &fifo, &fifo]);
    assert!(open[5].starts_with("socket:") && open.len() == 6, "{open:?}");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        kill(keeper, signal).expect("a signal");
    }
    pool.set_demand(0);
    all_tokens_come_back(&host);
    take(&mut pool, 1);
    drop(pool);
    assert_eq!(host.available().expect("a count"), 1);
    assert!(!proc.exists(), "the keeper is left");
}

/// Without its keeper a pool has the implicit token and says why.
#[test]
fn a_keeper_that_dies() {
    let host = host(1);
    let mut pool = join(&host);
    pool.set_demand(2);
    kill(pool.keeper().expect("a keeper"), Signal::SIGKILL).expect("a signal");
    assert_eq!(wait(&mut pool), 0);
    while pool.limit().is_none() {
        wait(&mut pool);
    }
    assert!(pool.warning().is_some_and(|warning| warning.contains("keeper")));
    pool.set_demand(5);
    assert_eq!((pool.held(), pool.pump(), pool.limit()), (0, 0, Some(1)));
}

/// Less demand gives tokens back while the rest is kept.
#[test]
fn part_of_the_tokens() {
    let host = host(5);
    let mut pool = join(&host);
    take(&mut pool, 4);
    pool.set_demand(1);
    assert_eq!(pool.held(), 1);
    let mut other = join(&host);
    take(&mut other, 3);
    assert_eq!((pool.pump(), other.held()), (1, 3));
    // All are taken: a token that the other gives back comes here.
    pool.set_demand(2);
    other.set_demand(2);
    while pool.held() < 2 {
        wait(&mut pool);
    }
    drop((pool, other));
    assert_eq!(host.available().expect("a count"), 4);
}

/// In this process, by the fifo alone.
fn join(host: &Host) -> Pool {
    let makeflags = Some(host.ninja_makeflags());
    Pool::join_from(&Environment { makeflags, ..Environment::default() })
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
