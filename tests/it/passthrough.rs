//! What is not ThinLTO is the real tool's, to the byte.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::links::{NEXT, three};
use crate::space::{THINSHIM, TestSpace};

/// A space whose `clang` is a script.
fn faked(text: &str) -> TestSpace {
    let mut space = TestSpace::new();
    space.script("fake/clang", text);
    space.path_first("fake");
    space
}

#[test]
fn arguments_arrive_as_they_are() {
    let space = faked("printf '%s\\0' \"$@\" > argv\n");
    let odd: [&[u8]; 8] =
        [b"-c", b"\xff\xfe.c", b"", b"a b", b"'\"\\", b"-D=\n", b"$HOME", b"-flto=thin\xff"];
    space.shim("clang").args(odd.map(OsStr::from_bytes)).ok();
    let mut expected = odd.join(&b'\0');
    expected.push(0);
    assert_eq!(space.read("argv"), expected);
    // The same in a ThinLTO compile, where clang is a child.
    let odd: [&[u8]; 4] = [b"-c", b"-flto=thin", b"-DX=\xff \n'", b"\xfe.c"];
    space.shim("clang").args(odd.map(OsStr::from_bytes)).ok();
    let mut expected = odd.join(&b'\0');
    expected.push(0);
    assert_eq!(space.read("argv"), expected);
    space.is_clean();
}

#[test]
fn ends_are_the_tools_own() {
    let space = faked("eval \"$FAKE\"\n");
    for compile in ["-c a.c", "-flto=thin -c a.c"] {
        for status in [0, 1, 3, 119, 120, 254, 255] {
            let run = space.shim(&format!("clang {compile}"));
            let outcome = run.env("FAKE", format!("exit {status}")).end();
            assert_eq!(outcome.end(), (Some(status), None), "{outcome}");
            assert_eq!(outcome.stderr, "");
        }
        for (name, signal) in [("SEGV", 11), ("KILL", 9), ("TERM", 15), ("INT", 2), ("ABRT", 6)] {
            let run = space.shim(&format!("clang {compile}"));
            let outcome = run.env("FAKE", format!("kill -{name} $$")).end();
            assert_eq!(outcome.end(), (None, Some(signal)), "{outcome}");
        }
    }
}

/// Below a service that ignores SIGPIPE, tools do; elsewhere they do not.
#[test]
fn what_becomes_of_sigpipe_is_the_callers_choice() {
    let space = faked("grep SigIgn: /proc/self/status\n");
    for (around, ignored) in [("", false), ("--ignore-signal=PIPE", true)] {
        for words in [
            "clang -E a.c",
            "clang -flto=thin -c a.c",
            "grep SigIgn: /proc/self/status",
            "run -q -- grep SigIgn: /proc/self/status",
            "run -q -- clang -E a.c",
        ] {
            let told = space.real(&format!("env {around} {THINSHIM} {words}")).ok().stdout;
            let signals = told.trim().rsplit('\t').next().expect("a number");
            let signals = u64::from_str_radix(signals, 16).expect(signals);
            assert_eq!(signals & 1 << 12 != 0, ignored, "{around} {words}: {told}");
        }
    }
}

#[test]
fn streams_are_the_tools_own() {
    let space = faked("cat; echo to stderr >&2\n");
    space.write("in", b"some \xff bytes\n");
    for compile in ["-E -", "-flto=thin -c -x c -"] {
        let mut run = space.shim(&format!("clang {compile}"));
        run.command.stdin(File::open(space.path("in")).expect("a file"));
        let output = run.command.output().expect("thinshim");
        assert_eq!(output.stdout, b"some \xff bytes\n");
        assert_eq!(output.stderr, b"to stderr\n");
    }
}

