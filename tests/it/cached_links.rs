//! Whole links out of the cache: the output that lld would have written, without lld.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use crate::links::{MAIN, NEXT, three};
use crate::space::{NEWEST, Run, THINSHIM, TestSpace, bin, llvms};

const THREE: &str = "-r main.o twice.o next.o";

/// Makes `tools/ld.lld`, a program that leaves a byte in `calls` for each link that it does. A
/// script would not do: nobody can tell what a script runs.
fn count_calls(space: &TestSpace, llvm: u32, version: &str) {
    let real = bin(llvm).join("ld.lld");
    let text = format!(
        "#include <fcntl.h>\n#include <string.h>\n#include <unistd.h>\n\
         const char version[] = \"{version}\";\n\
         int main(int argc, char **argv) {{\n\
         for (int at = 1; at < argc; at++) if (!strcmp(argv[at], \"-o\")) {{\n\
         int fd = open(\"{calls}\", O_WRONLY | O_APPEND | O_CREAT, 0666);\n\
         if (write(fd, version, 1) != 1) return 1;\n close(fd); break; }}\n\
         execv(\"{real}\", argv);\n return 1; }}\n",
        calls = space.path("calls").display(),
        real = real.display(),
    );
    space.write("tools/ld.c", text);
    space.real("clang tools/ld.c -o tools/ld.lld").ok();
}

fn space(llvm: u32) -> TestSpace {
    let space = TestSpace::with_llvm(llvm).cached();
    count_calls(&space, llvm, "one");
    three(&space);
    space
}

/// A link by `args`, which must give the bytes that it gives without the cache; how often lld ran.
#[track_caller]
fn link_with(space: &TestSpace, args: &str, set: impl Fn(Run) -> Run) -> usize {
    let _ = fs::remove_file(space.path("calls"));
    let clang = |run: Run| run.env("THINSHIM_CLANG", space.path("tools/clang"));
    if !space.exists("tools/clang") {
        let found = space.real("which clang").ok().stdout;
        symlink(found.trim(), space.path("tools/clang")).expect("a link");
    }
    let run = space.shim(&format!("tools/ld.lld {args} -o out")).env("THINSHIM_SMALL", "0");
    set(clang(run)).env("THINSHIM_STRICT", "1").env("THINSHIM_REPORT", "report").ok();
    let calls = fs::metadata(space.path("calls")).map_or(0, |meta| meta.len());
    let clean = space.shim(&format!("ld.lld {args} -o clean")).env("THINSHIM_SMALL", "0");
    set(clang(clean)).env("THINSHIM_CACHE", "off").ok();
    assert!(space.read("out") == space.read("clean"), "stale: {args}");
    let mode = |name: &str| fs::metadata(space.path(name)).expect(name).permissions().mode();
    assert_eq!(mode("out"), mode("clean"));
    let hit = calls == 0;
    assert_eq!(space.report()["link_hit"], hit, "{}", space.report());
    if hit {
        assert_eq!(space.report()["backends_run"], 0);
    }
    usize::try_from(calls).expect("few")
}

#[track_caller]
fn link(space: &TestSpace, args: &str) -> usize {
    link_with(space, args, |run| run)
}

/// Something has changed: the link is done, and is there from then on.
#[track_caller]
fn changed(space: &TestSpace, args: &str) {
    assert_ne!(link(space, args), 0, "not seen: {args}");
    assert_eq!(link(space, args), 0, "not kept: {}", space.report());
}

fn not_cached(space: &TestSpace) -> String {
    space.report()["link_not_cached"].as_str().unwrap_or_default().to_owned()
}

