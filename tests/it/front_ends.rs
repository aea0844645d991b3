//! Front ends under `thinshim run`: forks of one compiler that is loaded, and nobody can tell.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpgid, getsid, mkfifo};

use crate::space::{NEWEST, Outcome, Run, THINSHIM, TestSpace, bin, llvms};

/// A shell script below `thinshim run`.
fn below(space: &TestSpace, warm: &str, script: &str) -> Run {
    space.shim("run -j2 -- sh -c").args([script]).env("THINSHIM_WARM", warm)
}

/// The summary says so many front ends were in a warm compiler, of so many.
#[track_caller]
fn served(outcome: &Outcome, warm: usize, all: usize) {
    let plural = if all == 1 { "" } else { "s" };
    let line = format!("thinshim: {warm} of {all} front end{plural} in a warm compiler\n");
    assert!(outcome.stderr.contains(&line), "not {line}{outcome}");
}

/// What the command itself said on stderr.
fn said(outcome: &Outcome) -> String {
    let own = |line: &&str| line.starts_with("thinshim: ");
    outcome.stderr.lines().filter(|line| !own(line)).collect::<Vec<_>>().join("\n")
}

fn sources(space: &TestSpace) {
    space.write("a.c", "#include \"a.h\"\nint a(int n) { return twice(n) + X; }\n");
    space.write("a.h", "#define X 3\nint twice(int);\n");
    space.write("b.c", "int b(int n) { int unused; return n * 5; }\n");
    space.write("c.cpp", "#include <vector>\nint c() { std::vector<int> v{1, 2}; return v[1]; }\n");
    space.write("odd.c", "int odd(void) { return absent; }\n");
    space.write("start.S", "#define NAME start\n.globl NAME\nNAME: nop\n");
    space.write("words", "-O1 -c a.c -o out/x\n");
}

const COMMANDS: [&str; 24] = [
    "clang -O2 -c a.c -o out/x",
    "clang -O2 -g -c a.c -o out/x -MD -MF out/d",
    "clang -Wall -c b.c -o out/x",
    "clang -fsyntax-only -Wall b.c",
    "clang -c odd.c -o out/x",
    "clang -c absent.c -o out/x",
    "clang -S -O2 a.c -o -",
    "clang -E a.c",
    "clang -M a.c",
    "clang++ -O1 -c c.cpp -o out/x",
    "clang -c start.S -o out/x",
    "clang -fno-integrated-as -c start.S -o out/x",
    "clang -fno-integrated-as -c a.c -o out/x",
    "clang -O2 -flto=thin -c a.c -o out/x",
    "clang -flto -c a.c -o out/x",
    "clang -save-temps=obj -c a.c -o out/x",
    "clang -c a.c b.c",
    "clang @words",
    "clang --version",
    "clang -print-resource-dir",
    "clang -### -c a.c",
    "clang -v -c a.c -o out/x",
    "clang -x c - -c -o out/x < a.c",
    "clang --no-such-option -c a.c",
];

/// Everything that a call leaves: files with their modes, words, status.
fn traces(space: &TestSpace, warm: &str, command: &str) -> (Vec<(PathBuf, u32, Vec<u8>)>, Outcome) {
    let _ = fs::remove_dir_all(space.path("out"));
    fs::create_dir(space.path("out")).expect("a directory");
    let outcome = below(space, warm, command).end();
    let mut files = Vec::new();
    for directory in [space.root().to_owned(), space.path("out")] {
        for entry in fs::read_dir(directory).expect("a directory").flatten() {
            let meta = entry.metadata().expect("a file");
            if meta.is_file() {
                let bytes = fs::read(entry.path()).expect("a file");
                files.push((entry.path(), meta.permissions().mode(), bytes));
            }
        }
    }
    for name in ["a.o", "b.o"] {
        let _ = fs::remove_file(space.path(name));
    }
    files.sort();
    (files, outcome)
}

#[test]
fn the_same_as_a_compiler_of_its_own() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        sources(&space);
        for command in COMMANDS {
            let (cold_files, cold) = traces(&space, "off", command);
            let (warm_files, warm) = traces(&space, "on", command);
            served(&warm, 1, 1);
            assert!(!cold.stderr.contains("warm compiler"), "{cold}");
            assert_eq!(warm.end(), cold.end(), "LLVM {llvm}: {command}: {warm}{cold}");
            assert_eq!(warm.stdout, cold.stdout, "LLVM {llvm}: {command}");
            // Temporary files have names of their own.
            if !command.contains("-###") && !command.contains(" -v ") {
                assert_eq!(said(&warm), said(&cold), "LLVM {llvm}: {command}");
            }
            assert!(warm_files == cold_files, "LLVM {llvm}: {command}");
        }
        space.is_clean();
    }
}

