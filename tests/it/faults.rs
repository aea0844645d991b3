//! Tools that fail in every way: one clear message, and nothing left behind.
//!
//! The real clang does the work, behind a script that goes wrong for one module.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::links::three;
use crate::oracle::program;
use crate::space::{NEWEST, Outcome, Run, TestSpace, bin, llvms};

/// A clang that does `fault` for the module `twice.o`. In its words, `$out` is the object to be
/// written, `$index` the individual index and `real` the real clang with the arguments as given.
pub(crate) fn faulty(space: &TestSpace, fault: &str) {
    faulty_of(space, NEWEST, fault);
}

fn faulty_of(space: &TestSpace, llvm: u32, fault: &str) {
    let clang = bin(llvm).join("clang");
    let clang = clang.display();
    space.script(
        "faulty",
        &format!(
            "real() {{ {clang} \"$@\"; }}\nfor out; do :; done\n\
             all=\"$*\"; index=${{all##*-fthinlto-index=}}; index=${{index%% *}}\n\
             case \"$*\" in\n*' twice.o '*)\n{fault}\n;;\n*) real \"$@\" ;;\nesac\n"
        ),
    );
}

fn link(space: &TestSpace, output: &str) -> Run {
    space
        .strict(&format!("ld.lld {} -o {output}", program("main.o twice.o next.o")))
        .env("THINSHIM_CLANG", space.path("faulty"))
        // No summary, however long it takes.
        .env("MAKEFLAGS", "s")
}

#[track_caller]
fn one_message(outcome: &Outcome) {
    one_message_of(outcome, "twice.o");
}

#[track_caller]
fn one_message_of(outcome: &Outcome, module: &str) {
    let own = outcome.stderr.lines().filter(|line| line.starts_with("thinshim: ")).count();
    assert_eq!(own, 1, "{outcome}");
    assert!(outcome.stderr.contains(&format!("back end of {module}")), "{outcome}");
}

/// Without a fault the script is a clang like any other.
#[test]
fn no_fault() {
    let space = TestSpace::new();
    three(&space);
    faulty(&space, "real \"$@\"");
    assert_eq!(link(&space, "out").ok().stderr, "");
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");
    space.is_clean();
}

#[test]
fn a_back_end_fails() {
    let cases = [
        ("nothing", ":", 120, "No such file"),
        ("empty", ": > \"$out\"", 120, "empty"),
        ("text", "echo hello > \"$out\"", 120, "ELF"),
        ("header", "real \"$@\"; truncate -s 64 \"$out\"", 120, "its object"),
        (
            "half",
            "real \"$@\"; truncate -s $(($(stat -c %s \"$out\") / 2)) \"$out\"",
            120,
            "its object",
        ),
        ("most", "real \"$@\"; truncate -s -8 \"$out\"", 120, "its object"),
        ("bitcode", "cp main.o \"$out\"", 120, "ELF"),
        (
            "machine",
            "real --target=aarch64-linux-gnu -c -x c /dev/null -o \"$out\"",
            120,
            "machine",
        ),
        (
            "hollow",
            "real --target=x86_64-linux-gnu -c -x c /dev/null -o \"$out\"",
            120,
            "nothing of what the module defines",
        ),
        // Of these clang tells, and exits 0.
        ("import", "mv next.o away; real \"$@\"; mv away next.o", 120, "Error loading imported"),
        (
            "half an import",
            "cp next.o away; head -c 300 away > next.o; real \"$@\"; mv away next.o",
            120,
            "Error loading imported",
        ),
        ("shard", "truncate -s 100 $index; real \"$@\"", 120, "Error loading index"),
        ("no shard", "rm $index; real \"$@\"", 120, "Error loading index"),
        ("no", "echo no such luck >&2; exit 1", 1, "no such luck"),
        ("seventy", "exit 70", 70, "70"),
        ("killed", "kill -KILL $$", 1, "signal: 9"),
        ("crash", "kill -SEGV $$", 1, "signal: 11"),
    ];
    let space = TestSpace::new();
    three(&space);
    for (name, fault, status, word) in cases {
        faulty(&space, fault);
        // One after the other: a module may be away for a moment.
        let outcome = link(&space, "out").env("THINSHIM_JOBS", "1").end();
        assert_eq!(outcome.status.code(), Some(status), "{name}: {outcome}");
        assert!(outcome.stderr.contains(word), "{name}: {outcome}");
        one_message(&outcome);
        assert!(!space.exists("out"), "{name}");
        space.write("there", "as before");
        let outcome = link(&space, "there").env("THINSHIM_JOBS", "1").end();
        assert_eq!(outcome.status.code(), Some(status), "{name}: {outcome}");
        assert_eq!(space.text("there"), "as before", "{name}");
        space.is_clean();
    }
}

