//! Links under `thinshim run`: back ends and linkers are forks of what the run has loaded, and nobody
//! can tell.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::links::{MAIN, NEXT, three};
use crate::oracle::program;
use crate::space::{NEWEST, Outcome, Run, THINSHIM, TestSpace, bin, llvms};
use crate::warm::{ODD, modules_of_data};

/// A shell script below `thinshim run`, strictly and without the cache.
fn below(space: &TestSpace, warm: &str, script: &str) -> Run {
    let run = space.shim("run -j1 -q -- sh -c").args([script]).env("THINSHIM_WARM", warm);
    let run = run.env("THINSHIM_STRICT", "1").env("THINSHIM_SMALL", "0");
    run.env("THINSHIM_CACHE", "off").env("THINSHIM_REPORT", "report")
}

/// A link of the program, in the space's files.
fn link(output: &str) -> String {
    format!("ld.lld {} -o {output}", program("main.o twice.o next.o"))
}

/// What became warm, by the words of the log.
fn loaded(outcome: &Outcome) -> Vec<&str> {
    let lines = outcome.stderr.lines().filter(|line| line.contains("the warm "));
    lines.filter_map(|line| line.split("the warm ").nth(1)?.split(' ').next()).collect()
}

/// One compiler and one linker for two links, neither with any of its own.
#[test]
fn the_same_bytes() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        for (warm, jobs) in [("off", 0), ("on", 3)] {
            let script = format!("{} && {}", link(warm), link("again"));
            let outcome = below(&space, warm, &script).env("THINSHIM_LOG", "debug").ok();
            assert_eq!(space.report()["backends_warm"], jobs, "LLVM {llvm}");
            let names: Vec<_> =
                loaded(&outcome).iter().map(|path| path.rsplit('/').next()).collect();
            let expected = if jobs == 0 { 0 } else { 2 };
            assert_eq!(names.len(), expected, "LLVM {llvm}: {names:?}{outcome}");
            assert!(!names.contains(&Some("compiler")), "LLVM {llvm}: one of its own: {outcome}");
        }
        assert!(space.read("on") == space.read("off"), "LLVM {llvm}");
        space.is_clean();
    }
}

/// What lld does on its own: links of native objects, questions, mistakes.
#[test]
fn a_linker_that_is_passed_through() {
    const COMMANDS: [&str; 14] = [
        "ld.lld -r native.o -o x",
        "ld.lld -r native.o -o x --threads=3",
        "ld.lld --version",
        "ld.lld --help",
        "ld.lld -v",
        "ld.lld -r absent.o -o x",
        "ld.lld native.o -o x",
        "ld.lld --no-such-option native.o -o x",
        "ld.lld -r @words",
        "ld.lld -r native.o -o x -Map -",
        "ld.lld -r native.o -o /dev/null",
        "umask 077; cd deep; ld.lld -shared ../native.o -o ../x",
        "ld.lld -r native.o -T /dev/fd/5 -o x 5<script",
        "ld.lld -r @more -o x 5<script",
    ];
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.write("native.c", "int absent(void); int native(void) { return absent(); }\n");
        space.write("words", "native.o -o x\n");
        space.write("more", "native.o --script=/proc/self/fd/5\n");
        space.write("script", "SECTIONS { .text : { *(.text) } }\n");
        fs::create_dir(space.path("deep")).expect("a directory");
        space.shim("clang -O1 -fPIC -c native.c").ok();
        for command in COMMANDS {
            let traces = |warm| {
                let outcome = below(&space, warm, command).end();
                let output = space.exists("x").then(|| {
                    let mode = fs::metadata(space.path("x")).expect("a file").permissions();
                    (mode, space.read("x"))
                });
                let _ = fs::remove_file(space.path("x"));
                (outcome.end(), outcome.stdout.clone(), outcome.stderr.clone(), output)
            };
            assert!(traces("on") == traces("off"), "LLVM {llvm}: {command}");
        }
        let outcome = below(&space, "on", COMMANDS[0]).env("THINSHIM_LOG", "debug").ok();
        assert_eq!(loaded(&outcome).len(), 1, "LLVM {llvm}: {outcome}");
        space.is_clean();
    }
}

/// Small links and back ends that a build calls itself.
#[test]
fn others_that_run_tools() {
    let space = TestSpace::new();
    three(&space);
    let small = "THINSHIM_SMALL=1M ld.lld -r main.o twice.o next.o -o";
    let shard = "clang -O2 -x ir next.o -fthinlto-index=/dev/null -c -o";
    let step = "back-end next.o --index next.o.thinlto.bc -o";
    for (warm, loads) in [("off", 0), ("on", 2)] {
        let script = format!(
            "set -e; {small} {warm}.o; {shard} {warm}.native.o\n\
             {THINSHIM} thin-link --list list -- ld.lld -r main.o twice.o next.o -o out\n\
             {THINSHIM} {step} {warm}.step.o -- ld.lld -r"
        );
        let outcome = below(&space, warm, &script).env("THINSHIM_LOG", "debug").ok();
        assert_eq!(loaded(&outcome).len(), loads, "{outcome}");
    }
    for name in ["o", "native.o", "step.o"] {
        assert!(space.read(format!("on.{name}")) == space.read(format!("off.{name}")), "{name}");
    }
}