#[test]
fn a_crash_is_told_as_ever() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        for pragma in ["crash", "llvm_fatal_error", "assert"] {
            space.write("a.c", format!("#pragma clang __debug {pragma}\nint a;\n"));
            for options in ["", "-fno-crash-diagnostics", "-fno-integrated-cc1"] {
                let command = format!("exec clang {options} -c a.c -o a.o");
                let cold = below(&space, "off", &command).end();
                let warm = below(&space, "on", &command).end();
                served(&warm, 1, 1);
                assert_eq!(warm.end(), cold.end(), "LLVM {llvm}: {command}: {warm}{cold}");
                for words in ["error: ", "PLEASE", "Stack dump", "preprocessed source"] {
                    let has = |outcome: &Outcome| outcome.stderr.contains(words);
                    assert_eq!(has(&warm), has(&cold), "LLVM {llvm}: {command}: {warm}{cold}");
                }
            }
        }
    }
}

#[test]
fn a_megabyte() {
    let space = TestSpace::new();
    let line = format!("char *s = \"{}\";\n", "x".repeat(1 << 20));
    space.write("big.c", &line);
    for (command, words) in [
        ("clang -E -P big.c", 1 << 20),
        ("clang -E -P - < big.c", 1 << 20),
        // Nobody reads all of it.
        ("{ clang -E -P big.c; echo $? > status; } | head -c 10", 10),
    ] {
        let cold = below(&space, "off", command).ok();
        let status = space.exists("status").then(|| space.text("status"));
        let warm = below(&space, "on", command).ok();
        served(&warm, 1, 1);
        assert!(warm.stdout == cold.stdout && warm.stdout.len() >= words, "{command}");
        assert_eq!(said(&warm), said(&cold), "{command}");
        assert_eq!(status, space.exists("status").then(|| space.text("status")), "{command}");
    }
}

/// What a process passes on by `exec`, it passes on.
#[test]
fn everything_in_its_place() {
    let space = TestSpace::new();
    space.write("deep/er/a.c", "#ifdef V\nchar *date = __DATE__;\n#endif\n#include <h.h>\n");
    space.write("deep/include/h.h", "int h;\n");
    let script = "umask 077; cd deep/er; export CPATH=../include SOURCE_DATE_EPOCH=86400\n\
        clang -DV -c a.c && clang -DV -E -P a.c; rm a.o\n\
        umask 027; clang -c a.c; stat -c %a a.o; cd ../..; mkdir gone; cd gone; rmdir ../gone\n\
        echo 'int gone;' | clang -E -P -x c -; cd ..; exec clang -c deep/er/absent.c";
    let cold = below(&space, "off", script).end();
    let warm = below(&space, "on", script).end();
    served(&warm, 5, 5);
    assert_eq!((warm.end(), said(&warm)), ((Some(1), None), said(&cold)), "{warm}{cold}");
    assert_eq!(warm.stdout, cold.stdout);
    for words in ["Jan  2 1970", "640", "int gone"] {
        assert!(warm.stdout.contains(words), "{warm}");
    }
}