/// What a clang does not find, or finds spoilt, whatever its release says of that and exits with.
#[test]
fn a_back_end_that_lacks_something_fails() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        for (name, fault) in [
            ("import", "mv next.o away; real \"$@\"; end=$?; mv away next.o; exit $end"),
            (
                "half an import",
                "cp next.o away; head -c 300 away > next.o; real \"$@\"; end=$?; mv away next.o; exit $end",
            ),
            ("shard", "truncate -s 100 $index; real \"$@\""),
            ("no shard", "rm $index; real \"$@\""),
            (
                "module",
                "cp twice.o away; head -c 300 away > twice.o; real \"$@\"; end=$?; mv away twice.o; exit $end",
            ),
            ("empty", ": > \"$out\""),
            ("half", "real \"$@\"; truncate -s $(($(stat -c %s \"$out\") / 2)) \"$out\""),
        ] {
            faulty_of(&space, llvm, fault);
            space.write("out", "as before");
            // One after the other: a module may be away for a moment.
            let outcome = link(&space, "out").env("THINSHIM_JOBS", "1").end();
            assert!(!outcome.status.success(), "LLVM {llvm}, {name}: {outcome}");
            one_message(&outcome);
            assert_eq!(space.text("out"), "as before", "LLVM {llvm}, {name}");
            space.remove("out");
            space.is_clean();
        }
        faulty_of(&space, llvm, "real \"$@\"");
        link(&space, "out").ok();
        assert_eq!(space.real("./out").ok().stdout, "43 3\n");
    }
}

/// More than a pipe holds.
#[test]
fn a_back_end_says_a_megabyte() {
    let space = TestSpace::new();
    three(&space);
    let talk = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo >&2; ";
    faulty(&space, &format!("{talk}real \"$@\""));
    let outcome = link(&space, "out").ok();
    assert_eq!(outcome.stderr.len(), 1_000_001);
    faulty(&space, &format!("{talk}exit 1"));
    let outcome = link(&space, "other").end();
    assert_eq!(outcome.status.code(), Some(1));
    assert!(outcome.stderr.len() > 1_000_001 && !space.exists("other"));
    one_message(&outcome);
    space.is_clean();
}

/// A thin link that leaves less than it should, and exits 0 all the same. With an empty index clang
/// would make an object that is none of ThinLTO.
#[test]
fn a_shard_is_spoilt() {
    let space = TestSpace::new();
    three(&space);
    let real = bin(NEWEST).join("ld.lld");
    // That of main.o, the largest, is missed before any back end runs.
    for (spoil, which) in
        [(": >", "twice.o"), ("truncate -s 100", "twice.o"), ("rm", "twice.o"), ("rm", "main.o")]
    {
        let text = format!(
            "{} \"$@\"\nshard=$(find . -name {which}.thinlto.bc)\n\
             case \"$*\" in *thinlto-index-only*) {spoil} $shard ;; esac\n",
            real.display()
        );
        space.script("spoiling/ld.lld", &text);
        let args = program("main.o twice.o next.o");
        let outcome = space
            .strict(&format!("spoiling/ld.lld {args} -o out"))
            .env("THINSHIM_CLANG", bin(NEWEST).join("clang"))
            .fails(120, &[]);
        one_message_of(&outcome, which);
        assert!(!space.exists("out"), "{spoil} {which}");
        space.is_clean();
    }
}

