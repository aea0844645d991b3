//! `thinshim run`: builds as they are, with thinshim in front of their tools.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::builds::project;
use crate::jobserver::{make44, ninja};
use crate::space::{NEWEST, Outcome, Run, THINSHIM, TestSpace, bin};

/// `thinshim run` with these words behind it, for links that must be distributed.
fn run(space: &TestSpace, words: &str) -> Run {
    space.strict(&format!("run {words}"))
}

#[track_caller]
fn summary<'a>(outcome: &'a Outcome, first: &str) -> Vec<&'a str> {
    let lines: Vec<&str> =
        outcome.stderr.lines().filter(|line| line.starts_with("thinshim: ")).collect();
    assert_eq!(lines.first(), Some(&&*format!("thinshim: {first}")), "{outcome}");
    lines
}

const ONE_LINK: &str = "1 ThinLTO link: 1 distributed, 0 small (left to lld), 0 fallbacks";
const THIN: &str = "CC=clang CFLAGS=-O2\\ -flto=thin AR=llvm-ar";

fn thin(run: Run) -> Run {
    run.args(["CC=clang", "CFLAGS=-O2 -flto=thin", "AR=llvm-ar"])
}

#[test]
fn a_plain_project() {
    for jobs in ["-j1", "-j2", "-j8", ""] {
        let space = project();
        let outcome =
            thin(run(&space, &format!("{jobs} -- make -s"))).env("THINSHIM_WARM", "on").ok();
        let lines = summary(&outcome, ONE_LINK);
        assert_eq!(lines.len(), 4, "{outcome}");
        assert_eq!(lines[3], "thinshim: 3 of 3 front ends in a warm compiler", "{outcome}");
        assert!(lines[1].starts_with("thinshim: 3 modules, 3 back ends; thin links"), "{outcome}");
        assert!(lines[2].contains("tokens in hand busy"), "{outcome}");
        if let Some(jobs) = jobs.strip_prefix("-j") {
            assert!(lines[2].contains(&format!("jobserver of {jobs} job")), "{outcome}");
        }
        assert_eq!(outcome.stdout, "", "{outcome}");
        assert_eq!(space.real("./prog").ok().stdout, "43 3\n");
        space.is_clean();
    }
}

#[test]
fn quiet_says_nothing() {
    let space = project();
    let outcome = thin(run(&space, "-q -j2 -- make -s")).ok();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""), "{outcome}");
}

/// The user's own report gets its lines, too.
#[test]
fn reports_still_go_where_they_should() {
    let space = project();
    let outcome = thin(run(&space, "-j2 -- make -s")).env("THINSHIM_REPORT", "report").ok();
    summary(&outcome, ONE_LINK);
    assert_eq!(space.report()["modules"], 3);
}

/// What make was told by the environment stays told; only the jobs are ours.
#[test]
fn makeflags_from_outside_stay() {
    let space = project();
    space.write("Makefile", "all:\n\t@echo '$(MAKEFLAGS)' '$(V)'\n");
    let outcome = run(&space, "-j3 -- make").env("MAKEFLAGS", "ks -j9 -- V=a\\ b").ok();
    assert!(outcome.stdout.contains("ks -j3 --jobserver-auth="), "{outcome}");
    assert!(outcome.stdout.ends_with(" a b\n"), "{outcome}");
}

#[test]
fn the_exit_status_is_the_command_s() {
    let space = TestSpace::new();
    space.shim("run -q -- sh -c").args(["exit 7"]).fails(7, &[]);
    let outcome = space.shim("run -q -- sh -c").args(["kill -TERM $$"]).end();
    assert_eq!(outcome.end(), (None, Some(15)), "{outcome}");
    space.shim("run -- ./no-such-command").fails(120, &["no-such-command"]);
    space.shim("run").fails(120, &["COMMAND"]);
    space.shim("run -j0 -- true").fails(120, &["0"]);
    space.shim("run -j100000 -- true").fails(120, &["100000"]);
    space.is_clean();
}