/// Where a fork is not what `exec` would have given, there is none; and nobody notices.
#[test]
fn other_circumstances() {
    let space = TestSpace::new();
    sources(&space);
    let command = "clang -O2 -c a.c -o x";
    below(&space, "off", command).ok();
    let expected = space.read("x");
    for around in [
        "ulimit -n 100; @",
        "ulimit -c 0; ulimit -s 4096; @",
        "nice -n 1 @",
        "taskset -c 0 @",
        "ionice -c 3 @",
        "setsid -w @",
        "setarch -R @",
        "env LD_LIBRARY_PATH=/nonexistent @",
        "env LD_LIBRARY_PATH=. @",
        "env LD_PRELOAD=libm.so.6 @",
        "env GLIBC_TUNABLES=glibc.malloc.check=0 @",
        "env MALLOC_ARENA_MAX=1 @",
        "env CCC_OVERRIDE_OPTIONS=# @",
        "clang -O2 -I. -c -x c /dev/fd/5 -o x 5< a.c",
        "clang -O2 -I. -c -x c /proc/self/fd/5 -o x 5< a.c",
    ] {
        space.remove("x");
        let outcome = below(&space, "on", &around.replace('@', command)).ok();
        served(&outcome, 0, 1);
        let same = space.read("x") == expected || around.contains("/fd/5");
        assert!(same && said(&outcome).is_empty(), "{around}: {outcome}");
    }
    // The same for the whole build is no difference.
    for variable in ["LD_LIBRARY_PATH", "MALLOC_ARENA_MAX"] {
        let value = if variable.starts_with("LD") { "/nonexistent:/another" } else { "1" };
        space.remove("x");
        let outcome = below(&space, "on", command).env(variable, value).ok();
        served(&outcome, 1, 1);
        assert!(space.read("x") == expected, "{variable}");
    }
    for (name, value) in [("LD_LIBRARY_PATH", "/a:."), ("LLVM_PROFILE_FILE", "/a/%p.profraw")] {
        let outcome = below(&space, "on", command).env(name, value).ok();
        assert!(!outcome.stderr.contains("front end"), "{outcome}");
        assert!(outcome.stderr.contains(&format!("no warm compilers: {name} ")), "{outcome}");
    }
}

#[test]
fn what_links_is_no_front_end() {
    let space = TestSpace::new();
    space.write("a.c", "int main(void) { return 0; }\n");
    for command in ["clang a.c -o prog", "clang -emit-llvm -flto=thin -fuse-ld=lld a.c -o prog"] {
        let outcome = below(&space, "on", command).end();
        assert!(!outcome.stderr.contains("front end"), "{outcome}");
    }
    // Clang proper takes options that the table does not know.
    let outcome = below(&space, "on", "clang -cc1 -S a.c -o -").ok();
    assert!(!outcome.stderr.contains("front end"), "{outcome}");
}

#[test]
fn one_that_is_a_script_is_run_as_one() {
    let mut space = TestSpace::new();
    let clang = bin(NEWEST).join("clang");
    space.script("tools/clang", &format!("echo >> runs\nexec {} \"$@\"\n", clang.display()));
    space.path_first("tools");
    space.write("a.c", "int a;\n");
    let outcome = below(&space, "on", "clang -c a.c; clang -c a.c").ok();
    served(&outcome, 0, 2);
    assert_eq!(space.text("runs").lines().count(), 2);
}

/// A program that may be called clang, and tells all that a process is given, or ends as it is told
/// to by an argument. It ends by way of destructors, which have the last word.
const PROBE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static int last = -1;
__attribute__((destructor)) static void at_the_end(void) {
    if (last < 0) return;
    puts("the last word");
    fflush(stdout);
    _exit(last);
}

static void tell(const char *what, const char *text) {
    printf("%s ", what);
    for (; *text; text++) printf(*text > 32 && *text < 127 ? "%c" : "\\%02x", *text & 255);
    putchar('\n');
}

static void tell_everything(int argc, char **argv, char **envp) {
    for (int at = 0; at < argc; at++) tell("argument", argv[at]);
    printf("%d arguments, %s end\n", argc, argv[argc] ? "no" : "an");
    char **end = envp;
    for (; *end; end++) if (strncmp(*end, "THINSHIM_WARM=", 14)) tell("variable", *end);
    for (ElfW(auxv_t) *word = (void *)(end + 1); word->a_type; word++)
        if (word->a_type == AT_PAGESZ || word->a_type == AT_UID || word->a_type == AT_CLKTCK)
            printf("auxiliary %lu %lu\n", (long)word->a_type, (long)word->a_un.a_val);
    tell("name", program_invocation_name);
    tell("short name", program_invocation_short_name);
    char *directory = getcwd(NULL, 0);
    tell("directory", directory ? directory : strerror(errno));
    mode_t mask = umask(0);
    printf("umask %o group %d session %d nice %d\n", mask, getpgrp(), getsid(0), getpriority(PRIO_PROCESS, 0));
    printf("ids %d %d %d %d\n", getuid(), geteuid(), getgid(), getegid());
    for (int limit = 0; limit < RLIM_NLIMITS; limit++) {
        struct rlimit value;
        if (!getrlimit(limit, &value)) printf("limit %d %lx %lx\n", limit, (long)value.rlim_cur, (long)value.rlim_max);
    }
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    for (int number = 1; number < 65; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action)) continue;
        printf("signal %d %s%s\n", number, action.sa_handler == SIG_IGN ? "ignored" : action.sa_handler == SIG_DFL ? "default" : "handled",
            sigismember(&blocked, number) ? " blocked" : "");
    }
    for (int stream = 0; stream < 3; stream++) {
        struct stat file;
        if (fstat(stream, &file)) puts("closed");
        else printf("stream %o %lu %lu\n", file.st_mode, file.st_dev, file.st_ino);
    }
    cpu_set_t cpus;
    sched_getaffinity(0, sizeof cpus, &cpus);
    printf("cpus %d policy %d\n", CPU_COUNT(&cpus), sched_getscheduler(0));
}