/// A linker that begins to write `out` in its native link, as lld does, and then does something
/// else; and what another has left of it long ago.
fn writes_and(space: &TestSpace, directory: &str, then: &str) {
    let text = format!(
        "case \"$*\" in *thinlto-index-only*) exec {} \"$@\" ;; esac\n\
         : > out.tmp0a1b2c3\n{then}\n",
        bin(NEWEST).join("ld.lld").display()
    );
    space.script(&format!("{directory}/ld.lld"), &text);
    space.write("out.tmp1234567", "of another day");
    let file = fs::File::options().write(true).open(space.path("out.tmp1234567"));
    file.expect("a file").set_modified(std::time::UNIX_EPOCH).expect("a time");
}

/// A linker that is killed while it writes: what it has begun to write goes, and nothing else.
#[test]
fn the_linker_is_killed() {
    let space = TestSpace::new();
    three(&space);
    writes_and(&space, "dying", "kill -KILL $$");
    let outcome = space
        .strict("dying/ld.lld -r main.o twice.o next.o -o out")
        .env("THINSHIM_CLANG", bin(NEWEST).join("clang"))
        .env("THINSHIM_SMALL", "0")
        .end();
    assert!(!outcome.status.success() && !space.exists("out"), "{outcome}");
    assert!(space.exists("out.tmp1234567"));
    space.remove("out.tmp1234567");
    space.is_clean();
}

