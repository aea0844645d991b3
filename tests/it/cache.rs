//! The cache of back ends: every link that uses it gives what a link without it gives.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Stdio;

use crate::links::{MAIN, NEXT, TWICE, three};
use crate::oracle::program;
use crate::space::{Outcome, Run, TestSpace, bin, llvms};

pub(crate) const OBJECTS: &str = "main.o twice.o next.o";
pub(crate) const CACHE: &str = "cache-of-back-ends";

/// How many back ends ran, and how many came out of the cache.
pub(crate) type Counts = (u64, u64);

pub(crate) fn counts(space: &TestSpace) -> Counts {
    let report = space.report();
    let number = |name: &str| report[name].as_u64().expect("a number");
    (number("backends_run"), number("cache_hits"))
}

/// A link by `args`, which must give the bytes that it gives without the cache.
#[track_caller]
pub(crate) fn link_with(space: &TestSpace, args: &str, set: impl Fn(Run) -> Run) -> Counts {
    let run = |output: &str| set(space.strict(&format!("ld.lld {args} -o {output}")));
    run("out").env("THINSHIM_REPORT", "report").ok();
    let counts = counts(space);
    run("clean").env("THINSHIM_CACHE", "off").ok();
    assert!(space.read("out") == space.read("clean"), "stale: {args}");
    counts
}

#[track_caller]
pub(crate) fn link(space: &TestSpace) -> Counts {
    link_with(space, &program(OBJECTS), |run| run)
}

/// Entries of the cache, without memos and histories.
pub(crate) fn entries(space: &TestSpace) -> Vec<PathBuf> {
    let directories = fs::read_dir(space.path(CACHE).join("v1/objects")).expect("entries");
    let mut entries: Vec<PathBuf> = directories
        .flat_map(|directory| fs::read_dir(directory.expect("one").path()).expect("entries"))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    entries
}

#[test]
fn no_work_for_no_change() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm).cached();
        three(&space);
        assert_eq!(link(&space), (3, 0));
        assert_eq!(link(&space), (0, 3));
        // `touch`, `make clean`, and an edit taken back.
        three(&space);
        assert_eq!(link(&space), (0, 3));
        space.compile("", &[(NEXT.0, "int next(void) { return 7; }\n")]);
        assert_ne!(link(&space), (0, 3));
        three(&space);
        assert_eq!(link(&space), (0, 3));
        space.is_clean();
    }
}

/// Another build directory shares entries where the linker knows the modules by the same names.
#[test]
fn directories_share() {
    let space = TestSpace::new().cached();
    space.compile("-g", &[MAIN, TWICE, NEXT]);
    link(&space);
    let line = program(OBJECTS);
    for directory in ["one", "two/deep"] {
        fs::create_dir_all(space.path(directory)).expect("a directory");
        for object in OBJECTS.split(' ') {
            fs::copy(space.path(object), space.path(directory).join(object)).expect("a copy");
        }
        space
            .strict(&format!("ld.lld {line} -o other"))
            .within(space.path(directory))
            .env("THINSHIM_REPORT", space.path("report"))
            .ok();
        assert_eq!(counts(&space), (0, 3));
        space
            .strict(&format!("ld.lld {line} -o clean"))
            .within(space.path(directory))
            .env("THINSHIM_CACHE", "off")
            .ok();
        let read = |name: &str| space.read(format!("{directory}/{name}"));
        assert!(read("other") == read("clean"), "the directory is in the object");
    }
}