int main(int argc, char **argv, char **envp) {
    const char *what = "";
    for (int at = 1; at < argc; at++) if (!strncmp(argv[at], "-DPROBE=", 8)) what = argv[at] + 8;
    int number = atoi(strchr(what, ':') ? strchr(what, ':') + 1 : "0");
    if (!strncmp(what, "tell", 4)) tell_everything(argc, argv, envp);
    if (!strncmp(what, "exit", 4)) return number;
    if (!strncmp(what, "last", 4)) last = number;
    if (!strncmp(what, "abort", 5)) abort();
    if (!strncmp(what, "signal", 6)) raise(number);
    if (!strncmp(what, "fault", 5)) *(volatile int *)8 = 0;
    if (!strncmp(what, "words", 5))
        for (int at = 0; at < number; at++) {
            printf("%15d\n", at);
            fprintf(stderr, "%15d\n", -at);
        }
    if (!strncmp(what, "copy", 4)) for (int c; (c = getchar()) != EOF;) putchar(c);
    return 0;
}
"#;

/// Below one run, each call in a warm tool and in one of its own.
#[test]
fn a_job_is_given_what_exec_gives_and_ends_as_it_ends() {
    let mut space = TestSpace::new();
    space.write("probe.c", PROBE);
    fs::create_dir(space.path("tools")).expect("a directory");
    space.real("clang -O1 probe.c -o tools/clang").ok();
    space.path_first("tools");
    space.write("input", "a\nb\0c");
    let mut calls: Vec<String> = [
        "clang -c -DPROBE=tell '' 'two words' \"$(printf 'a\\377b')\" -o x",
        "env --block-signal=USR1,INT --ignore-signal=TERM,PIPE clang -c -DPROBE=tell",
        "clang -c -DPROBE=words:65536",
        "clang -c -DPROBE=copy <input",
        "clang -c -DPROBE=last:7",
        "V= clang -c -DPROBE=tell",
        "umask 037; mkdir -p in; cd in; exec clang -c -DPROBE=tell <../input",
        "mkdir gone; cd gone; rmdir ../gone; exec clang -c -DPROBE=tell",
        "cat input | clang -c -DPROBE=copy",
        "clang -c -DPROBE=abort",
        "clang -c -DPROBE=fault",
    ]
    .map(str::to_owned)
    .into();
    let statuses = [0, 1, 2, 63, 70, 126, 127, 128, 130, 137, 255];
    calls.extend(statuses.map(|status| format!("clang -c -DPROBE=exit:{status}")));
    // Those that end a process.
    let fatal = (1..=15).chain([16, 24, 25, 26, 27, 29, 30, 31]);
    calls.extend(fatal.map(|signal| format!("clang -c -DPROBE=signal:{signal}")));
    let both = |(at, call): (usize, &String)| {
        [("warm", "on"), ("cold", "off")].map(|(way, warm)| {
            // The same files, since a job tells which they are.
            format!(
                "(export THINSHIM_WARM={warm}; {call}) >out 2>err; echo $? >status\n\
                 for k in out err status; do cp $k {at}.{way}.$k; done\n"
            )
        })
    };
    let script: String = calls.iter().enumerate().flat_map(both).collect();
    space.write("calls.sh", script);
    // What a shell says of a death is to have no word of a core.
    let run = space.real("sh -c");
    let outcome = run.args([format!("ulimit -c 0; exec {THINSHIM} run -j2 -- sh calls.sh")]).ok();
    served(&outcome, calls.len(), calls.len());
    let bytes = |at: usize, what: &str| space.read(format!("{at}.{what}"));
    for (at, call) in calls.iter().enumerate() {
        for what in ["status", "out", "err"] {
            let [warm, cold] =
                ["warm", "cold"].map(|way| String::from_utf8(bytes(at, &format!("{way}.{what}"))));
            assert_eq!(warm, cold, "{call}: {what}");
        }
    }
    let text = |at, what| String::from_utf8(bytes(at, what)).expect("text");
    let told = text(0, "warm.out");
    for line in ["argument \n", "argument two\\20words\n", "argument a\\ffb\n", "auxiliary 6 "] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let told = text(1, "warm.out");
    for line in ["signal 10 default blocked\n", "signal 15 ignored\n", "signal 13 ignored\n"] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!((bytes(2, "warm.out").len(), bytes(2, "warm.err").len()), (1 << 20, 1 << 20));
    assert_eq!(text(3, "warm.out"), "a\nb\0c");
    assert_eq!(
        (text(4, "warm.out"), text(4, "warm.status")),
        ("the last word\n".into(), "7\n".into())
    );
    space.is_clean();
}

