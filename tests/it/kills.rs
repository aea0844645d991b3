//! Kills at any moment of a build: of thinshim, of a back end, of lld. Whatever dies, the tokens
//! come back, no process goes on, and no file is left.
//!
//! `scripts/kills` does many; here are a few.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::jobserver::{all_tokens_come_back, host, make44};
use crate::space::{THINSHIM, TestSpace};

const ROUNDS: u64 = 40;
const LINKS: u64 = 2;
const MODULES: u64 = 4;
/// No process needs this long to end; a loaded machine may.
const PATIENCE: Duration = Duration::from_secs(60);

/// `SplitMix64`: all of a round follows from its number.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).expect("small")]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Thinshim,
    BackEnd,
    Lld,
}

#[derive(Clone, Copy, Debug)]
enum Build {
    Make43,
    Make44,
    Make44Pipe,
    HostedMake43,
    HostedMake44,
    /// Below `thinshim run`, whose children the tools are.
    RunMake43,
    RunMake44,
}

impl Build {
    const ALL: [Build; 7] = [
        Build::Make43,
        Build::Make44,
        Build::Make44Pipe,
        Build::HostedMake43,
        Build::HostedMake44,
        Build::RunMake43,
        Build::RunMake44,
    ];
}

#[derive(Debug)]
struct Round {
    number: u64,
    build: Build,
    plus: bool,
    signal: Signal,
    victim: Victim,
    /// The victim is the one of this start among those of its kind.
    event: u64,
    /// How long after its start, in turns given up to others.
    turns: u64,
}

impl Round {
    fn new(number: u64) -> Round {
        let mut random = Random(number);
        let victim = random.of(&[Victim::Thinshim, Victim::BackEnd, Victim::Lld]);
        let events = match victim {
            Victim::Thinshim => LINKS * (MODULES + 2),
            Victim::BackEnd => LINKS * MODULES,
            Victim::Lld => LINKS * 2,
        };
        Round {
            number,
            build: random.of(&Build::ALL),
            plus: random.below(2) == 1,
            signal: random.of(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGKILL]),
            victim,
            event: random.below(events),
            turns: (1 << random.below(11)) - 1,
        }
    }
}

/// Tools that tell of their start and become the real ones, and links to do.
fn prepare() -> TestSpace {
    let mut space = TestSpace::new();
    space.metered_tools("-DBECOME");
    let mut objects = String::new();
    for n in 0..MODULES {
        let name = format!("f{n}");
        let text = format!("int g(int);\nint {name}(int x) {{ return g(x * {n}) + {n}; }}\n");
        space.compile("", &[(&format!("{name}.c"), &text)]);
        write!(objects, " {name}.o").expect("a string");
    }
    let mut makefile = String::from("all: out0 out1\n");
    for link in 0..LINKS {
        write!(makefile, "out{link}:\n\t@$(PLUS)$(LD) -r{objects} -o $@\n").expect("a string");
    }
    space.write("Makefile", makefile);
    space.strict(&format!("ld.lld -r{objects} -o reference")).ok();
    let events = space.path("events");
    nix::unistd::mkfifo(&events, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    space.path_first("tools");
    space
}

/// Kills, and gives the build's words, and whether there was still somebody to kill.
fn kill_in(space: &TestSpace, round: &Round) -> (Output, bool) {
    let new = make44();
    let host = matches!(round.build, Build::HostedMake43 | Build::HostedMake44).then(|| host(4));
    let mut run = match round.build {
        Build::Make43 => space.real("make -j4"),
        Build::Make44 => space.run(&new).args(["-j4"]),
        Build::Make44Pipe => space.run(&new).args(["-j4", "--jobserver-style=pipe"]),
        Build::HostedMake43 => space.real("make"),
        Build::HostedMake44 => space.run(&new),
        Build::RunMake43 => space.shim("run -j4 -q -- make"),
        Build::RunMake44 => space.shim("run -j4 -q --").args([&new]),
    };
    run = run
        .args(["-k".to_owned(), format!("LD={THINSHIM} ld.lld")])
        .args(round.plus.then_some("PLUS=+"))
        .env("THINSHIM_STRICT", "1")
        .env("THINSHIM_SMALL", "0")
        .env("METER_LOG", space.path("events"));
    if let Some(host) = &host {
        host.configure(&mut run.command);
    }
    // Open for both: nobody waits for somebody to open, and nothing is lost in between.
    let events = File::options().read(true).write(true).open(space.path("events"));
    let events = events.expect("a fifo");
    run.command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = run.command.spawn().expect("make");
    let mut end = events.try_clone().expect("a copy");
    let build = std::thread::spawn(move || {
        let output = child.wait_with_output().expect("make");
        end.write_all(b"the end\n").expect("a write");
        output
    });
    let mut seen = 0;
    let mut hit = false;
    for line in BufReader::new(events).lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split(' ').collect();
        let &["start", name, pid, _, parent] = words.as_slice() else { break };
        let victim = match (round.victim, name) {
            (Victim::Thinshim, _) => parent,
            (Victim::BackEnd, "back-end") | (Victim::Lld, "ld.lld") => pid,
            _ => continue,
        };
        if seen == round.event {
            for _ in 0..round.turns {
                std::thread::yield_now();
            }
            let victim = Pid::from_raw(victim.parse().expect("a pid"));
            hit = kill(victim, round.signal).is_ok();
        }
        seen += 1;
    }
    let output = build.join().expect("a thread");
    if let Some(host) = host {
        all_tokens_come_back(&host);
    }
    (output, hit)
}

/// Processes of the build: its directory stands in their environment.
fn processes(space: &TestSpace) -> Vec<String> {
    let root = space.root().as_os_str().as_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|byte| byte.is_ascii_digit())
            && let Ok(environment) = fs::read(entry.path().join("environ"))
            && environment.windows(root.len()).any(|window| window == root)
        {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(format!("{name} {}", String::from_utf8_lossy(&words)));
        }
    }
    found
}

fn check(space: &TestSpace, round: &Round) -> bool {
    let (output, hit) = kill_in(space, round);
    let told = format!("seed {}, {round:?}", round.number);
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    for word in ["INTERNAL", "warning", "panicked"] {
        assert!(!said.contains(word), "{told}: {said}");
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = processes(space);
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{told} leaves {left:?}: {said}");
        std::thread::yield_now();
    }
    let litter = space.litter();
    assert!(litter.is_empty(), "{told} leaves {litter:?}: {said}");
    let reference = space.read("reference");
    for link in 0..LINKS {
        let name = format!("out{link}");
        if output.status.success() || space.exists(&name) {
            assert!(space.read(&name) == reference, "{told}: half of {name}: {said}");
            space.remove(&name);
        }
    }
    hit
}

#[test]
fn kills() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("THINSHIM_TEST_KILLS").unwrap_or(ROUNDS);
    let first = number("THINSHIM_TEST_SEED").unwrap_or(0);
    let space = prepare();
    let mut counts: BTreeMap<(Victim, &str), (u32, u32)> = BTreeMap::new();
    for number in first..first + rounds {
        let round = Round::new(number);
        let hit = check(&space, &round);
        let count = counts.entry((round.victim, round.signal.as_str())).or_default();
        count.0 += 1;
        count.1 += u32::from(hit);
    }
    let mut hits = 0;
    for ((victim, signal), (rounds, hit)) in counts {
        println!("{signal} to {victim:?}: {rounds} rounds, {hit} of them in time");
        hits += hit;
    }
    println!("{rounds} kills from seed {first}, {hits} in time: nothing lost, nothing left");
    assert!(u64::from(hits) > rounds / 4, "too many came too late to prove anything");
}