/// SIGKILL while the linker writes, which ends before it has taken note of its file: that goes, too,
/// and nothing else; and until then the work directory is nobody else's.
#[test]
fn a_kill_while_the_linker_writes() {
    let space = TestSpace::new();
    three(&space);
    nix::unistd::mkfifo(&space.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    writes_and(&space, "writing", "echo $$ > fifo\nexec sleep 1000");
    let mut run = space
        .strict("writing/ld.lld -r main.o twice.o next.o -o out")
        .env("THINSHIM_CLANG", bin(NEWEST).join("clang"))
        .env("THINSHIM_SMALL", "0");
    let mut child = run.command.stdout(Stdio::null()).spawn().expect("thinshim");
    let mut pid = String::new();
    File::open(space.path("fifo")).and_then(|mut f| f.read_to_string(&mut pid)).expect("a pid");
    let pid = Pid::from_raw(pid.trim().parse().expect("a pid"));
    child.kill().expect("a signal");
    assert_eq!(child.wait().expect("thinshim").signal(), Some(9));
    let again = space.strict("ld.lld -r main.o twice.o next.o -o out");
    again.env("THINSHIM_SMALL", "0").ok();
    assert!(space.exists("out.tmp1234567"));
    space.remove("out.tmp1234567");
    let deadline = Instant::now() + Duration::from_secs(60);
    while kill(pid, None).is_ok() || !space.litter().is_empty() {
        assert!(Instant::now() < deadline, "the linker {pid} is left, or {:?}", space.litter());
        std::thread::yield_now();
    }
}

/// One that hears no SIGTERM, with a child of its own: both are gone, and the link has failed.
#[test]
fn a_back_end_hangs() {
    let space = TestSpace::new();
    three(&space);
    mkfifo(&space.path("fifo"), Mode::S_IRWXU).expect("a fifo");
    let sleep = "sleep 1000 > fifo & sleep 1000 > fifo";
    for hang in [sleep.to_owned(), format!("trap '' TERM; echo half > \"$out\"; {sleep}")] {
        faulty(&space, &hang);
        space.write("out", "as before");
        // Both ends, so that nobody waits for the other one.
        let both = OpenOptions::new().read(true).write(true).open(space.path("fifo"));
        let reader = File::open(space.path("fifo")).expect("a fifo");
        let outcome = link(&space, "out")
            .env("THINSHIM_BACKEND_TIMEOUT", "2")
            .fails(120, &["2 s", "THINSHIM_BACKEND_TIMEOUT", "THINSHIM_KEEP"]);
        one_message(&outcome);
        drop(both);
        // It ends with the last of them that could write.
        let mut said = Vec::new();
        (&reader).read_to_end(&mut said).expect("a fifo");
        assert_eq!((space.text("out").as_str(), said.len()), ("as before", 0));
        space.is_clean();
    }
    // Time enough.
    faulty(&space, "real \"$@\"");
    link(&space, "out").env("THINSHIM_BACKEND_TIMEOUT", "500").ok();
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");
}

/// A back end that a build system calls itself.
#[test]
fn a_lone_back_end_hangs() {
    let space = TestSpace::new();
    three(&space);
    faulty(&space, "echo half > \"$out\"; sleep 1000 & sleep 1000");
    space.strict("thin-link --list list -- ld.lld -r -o out.o twice.o next.o").ok();
    let link = "--index twice.o.thinlto.bc -o twice.native.o -- ld.lld -r";
    space
        .strict(&format!("back-end twice.o {link}"))
        .env("THINSHIM_CLANG", space.path("faulty"))
        .env("THINSHIM_BACKEND_TIMEOUT", "2")
        .fails(120, &["back end of twice.o", "THINSHIM_BACKEND_TIMEOUT"]);
    assert!(!space.exists("twice.native.o"));
}

/// The linker fails in its second step, and says so in the user's words.
#[test]
fn the_native_link_fails() {
    let space = TestSpace::new();
    three(&space);
    let args = program("main.o twice.o next.o -T bad.lds");
    space
        .write("bad.lds", "SECTIONS { .text : { *(.text*) } ASSERT(SIZEOF(.text) == 1, \"odd\") }");
    space.write("out", "as before");
    let outcome = space.strict(&format!("ld.lld {args} -o out")).end();
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    assert!(outcome.stderr.contains("odd") && !outcome.stderr.contains(".thinshim"), "{outcome}");
    space.real(&format!("ld.lld {args} -o reference")).fails(1, &["odd"]);
    assert_eq!(space.text("out"), "as before");
    space.is_clean();
}

/// A clang that says through a fifo that it runs, and then waits for its end.
fn stuck(space: &TestSpace) {
    let fifo = space.path("fifo");
    if !fifo.exists() {
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    }
    faulty(space, "echo half > \"$out\"; echo $$ > fifo; exec sleep 1000");
}

#[test]
fn a_signal_in_the_middle() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        for whole_group in [false, true] {
            let space = TestSpace::new();
            three(&space);
            stuck(&space);
            space.write("out", "as before");
            let mut run = link(&space, "out");
            run.command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut child = run.command.spawn().expect("thinshim");
            let mut pid = String::new();
            File::open(space.path("fifo"))
                .and_then(|mut f| f.read_to_string(&mut pid))
                .expect("a pid");
            let pid = Pid::from_raw(pid.trim().parse().expect("a pid"));
            let own = Pid::from_raw(child.id().cast_signed());
            let target = if whole_group { Pid::from_raw(-own.as_raw()) } else { own };
            kill(target, signal).expect("a signal");
            let status = child.wait().expect("thinshim");
            assert_eq!(status.signal(), Some(signal as i32), "{status}");
            assert!(kill(pid, None).is_err(), "the back end is left");
            assert_eq!(space.text("out"), "as before");
            space.is_clean();
        }
    }
}

/// What nohup is for.
#[test]
fn an_ignored_signal_stays_ignored() {
    let space = TestSpace::new();
    three(&space);
    faulty(&space, "echo $$ > fifo; read line < go; real \"$@\"");
    for fifo in ["fifo", "go"] {
        nix::unistd::mkfifo(&space.path(fifo), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    }
    let link = link(&space, "out");
    let mut run = space.real("sh -c").args(["trap '' HUP; exec \"$@\"", "sh"]);
    run.command.arg(link.command.get_program()).args(link.command.get_args());
    for (name, value) in link.command.get_envs() {
        run.command.env(name, value.unwrap_or_default());
    }
    let mut child = run.command.spawn().expect("thinshim");
    File::open(space.path("fifo")).and_then(|mut f| f.read_to_end(&mut Vec::new())).expect("a pid");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGHUP).expect("a signal");
    fs::write(space.path("go"), "on\n").expect("a reader");
    assert!(child.wait().expect("thinshim").success());
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");
    space.is_clean();
}