/// A compiler that is replaced in the middle of a build.
#[test]
fn another_compiler_under_the_same_name() {
    let mut space = TestSpace::new();
    let clang = fs::canonicalize(bin(NEWEST).join("clang")).expect("clang");
    fs::create_dir(space.path("tools")).expect("a directory");
    fs::copy(&clang, space.path("tools/clang")).expect("a copy");
    space.path_first("tools");
    space.write("a.c", "int a;\n");
    let again = format!("cp {} tools/new; mv tools/new tools/clang", clang.display());
    let script = format!("clang -c a.c; clang -c a.c; {again}; clang -c a.c");
    let run = below(&space, "on", &script).env("LD_LIBRARY_PATH", bin(NEWEST).join("../lib"));
    let outcome = run.env("THINSHIM_LOG", "debug").ok();
    served(&outcome, 3, 3);
    assert_eq!(outcome.stderr.matches("the warm ").count(), 2, "{outcome}");
    assert_eq!(outcome.stderr.matches("has changed").count(), 1, "{outcome}");
}

/// Only calls from within the build are served: those that know its token, and this user's.
#[test]
fn strangers_get_nothing() {
    let space = TestSpace::new();
    space.write("a.c", "int a;\n");
    for stranger in [
        "env -u THINSHIM_RUN_TOKEN",
        "env THINSHIM_RUN_TOKEN=abcdefghijklmnopabcdefghijklmnop",
        "env THINSHIM_RUN_TOKEN=",
    ] {
        let outcome = below(&space, "on", &format!("{stranger} clang -c a.c")).ok();
        assert!(!outcome.stderr.contains("front end"), "{outcome}");
        space.remove("a.o");
    }
    let mode = "stat -c %a $THINSHIM_RUN $THINSHIM_RUN/compilers";
    let outcome = below(&space, "on", mode).ok();
    assert!(outcome.stdout.starts_with("700\n"), "{outcome}");
    if nix::unistd::geteuid().is_root() {
        // Who is not this user gets nothing even past the directory.
        let open = "chmod 755 $THINSHIM_RUN; chmod 777 $THINSHIM_RUN/compilers .; ";
        let other = "setpriv --reuid=65534 --clear-groups clang -c a.c";
        let outcome = below(&space, "on", &format!("{open}{other}")).ok();
        assert!(!outcome.stderr.contains("front end"), "{outcome}");
    } else {
        assert!(std::env::var_os("CI").is_none(), "needs root");
        eprintln!("skipped: another user takes root");
    }
}

/// Connections on which nothing is said take nobody's place for long.
#[test]
fn the_silent_do_not_stop_the_build() {
    let space = TestSpace::new();
    space.write("a.c", "int a;\n");
    let ready = space.path("ready");
    mkfifo(&ready, Mode::S_IRWXU).expect("a fifo");
    let script = "echo $THINSHIM_RUN > site; read go < ready; clang -c a.c";
    let mut run = below(&space, "on", script);
    run.command.stderr(Stdio::piped());
    let mut run = run.command.spawn().expect("thinshim");
    let mut go = OpenOptions::new().write(true).open(&ready).expect("a reader");
    let path = Path::new(space.text("site").trim()).join("compilers");
    let silent: Vec<_> = (0..40)
        .map(|_| {
            let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
            let socket = socket(AddressFamily::Unix, kind, flags, None).expect("a socket");
            let address = UnixAddr::new(&path).expect("an address");
            connect(socket.as_raw_fd(), &address).expect("a connection");
            socket
        })
        .collect();
    go.write_all(b"go\n").expect("a reader");
    assert!(run.wait().expect("thinshim").success());
    assert!(space.exists("a.o"));
    drop(silent);
}