/// A command that waits for a signal and says so through a fifo.
#[test]
fn signals_go_to_the_command() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1] {
        let space = TestSpace::new();
        let number = signal as i32;
        space.script(
            "wait",
            &format!(
                "trap 'exit 4{number}' {number}\necho ready\nwhile :; do read -r line; done\n"
            ),
        );
        let mut run = space.shim("run -q -- ./wait");
        run.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = run.command.spawn().expect("thinshim");
        let mut stdin = child.stdin.take().expect("a pipe");
        let mut ready = [0; 6];
        child.stdout.take().expect("a pipe").read_exact(&mut ready).expect("ready");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("a signal");
        // A trap runs between two commands: the shell gets lines until it is gone.
        while stdin.write_all(b"\n").is_ok() {
            std::thread::yield_now();
        }
        let status = child.wait().expect("thinshim");
        assert_eq!(status.code(), Some(format!("4{number}").parse::<i32>().expect("small") & 0xff));
        space.is_clean();
    }
}

/// SIGKILL: nobody can pass that on, but the command is told to end, and the directory goes.
#[test]
fn a_killed_run_leaves_nothing() {
    let space = TestSpace::new();
    let mut run = space.shim("run -j3 -- sh -c");
    run.command.arg("echo $THINSHIM_RUN; exec sleep 1000").process_group(0);
    run.command.stdout(Stdio::piped());
    let mut child = run.command.spawn().expect("thinshim");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stdout.read_exact(&mut byte).expect("a line");
        line.push(byte[0]);
    }
    let line = String::from_utf8(line).expect("a path");
    let directory = std::path::Path::new(line.trim_end());
    assert!(directory.join("bin/clang").exists() && directory.join("jobserver").exists());
    child.kill().expect("a signal");
    assert_eq!(child.wait().expect("thinshim").signal(), Some(9));
    // The end of the pipe is the end of the command.
    stdout.read_to_end(&mut Vec::new()).expect("an end");
    while directory.exists() {
        std::thread::yield_now();
    }
    space.is_clean();
}

/// Nothing was intercepted, and why.
#[test]
fn a_command_that_goes_round_it() {
    let space = project();
    let outcome = space.shim("run -- true").ok();
    summary(
        &outcome,
        "no ThinLTO link was seen: neither clang nor ld.lld was called by way of PATH (is everything up to date? is the compiler named by a path, or is it another one? a kernel wants LLVM=1)",
    );
    let clang = bin(NEWEST).join("clang");
    let word = format!("CC={}", clang.display());
    let outcome = space.shim("run -- make -s main.o").args([&word]).ok();
    assert!(outcome.stderr.contains(&word), "{outcome}");
    space.remove("main.o");
    let outcome = space.shim("run -- make -s main.o CC=clang").ok();
    assert!(outcome.stderr.contains("-flto=thin"), "{outcome}");
    space.is_clean();
}

/// Only thinshim sees its directory: the real tools, and what they start, have PATH as it was.
#[test]
fn the_real_tools_see_the_real_path() {
    let mut space = TestSpace::new();
    space.script("first/clang", "echo \"$PATH\"\n");
    space.path_first("first");
    let outcome = space.shim("run -q -- sh -c").args(["echo $PATH; clang -c x.c"]).ok();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(lines[0].ends_with(&format!("/bin:{}", lines[1])), "{outcome}");
    assert!(lines[1].starts_with(space.path("first").to_str().expect("UTF-8")), "{outcome}");
}