#[test]
fn the_same_words() {
    let space = TestSpace::new();
    space.compile("", &[MAIN, ODD, NEXT]);
    let cold = below(&space, "off", &link("out")).fails(1, &["odd"]);
    let warm = below(&space, "on", &link("out")).fails(1, &["odd"]);
    assert_eq!(warm.stderr, cold.stderr);
    space.is_clean();
}

/// Where the run's tools cannot be what `exec` would give, a link has its own.
#[test]
fn other_circumstances() {
    let space = TestSpace::new();
    three(&space);
    below(&space, "off", &link("off")).ok();
    for (around, own) in [("nice -n 1", 1), ("env -u THINSHIM_RUN_TOKEN", 1), ("", 0)] {
        let script = format!("{around} {}", link("on"));
        let outcome = below(&space, "on", &script).env("THINSHIM_LOG", "debug").ok();
        let count = outcome.stderr.matches("the warm compiler is").count();
        assert_eq!((count, &space.report()["backends_warm"]), (own, &3.into()), "{outcome}");
        assert!(space.read("on") == space.read("off"), "{around}");
    }
}

/// Files that only the caller has open.
#[test]
fn descriptors_of_the_link() {
    let space = TestSpace::new();
    three(&space);
    space.write("script", "SECTIONS { .text : { *(.text) } }\n");
    for small in ["0", "1M"] {
        for file in ["/dev/fd/5", "/proc/self/fd/5"] {
            let script = format!("ld.lld -r main.o twice.o next.o -T {file} -o out 5<script");
            below(&space, "on", &script).env("THINSHIM_SMALL", small).ok();
        }
    }
}

/// What lld starts by itself looks for tokens among lld's ancestors.
#[test]
fn a_linker_that_distributes() {
    let space = TestSpace::new();
    three(&space);
    let script = format!(
        "{} --thinlto-distributor={THINSHIM} --thinlto-distributor-arg=distribute",
        link("out")
    );
    let outcome = below(&space, "on", &script).env("THINSHIM_LOG", "debug").ok();
    assert!(loaded(&outcome).iter().all(|path| path.ends_with("clang")), "{outcome}");
}

/// Back ends with a time limit have a group of their own.
#[test]
fn a_time_limit() {
    let space = TestSpace::new();
    three(&space);
    let limited = |script: &str| {
        below(&space, "on", script)
            .env("THINSHIM_BACKEND_TIMEOUT", "500")
            .env("THINSHIM_LOG", "debug")
    };
    let outcome = limited(&link("out")).ok();
    assert_eq!(outcome.stderr.matches("the warm compiler is").count(), 1, "{outcome}");
    assert_eq!(space.report()["backends_warm"], 3);
}

/// Tools that are scripts have commands to run.
#[test]
fn scripts_are_run() {
    let mut space = TestSpace::new();
    three(&space);
    let lld = bin(NEWEST).join("ld.lld");
    let script = format!("echo >> runs\nexec {} \"$@\"\n", lld.display());
    space.script("tools/ld.lld", &script);
    space.path_first("tools");
    let clang = bin(NEWEST).join("clang");
    below(&space, "on", &link("out")).env("THINSHIM_CLANG", &clang).ok();
    assert_eq!(space.text("runs").lines().count(), 2);
}

/// A link whose back end of `twice.o`, the first to run, waits to read a fifo.
struct Waiting {
    run: Child,
    /// What the back end reads.
    fifo: File,
    back_end: Pid,
}

fn waiting(space: &TestSpace) -> Waiting {
    modules_of_data(space);
    let script = format!("echo $$ > pid; exec {}", link("out"));
    let mut run = below(space, "on", &script);
    run.command.stdout(Stdio::null()).stderr(Stdio::piped());
    let run = run.command.spawn().expect("thinshim");
    // Opens when somebody reads.
    let fifo = OpenOptions::new().write(true).open(space.path("data")).expect("a reader");
    let reads = |pid: &Pid| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == space.path("data")))
    };
    let id = run.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("children");
    let children = children.split_whitespace().map(|pid| pid.parse().expect("a number"));
    let back_end = children.map(Pid::from_raw).find(reads).expect("a back end, the run's child");
    Waiting { run, fifo, back_end }
}

#[test]
fn a_back_end_that_is_killed() {
    let space = TestSpace::new();
    let waiting = waiting(&space);
    kill(waiting.back_end, Signal::SIGKILL).expect("a signal");
    let output = waiting.run.wait_with_output().expect("thinshim");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("back end of twice.o") && stderr.contains("signal: 9"), "{stderr}");
    space.is_clean();
}

#[test]
fn signals_end_the_back_ends() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGKILL] {
        let space = TestSpace::new();
        let mut waiting = waiting(&space);
        let link = Pid::from_raw(space.text("pid").trim().parse().expect("a number"));
        kill(link, signal).expect("a signal");
        while waiting.fifo.write_all(b"\n").is_ok() {
            std::thread::yield_now();
        }
        let status = waiting.run.wait().expect("thinshim");
        assert_eq!(status.signal(), Some(signal as i32), "{signal}");
        assert!(!space.exists("out"), "{signal}");
    }
}