#[test]
fn off_is_off() {
    let space = TestSpace::new();
    space.write("a.c", "int a;\n");
    let script = "ls $THINSHIM_RUN; echo $THINSHIM_RUN_TOKEN; clang -c a.c";
    let outcome = below(&space, "off", script).ok();
    assert!(!outcome.stdout.contains("compilers"), "{outcome}");
    assert!(!outcome.stderr.contains("front end"), "{outcome}");
    let outcome = below(&space, "on", "THINSHIM_WARM=off clang -c a.c").ok();
    assert!(!outcome.stderr.contains("front end"), "{outcome}");
}

/// A call that waits to read a fifo.
struct Waiting {
    run: Child,
    /// The thinshim that was called.
    client: Pid,
    job: Pid,
    server: Pid,
    fifo: File,
}

/// The numbers of this user's processes that have `path` open.
fn readers(path: &Path) -> Vec<Pid> {
    let mut readers = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let fds = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        if fds.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == path)) {
            readers.push(Pid::from_raw(pid));
        }
    }
    readers
}

fn waiting(space: &TestSpace, before: &str) -> Waiting {
    mkfifo(&space.path("fifo.c"), Mode::S_IRWXU).expect("a fifo");
    let script = format!("{before}\necho $$ > pid; exec clang -O2 -c fifo.c -o fifo.o");
    let mut run = below(space, "on", &script);
    run.command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = run.command.spawn().expect("thinshim");
    // Opens when somebody reads.
    let fifo = OpenOptions::new().write(true).open(space.path("fifo.c")).expect("a reader");
    let client = Pid::from_raw(space.text("pid").trim().parse().expect("a number"));
    let own = Pid::this();
    let job = *readers(&space.path("fifo.c")).iter().find(|&&pid| pid != own).expect("a job");
    let id = run.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("children");
    let exe = |pid: Pid| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let server = children
        .split_whitespace()
        .map(|pid| Pid::from_raw(pid.parse().expect("a number")))
        .find(|&pid| pid != job && exe(pid) == exe(job))
        .expect("a warm compiler");
    assert_ne!(client, job);
    Waiting { run, client, job, server, fifo }
}

/// Returns when nobody reads any more.
fn until_gone(fifo: &mut File) {
    while fifo.write_all(b"\n").is_ok() {
        std::thread::yield_now();
    }
}

#[test]
fn signals_end_the_job() {
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGKILL,
    ] {
        let space = TestSpace::new();
        let mut waiting = waiting(&space, "");
        kill(waiting.client, signal).expect("a signal");
        until_gone(&mut waiting.fifo);
        let status = waiting.run.wait().expect("thinshim");
        assert_eq!(status.signal(), Some(signal as i32), "{signal}");
        let left: Vec<_> = fs::read_dir(space.root()).expect("a directory").flatten().collect();
        assert!(!left.iter().any(|file| file.file_name() == "fifo.o"), "{signal}: {left:?}");
        space.is_clean();
    }
}

/// The end of the job is the end of the call, however it comes.
#[test]
fn a_job_that_is_killed() {
    let space = TestSpace::new();
    let waiting = waiting(&space, "");
    kill(waiting.job, Signal::SIGKILL).expect("a signal");
    let output = waiting.run.wait_with_output().expect("thinshim");
    assert_eq!(output.status.signal(), Some(9));
}