/// Outputs of links in the cache.
fn entries(space: &TestSpace) -> Vec<PathBuf> {
    let directories = fs::read_dir(space.path("cache-of-back-ends/v1/links")).expect("entries");
    directories
        .flat_map(|directory| fs::read_dir(directory.expect("one").path()).expect("entries"))
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn nothing_is_run_where_nothing_changed() {
    for llvm in llvms() {
        let space = space(llvm);
        assert_eq!(link(&space, THREE), 2);
        assert_eq!(link(&space, THREE), 0);
        // `make clean`, and an edit taken back; another name, and none that was there before.
        three(&space);
        assert_eq!(link(&space, THREE), 0);
        space.compile("", &[(NEXT.0, "int next(void) { return 7; }\n")]);
        changed(&space, THREE);
        three(&space);
        space.remove("out");
        assert_eq!(link(&space, THREE), 0);
        // lld alone.
        let small = |run: Run| run.env("THINSHIM_SMALL", "1M");
        assert_eq!(link_with(&space, "-r next.o", small), 1);
        assert_eq!(link_with(&space, "-r next.o", small), 0);
        assert_eq!(space.report()["small"], true);
        let stats = space.shim("cache stats").ok().stdout;
        assert!(stats.contains("outputs      3\n"), "{stats}");
        fs::remove_dir_all(space.path("tools")).expect("tools");
        space.is_clean();
    }
}

#[test]
fn every_input_is_in_the_key() {
    let space = space(NEWEST);
    let native = |value: u32| {
        space.write("native.c", format!("int native = {value};\n"));
        space.real("clang -c native.c -o native.o").ok();
    };
    native(1);
    // An archive of bitcode, one of native objects, and one that holds its members.
    space.real("llvm-ar rcT mixed.a twice.o next.o").ok();
    space.write("other.c", "int other = 1;\n");
    space.real("clang -c other.c -o other.o").ok();
    space.real("llvm-ar rcT thin.a other.o").ok();
    space.write("inner.c", "int inner = 1;\n");
    space.real("clang -c inner.c -o inner.o").ok();
    space.real("llvm-ar rc fat.a inner.o").ok();
    space.write("script.lds", "SECTIONS { .all : { *(.text*) } }\n");
    space.write("words", "--whole-archive thin.a fat.a --no-whole-archive");
    let line = "-r main.o --whole-archive mixed.a @words native.o -T script.lds";
    changed(&space, line);
    native(2);
    changed(&space, line);
    space.compile("", &[(NEXT.0, "int next(void) { return 7; }\n")]);
    changed(&space, line);
    space.write("other.c", "int other = 2;\n");
    space.real("clang -c other.c -o other.o").ok();
    changed(&space, line);
    space.write("inner.c", "int inner = 2;\n");
    space.real("clang -c inner.c -o inner.o").ok();
    space.real("llvm-ar rc fat.a inner.o").ok();
    changed(&space, line);
    space.write("script.lds", "SECTIONS { .rest : { *(.text*) } }\n");
    changed(&space, line);
    space.write("words", "fat.a");
    changed(&space, line);
    changed(&space, &format!("{line} --strip-debug"));
    // The same inputs in another order.
    changed(&space, "-r main.o twice.o next.o");
    changed(&space, "-r next.o twice.o main.o");
    let why = space.shim("cache why out").ok().stdout;
    assert!(why.starts_with("out: its output came out of the cache"), "{why}");
    native(3);
    link(&space, "-r next.o main.o native.o");
    let why = space.shim("cache why out").ok().stdout;
    assert!(why.starts_with("out: linked; changed: command line, options, inputs\n"), "{why}");
}

#[test]
fn files_of_options_are_in_the_key() {
    let space = space(NEWEST);
    space.write("version", "{ local: *; };\n");
    space.write("profile", "main:100:10\n 1: 10\n");
    space.write("list", "!main\n");
    space.compile("-g -fprofile-sample-use=profile", &[MAIN]);
    let line = format!("--version-script=version --lto-basic-block-sections=list {THREE}");
    changed(&space, &line);
    space.write("profile", "main:200:20\n 1: 20\n");
    changed(&space, &line);
    space.write("list", "!main\n!twice\n");
    changed(&space, &line);
    space.write("version", "{ local: next; };\n");
    changed(&space, &line);
}

/// One with a name like an option's; and those that bring in others, in whatever words.
#[test]
fn scripts_are_in_the_key() {
    let space = space(NEWEST);
    space.compile("-ffunction-sections", &[MAIN]);
    for small in ["0", "1M"] {
        for section in [".one", ".two"] {
            let script = format!("SECTIONS {{ {section} : {{ *(.text.main) }} }}\n");
            space.write("-inc.lds", script);
            // Compares with the link that has no cache.
            let line = format!("{THREE} -T-inc.lds");
            link_with(&space, &line, |run| run.env("THINSHIM_SMALL", small));
        }
    }
    space.write("inc.lds", "SECTIONS { .one : { *(.text.main) } }\n");
    for text in [
        "INCLUDE\"inc.lds\"\n",
        "INCLUDE# x\ninc.lds\n",
        "# see drivers/*\nINCLUDE inc.lds\n/* end */\n",
        "SECTIONS { .x : { lib/*(.foo) } }\nINCLUDE inc.lds\n/* end */\n",
    ] {
        space.write("main.lds", text);
        space
            .strict(&format!("ld.lld {THREE} -T main.lds -o out"))
            .fails(120, &["main.lds includes another"]);
    }
}

/// What lld and clang print comes each time.
#[test]
fn words_on_stdout_are_not_lost() {
    let space = space(NEWEST);
    let compiled = "-mllvm -print-pipeline-passes";
    for (compiled, linked) in [("", compiled), (compiled, ""), ("", "-mllvm -pass-remarks=inline")]
    {
        space.compile(compiled, &[MAIN]);
        for small in ["0", "1M"] {
            let link = || {
                let run = space.strict(&format!("ld.lld {THREE} {linked} -o out"));
                run.env("THINSHIM_SMALL", small).env("THINSHIM_JOBS", "1").ok()
            };
            let (first, second) = (link(), link());
            assert_eq!(first.stdout, second.stdout, "{compiled}, {linked}, {small}");
            assert_eq!(first.stderr, second.stderr, "{compiled}, {linked}, {small}");
        }
    }
}

/// What lld refuses, it refuses where the output is in the cache, too.
#[test]
fn wrong_values_are_not_left_out() {
    let space = space(NEWEST);
    link(&space, THREE);
    for threads in ["--threads=0", "--threads=x", "--threads=-1", "--threads=2x"] {
        let line = format!("ld.lld {THREE} {threads} -o out");
        let real = space.real(&line).end();
        let shim = space.shim(&line).env("THINSHIM_SMALL", "0").end();
        assert_eq!((shim.end(), shim.stderr), (real.end(), real.stderr), "{threads}");
    }
}

#[test]
fn tools_and_environment_are_in_the_key() {
    let space = space(NEWEST);
    let again = |set: &dyn Fn(Run) -> Run| {
        assert_ne!(link_with(&space, THREE, set), 0);
        assert_eq!(link_with(&space, THREE, set), 0, "{}", space.report());
    };
    again(&|run| run);
    again(&|run| run.env("THINSHIM_OPTIONS", "link"));
    again(&|run| run.env("THINSHIM_SMALL", "1M"));
    again(&|run| run.env("CCC_OVERRIDE_OPTIONS", "#+-fno-omit-frame-pointer"));
    // A member of the environment of which no byte depends.
    assert_eq!(link_with(&space, THREE, |run| run.env("THINSHIM_WARM", "off")), 0);
    count_calls(&space, NEWEST, "two");
    again(&|run| run);
    let [.., older, _] = llvms()[..] else { return };
    space.remove("tools/clang");
    symlink(bin(older).join("clang"), space.path("tools/clang")).expect("a link");
    // Objects of clang 22 are too new for it; it is asked who it is all the same.
    let older = space
        .shim(&format!("tools/ld.lld {THREE} -o out"))
        .env("THINSHIM_CLANG", space.path("tools/clang"))
        .env("THINSHIM_SMALL", "0")
        .end();
    assert!(!older.status.success(), "taken from another compiler: {older}");
}

/// What assembly opens, wherever it might be found.
#[test]
fn files_of_assembly_are_in_the_key() {
    for (directive, inside) in
        [(".incbin", false), (".incbin", true), (".include", false), (".include", true)]
    {
        for small in ["0", "1M"] {
            let space = space(NEWEST);
            let text = |word: &str| match directive {
                ".incbin" => word.to_owned(),
                _ => format!(".ascii \"{word}\"\n"),
            };
            // The compile of a module's own assembly, and lld, look in the working directory alone.
            let file = if inside && small == "0" { "include/data.txt" } else { "data.txt" };
            space.write("include/keep", "");
            space.write(file, text("first"));
            let asm = format!(
                "__asm__(\".pushsection .data\\n{directive} \\\"data.txt\\\"\\n.popsection\");"
            );
            let source = if inside {
                format!("void data(void) {{ {asm} }}\n")
            } else {
                format!("{asm}\nint data;\n")
            };
            space.compile("-Iinclude", &[("data.c", &source)]);
            let line = "-r data.o next.o";
            let set = |run: Run| run.env("THINSHIM_SMALL", small);
            let link = || link_with(&space, line, set);
            assert_ne!(link(), 0);
            assert_eq!(link(), 0, "{directive} {}", space.report());
            space.write(file, text("other"));
            assert_ne!(link(), 0, "{directive}");
            assert_eq!(link(), 0, "{directive}");
            if file == "include/data.txt" {
                // One that is found earlier.
                space.write("data.txt", text("third"));
                assert_ne!(link(), 0, "{directive}");
            }
        }
    }
}

#[test]
fn damaged_outputs_are_told_and_linked_again() {
    let space = space(NEWEST);
    for small in ["0", "1M"] {
        let set = |run: Run| run.env("THINSHIM_SMALL", small);
        let damage: [fn(&mut Vec<u8>); 3] =
            [|data| data[100] ^= 1, |data| data.truncate(data.len() / 2), Vec::clear];
        for damage in damage {
            let _ = fs::remove_dir_all(space.path("cache-of-back-ends"));
            link_with(&space, THREE, set);
            let path = entries(&space).remove(0);
            let mut data = fs::read(&path).expect("an entry");
            damage(&mut data);
            fs::remove_file(&path).expect("an entry");
            fs::write(&path, data).expect("an entry");
            let run = space
                .shim(&format!("tools/ld.lld {THREE} -o out"))
                .env("THINSHIM_CLANG", space.path("tools/clang"))
                .env("THINSHIM_REPORT", "report");
            let outcome = set(run.env("THINSHIM_SMALL", "0")).ok();
            assert!(outcome.stderr.contains("was damaged, so out is linked again"), "{outcome}");
            assert_eq!(space.report()["cache_damaged"], 1);
            assert!(space.read("out") == space.read("clean"));
            assert_eq!(link_with(&space, THREE, set), 0, "not repaired");
            space.shim("cache verify").ok();
        }
    }
}

/// The kernel's objtool edits the outputs of links in their places.
#[test]
fn an_output_that_is_edited_is_not_the_cache_s() {
    let space = space(NEWEST);
    for _ in 0..2 {
        link(&space, THREE);
        let out = OpenOptions::new().append(true).open(space.path("out"));
        out.and_then(|mut out| out.write_all(b"spoilt")).expect("an output");
    }
    assert_eq!(link(&space, THREE), 0);
    space.shim("cache verify").ok();
    // Who has another name for the output keeps what was there.
    fs::hard_link(space.path("out"), space.path("name")).expect("a link");
    let out = OpenOptions::new().append(true).open(space.path("name"));
    out.and_then(|mut out| out.write_all(b"kept")).expect("an output");
    assert_eq!(link(&space, THREE), 0);
    assert!(space.read("name").ends_with(b"kept"));
}

#[test]
fn modes() {
    let space = space(NEWEST);
    for small in ["0", "1M"] {
        let with = |mode: &'static str| {
            link_with(&space, THREE, move |run| {
                run.env("THINSHIM_SMALL", small).env("THINSHIM_CACHE", mode)
            })
        };
        let runs = if small == "0" { 2 } else { 1 };
        assert_eq!(with("read"), runs);
        assert_eq!(with("off"), runs);
        assert_eq!(with("on"), runs);
        assert_eq!(with("read"), 0);
        assert_eq!(with("off"), runs);
        let keep = |run: Run| run.env("THINSHIM_KEEP", space.path("kept"));
        if small == "0" {
            assert_eq!(link_with(&space, THREE, keep), runs, "who keeps the files wants them made");
            assert!(space.exists("kept/native"));
        }
    }
}