/// A small file system, for as long as this lives.
struct SmallDisk<'a>(&'a TestSpace);

impl SmallDisk<'_> {
    /// `None` where this user may not mount.
    fn mount<'a>(space: &'a TestSpace, size: &str) -> Option<SmallDisk<'a>> {
        fs::create_dir(space.path("disk")).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o"]).arg(format!("size={size}")).arg("tmpfs");
        let mounted = mount.arg(space.path("disk")).stderr(Stdio::null()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(space));
        }
        assert!(std::env::var_os("CI").is_none(), "cannot mount a tmpfs");
        eprintln!("skipped: cannot mount a tmpfs");
        None
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path("disk")).status();
    }
}

#[test]
fn a_full_disk() {
    let space = TestSpace::new();
    let Some(_disk) = SmallDisk::mount(&space, "256k") else { return };
    let big = "int big[200000] = { 1 };\nint *get(void) { return big; }\n";
    space.compile(
        "",
        &[("big.c", big), ("small.c", "int *get(void);\nint one(void) { return *get(); }\n")],
    );
    let args = "ld.lld -r big.o small.o -o";
    space.strict(&format!("{args} out")).ok();
    let outcome = space.strict(&format!("{args} disk/out")).end();
    assert!(!outcome.status.success(), "{outcome}");
    assert!(outcome.stderr.contains("disk/"), "{outcome}");
    let left: Vec<_> = fs::read_dir(space.path("disk")).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?} {outcome}");

    // A compile: clang's own object fits, a second copy of it does not.
    let mut text = String::new();
    for n in 0..2100 {
        writeln!(text, "int f{n}(int x) {{ return x * {n}; }}").expect("a string");
    }
    space.write("long.c", text);
    space.shim("clang -O2 -flto=thin -c long.c -o long.o").ok();
    let size = space.read("long.o").len();
    assert!((132_000..250_000).contains(&size), "another size, please: {size}");
    let outcome = space.shim("clang -O2 -flto=thin -c long.c -o disk/long.o").end();
    assert_eq!(outcome.status.code(), Some(120), "{outcome}");
    assert!(outcome.stderr.contains("disk/long.o"), "{outcome}");
    // Clang's own object would be linked without its options.
    let left: Vec<_> = fs::read_dir(space.path("disk")).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?} {outcome}");
    space.is_clean();
}

/// SIGKILL, which nobody can hear: the back end dies with its link, and the work directory goes.
#[test]
fn a_kill_in_the_middle() {
    let space = TestSpace::new();
    three(&space);
    stuck(&space);
    space.write("out", "as before");
    let mut run = link(&space, "out");
    let mut child = run.command.stdout(Stdio::null()).spawn().expect("thinshim");
    let mut pid = String::new();
    File::open(space.path("fifo")).and_then(|mut f| f.read_to_string(&mut pid)).expect("a pid");
    let pid = Pid::from_raw(pid.trim().parse().expect("a pid"));
    child.kill().expect("a signal");
    assert_eq!(child.wait().expect("thinshim").signal(), Some(9));
    let deadline = Instant::now() + Duration::from_secs(60);
    while kill(pid, None).is_ok() || !space.litter().is_empty() {
        assert!(Instant::now() < deadline, "the back end {pid} is left, or {:?}", space.litter());
        std::thread::yield_now();
    }
    assert_eq!(space.text("out"), "as before");
}

/// Where nobody can be told, the exit status is what it would have been.
#[test]
fn a_stderr_that_takes_nothing() {
    let space = TestSpace::new();
    three(&space);
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("a device");
    let mut run = space.strict(&format!("ld.lld {} -o out", program("main.o twice.o next.o")));
    run.command.stderr(full()).env("THINSHIM_CACHE", "perhaps");
    assert_eq!(run.end().status.code(), Some(120));
    let mut run = space.shim("cache stats").env("THINSHIM_CACHE", "on");
    run.command.stdout(full());
    let output = run.command.spawn().and_then(std::process::Child::wait_with_output);
    assert_eq!(output.expect("thinshim").status.code(), Some(120));
}