/// Names that PATH has not are not there.
#[test]
fn no_names_are_made_up() {
    let space = TestSpace::new();
    let outcome = space.shim("run -q -- sh -c").args(["ls $THINSHIM_RUN/bin"]).ok();
    let names: Vec<&str> = outcome.stdout.lines().collect();
    for name in ["clang", "clang++", "ld.lld", "make", "clang-22", "ld.lld-22"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(!names.contains(&"clang-99") && !names.contains(&"clang-format"), "{names:?}");
}

/// A kernel-like Makefile: what `LLVM=` means for the tools' names.
const LLVM_MAKEFILE: &str = "ifneq ($(filter %/,$(LLVM)),)\nLLVM_PREFIX := $(LLVM)\n\
    else ifneq ($(filter -%,$(LLVM)),)\nLLVM_SUFFIX := $(LLVM)\nendif\n\
    CC = $(LLVM_PREFIX)clang$(LLVM_SUFFIX)\nLD = $(LLVM_PREFIX)ld.lld$(LLVM_SUFFIX)\n\
    all:\n\t$(MAKE) -f inner out.o\n";
const INNER: &str = "include names\nout.o: main.o twice.o next.o\n\t$(LD) -r -o $@ $^\n\
    %.o: %.c\n\t$(CC) -O2 -flto=thin -fPIE -c $< -o $@\n";

fn kernel_like() -> TestSpace {
    let space = project();
    let (names, all) = LLVM_MAKEFILE.split_once("all:").expect("a rule");
    space.write("names", names);
    space.write("Makefile", format!("{names}all:{all}"));
    space.write("inner", INNER);
    space
}

#[test]
fn every_way_to_name_an_llvm() {
    let space = kernel_like();
    // Tools that say that they were called.
    for tool in ["clang", "ld.lld"] {
        let real = bin(NEWEST).join(tool);
        space.script(
            &format!("llvm/{tool}"),
            &format!("echo {tool} >> called\nexec {} \"$@\"\n", real.display()),
        );
    }
    let path = format!("{}/", space.path("llvm").display());
    space.script("build", &format!("exec make -s LLVM={path}\n"));
    let make44 = make44();
    let make44 = make44.to_str().expect("UTF-8");
    for command in
        ["./build", "make -s LLVM=", "/usr/bin/make -s LLVM=", &format!("{make44} -s LLVM=")]
    {
        let named = if command == "./build" { &[""][..] } else { &["1", "-22", &path][..] };
        for llvm in named {
            space.write("called", "");
            for object in ["main.o", "twice.o", "next.o", "out.o"] {
                let _ = fs::remove_file(space.path(object));
            }
            let outcome = run(&space, &format!("-j2 -- {command}{llvm}")).ok();
            summary(&outcome, ONE_LINK);
            // Compiles, a thin link, back ends and a native link by the tools that were named.
            let called = space.text("called");
            let count = |tool: &str| called.lines().filter(|line| *line == tool).count();
            let expected = if ["1", "-22"].contains(llvm) { (0, 0) } else { (6, 2) };
            assert_eq!((count("clang"), count("ld.lld")), expected, "{command}{llvm}: {outcome}");
        }
    }
}

/// Kernel packages' scripts export it.
#[test]
fn llvm_of_the_environment() {
    let space = kernel_like();
    let path = format!("{}/", bin(NEWEST).display());
    // As a kernel's `O=` directory has it.
    space.write("out/Makefile", format!("include {}\n", space.path("Makefile").display()));
    for name in ["names", "inner", "main.c", "twice.c", "next.c"] {
        space.write(&format!("out/{name}"), space.text(name));
    }
    // Not of the kernel's kind: its CC stays what it is.
    space.write("other/Makefile", "CC = echo plain\nall:\n\t@$(CC)\n");
    for command in ["make -s", "/usr/bin/make -s", "make -s -C out", "make -sf Makefile"] {
        for object in ["main.o", "twice.o", "next.o", "out.o"] {
            let _ = fs::remove_file(space.path(object));
        }
        let outcome = run(&space, &format!("-j2 -- {command}")).env("LLVM", &path).ok();
        summary(&outcome, ONE_LINK);
    }
    let outcome = run(&space, "-- make -s -C other").env("LLVM", &path).ok();
    assert_eq!(outcome.stdout, "plain\n");
    assert!(outcome.stderr.contains("in the environment goes round PATH"), "{outcome}");
    // What is said on the command line wins.
    let outcome = run(&space, "-j2 -- make -s -B LLVM=1").env("LLVM", &path).ok();
    summary(&outcome, ONE_LINK);
}

/// `make -j8` in the command starts a jobserver of its own; links take part in that one.
#[test]
fn a_make_with_its_own_jobs() {
    let old = "make".to_owned();
    let new = make44().to_str().expect("UTF-8").to_owned();
    for make in [old, new] {
        let space = project();
        space.script("build", &format!("exec {make} -s -j8 {THIN}\n"));
        let outcome = run(&space, "-j2 -- ./build").ok();
        let lines = summary(&outcome, ONE_LINK);
        let told = lines.iter().any(|line| line.contains("1 link took part in another jobserver"));
        assert!(told, "{outcome}");
        // And without its own, in this one.
        thin(space.real("make clean")).ok();
        space.script("build", &format!("exec {make} -s {THIN}\n"));
        let outcome = run(&space, "-j2 -- ./build").ok();
        assert!(!outcome.stderr.contains("another jobserver"), "{outcome}");
        assert!(!outcome.stderr.contains("warning"), "{outcome}");
        space.is_clean();
    }
}

/// Below a make: its jobserver is the run's, with `+` and without.
#[test]
fn below_another_make() {
    for plus in ["+", ""] {
        let space = project();
        let rule = format!("all:\n\t{plus}@{THINSHIM} run -- $(INNER) -s {THIN}\n");
        space.write("outer.mk", rule);
        let outcome = space
            .real("make -f outer.mk -j3 INNER=make")
            .env("THINSHIM_STRICT", "1")
            .env("THINSHIM_SMALL", "0")
            .ok();
        let lines = summary(&outcome, ONE_LINK);
        assert!(lines[2].contains("jobserver of the make above"), "{outcome}");
        assert!(!outcome.stderr.contains("another jobserver"), "{outcome}");
        assert!(!outcome.stderr.contains("INTERNAL"), "{outcome}");
        space.is_clean();
    }
}

/// A run within a run: the outer jobserver, and both tell of the link.
#[test]
fn a_run_within_a_run() {
    let space = project();
    let run = run(&space, &format!("-j3 -- {THINSHIM} run -- make -s"));
    let outcome = thin(run).env("THINSHIM_WARM", "on").ok();
    let lines = summary(&outcome, ONE_LINK);
    assert_eq!(lines.len(), 8, "{outcome}");
    assert!(lines[2].contains("jobserver of the make above"), "{outcome}");
    assert!(lines[6].contains("jobserver of 3 jobs"), "{outcome}");
    assert_eq!((lines[0], lines[3]), (lines[4], lines[7]), "{outcome}");
    space.is_clean();
}

/// `CC="ccache clang"` as it is: thinshim comes to stand in front of the ccache.
#[test]
fn a_launcher_is_a_tool_like_others() {
    let mut space = project();
    // Looks the compiler up on PATH, as the real one does.
    space.script("launchers/ccache", "echo \"$1\" >> called\nexec \"$@\"\n");
    space.path_first("launchers");
    let outcome = thin(run(&space, "-j3 -- make -s"));
    let outcome = outcome.args(["CC=ccache clang"]).ok();
    summary(&outcome, ONE_LINK);
    assert_eq!(space.text("called").lines().filter(|line| *line == "clang").count(), 4);
    space.is_clean();
}

/// A ninja that is as strict as upstream's: nothing but a last `fifo:` will do.
pub(crate) fn strict_ninja(space: &mut TestSpace) {
    space.script(
        "strict/ninja",
        &format!(
            "case \"$MAKEFLAGS\" in\n\
             *--jobserver-auth=fifo:*--jobserver-auth=*) echo \"refused: $MAKEFLAGS\" >&2; exit 1;;\n\
             *--jobserver-auth=fifo:*) exec {} \"$@\";;\n\
             *) echo \"refused: $MAKEFLAGS\" >&2; exit 1;;\nesac\n",
            ninja().display()
        ),
    );
    space.path_first("strict");
}

const NINJA: &str = "rule cc\n  command = clang -O2 -flto=thin -c $in -o $out\n\
    rule ld\n  command = clang -O2 -flto=thin $in -o $out\n\
    rule make\n  command = make -s other CC=clang CFLAGS='-O2 -flto=thin' LDFLAGS=-flto=thin\n\
    build main.o: cc main.c\nbuild twice.o: cc twice.c\nbuild next.o: cc next.c\n\
    build prog: ld main.o twice.o next.o\nbuild other: make | prog\n";
const OTHER: &str = "other: main.o twice.o next.o\n\t$(CC) $(CFLAGS) -o $@ $^\n";

#[test]
fn ninja_shares_the_jobserver() {
    let two = "2 ThinLTO links: 2 distributed, 0 small (left to lld), 0 fallbacks";
    for strict in [false, true] {
        for build in ["ninja", "make -s -f outer.mk", "make -s -f outer.mk PLUS=+"] {
            let mut space = project();
            if strict {
                strict_ninja(&mut space);
            } else {
                fs::create_dir(space.path("wheel")).expect("a directory");
                symlink(ninja(), space.path("wheel/ninja")).expect("a link");
                space.path_first("wheel");
            }
            space.write("build.ninja", NINJA);
            space.write("Makefile", OTHER);
            space.write("outer.mk", "all:\n\t@$(PLUS)ninja\n");
            let run = run(&space, &format!("-j3 -- {build}"));
            let outcome = run.env("THINSHIM_WARM", "on").ok();
            let lines = summary(&outcome, two);
            assert_eq!(lines.len(), 4, "{outcome}");
            assert!(!outcome.stderr.contains("warning"), "{outcome}");
            assert!(!outcome.stdout.contains("warning"), "{outcome}");
            space.is_clean();
        }
    }
}

/// One that starts jobs of its own beside the run's is told of, when the build is over.
#[test]
fn an_older_ninja() {
    let mut space = TestSpace::new();
    space.script(
        "older/ninja",
        "case $1 in --version) echo ${VERSION-1.11.1} ;; *) echo \"ran $*\" ;; esac\n",
    );
    space.path_first("older");
    let below = |args: &str| space.shim(&format!("run -j1 -- ninja {args}"));
    let told = |outcome: &Outcome| outcome.stderr.matches("a ninja older than 1.13").count();
    let outcome = below("-C .").ok();
    assert_eq!((outcome.stdout.as_str(), told(&outcome)), ("ran -C .\n", 1), "{outcome}");
    for version in ["1.13.0.git", "1.11.1.git.kitware.jobserver-1", "2.0", "odd", ""] {
        let outcome = below("-C .").env("VERSION", version).ok();
        assert_eq!(told(&outcome), 0, "{version}: {outcome}");
    }
    let outcome = below("-t recompact").ok();
    assert_eq!(told(&outcome), 0, "{outcome}");
    let outcome = space.shim("run -q -j1 -- sh -c").args(["ninja 2>&1"]).ok();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("ran \n", ""));
}