/// What tools said is said again.
#[test]
fn words_come_again() {
    let space = space(NEWEST);
    let loud = "int next(void) { __asm__(\".warning \\\"well\\\"\"); return 1; }\n";
    space.compile("", &[(NEXT.0, loud)]);
    for small in ["0", "1M"] {
        let run = || {
            let run = space.shim(&format!("ld.lld {THREE} -o out")).env("MAKEFLAGS", "s");
            run.env("THINSHIM_SMALL", small).env("THINSHIM_REPORT", "report").ok()
        };
        let first = run();
        assert!(first.stderr.contains("well"), "{first}");
        assert_eq!(space.report()["link_hit"], false);
        let second = run();
        assert_eq!(space.report()["link_hit"], true, "{}", space.report());
        assert_eq!(first.stderr, second.stderr);
        assert_eq!(first.stdout, second.stdout);
    }
}

#[test]
fn what_is_not_cached() {
    let space = space(NEWEST);
    space.write("input.lds", "INPUT(native.o)\nSECTIONS { .all : { *(.text*) } }\n");
    space.write("native.c", "int native;\n");
    space.real("clang -c native.c -o native.o").ok();
    space.real("llvm-ar rc fat.a next.o").ok();
    space.real("llvm-ar rc libnative.a native.o").ok();
    for (line, reason) in [
        (format!("{THREE} -Map=map"), "more than its output"),
        (format!("{THREE} --print-map"), "more than its output"),
        (format!("{THREE} -L. -lnative"), "looks for libraries"),
        (format!("{THREE} -T input.lds"), "brings in other files"),
        ("-r main.o fat.a".to_owned(), "copied out"),
        ("-shared twice.o next.o".to_owned(), "no -r link"),
        (format!("{THREE} --build-id=uuid"), "never the same"),
        (format!("{THREE} --symbol-ordering-file=/dev/null"), "no regular file"),
    ] {
        for _ in 0..2 {
            let run = space.strict(&format!("ld.lld {line} -o out"));
            run.env("THINSHIM_REPORT", "report").ok();
            assert_eq!(space.report()["link_hit"], false, "{line}");
            assert!(not_cached(&space).contains(reason), "{line}: {}", space.report());
        }
    }
    assert!(space.exists("map"));
    let why = space.shim("cache why out").ok().stdout;
    assert!(why.contains("never cached: an option names what is no regular file"), "{why}");
    // What is written through stays what it is.
    symlink("target", space.path("link")).expect("a link");
    for output in ["link", "/dev/null"] {
        let run = space.strict(&format!("ld.lld {THREE} -o {output}"));
        run.env("THINSHIM_REPORT", "report").ok();
        assert!(not_cached(&space).contains("no regular file"), "{output}: {}", space.report());
    }
    let run = space.strict(&format!("ld.lld {THREE} -o out"));
    run.env("THINSHIM_REPORT", "report").env("LLD_IN_TEST", "0").ok();
    assert!(not_cached(&space).contains("environment"), "{}", space.report());
    // The linker looks for what the object names, beside it.
    space.compile("", &[("names.c", "#pragma comment(lib, \"native.o\")\nint names;\n")]);
    let run = space.strict("ld.lld -r names.o next.o -o out");
    run.env("THINSHIM_REPORT", "report").ok();
    assert!(not_cached(&space).contains("cannot be told"), "{}", space.report());
    // A script may run anything.
    space.script("scripts/ld.lld", "exec ld.lld \"$@\"\n");
    let run = space.strict(&format!("scripts/ld.lld {THREE} -o out"));
    let run = run.env("THINSHIM_CLANG", bin(NEWEST).join("clang"));
    run.env("THINSHIM_REPORT", "report").ok();
    assert!(not_cached(&space).contains("which linker"), "{}", space.report());
    assert!(entries(&space).is_empty());
}