/// Each of these changes one part of the key.
#[test]
fn what_is_in_the_key() {
    let space = TestSpace::new().cached();
    three(&space);
    assert_eq!(link(&space), (3, 0));
    let plain = program(OBJECTS);

    // The module: a local string changes, and nothing that others see.
    space.compile("", &[(MAIN.0, &MAIN.1.replace("%d %d", "%d, %d"))]);
    assert_eq!(link(&space), (1, 2));
    // Imported modules: `next` goes into both others.
    space.compile("", &[(NEXT.0, &NEXT.1.replace("++count", "count += 2"))]);
    let (run, hits) = link(&space);
    assert!(run >= 2 && run + hits == 3, "{run} {hits}");
    // Options of the compile and of the link.
    three(&space);
    link(&space);
    space.compile("-falign-loops=32", &[TWICE]);
    assert_eq!(link(&space), (1, 2));
    let why = space.shim("cache why out").ok().stdout;
    assert!(why.contains("twice.o: compiled; changed: options\n"), "{why}");
    three(&space);
    for level in ["--lto-O2", "--lto-O3"] {
        let line = format!("{level} {plain}");
        let counts = link_with(&space, &line, |run| run.env("THINSHIM_OPTIONS", "link"));
        assert_eq!(counts, (3, 0), "{level}");
    }
    assert_eq!(link_with(&space, &format!("-mllvm -import-instr-limit=0 {plain}"), |r| r).0, 3);
    let (run, _) = link_with(&space, &plain, |run| run.env("THINSHIM_OPTIONS", "sections"));
    assert_eq!(run, 3);
    // The environment.
    let (run, _) = link_with(&space, &plain, |run| {
        run.env("CCC_OVERRIDE_OPTIONS", "#+-fno-omit-frame-pointer")
    });
    assert_eq!(run, 3);
    let logged = space.strict(&format!("ld.lld {plain} -o out"));
    logged
        .env("CC_PRINT_OPTIONS", "1")
        .env("CC_PRINT_OPTIONS_FILE", "log")
        .env("THINSHIM_REPORT", "report")
        .ok();
    assert_eq!(counts(&space), (3, 0));
    assert_eq!(space.report()["not_cached"]["the environment makes clang write a log"], 3);
    assert!(space.exists("log"));
}

/// Two compilers under one name, one after the other.
#[test]
fn the_compiler_is_in_the_key() {
    let here = llvms();
    let [.., older, newer] = here[..] else { return };
    let space = TestSpace::with_llvm(older).cached();
    three(&space);
    let name = space.path("clang");
    let with = |llvm: u32| {
        let _ = fs::remove_file(&name);
        symlink(bin(llvm).join("clang"), &name).expect("a link");
        link_with(&space, &program(OBJECTS), |run| run.env("THINSHIM_CLANG", &name))
    };
    assert_eq!(with(older), (3, 0));
    assert_eq!(with(newer), (3, 0));
    assert_eq!(with(older), (0, 3));
    // Nobody can tell what a script runs.
    let clang = bin(older).join("clang");
    fs::remove_file(&name).expect("a link");
    space.script("clang", &format!("exec {} \"$@\"\n", clang.display()));
    let scripted = |_| {
        let counts = link_with(&space, &program(OBJECTS), |run| run.env("THINSHIM_CLANG", &name));
        assert_eq!(counts, (3, 0));
        let reason = "the compiler is no program with shared libraries";
        assert_eq!(space.report()["not_cached"][reason], 3);
    };
    (0..2).for_each(scripted);
}

/// Profiles and section lists that compiles and links name.
#[test]
fn files_of_options() {
    let space = TestSpace::new().cached();
    space.write("profile", "main:100:10\n 1: 10\n");
    space.write("list", "!main\n");
    for (compile, args) in [
        ("-g -fprofile-sample-use=profile", ""),
        ("-g", "--lto-sample-profile=profile"),
        ("-fbasic-block-sections=list=list", ""),
        ("", "--lto-basic-block-sections=list"),
    ] {
        space.write("profile", "main:100:10\n 1: 10\n");
        space.write("list", "!main\n");
        space.compile(compile, &[MAIN, TWICE, NEXT]);
        let from = if args.contains("list") { "link" } else { "record" };
        let line = format!("{args} {}", program(OBJECTS));
        let again = || link_with(&space, &line, |run| run.env("THINSHIM_OPTIONS", from));
        again();
        assert_eq!(again(), (0, 3), "{compile} {args}");
        space.write("profile", "main:200:20\n 1: 20\n");
        space.write("list", "!main\n!twice\n");
        assert_eq!(again(), (3, 0), "{compile} {args}");
    }
}

/// A C file whose assembly puts the bytes of `file` behind `symbol`; `inside` a function or out.
fn opens(directive: &str, symbol: &str, inside: bool) -> String {
    let directive = directive.replace('"', "\\\"");
    let asm = format!(
        "__asm__(\".pushsection .rodata\\n{symbol}_data:\\n{directive}\\n.byte 0\\n.popsection\\n\""
    );
    if inside {
        format!(
            "const char *{symbol}(void) {{ const char *at; {asm}\n\
             \"lea {symbol}_data(%%rip), %0\" : \"=r\"(at)); return at; }}\n"
        )
    } else {
        format!(
            "{asm});\nextern const char {symbol}_data[];\n\
             const char *{symbol}(void) {{ return {symbol}_data; }}\n"
        )
    }
}