/// SIGKILL to the run: whatever it has started for others goes with it.
#[test]
fn a_run_that_is_killed() {
    let space = TestSpace::new();
    let mut waiting = waiting(&space, "");
    waiting.run.kill().expect("a signal");
    until_gone(&mut waiting.fifo);
    waiting.run.wait().expect("thinshim");
    for pid in [waiting.server, waiting.job, waiting.client] {
        while kill(pid, None).is_ok() {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_warm_compiler_that_is_killed() {
    let space = TestSpace::new();
    let mut waiting = waiting(&space, "");
    kill(waiting.server, Signal::SIGKILL).expect("a signal");
    // Its jobs are not its children.
    waiting.fifo.write_all(b"int x;\n").expect("a reader");
    drop(waiting.fifo);
    let output = waiting.run.wait_with_output().expect("thinshim");
    assert!(output.status.success());
    assert!(space.exists("fifo.o"));
}

/// A job has what its caller has, and nothing of the warm compiler's or of make's.
#[test]
fn a_job_from_outside() {
    let space = TestSpace::new();
    // A signal of which clang has no opinion.
    let before = "trap '' TSTP; umask 037; exec 7< /dev/null 2> words";
    let waiting = waiting(&space, before);
    let of = |pid: Pid, what: &str| fs::read_link(format!("/proc/{pid}/{what}")).expect(what);
    let status = |pid: Pid| fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = |pid: Pid, name: &str| {
        let text = status(pid);
        text.lines().find(|line| line.starts_with(name)).expect(name).to_owned()
    };
    let Waiting { client, job, server, .. } = waiting;
    for what in ["cwd", "root", "fd/0", "fd/1", "fd/2"] {
        assert_eq!(of(job, what), of(client, what), "{what}");
    }
    for name in ["Umask", "Uid", "Gid", "Groups", "CapEff", "Cpus_allowed_list"] {
        assert_eq!(line(job, name), line(client, name));
    }
    let signals = |pid: Pid, name: &str| {
        let line = line(pid, name);
        u64::from_str_radix(line.split_whitespace().last().expect("digits"), 16).expect("digits")
    };
    let bit = |signal: Signal| 1_u64 << (signal as u32 - 1);
    // Rust's runtime ignores SIGPIPE, and gives it back.
    assert_eq!(signals(job, "SigIgn:"), signals(client, "SigIgn:") & !bit(Signal::SIGPIPE));
    assert_ne!(signals(job, "SigIgn:") & bit(Signal::SIGTSTP), 0);
    assert_eq!(signals(job, "SigBlk:"), 0);
    let group = |pid: Pid| (getpgid(Some(pid)), getsid(Some(pid)));
    assert_eq!(group(job), group(client));
    let fds = |pid: Pid| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten();
        entries.map(|entry| fs::read_link(entry.path()).expect("a link")).collect::<Vec<_>>()
    };
    let (job_fds, server_fds) = (fds(job), fds(server));
    assert_eq!(job_fds.len(), 4, "{job_fds:?}");
    assert!(job_fds.contains(&space.path("fifo.c")), "{job_fds:?}");
    // Three of /dev/null, and its socket.
    assert_eq!(server_fds.len(), 4, "{server_fds:?}");
    assert_eq!(server_fds.iter().filter(|fd| fd.ends_with("null")).count(), 3, "{server_fds:?}");
    assert_ne!(getpgid(Some(server)), getpgid(Some(client)));
    assert_eq!(of(server, "cwd"), Path::new("/"));
    drop(waiting.fifo);
    let mut run = waiting.run;
    assert!(run.wait().expect("thinshim").success());
}

/// Bytes of code in `/proc/PID/maps` that are LLVM's files.
fn mapped_code(maps: &str) -> u64 {
    let lines = maps.lines().filter(|line| line.contains(" r-xp ") && line.contains("/lib"));
    let of_llvm = lines.filter(|line| line.contains("libLLVM") || line.contains("libclang"));
    let size = |line: &str| -> Option<u64> {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        let address = |text: &str| u64::from_str_radix(text, 16).ok();
        Some(address(to)? - address(from)?)
    };
    of_llvm.map(|line| size(line).expect(line)).sum()
}

/// After some jobs the compiler's code stands in memory of its own, but for the ends of each library, which are no
/// whole huge page; what it compiles is the same.
#[cfg(target_arch = "x86_64")]
#[test]
fn code_on_huge_pages() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.write("a.c", "int a;\n");
        space.write("b.c", "int puts(const char *); int main(void) { return puts(\"b\") < 0; }\n");
        let script = "p=; maps() { cat /proc/$p/maps; }\n\
             clang -c a.c; for c in $(cat /proc/$PPID/task/$PPID/children); do\n\
             case $(readlink /proc/$c/exe) in */clang*) p=$c; esac; done; maps > before\n\
             i=0; while [ $i -lt 20 ]; do clang -c a.c; i=$((i + 1)); done; maps > after\n\
             clang -O2 -g -c b.c -o moved.o";
        served(&below(&space, "on", script).ok(), 22, 22);
        let (before, after) = (space.text("before"), space.text("after"));
        assert!(mapped_code(&before) > 32 << 20, "LLVM {llvm}: {before}");
        assert!(mapped_code(&after) < 8 << 20, "LLVM {llvm}: {after}");
        space.real("clang -O2 -g -c b.c -o reference.o").ok();
        assert_eq!(space.read("moved.o"), space.read("reference.o"));
    }
}

