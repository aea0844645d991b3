//! Every option of lld in a link of its own, beside the same link in-process.

use std::sync::atomic::{AtomicUsize, Ordering};

use object::{Object, ObjectSymbol};
use thinshim::invocation::lld::{Dashes, Fate, Form, ROWS, Row};

use crate::links::three;
use crate::space::{NEWEST, Outcome, TestSpace, bin, llvms};

/// Where the options stand.
const BEFORE: &str = "-m elf_x86_64 -dynamic-linker /lib64/ld-linux-x86-64.so.2 \
    /usr/lib/x86_64-linux-gnu/Scrt1.o /usr/lib/x86_64-linux-gnu/crti.o -L/usr/lib/x86_64-linux-gnu";
const AFTER: &str = "main.o other.o twice.o libnext.a -lc /usr/lib/x86_64-linux-gnu/crtn.o";

/// A value for each option that takes one, and words that belong after some. What only other machines, kinds of
/// output or inputs have is refused or of no effect, and that alike.
fn sample(name: &str) -> &'static str {
    match name {
        "(" | "start-group" => "libnext.a --end-group",
        "start-lib" => "other.o --end-lib",
        "whole-archive" => "libnext.a --no-whole-archive",
        "push-state" => "--pop-state",
        // There is no static libc in the test's link.
        "Bstatic" | "N" | "dn" | "n" | "nmagic" | "non_shared" | "omagic" | "static" => "-Bdynamic",
        "F" | "f" | "auxiliary" | "filter" | "h" | "soname" => "libx.so -shared",
        "L" | "library-path" | "rpath" | "rpath-link" => ".",
        "R" | "just-symbols" => "just.o",
        "T" | "dT" | "default-script" | "script" => "script.lds",
        "Tbss" | "Tdata" | "Ttext" | "Ttext-segment" | "image-base" => "0x600000",
        "G" | "O" | "lto-CGO" | "lto-O" | "plugin-opt=O" => "2",
        "error-limit"
        | "lto-partitions="
        | "mips-got-size"
        | "plugin-opt=jobs="
        | "plugin-opt=lto-partitions="
        | "threads"
        | "thinlto-jobs="
        | "time-trace-granularity" => "1",
        "Map"
        | "dependency-file"
        | "in-implib"
        | "out-implib"
        | "plugin-opt=time-trace="
        | "print-gc-sections="
        | "print-symbol-order"
        | "time-trace-file="
        | "time-trace=" => "side",
        "android-memtag-mode" => "sync",
        "b" | "format" | "oformat" => "elf",
        "bp-compression-sort=" | "bp-startup-sort=" => "function",
        "build-id=" => "sha1",
        "call-graph-ordering-file" => "calls.txt",
        "call-graph-profile-sort=" => "cdsort",
        "color-diagnostics=" => "never",
        "compress-debug-sections" => "zlib",
        "compress-sections" => ".text=zlib",
        "defsym" => "mark=twice",
        "dynamic-linker" => "/lib64/ld-linux-x86-64.so.2",
        "dynamic-list" | "export-dynamic-symbol-list" => "list.txt",
        "e" | "entry" => "main",
        "error-handling-script" => "/bin/true",
        "exclude-libs" => "ALL",
        "export-dynamic-symbol"
        | "fini"
        | "init"
        | "keep-unique"
        | "trace-symbol"
        | "u"
        | "undefined"
        | "y" => "twice",
        "hash-style" => "gnu",
        "irpgo-profile" | "lto-cs-profile-file=" | "plugin-opt=cs-profile-path=" => "cs.profdata",
        "l" | "library" => "c",
        "lto-basic-block-sections=" => "all",
        "lto-known-safe-vtables" => "_ZTV1X",
        "lto-sample-profile=" | "plugin-opt=sample-profile=" => "sample.txt",
        "lto=" => "thin",
        "m" => "elf_x86_64",
        "mllvm" => "-import-instr-limit=5",
        "o" | "output" => "out",
        "orphan-handling" => "warn",
        "pack-dyn-relocs" => "relr",
        "package-metadata=" => "{}",
        "plugin" | "plugin-opt=" => "/nowhere/lto-wrapper",
        "plugin-opt=-" => "import-instr-limit=5",
        "plugin-opt=-fresolution=" | "plugin-opt=-pass-through=" => "x",
        "plugin-opt=mcpu=" => "x86-64",
        "plugin-opt=thinlto" => "",
        "power10-stubs=" => "auto",
        "randomize-section-padding=" => "7",
        "retain-symbols-file" | "symbol-ordering-file" => "names.txt",
        "rsp-quoting" => "posix",
        "section-start" => ".data=0x700000",
        "shuffle-sections" => "*=1",
        "sort-section" => "name",
        "split-stack-adjust-size" => "4",
        "sysroot" => "/",
        "target2" => "got-rel",
        "thinlto-cache-dir=" => "thinlto-cache",
        "thinlto-cache-policy" => "prune_interval=1h",
        "undefined-glob" => "tw*",
        "unresolved-symbols" => "ignore-all",
        "version-script" => "v.lds",
        "why-live" => "twice --gc-sections",
        "wrap" => "other",
        "z" => "now",
        _ => panic!("a value for {name}, please"),
    }
}

/// The option as it is written, with its value.
fn written(row: &Row) -> String {
    let dashes = if row.dashes == Dashes::One { "-" } else { "--" };
    let name = row.name;
    match row.form {
        Form::Flag if closes(name) => format!("{dashes}{name} {}", sample(name)),
        Form::Flag => format!("{dashes}{name}"),
        Form::Joined => format!("{dashes}{name}{}", sample(name)),
        Form::Eq => format!("{dashes}{name}={}", sample(name)),
        Form::Separate | Form::JoinedOrSeparate => format!("{dashes}{name} {}", sample(name)),
    }
}