/// What assembly opens is in the key: the fault for which the kernel dropped lld's cache.
#[test]
fn files_of_assembly() {
    let main = "int puts(const char *);\nconst char *data(void);\n\
                int main(void) { puts(data()); return 0; }\n";
    for (at, (directive, file, inside)) in [
        (".incbin \"data.txt\"", "data.txt", false),
        (".incbin \"data.txt\"", "data.txt", true),
        (".INCBIN \"sub/../data.txt\"", "data.txt", false),
        (".incbin \"below.txt\"", "include/below.txt", true),
        (".include \"text.inc\"", "text.inc", false),
        (".include \"outer.inc\"", "text.inc", false),
        (".incbin \"@/data.txt\"", "data.txt", false),
    ]
    .into_iter()
    .enumerate()
    {
        let space = TestSpace::new().cached();
        let directive = directive.replace('@', &space.root().display().to_string());
        let text = |word: &str| {
            if directive.contains(".include") {
                format!(".ascii \"{word}\"\n")
            } else {
                word.to_owned()
            }
        };
        space.write("sub/keep", "");
        space.write("include/keep", "");
        space.write("outer.inc", ".include \"text.inc\"\n");
        space.write(file, text("first"));
        // An inline function would end in two modules, and its label with it.
        let data = opens(&directive, "data", inside).replacen(
            "const char *data(void) {",
            "__attribute__((noinline)) const char *data(void) {",
            1,
        );
        space.compile("-Iinclude", &[("a.c", main), ("data.c", &data)]);
        let line = program("a.o data.o");
        assert_eq!(link_with(&space, &line, |run| run), (2, 0), "{at}");
        assert_eq!(link_with(&space, &line, |run| run), (0, 2), "{at}");
        assert_eq!(space.real("./out").ok().stdout, "first\n", "{at}");
        space.write(file, text("second"));
        let (run, _) = link_with(&space, &line, |run| run);
        assert!(run > 0, "{at}");
        assert_eq!(space.real("./out").ok().stdout, "second\n", "{at}");
        if file == "include/below.txt" {
            // A file that is found earlier.
            space.write("below.txt", "third");
            link_with(&space, &line, |run| run);
            assert_eq!(space.real("./out").ok().stdout, "third\n");
        }
        space.write(file, text("first"));
        space.remove(file);
        let gone = space.strict(&format!("ld.lld {line} -o gone")).end();
        assert!(file == "include/below.txt" || !gone.status.success(), "{at}: {gone}");
    }
}

/// Assembly in a function that is imported opens its file in the importing module, too.
#[test]
fn files_of_imported_assembly() {
    let space = TestSpace::new().cached();
    space.write("data.txt", "first");
    let main = "int puts(const char *);\nconst char *data(void);\n\
                int main(void) { puts(data()); return 0; }\n";
    let data = "const char *data(void) { const char *at;\n\
                __asm__(\".pushsection .rodata\\n7: .incbin \\\"data.txt\\\"\\n.byte 0\\n\
                .popsection\\nlea 7b(%%rip), %0\" : \"=r\"(at)); return at; }\n";
    space.compile("", &[("a.c", main), ("data.c", data)]);
    let line = program("a.o data.o");
    assert_eq!(link_with(&space, &line, |run| run), (2, 0));
    space.write("data.txt", "second");
    assert_eq!(link_with(&space, &line, |run| run), (2, 0));
    assert_eq!(space.real("./out").ok().stdout, "second\n");
}

#[test]
fn assembly_that_cannot_be_told_is_not_cached() {
    let space = TestSpace::new().cached();
    space.write("data.txt", "first");
    let main = "int puts(const char *);\nextern const char data[];\n\
                __asm__(\".macro open how what\\n\\\\how \\\"\\\\what\\\"\\n.endm\\n\
                .pushsection .rodata\\n.globl data\\ndata:\\nopen .incbin data.txt\\n.byte 0\\n\
                .popsection\\n\");\nint main(void) { puts(data); return 0; }\n";
    space.compile("", &[("a.c", main), NEXT]);
    let line = program("a.o next.o");
    link_with(&space, &line, |run| run);
    let reason = "assembly opens files whose names cannot be told";
    assert_eq!(space.report()["not_cached"][reason], 1);
    space.write("data.txt", "second");
    let (run, hits) = link_with(&space, &line, |run| run);
    assert_eq!((run, hits), (1, 1));
    assert_eq!(space.real("./out").ok().stdout, "second\n");
}