/// The commands of README.md: a script, make with `LLVM=`, ninja in another directory.
#[test]
fn as_the_readme_says() {
    let readme = include_str!("../../README.md");
    let command = |name: &str| {
        let start = format!("    thinshim run -j8 -- {name}");
        let line = readme.lines().find(|line| line.starts_with(&start)).expect(name);
        line.trim_start().strip_prefix("thinshim ").expect("thinshim").to_owned()
    };
    let mut space = kernel_like();
    fs::create_dir(space.path("wheel")).expect("a directory");
    symlink(ninja(), space.path("wheel/ninja")).expect("a link");
    space.path_first("wheel");
    space.script("build.sh", "exec make -s LLVM=1\n");
    summary(&space.strict(&command("./build.sh")).ok(), ONE_LINK);
    space.remove("out.o");
    // The kernel's targets, here.
    let rules = format!("{}\nvmlinux modules: all\n", space.text("Makefile"));
    space.write("Makefile", rules);
    summary(&space.strict(&command("make LLVM=1 vmlinux modules")).ok(), ONE_LINK);
    for name in ["main.c", "twice.c", "next.c"] {
        space.write(&format!("out/{name}"), space.read(name));
    }
    let rules = NINJA.replace("build other: make | prog\n", "");
    space.write("out/build.ninja", rules);
    summary(&space.strict(&command("ninja -C out")).ok(), ONE_LINK);
    space.is_clean();
}

/// Whoever starts a build may ignore the ends of its children, and hands that on.
#[test]
fn ends_of_children_are_heard() {
    let space = project();
    let words = format!("env --ignore-signal=CHLD {THINSHIM}");
    let strict = |run: Run| run.env("THINSHIM_STRICT", "1").env("THINSHIM_SMALL", "0");
    let run = space.real(&format!("{words} run -q -j2 -- make -s"));
    thin(strict(run)).ok();
    assert_eq!(space.real("./prog").ok().stdout, "43 3\n");
    space.write("one.c", "int main(void) { return 0; }\n");
    space.real(&format!("{words} clang -O2 -flto=thin -c one.c")).ok();
    strict(space.real(&format!("{words} ld.lld -r one.o -o two.o"))).ok();
}

/// Those that have no name, too.
#[test]
fn every_signal_is_told() {
    let space = TestSpace::new();
    let outcome = space.shim("run -q -- sh -c").args(["kill -40 $$"]).end();
    assert_eq!(outcome.end(), (Some(128 + 40), None), "{outcome}");
}