/// An object linked onto itself has changed when its link is over.
#[test]
fn an_input_that_is_the_output() {
    let space = space(NEWEST);
    let mut outputs = Vec::new();
    for _ in 0..2 {
        three(&space);
        let run = space.strict("ld.lld -r next.o -o next.o");
        run.env("THINSHIM_REPORT", "report").ok();
        assert!(not_cached(&space).contains("changed"), "{}", space.report());
        outputs.push(space.read("next.o"));
    }
    assert!(outputs[0] == outputs[1]);
}

/// Every edit makes a new output: those of one name do not fill the cache.
#[test]
fn few_outputs_of_one_name_are_kept() {
    let space = space(NEWEST);
    for value in 0..6 {
        space.compile("", &[(NEXT.0, &format!("int next(void) {{ return {value}; }}\n"))]);
        link(&space, THREE);
    }
    assert_eq!(entries(&space).len(), 4);
    assert_eq!(link(&space, THREE), 0);
}

/// What lld writes to stdout is not in the file of that name.
#[test]
fn stdout_is_no_output_to_keep() {
    let space = space(NEWEST);
    let link = |output: &str| {
        let script = format!("exec {THINSHIM} ld.lld {THREE} -o {output}");
        space.real("sh -c").args([script]).env("THINSHIM_SMALL", "0").ok();
    };
    link("out");
    let kept = entries(&space);
    for _ in 0..2 {
        link("- > piped");
        assert!(space.read("piped") == space.read("out"));
        assert!(!space.exists("-"));
    }
    assert_eq!(entries(&space), kept);
}