/// A flipped bit, half an entry and an empty one: told, and repaired.
#[test]
fn damaged_entries() {
    let space = TestSpace::new().cached();
    three(&space);
    link(&space);
    let damage: [fn(&mut Vec<u8>); 3] =
        [|data| data[100] ^= 1, |data| data.truncate(data.len() / 2), Vec::clear];
    for damage in damage {
        let path = &entries(&space)[1];
        let mut data = fs::read(path).expect("an entry");
        damage(&mut data);
        fs::remove_file(path).expect("an entry");
        fs::write(path, data).expect("an entry");
        let run = space.strict(&format!("ld.lld {} -o out", program(OBJECTS)));
        let outcome = run.env("THINSHIM_REPORT", "report").env("MAKEFLAGS", "s").ok();
        assert!(outcome.stderr.contains("was damaged"), "{outcome}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
        assert_eq!(counts(&space), (1, 2));
        assert_eq!(space.report()["cache_damaged"], 1);
        assert!(space.read("out") == space.read("clean"));
        assert_eq!(link(&space), (0, 3), "it was not repaired");
    }
}

/// What clang says in a back end, it says again.
#[test]
fn words_come_again() {
    let space = TestSpace::new().cached();
    let loud = "int next(void) { __asm__(\".warning \\\"well\\\"\"); return 1; }\n";
    space.compile("", &[MAIN, TWICE, (NEXT.0, loud)]);
    let run = || {
        let run = space.strict(&format!("ld.lld {} -o out", program(OBJECTS)));
        run.env("MAKEFLAGS", "s").env("THINSHIM_REPORT", "report")
    };
    let first = run().ok();
    assert!(first.stderr.contains("warning: well"), "{first}");
    let second = run().ok();
    assert_eq!(counts(&space), (0, 3));
    // In the order in which the back ends ended.
    let lines = |outcome: &Outcome| {
        let mut lines: Vec<String> = outcome.stderr.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&second), lines(&first));
}

#[test]
fn modes() {
    let space = TestSpace::new().cached();
    three(&space);
    let with = |mode: &'static str| {
        link_with(&space, &program(OBJECTS), move |run| run.env("THINSHIM_CACHE", mode))
    };
    // `link_with` takes the last value of a variable for its clean link.
    assert_eq!(with("read"), (3, 0));
    assert!(!space.exists(CACHE));
    assert_eq!(with("off"), (3, 0));
    assert!(!space.exists(CACHE));
    assert_eq!(with("on"), (3, 0));
    assert_eq!(with("read"), (0, 3));
    assert_eq!(with("off"), (3, 0));
    let line = program(OBJECTS);
    let run =
        |name: &str, value: &str| space.strict(&format!("ld.lld {line} -o out")).env(name, value);
    run("THINSHIM_CACHE", "perhaps").fails(120, &["THINSHIM_CACHE=perhaps", "on, read, off"]);
    run("THINSHIM_CACHE_SIZE", "much").fails(120, &["THINSHIM_CACHE_SIZE=much"]);
}

/// No home is no cache and no complaint, and neither is a home that is not there.
#[test]
fn without_a_home() {
    let space = TestSpace::new().cached();
    three(&space);
    let run = || {
        let line = program(OBJECTS);
        let mut run = space.strict(&format!("ld.lld {line} -o out")).env("MAKEFLAGS", "s");
        for name in ["THINSHIM_CACHE_DIR", "XDG_CACHE_HOME", "HOME"] {
            run.command.env_remove(name);
        }
        run
    };
    assert_eq!(run().ok().stderr, "");
    space.write("file", "");
    assert_eq!(run().env("HOME", space.path("file/home")).ok().stderr, "");
    run().env("HOME", space.path("home")).ok();
    assert!(space.exists("home/.cache/thinshim/v1"));
    fs::remove_dir_all(space.path("home")).expect("a home");
}