/// Whether an option without a value has words after it in the test.
fn closes(name: &str) -> bool {
    matches!(
        name,
        "(" | "start-group"
            | "start-lib"
            | "whole-archive"
            | "push-state"
            | "Bstatic"
            | "N"
            | "dn"
            | "n"
            | "nmagic"
            | "non_shared"
            | "omagic"
            | "static"
    )
}

/// What a link ended with: status, words, and the names in its output.
fn ended(space: &TestSpace, outcome: &Outcome) -> (bool, Vec<String>, Vec<String>) {
    // In-process, a module's native object is called after the output, too, and stands behind those of no LTO. A
    // member is opened as a file of its own by thinshim.
    let words = outcome.stderr.replace("out.lto.", "").replace("libnext.a(next.o)", "libnext.a");
    let mut words: Vec<String> = words.lines().map(str::to_owned).collect();
    words.sort();
    let mut names = Vec::new();
    if space.exists("out") {
        let bytes = space.read("out");
        if let Ok(file) = object::File::parse(&*bytes) {
            let all = file
                .symbols()
                .map(|s| ("", s))
                .chain(file.dynamic_symbols().map(|s| ("dynamic ", s)));
            names = all
                .map(|(kind, symbol)| {
                    let (name, kinds) = (symbol.name().unwrap_or_default(), symbol.kind());
                    format!("{kind}{name} {kinds:?} {:?} {}", symbol.scope(), symbol.size())
                })
                .collect();
            names.sort();
        }
        space.remove("out");
    }
    (outcome.status.success(), words, names)
}

#[test]
fn each_in_a_link() {
    let all: Vec<&Row> = ROWS
        .iter()
        .filter(|row| !matches!(row.fate, Fate::PassThrough(_) | Fate::StepAside(_)))
        .collect();
    for llvm in llvms() {
        // What one release does with all of them, the others do with those that are not for every link.
        let rows: Vec<&Row> =
            all.iter().copied().filter(|row| llvm == NEWEST || row.fate != Fate::Keep).collect();
        let next = AtomicUsize::new(0);
        let faults: Vec<String> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let space = space(llvm);
                        let mut faults = Vec::new();
                        while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                            faults.extend(differs(&space, row));
                        }
                        faults
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
        });
        assert!(faults.is_empty(), "LLVM {llvm}:\n{}", faults.join("\n"));
    }
}

fn space(llvm: u32) -> TestSpace {
    // Most of the options are none of the back ends', which so run once.
    let space = TestSpace::with_llvm(llvm).cached();
    three(&space);
    space.real("llvm-ar rcs libnext.a next.o").ok();
    for (name, text) in [("other", "int other(void) { return 5; }\n"), ("just", "int just;\n")] {
        space.write(&format!("{name}.c"), text);
        space.real(&format!("clang -O2 -fPIE -c {name}.c")).ok();
    }
    space.write("script.lds", "SECTIONS { .text : { *(.text .text.*) } }\n");
    space.write("v.lds", "{ global: main; local: *; };\n");
    space.write("list.txt", "{ twice; };\n");
    space.write("names.txt", "twice\nmain\n");
    space.write("calls.txt", "main twice 10\n");
    space.write("sample.txt", "main:9000:9\n 1: 9\n");
    space.write("cs.txt", ":csir\nnobody\n1\n3\n10\n2\n3\n");
    space.real("llvm-profdata merge cs.txt -o cs.profdata").ok();
    space
}

/// How a link with this option differs from the one in-process.
fn differs(space: &TestSpace, row: &Row) -> Option<String> {
    let option = written(row);
    let line = format!("ld.lld -o out {BEFORE} {option} {AFTER}");
    let real = ended(space, &space.real(&line).end());
    let run = space.strict(&line).env("THINSHIM_OPTIONS", "link");
    // No summary, however long it takes.
    let shim = ended(space, &run.env("MAKEFLAGS", "s").end());
    (real != shim).then(|| format!("{option}:\n  real: {real:?}\n  shim: {shim:?}"))
}

/// Values that lld refuses, of options that are for in-process back ends alone, too.
#[test]
fn values_that_lld_refuses() {
    for llvm in llvms() {
        let space = space(llvm);
        for option in [
            "--thinlto-jobs=many",
            "-plugin-opt=jobs=many",
            "--thinlto-cache-policy=bogus",
            "--threads=0",
            "-mllvm -nosuch",
            "-plugin-opt=-nosuch",
            "--error-limit=x",
            "--build-id=0xzz",
            "--compress-debug-sections=bogus",
            "--time-trace-granularity=x",
            "--version-script=nowhere",
            "--dynamic-list=nowhere",
            "--symbol-ordering-file=nowhere",
            "-T nowhere",
            "-Map=/nowhere/map",
            "--dependency-file=/nowhere/file",
            "--unresolved-symbols=bogus",
            "--pop-state",
            "-o /nowhere/out",
        ] {
            let line = format!("ld.lld -o out {BEFORE} {AFTER} {option}");
            let (real, shim) = (space.real(&line).end(), space.strict(&line).end());
            // Once lld called itself by its path.
            let path = format!("'{}", bin(llvm).join("ld.lld").display());
            let said = real.stderr.replace(&path, "'ld.lld");
            assert_eq!((shim.end(), &shim.stderr), (real.end(), &said), "LLVM {llvm}: {option}");
            assert!(!real.status.success() && !space.exists("out"), "LLVM {llvm}: {option}");
            space.is_clean();
        }
    }
}
