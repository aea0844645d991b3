//! Links that are left to in-process ThinLTO: the real linker's files, and a reason.

use std::fs;

use thinshim::invocation::lld::{Dashes, Fate, Form, ROWS, Row};

use crate::compiles::files;
use crate::links::three;
use crate::oracle::{self, program};
use crate::space::{NEWEST, THINSHIM, TestSpace, llvms};

/// lld takes `--reproduce` out of the environment, too: for a link of bitcode the tar file is to hold what the
/// user links, and for others nothing changes.
#[test]
fn a_tar_file_that_the_environment_asks_for() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm).cached();
        three(&space);
        let line = format!("ld.lld {}", program("main.o twice.o next.o"));
        space.real(&format!("{line} -o reference")).ok();
        let names = |tar: &str| -> Vec<String> {
            let listed = space.real(&format!("tar -tf {tar}")).ok().stdout;
            listed.lines().map(str::to_owned).collect()
        };
        space.real(&format!("{line} -o out --reproduce=t.tar")).ok();
        let expected = names("t.tar");
        assert!(expected.iter().any(|name| name.ends_with("/twice.o")), "{expected:?}");
        // The second time, a link that is small might come out of the cache.
        for small in ["0", "16K", "16K"] {
            space.remove("t.tar");
            let run = space.shim(&format!("{line} -o out")).env("LLD_REPRODUCE", "t.tar");
            run.env("THINSHIM_SMALL", small).env("THINSHIM_REPORT", "report").ok();
            assert_eq!(names("t.tar"), expected, "LLVM {llvm}, small: {small}");
            let report = space.report();
            let fallback = report["fallback"].as_str().unwrap_or_default();
            assert!(fallback.starts_with("LLD_REPRODUCE"), "{report}");
            oracle::same_behaviour(&space, "out");
            // As the cache would have it for the next link.
            space.shim(&format!("{line} -o out")).env("THINSHIM_SMALL", small).ok();
        }
        space.remove("t.tar");
        let run = space.strict(&format!("{line} -o no")).env("LLD_REPRODUCE", "t.tar");
        run.fails(120, &["LLD_REPRODUCE", "THINSHIM_STRICT"]);
        assert!(!space.exists("no") && !space.exists("t.tar"));
        space.real("clang -O2 -fPIE -c next.c -o native.o").ok();
        space.strict("ld.lld -r native.o -o out").env("LLD_REPRODUCE", "t.tar").ok();
        assert!(space.exists("t.tar"));
    }
}

/// lld looks for the processor itself, without its features; clang has no option for that.
#[test]
fn the_processor_of_the_link() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        let line = program("-plugin-opt=mcpu=native main.o twice.o next.o");
        space.strict(&format!("ld.lld {line} -o out")).ok();
        for name in ["main", "twice", "next"] {
            space.real(&format!("clang -O2 -flto=thin -fPIE -c {name}.c")).ok();
        }
        space.strict(&format!("ld.lld {line} -o no")).fails(120, &["native", "THINSHIM_STRICT"]);
        let run = space.shim(&format!("ld.lld {line} -o out")).env("THINSHIM_SMALL", "0");
        run.env("THINSHIM_REPORT", "report").ok();
        assert!(space.report()["fallback"].is_string(), "{}", space.report());
        assert_eq!(space.real("./out").ok().stdout, "43 3\n");
    }
}