/// A directory that cannot be a cache, on request: one message, and the link.
#[test]
fn no_such_cache() {
    let space = TestSpace::new().cached();
    three(&space);
    space.write("file", "");
    let run = space.strict(&format!("ld.lld {} -o out", program(OBJECTS)));
    let run = run.env("MAKEFLAGS", "s");
    let outcome = run.env("THINSHIM_CACHE_DIR", space.path("file/cache")).ok();
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    assert!(outcome.stderr.contains("cannot write to the cache"), "{outcome}");
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");
}

/// Runs shell words in a mount namespace of their own; `None` where that is not allowed.
pub(crate) fn mounted(space: &TestSpace, words: &str) -> Option<Outcome> {
    let allowed = space.real("unshare -m true").end().status.success();
    if !allowed {
        assert!(std::env::var_os("CI").is_none(), "no mounts here");
        eprintln!("skipped: no mounts here");
        return None;
    }
    let line = program(OBJECTS);
    let link = format!("{} ld.lld {line} -o out", crate::space::THINSHIM);
    let words = format!("set -e\nmkdir -p {CACHE}\n{words}\n").replace("LINK", &link);
    space.write("words", words);
    let run = space.real("unshare -m sh words").env("THINSHIM_STRICT", "1").env("MAKEFLAGS", "s");
    let run = run.env("THINSHIM_SMALL", "0").env("THINSHIM_REPORT", space.path("report"));
    Some(run.env("SHIM", crate::space::THINSHIM).ok())
}

/// Not a byte fits: one message, the link, and nothing half written.
#[test]
fn a_full_cache() {
    let space = TestSpace::new().cached();
    three(&space);
    let words = format!(
        "mount -t tmpfs -o size=64k tmpfs {CACHE}\nhead -c 64k /dev/zero > {CACHE}/fill || :\n\
         LINK\ntest -z \"$(find {CACHE} -path '*tmp/*')\"\n\
         rm {CACHE}/fill\nLINK\nLINK"
    );
    let Some(outcome) = mounted(&space, &words) else { return };
    assert_eq!(outcome.stderr.matches("cannot write to the cache").count(), 1, "{outcome}");
    assert!(outcome.stderr.contains("No space left"), "{outcome}");
    assert_eq!(counts(&space), (0, 3));
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");
}

/// As a cache that a build server fills and others read.
#[test]
fn a_read_only_cache() {
    let space = TestSpace::new().cached();
    three(&space);
    link(&space);
    let words = format!(
        "mount --bind {CACHE} {CACHE}\nmount -o remount,bind,ro {CACHE}\nLINK\n\
         THINSHIM_CACHE=read LINK"
    );
    let Some(outcome) = mounted(&space, &words) else { return };
    assert_eq!(counts(&space), (0, 3));
    assert_eq!(outcome.stderr, "", "nothing had to be written");
}

#[test]
fn the_size_is_bounded() {
    let space = TestSpace::new().cached();
    three(&space);
    let limit = 64 << 10;
    for number in 0..20 {
        space.compile(&format!("-falign-functions={}", 1 << (number % 7)), &[MAIN, TWICE]);
        space.compile("", &[(NEXT.0, &format!("int next(void) {{ return {number}; }}\n"))]);
        link_with(&space, &program(OBJECTS), |run| run.env("THINSHIM_CACHE_SIZE", "64K"));
        let sizes = entries(&space).into_iter().map(|path| fs::metadata(path).expect("one").len());
        let sum: u64 = sizes.map(|size| size.next_multiple_of(4096)).sum();
        assert!(sum <= limit, "{sum}");
    }
    // A cache that holds nothing is of no use, and does no harm.
    link_with(&space, &program(OBJECTS), |run| run.env("THINSHIM_CACHE_SIZE", "0"));
}

