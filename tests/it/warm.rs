//! Warm compilers: the same as compilers that are started anew, whatever happens to them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::links::{MAIN, NEXT, TWICE, three};
use crate::oracle::program;
use crate::space::{Run, TestSpace, llvms};

fn link(space: &TestSpace, warm: &str, output: &str) -> Run {
    space
        .strict(&format!("ld.lld {} -o {output}", program("main.o twice.o next.o")))
        .env("THINSHIM_WARM", warm)
        .env("THINSHIM_JOBS", "1")
        .env("THINSHIM_REPORT", "report")
}

#[test]
fn the_same_bytes() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        for (warm, jobs) in [("off", 0), ("on", 3)] {
            link(&space, warm, warm).ok();
            assert_eq!(space.report()["backends_warm"], jobs, "LLVM {llvm}");
        }
        assert!(space.read("on") == space.read("off"), "LLVM {llvm}");
        space.is_clean();
    }
}

/// With a cache the warm compiler waits for the first job that is not in it.
#[test]
fn a_link_from_the_cache_needs_none() {
    let space = TestSpace::new();
    three(&space);
    for (jobs, starts) in [(3, true), (0, false)] {
        let link = link(&space, "on", "out").env("THINSHIM_CACHE_DIR", space.path("cache"));
        let outcome = link.env("THINSHIM_CACHE", "on").env("THINSHIM_LOG", "debug").ok();
        assert_eq!(space.report()["backends_warm"], jobs, "{outcome}");
        assert_eq!(outcome.stderr.contains("warm compiler is"), starts, "{outcome}");
    }
}

/// Whatever a compiler reads from its environment before `main`, it goes on reading.
#[test]
fn the_users_own_loader_settings() {
    let space = TestSpace::new();
    three(&space);
    link(&space, "off", "off").ok();
    for (name, value) in [
        ("LD_PRELOAD", "libm.so.6"),
        ("GLIBC_TUNABLES", "glibc.malloc.check=0"),
        ("LD_LIBRARY_PATH", "/nonexistent"),
        ("MALLOC_ARENA_MAX", "1"),
    ] {
        let outcome = link(&space, "on", "on").env(name, value).ok();
        assert_eq!((outcome.stderr.as_str(), &space.report()["backends_warm"]), ("", &3.into()));
        assert!(space.read("on") == space.read("off"), "{name}");
    }
}

/// In the place of [`TWICE`]: assembly that no assembler knows, found by the back end.
pub(crate) const ODD: (&str, &str) =
    ("twice.c", "int next(void); int twice(int x) { __asm__(\"odd\"); return x + next(); }");

#[test]
fn the_same_words() {
    let space = TestSpace::new();
    space.compile("", &[MAIN, ODD, NEXT]);
    let cold = link(&space, "off", "out").fails(1, &["odd"]);
    let warm = link(&space, "on", "out").fails(1, &["odd"]);
    assert_eq!(warm.stderr, cold.stderr);
    space.is_clean();
}

/// A compiler that is a script has commands to run, and runs them once for each module.
#[test]
fn a_script_is_no_warm_compiler() {
    let space = TestSpace::new();
    three(&space);
    let clang = crate::space::bin(crate::space::NEWEST).join("clang");
    space.script("clang", &format!("echo >> runs\nexec {} \"$@\"\n", clang.display()));
    link(&space, "on", "out").env("THINSHIM_CLANG", space.path("clang")).ok();
    assert_eq!(space.report()["backends_warm"], 0);
    assert_eq!(space.text("runs").lines().count(), 3);
}

/// A link whose back end of `twice.o`, the first to run, waits to read a fifo.
struct Waiting {
    thinshim: Child,
    /// What the back end reads.
    fifo: File,
    back_end: Pid,
    server: Pid,
}

/// Modules of which the largest has assembly that reads a fifo.
pub(crate) fn modules_of_data(space: &TestSpace) {
    let filler =
        "int a[64]; void fill(int n) { for (int i = 0; i < n; i++) a[i & 63] += i * n; }\n";
    let twice = format!("{}{filler}__asm__(\".incbin \\\"data\\\"\");", TWICE.1);
    space.write("data", "x");
    space.compile("", &[MAIN, ("twice.c", &twice), NEXT]);
    space.remove("data");
    mkfifo(&space.path("data"), Mode::S_IRWXU).expect("a fifo");
}

fn waiting(space: &TestSpace) -> Waiting {
    modules_of_data(space);
    let mut run = link(space, "on", "out").env("THINSHIM_CACHE", "off");
    run.command.stdout(Stdio::null()).stderr(Stdio::piped());
    let thinshim = run.command.spawn().expect("thinshim");
    // Opens when somebody reads.
    let fifo = OpenOptions::new().write(true).open(space.path("data")).expect("a reader");
    let children = format!("/proc/{0}/task/{0}/children", thinshim.id());
    let children = fs::read_to_string(children).expect("children");
    let compilers: Vec<Pid> = children
        .split_whitespace()
        .map(|pid| Pid::from_raw(pid.parse().expect("a number")))
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe.file_name().is_some_and(|name| name != "thinshim"))
        })
        .collect();
    let reads = |pid: &&Pid| {
        fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten().any(|entry| {
            fs::read_link(entry.path()).is_ok_and(|to| to.file_name() == Some("data".as_ref()))
        })
    };
    let back_end = *compilers.iter().find(reads).expect("a back end that reads");
    let server = *compilers.iter().find(|&&pid| pid != back_end).expect("a warm compiler");
    assert!(Path::new("/proc").join(server.to_string()).exists());
    Waiting { thinshim, fifo, back_end, server }
}

#[test]
fn a_job_that_crashes() {
    let space = TestSpace::new();
    let waiting = waiting(&space);
    kill(waiting.back_end, Signal::SIGKILL).expect("a signal");
    let output = waiting.thinshim.wait_with_output().expect("thinshim");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("back end of twice.o") && stderr.contains("signal: 9"), "{stderr}");
    assert!(kill(waiting.server, None).is_err(), "the warm compiler is left");
    space.is_clean();
}

/// The largest module, which is the first to run, reads what nobody writes.
#[test]
fn a_job_that_hangs() {
    let space = TestSpace::new();
    modules_of_data(&space);
    let both = OpenOptions::new().read(true).write(true).open(space.path("data"));
    for warm in ["on", "off"] {
        link(&space, warm, "out")
            .env("THINSHIM_BACKEND_TIMEOUT", "1")
            .fails(120, &["back end of twice.o", "1 s", "THINSHIM_BACKEND_TIMEOUT"]);
        space.is_clean();
    }
    drop(both);
    space.remove("data");
    space.write("data", "x");
    link(&space, "on", "out").env("THINSHIM_BACKEND_TIMEOUT", "500").ok();
    assert_eq!(space.report()["backends_warm"], 3);
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");
}

#[test]
fn a_warm_compiler_that_dies() {
    let space = TestSpace::new();
    let mut waiting = waiting(&space);
    kill(waiting.server, Signal::SIGKILL).expect("a signal");
    // A second look at the file must not wait.
    space.write("regular", "x");
    fs::rename(space.path("regular"), space.path("data")).expect("a file in its place");
    waiting.fifo.write_all(b"x").expect("a write");
    drop(waiting.fifo);
    let output = waiting.thinshim.wait_with_output().expect("thinshim");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = space.report();
    assert_eq!((&report["backends_run"], &report["backends_warm"]), (&3.into(), &1.into()));
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");
    space.is_clean();
}