#[test]
fn other_compiles_and_links_are_the_same() {
    let space = TestSpace::new();
    space.write(NEXT.0, NEXT.1);
    for words in [
        "clang -O2 -c next.c -o @",
        "clang -O2 -flto=thin -S next.c -o @",
        "clang -O2 -flto -c next.c -o @",
        "clang -O2 -flto=thin -E next.c -o @",
        "ld.lld -r native.o -o @",
    ] {
        space.real("clang -c next.c -o native.o").ok();
        space.real(&words.replace('@', "real")).ok();
        space.shim(&words.replace('@', "shim")).env("THINSHIM_REPORT", "report").ok();
        assert!(space.read("shim") == space.read("real"), "{words}");
    }
    assert!(!space.exists("report"), "no ThinLTO, no report");
    for words in ["clang --version", "ld.lld --version", "make --version"] {
        assert_eq!(space.shim(words).ok().stdout, space.real(words).ok().stdout);
    }
    let real = space.real("ld.lld -r absent.o -o x").end();
    let shim = space.shim("ld.lld -r absent.o -o x").end();
    assert_eq!((shim.end(), shim.stderr), (real.end(), real.stderr));
    space.is_clean();
}

/// What thinshim takes from a pipe, the linker would not get.
#[test]
fn pipes_are_the_linkers_to_read() {
    let space = TestSpace::new();
    space.write("native.c", "extern int x; int *where(void) { return &x; }\n");
    space.real("clang -O2 -fPIE -c native.c").ok();
    for inputs in ["native.o /dev/stdin", "native.o -T /dev/stdin", "/dev/fd/0 native.o"] {
        let script = format!("echo 'x = 1;' | {THINSHIM} ld.lld {inputs} -o out");
        space.real("sh").args(["-c", script.as_str()]).ok();
        let symbols = space.real("llvm-nm out").ok().stdout;
        assert!(symbols.contains(" A x\n"), "{inputs}: {symbols}");
        space.remove("out");
    }
}

/// Under a tool's name, as ccache and distcc do it.
#[test]
fn masquerade() {
    let mut space = TestSpace::new();
    for tool in ["clang", "ld.lld"] {
        std::fs::create_dir_all(space.path("masked")).expect("a directory");
        std::os::unix::fs::symlink(THINSHIM, space.path("masked").join(tool)).expect("a link");
    }
    space.path_first("masked");
    for (name, text) in [crate::links::MAIN, crate::links::TWICE, NEXT] {
        space.write(name, text);
        space.real(&format!("masked/clang -O2 -flto=thin -fPIE -c {name}")).ok();
        assert!(!space.read(Path::new(name).with_extension("o")).starts_with(b"BC"), "no record");
    }
    space
        .real("masked/ld.lld -r main.o twice.o next.o -o out")
        .env("THINSHIM_STRICT", "1")
        .env("THINSHIM_SMALL", "0")
        .env("THINSHIM_REPORT", "report")
        .ok();
    assert_eq!(space.report()["modules"], 3);
    assert!(space.real("masked/clang --version").ok().stdout.contains("clang version"));
}

/// A tool that is a script which calls thinshim. The script itself gives up in the end, lest a
/// test that fails goes on for ever.
#[test]
fn thinshim_calling_itself() {
    let mut space = TestSpace::new();
    three(&space);
    for tool in ["clang", "ld.lld"] {
        space.script(
            &format!("fake/{tool}"),
            &format!(
                "CALLS=$((CALLS + 1)); export CALLS; [ $CALLS -gt 40 ] && exit 99\n\
                 exec {THINSHIM} {tool} \"$@\"\n"
            ),
        );
    }
    space.path_first("fake");
    for words in [
        "clang --version",
        "clang -c next.c",
        "clang -flto=thin -c next.c -o x.o",
        "clang -flto=thin main.o next.o -o x",
        "ld.lld --version",
        "ld.lld -r main.o twice.o -o x",
    ] {
        let outcome = space.shim(words).env("THINSHIM_SMALL", "0").end();
        assert_ne!(outcome.status.code(), Some(99), "{words} goes on for ever");
        assert!(!outcome.status.success(), "{words}: {outcome}");
        assert!(outcome.stderr.contains("calls itself"), "{words}: {outcome}");
    }
    space.is_clean();
}

#[test]
fn tools_that_are_not_there() {
    let space = TestSpace::new();
    space.write(NEXT.0, NEXT.1);
    for words in ["clang -c next.c", "clang -flto=thin -c next.c", "ld.lld -r a.o", "no-such-tool"]
    {
        let tool = words.split(' ').next().expect("a word");
        space.shim(words).env("PATH", space.path("temp")).fails(120, &["thinshim: error:", tool]);
    }
    space.shim("/no/such/clang -c next.c").fails(120, &["/no/such/clang"]);
}