#[test]
fn sixteen_links_at_once() {
    let space = TestSpace::new().cached();
    three(&space);
    for round in 0..2 {
        let children: Vec<_> = (0..16)
            .map(|number| {
                let line = program(OBJECTS);
                let mut run = space.strict(&format!("ld.lld {line} -o out{number}"));
                run = run.env("THINSHIM_JOBS", "2").env("MAKEFLAGS", "s");
                run.command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("thinshim")
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().expect("an end");
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        }
        link(&space);
        for number in 0..16 {
            assert!(space.read(format!("out{number}")) == space.read("clean"), "{round} {number}");
        }
    }
    assert_eq!(entries(&space).len(), 3);
    assert_eq!(
        space.shim("cache verify").ok().stdout,
        "3 entries are whole, 0 were damaged and are gone\n"
    );
}

/// Links killed as soon as so many entries are there: what is left is right.
#[test]
fn killed_links_leave_nothing_wrong() {
    let space = TestSpace::new().cached();
    three(&space);
    for wanted in [0, 1, 1, 2, 2, 3] {
        let _ = fs::remove_dir_all(space.path(CACHE));
        let run = space.strict(&format!("ld.lld {} -o killed", program(OBJECTS)));
        let mut child = run.env("THINSHIM_JOBS", "1").command.spawn().expect("thinshim");
        let there = || {
            let objects = space.path(CACHE).join("v1/objects");
            let directories = fs::read_dir(objects).into_iter().flatten().flatten();
            directories.flat_map(|one| fs::read_dir(one.path()).into_iter().flatten()).count()
        };
        while there() < wanted && child.try_wait().expect("a child").is_none() {
            std::thread::yield_now();
        }
        child.kill().expect("a child");
        child.wait().expect("an end");
        let (run, hits) = link(&space);
        assert!(run + hits == 3 && hits >= wanted as u64, "{run} {hits}, {wanted} wanted");
        assert_eq!(link(&space), (0, 3));
        space.shim("cache verify").ok();
    }
}

/// Nobody can write through an output into the cache.
#[test]
fn what_is_kept_is_a_copy() {
    let space = TestSpace::new().cached();
    three(&space);
    link(&space);
    let keep = |run: Run| run.env("THINSHIM_KEEP", space.path("kept"));
    assert_eq!(link_with(&space, &program(OBJECTS), keep), (0, 3));
    for number in 1..4 {
        space.write(&format!("kept/native/000{number}.o"), "spoilt");
    }
    assert_eq!(link(&space), (0, 3));
    for entry in entries(&space) {
        let mode = fs::metadata(&entry).expect("an entry").permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
    }
}

/// Back ends that a build system calls itself: the same cache, and the same look at the object.
#[test]
fn back_ends_of_others() {
    let space = TestSpace::new().cached();
    three(&space);
    // As Bazel and the kernel's own mode do it.
    let index = format!(
        "ld.lld {} --thinlto-index-only=list --thinlto-emit-imports-files -o unused",
        program(OBJECTS)
    );
    space.real(&index).ok();
    let words = "clang -O2 -fPIE -DX=1 -Wp,-MMD,dep -flto=thin -fno-lto -x ir -fthinlto-index=twice.o.thinlto.bc";
    let run = |set: &str, output: &str| {
        space
            .shim(&format!("{words} {set} -c twice.o -o {output}"))
            .env("THINSHIM_REPORT", "report")
    };
    let plain = |output: &str| {
        space.real(&format!("{words} -c twice.o -o {output}")).ok();
        space.read(output)
    };
    run("", "a.o").ok();
    assert_eq!(counts(&space), (1, 0));
    run("", "b.o").ok();
    assert_eq!(counts(&space), (0, 1));
    assert!(space.read("a.o") == plain("c.o") && space.read("b.o") == space.read("c.o"));
    let mode = |name: &str| space.path(name).metadata().expect("one").permissions().mode();
    assert_eq!(mode("b.o"), mode("c.o"));
    run("-falign-loops=32", "b.o").ok();
    assert_eq!(counts(&space), (1, 0));
    // Upstream's mode writes every index anew; here only what changed is compiled.
    space.compile("", &[(NEXT.0, &NEXT.1.replace("++count", "count += 3"))]);
    space.real(&index).ok();
    run("", "b.o").ok();
    assert_eq!(counts(&space), (1, 0));
    assert!(space.read("b.o") == plain("c.o"), "an imported module's change was missed");
    // What writes more than an object goes through.
    space.remove("report");
    run("-gsplit-dwarf -g", "d.o").ok();
    assert!(!space.exists("report") && space.exists("d.dwo"));
    // clang exits 0 and leaves an empty object where an import is missing.
    fs::rename(space.path("next.o"), space.path("hidden")).expect("a name");
    space.remove("b.o");
    run("", "b.o").fails(120, &["back end of twice.o", "empty"]);
    assert!(!space.exists("b.o"), "make would take it for a result");
    fs::rename(space.path("hidden"), space.path("next.o")).expect("a name");
    run("", "b.o").ok();
    // Its words and its status are clang's.
    let bad = run("-fno-such-option", "e.o").end();
    let real = space.real(&format!("{words} -fno-such-option -c twice.o -o e.o")).end();
    assert_eq!((bad.end(), bad.stderr), (real.end(), real.stderr));
    space.is_clean();
}

/// What clang says of options that a back end has no use for, and the status that comes of it.
#[test]
fn unused_options_of_back_ends_of_others() {
    let space = TestSpace::new().cached();
    three(&space);
    space.real(&format!("ld.lld {} --thinlto-index-only=list -o unused", program(OBJECTS))).ok();
    let words = "clang -O2 -fPIE -x ir -fthinlto-index=twice.o.thinlto.bc -c twice.o -o native.o";
    for (set, hits) in [
        ("", 1),
        ("-Wp,-DX", 1),
        ("-Werror", 1),
        ("-Werror -Wp,-DX", 0),
        ("-Qunused-arguments -Werror", 1),
        ("-Qunused-arguments -Werror -Wp,-DX", 1),
        ("-MJ commands.json", 0),
    ] {
        let line = format!("{words} {set}");
        let real = space.real(&line).end();
        let _ = fs::remove_file(space.path("commands.json"));
        for again in [0, 1] {
            let _ = fs::remove_file(space.path("report"));
            let shim = space.shim(&line).env("THINSHIM_REPORT", "report").end();
            assert_eq!((shim.end(), &shim.stderr), (real.end(), &real.stderr), "{set}");
            if again == 1 && hits == 1 {
                assert_eq!(counts(&space), (0, 1), "{set}");
            }
        }
        assert_eq!(space.exists("commands.json"), set.starts_with("-MJ"), "{set}");
    }
}

#[test]
fn cache_commands() {
    let space = TestSpace::new().cached();
    three(&space);
    space.shim("cache why out").fails(120, &["no link of out is known"]);
    link(&space);
    let why = |object: &str| space.shim(&format!("cache why {object}")).ok().stdout;
    assert!(why("out").contains("3 modules, 0 from cache, 3 compiled"), "{}", why("out"));
    link(&space);
    assert!(why("out").contains("3 modules, 3 from cache, 0 compiled"), "{}", why("out"));
    space.compile("", &[(NEXT.0, &NEXT.1.replace("++count", "count += 2"))]);
    link(&space);
    let told = why("out");
    assert!(told.contains("next.o: compiled; changed: module"), "{told}");
    assert!(told.contains("imported modules (next.o)"), "{told}");
    assert!(why("next.o").contains("compiled; changed: module"), "{}", why("next.o"));
    let stats = space.shim("cache stats").ok().stdout;
    assert!(stats.contains("objects      "), "{stats}");
    let path = &entries(&space)[0];
    fs::remove_file(path).expect("an entry");
    fs::write(path, "rubbish").expect("an entry");
    let verify = space.shim("cache verify").fails(120, &[]);
    assert!(verify.stdout.contains("1 were damaged"), "{verify}");
    space.shim("cache verify").ok();
    assert!(space.shim("cache clean").ok().stdout.starts_with("removed "));
    assert!(entries(&space).is_empty());
    assert_eq!(link(&space), (3, 0));
    space.shim("cache").fails(120, &["stats", "clean", "verify", "why"]);
}

/// To make room for what is larger than the cache would cost everything that is in it.
#[test]
fn an_entry_too_large_costs_no_others() {
    let space = TestSpace::new().cached();
    three(&space);
    assert_eq!(link(&space), (3, 0));
    let before = entries(&space);
    let big = "int big[20000] = { 1 };\nint *get(void) { return big; }\n";
    space.compile("", &[("big.c", big)]);
    let line = "-r big.o -o out";
    let set = |run: Run| run.env("THINSHIM_CACHE_SIZE", "100K").env("THINSHIM_REPORT", "report");
    for _ in 0..2 {
        set(space.strict(&format!("ld.lld {line}"))).ok();
        assert_eq!(counts(&space), (1, 0));
        let told = space.report().to_string();
        assert!(told.contains("THINSHIM_CACHE_SIZE"), "{told}");
    }
    assert_eq!(entries(&space), before);
}