/// `THINSHIM_TEST_JOBS` of them in a warm compiler: it stays as it was.
#[test]
fn many_jobs_leave_nothing_behind() {
    let jobs: usize = std::env::var("THINSHIM_TEST_JOBS")
        .map_or(200, |number| number.parse().expect("THINSHIM_TEST_JOBS: a number"));
    let space = TestSpace::new();
    space.write("a.c", "int a;\n");
    let script = format!(
        "server() {{ for p in $(cat /proc/$PPID/task/$PPID/children); do\n\
         case $(readlink /proc/$p/exe) in */clang*) echo $p; return;; esac; done; }}\n\
         clang -c a.c; p=$(server)\n\
         look() {{ ls /proc/$p/fd /proc/$PPID/fd; grep -E 'VmSize|VmData|RssAnon' /proc/$p/status;\n\
         grep -E VmData /proc/$PPID/status; ls -d /proc/$p; }}\n\
         i=0; while [ $i -lt 20 ]; do clang -c a.c; i=$((i + 1)); done; look > before\n\
         while [ $i -lt {jobs} ]; do clang -c a.c; i=$((i + 1)); done; look > after"
    );
    let outcome = below(&space, "on", &script).ok();
    served(&outcome, jobs + 1, jobs + 1);
    let (before, after) = (space.text("before"), space.text("after"));
    assert!(before.contains("/proc/"), "{before}");
    let is_fd = |line: &&str| line.parse::<u32>().is_ok();
    let rest = |text: &str| text.lines().filter(|line| !is_fd(line)).collect::<Vec<_>>().join("\n");
    assert_eq!(rest(&before), rest(&after));
    // The run hangs up on the last call after that has heard of its end.
    let open = |text: &str| text.lines().filter(is_fd).count();
    assert!(open(&before).abs_diff(open(&after)) <= 1, "{before}\n{after}");
    space.is_clean();
}

/// All of them ask at once, and the compiler has yet to load.
#[test]
fn hundreds_at_once() {
    let space = TestSpace::new();
    space.write(
        "Makefile",
        "all: $(shell seq 300)\n$(shell seq 300):; @clang --version > /dev/null\n",
    );
    let outcome = space.shim("run -j300 -- make -s").ok();
    served(&outcome, 300, 300);
}

/// A user may have no more descriptors on their way than open (unix(7)): calls past that go on
/// alone, and those after them are served again.
#[test]
fn more_at_once_than_descriptors() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "needs root");
        eprintln!("skipped: to be another user takes root");
        return;
    }
    let space = TestSpace::new();
    let calls = "all: $(shell seq 100)\n$(shell seq 100):; @clang --version > /dev/null\n";
    space.write("Makefile", calls);
    fs::set_permissions(space.root(), fs::Permissions::from_mode(0o777)).expect("a mode");
    fs::copy(THINSHIM, space.path("thinshim")).expect("a copy");
    let nobody = "ulimit -n 128; exec setpriv --reuid=65533 --clear-groups --inh-caps=-all --bounding-set=-all";
    let script = "make -s -j100; i=0; while [ $i -lt 150 ]; do clang --version > /dev/null || exit; \
        i=$((i + 1)); done";
    let run = format!("{nobody} env TMPDIR=\"$PWD\" ./thinshim run -j2 -- sh -c '{script}'");
    let outcome = space.real("sh -c").args([run]).ok();
    let line = outcome.stderr.lines().find(|line| line.ends_with("in a warm compiler"));
    let line = line.unwrap_or_else(|| panic!("{outcome}"));
    let warm: u32 = line.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a number");
    assert!(warm >= 150, "{line}");
}