/// What makes a fallback of an option is ThinLTO bitcode, wherever it stands.
#[test]
fn bitcode_that_no_word_names() {
    let space = TestSpace::new();
    three(&space);
    for name in ["main", "next"] {
        space.real(&format!("clang -O2 -fPIE -c {name}.c -o native-{name}.o")).ok();
    }
    space.real("clang -O2 -fPIE -flto=full -c next.c -o full.o").ok();
    space.real("llvm-ar rcs libtwo.a twice.o next.o").ok();
    space.real("clang -O2 -fPIE -c twice.c -o native.o").ok();
    let line = |objects: &str| format!("ld.lld {}", program(&format!("--save-temps {objects}")));
    for objects in
        ["-L. native-main.o -ltwo", "-L . --start-lib native-main.o --end-lib -l:libtwo.a"]
    {
        let line = line(objects);
        space.strict(&format!("{line} -o no")).fails(120, &["--save-temps", "THINSHIM_STRICT"]);
        space.shim(&format!("{line} -o out")).env("THINSHIM_REPORT", "report").ok();
        assert!(space.report()["fallback"].is_string(), "{}", space.report());
        assert_eq!(space.real("./out").ok().stdout, "43 3\n");
        space.remove("report");
    }
    for objects in ["native-main.o native.o native-next.o", "native-main.o native.o full.o"] {
        space.strict(&format!("{} -o out", line(objects))).env("THINSHIM_REPORT", "report").ok();
        assert!(!space.exists("report"), "{objects}");
        assert_eq!(space.real("./out").ok().stdout, "43 3\n");
    }
}

/// Two steps read what the command line names, and a pipe can be read once.
#[test]
fn files_that_are_read_once() {
    let space = TestSpace::new();
    three(&space);
    for (words, text) in [
        ("/dev/stdin", "x = 1;"),
        ("-b binary /dev/fd/0 -b elf", "bytes"),
        ("-T /dev/stdin", "SECTIONS { .all : { *(.text*) } }"),
        ("--version-script=/dev/stdin", "{ local: *; };"),
        ("--symbol-ordering-file /dev/stdin", "main"),
    ] {
        let line = |output: &str| {
            let inputs = "main.o twice.o next.o";
            format!("printf %s '{text}' | {THINSHIM} ld.lld -r {inputs} {words} -o {output}")
        };
        let run = |output: &str| {
            let run = space.real("sh").args(["-c", line(output).as_str()]);
            run.env("THINSHIM_SMALL", "0").env("THINSHIM_REPORT", "report")
        };
        run("no").env("THINSHIM_STRICT", "1").fails(120, &["can be read only once"]);
        assert!(!space.exists("no"), "{words}");
        run("out").ok();
        let report = space.report();
        let reason = report["fallback"].as_str().unwrap_or_default();
        assert!(reason.ends_with("can be read only once"), "{words}: {report}");
        space.write("text", text);
        let plain = words.replace("/dev/stdin", "text").replace("/dev/fd/0", "text");
        space.real(&format!("ld.lld -r main.o twice.o next.o {plain} -o reference")).ok();
        let sections = |file: &str| space.real(&format!("llvm-size -A {file}")).ok().stdout;
        let sizes = |file: &str| sections(file).replace(file, "");
        assert_eq!(sizes("out"), sizes("reference"), "{words}");
    }
    // There is nothing in it, however often it is read.
    space.strict("ld.lld -r main.o twice.o next.o -T /dev/null -o out").ok();
}

/// A value for each option that takes one.
fn sample(name: &str) -> &'static str {
    match name {
        "chroot" | "plugin-opt=dwo_dir=" => "dir",
        "load-pass-plugin" => "./plugin.so",
        "lto-aa-pipeline=" => "basic-aa",
        "lto-newpm-passes=" => "globaldce",
        "lto-obj-path=" | "plugin-opt=obj-path=" => "dir/side",
        "opt-remarks-format" | "plugin-opt=opt-remarks-format=" => "yaml",
        "opt-remarks-hotness-threshold" | "plugin-opt=opt-remarks-hotness-threshold=" => "1",
        "opt-remarks-passes" | "plugin-opt=opt-remarks-passes=" => "inline",
        "opt-remarks-filename"
        | "plugin-opt=opt-remarks-filename="
        | "plugin-opt=stats-file="
        | "print-archive-stats="
        | "reproduce"
        | "why-extract=" => "side",
        "remap-inputs" => "next.o=other.o",
        "remap-inputs-file=" => "remap.txt",
        "save-temps=" => "preopt",
        "thinlto-object-suffix-replace=" | "plugin-opt=thinlto-object-suffix-replace=" => ".o;.x",
        "thinlto-prefix-replace=" | "plugin-opt=thinlto-prefix-replace=" => "a;b",
        "thinlto-single-module=" => "main.o",
        "warn-backrefs-exclude" => "libtwo.a",
        _ => panic!("a value for {name}, please"),
    }
}