/// A second link of the same output, of another module, ends while the first one is at work.
#[test]
fn what_another_link_wrote_is_not_kept() {
    let space = space(NEWEST);
    space.compile("", &[("other.c", "int other(void) { return 3; }\n")]);
    let rival = format!(
        "\"$REAL\" \"$@\" || exit\n\
         case \" $* \" in *\" -o \"*) ;; *) exit ;; esac\n\
         [ -e done ] || {{ : > done; {THINSHIM} ld.lld -r other.o -o out; }}\n"
    );
    space.script("rival", &rival);
    // Only a program has an identity; it has the rival run after its own link.
    space.write(
        "tools/rival.c",
        format!(
            "#include <stdlib.h>\n#include <unistd.h>\n\
             int main(int argc, char **argv) {{\n\
             setenv(\"REAL\", \"{}\", 1);\n\
             execv(\"{}\", argv);\n return 1; }}\n",
            bin(NEWEST).join("ld.lld").display(),
            space.path("rival").display(),
        ),
    );
    space.real("clang tools/rival.c -o tools/rival").ok();
    fs::create_dir(space.path("rivals")).expect("a directory");
    fs::rename(space.path("tools/rival"), space.path("rivals/ld.lld")).expect("a program");
    let link = |output: &str| {
        let run = space.shim(&format!("rivals/ld.lld -r main.o -o {output}"));
        run.env("THINSHIM_REPORT", "report").env("THINSHIM_WARM", "off")
    };
    link("out").ok();
    assert!(space.exists("done"), "the rival ran");
    assert!(not_cached(&space).contains("another link"), "{}", space.report());
    link("out").ok();
    assert_eq!(space.report()["link_hit"], false);
    space.shim("ld.lld -r main.o -o clean").env("THINSHIM_CACHE", "off").ok();
    assert!(space.read("out") == space.read("clean"));
}