/// Options that one process has to have: its files and its words.
#[test]
fn options_of_one_process() {
    const OTHERS: [&str; 7] = [
        "--lto-partitions=2",
        "--lto=full",
        "--rsp-quoting=windows",
        "-plugin-opt=unheard-of",
        "-mllvm -stats-json",
        "--opt-remarks-filename side --opt-remarks-passes inline",
        "--unheard-of",
    ];
    let rows = ROWS.iter().filter(|row| matches!(row.fate, Fate::StepAside(_)));
    let options: Vec<String> = rows.map(written).chain(OTHERS.map(str::to_owned)).collect();
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.real("llvm-ar rcs libtwo.a twice.o next.o").ok();
        space.write("other.o", space.read("next.o"));
        space.write("remap.txt", "next.o=other.o\n");
        for option in &options {
            // In the same place, as the names in messages and files are.
            let begin = || {
                let _ = fs::remove_dir_all(space.path("here"));
                space.write("here/dir/empty", "");
                for name in ["main.o", "other.o", "libtwo.a", "remap.txt"] {
                    space.write(&format!("here/{name}"), space.read(name));
                }
            };
            let line = format!(
                "ld.lld -m elf_x86_64 -o out --thinlto-jobs=1 --threads=1 {option} \
                 --unresolved-symbols=ignore-all -e main main.o libtwo.a"
            );
            begin();
            let real = space.real(&line).within(space.path("here")).end();
            fs::rename(space.path("here"), space.path("real")).expect("a directory");
            begin();
            let run = space.shim(&line).within(space.path("here")).env("THINSHIM_SMALL", "0");
            let shim = run.env("THINSHIM_REPORT", space.path("report")).end();
            assert_eq!(
                (shim.end(), &shim.stdout, &shim.stderr),
                (real.end(), &real.stdout, &real.stderr),
                "LLVM {llvm}: {option}"
            );
            let report = space.report();
            let name = option.split([' ', '=']).next().unwrap_or_default();
            let reason = report["fallback"].as_str().unwrap_or_default();
            assert!(reason.starts_with(name), "LLVM {llvm}: {option}: {report}");
            assert_eq!(files(&space, "here"), files(&space, "real"), "LLVM {llvm}: {option}");
            for file in files(&space, "real") {
                let [here, real] = ["here", "real"].map(|at| contents(&space, at, &file, name));
                assert!(here == real, "LLVM {llvm}: {option}: {file}");
            }
            if llvm == NEWEST {
                begin();
                let run = space.strict(&line).within(space.path("here"));
                run.fails(120, &[name, "THINSHIM_STRICT"]);
            }
            fs::remove_dir_all(space.path("real")).expect("a directory");
            space.remove("report");
        }
    }
}

/// The option as it is written, with its value.
fn written(row: &Row) -> String {
    let dashes = if row.dashes == Dashes::One { "-" } else { "--" };
    let value = if row.form.takes_value() { sample(row.name) } else { "" };
    let between = match row.form {
        Form::Eq => "=",
        Form::Separate => " ",
        _ => "",
    };
    format!("{dashes}{}{between}{value}", row.name)
}

/// The bytes of a file; of a tar file its list, since the number of threads is in it, too.
fn contents(space: &TestSpace, directory: &str, file: &str, option: &str) -> Vec<u8> {
    let path = format!("{directory}/{file}");
    if option == "--reproduce" && file == "./side" {
        return space.real(&format!("tar -tf {path}")).ok().stdout.into_bytes();
    }
    space.read(path)
}
