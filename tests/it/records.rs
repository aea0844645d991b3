//! The options record: where it survives, and what it cannot do.

use std::os::unix::fs::MetadataExt;

use object::Object;

use crate::links::{MAIN, NEXT, TWICE, three};
use crate::oracle::{program, same_code, same_code_with, same_link, symbols};
use crate::space::{NEWEST, TestSpace, bin, llvms};

/// An option that changes nothing here, and is told from the link line's.
const MARK: &str = "-falign-functions=64";

/// The back ends' command lines, each joined by blanks, in `explain`'s words.
fn back_ends(space: &TestSpace, args: &str) -> Vec<String> {
    let told = space.strict(&format!("explain -- ld.lld {args} -o out")).ok().stdout;
    let plan: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(plan["decision"], "distribute", "{plan}");
    let jobs = plan["back_ends"].as_array().expect("a list");
    jobs.iter()
        .map(|job| {
            let words = job["command"].as_array().expect("a list");
            words.iter().map(|word| word.as_str().expect("a word")).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

#[track_caller]
fn all_marked(space: &TestSpace, args: &str, count: usize) {
    let jobs = back_ends(space, args);
    assert_eq!(jobs.len(), count, "{jobs:?}");
    assert!(jobs.iter().all(|job| job.contains(MARK)), "{jobs:?}");
}

/// As the kernel has it: clang 14 takes one with the other only, and later ones take one.
const OF_CLANG_14: &str = "-ftrivial-auto-var-init=zero \
    -enable-trivial-auto-var-init-zero-knowing-it-will-be-removed-from-clang";

/// Where the link knows what the compile asked for, the record makes no difference to the code.
#[test]
fn recorded_options_give_the_code_of_the_link() {
    const LOOP: &str = "int next(void);\nstatic double sum(const double *x, int n) {\n\
        double s = 0; for (int i = 0; i < n; i++) s += x[i] * x[i]; return s; }\n\
        int twice(int n) { double x[64]; for (int i = 0; i < 64; i++) x[i] = next() + n;\n\
        int (*volatile f)(void) = next; return (int)sum(x, 64) + f(); }\n";
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        for options in [
            "",
            "-mno-red-zone -fno-omit-frame-pointer",
            "-fcf-protection -fstack-protector-strong",
            "-ftrivial-auto-var-init=pattern -ftrivial-auto-var-init-stop-after=9",
            OF_CLANG_14,
            "-fpatchable-function-entry=4,2",
            "-march=haswell -ffast-math",
            "-fno-plt -fno-semantic-interposition",
            "-fno-jump-tables -fwrapv -fno-strict-aliasing",
            "-mretpoline",
            "-fsanitize=kcfi",
            "-pg",
            "-fno-asynchronous-unwind-tables",
        ] {
            space.write("loop.c", LOOP);
            let known = space.real(&format!("clang -O2 {options} -fsyntax-only loop.c")).end();
            if !known.status.success() {
                assert!(llvm != NEWEST || options == OF_CLANG_14, "{options}: {known}");
                continue;
            }
            space.compile(options, &[MAIN, ("loop.c", LOOP), NEXT]);
            same_code_with(&space, &program("main.o loop.o next.o"), "sections");
        }
    }
}

/// Options that clang takes with another only, which a back end has no use for.
#[test]
fn options_that_need_another() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        for options in [
            "-fprofile-instr-generate -fcoverage-mapping",
            "-fprofile-instr-generate -fcoverage-mapping -fcoverage-mcdc",
            "-fprofile-instr-generate=x.profraw -fcoverage-mapping -fcoverage-prefix-map=/=x",
            "--coverage -fprofile-filter-files=main -fprofile-exclude-files=next",
            "-fprofile-generate -ftemporal-profile",
            "-fprofile-instr-generate -fprofile-continuous",
        ] {
            space.write(NEXT.0, NEXT.1);
            let known = space.real(&format!("clang {options} -fsyntax-only next.c")).end();
            if !known.status.success() {
                assert!(llvm != NEWEST, "{options}: {known}");
                continue;
            }
            space.compile(options, &[MAIN, TWICE, NEXT]);
            let line = "-r main.o twice.o next.o";
            space.strict(&format!("ld.lld {line} -o out")).ok();
            same_code_with(&space, line, "sections");
        }
    }
}

/// The second instrumentation is a back end's, and so is how it counts.
#[test]
fn how_a_context_sensitive_profile_counts() {
    let space = TestSpace::new();
    for (option, symbol) in [
        ("-ftemporal-profile", "__llvm_profile_set_timestamp"),
        ("-fprofile-continuous", "__llvm_profile_counter_bias"),
    ] {
        space.compile(&format!("-fcs-profile-generate {option}"), &[MAIN, TWICE, NEXT]);
        space.strict("ld.lld -r main.o twice.o next.o -o out").ok();
        let all = symbols(&space, "out");
        assert!(all.iter().any(|found| found.starts_with(symbol)), "{option}: {all:?}");
    }
}

/// Options that turn one architecture into another, with the target said or not.
#[test]
fn the_other_width_of_a_target() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        for (name, text) in [TWICE, NEXT] {
            space.write(name, text);
        }
        for options in [
            "-m32",
            "-miamcu",
            "--target=x86_64-linux-gnu -m32",
            "--target=x86_64-linux-gnu -m64 -m16",
            "--target=x86_64-linux-gnu -miamcu",
            "--target=i386-linux-gnu -m64",
            "--target=powerpc64-linux-gnu -m32",
            "--target=powerpc-linux-gnu -m64",
        ] {
            let compiler = format!("clang -O2 -flto=thin {options}");
            for name in ["twice", "next"] {
                space.shim(&format!("{compiler} -c {name}.c")).ok();
            }
            let line = "ld.lld -r twice.o next.o";
            space.real(&format!("{line} -o reference")).ok();
            space.strict(&format!("{line} -o out")).ok();
            let machine = |file: &str| space.read(file)[18..20].to_vec();
            assert_eq!(machine("out"), machine("reference"), "LLVM {llvm}: {options}");

            space.real("ld.lld --thinlto-index-only -r next.o -o x").ok();
            let back_end = "-x ir next.o -fthinlto-index=next.o.thinlto.bc -c -o native.o";
            space.shim(&format!("clang -O2 {options} {back_end}")).ok();
            assert_eq!(machine("native.o"), machine("reference"), "LLVM {llvm}: {options}");
        }
    }
}

/// The file of options beside clang is read in a back end where the compile has read it.
#[test]
fn the_configuration_of_the_compile() {
    let mut space = TestSpace::new();
    space.path_first("llvm/bin");
    space.write("llvm/bin/clang.cfg", "-fstack-size-section\n");
    for (from, to) in [("bin/clang", "bin/clang"), ("bin/lld", "bin/ld.lld"), ("lib", "lib")] {
        let from = bin(NEWEST).join("..").join(from).canonicalize().expect("LLVM");
        let to = space.path("llvm").join(to);
        if from.is_dir() {
            std::os::unix::fs::symlink(from, to).expect("a link");
        } else {
            std::fs::copy(from, to).expect("a copy");
        }
    }
    let sizes = |line: &str| {
        space.strict(&format!("ld.lld {line} -o out")).ok();
        let bytes = space.read("out");
        object::File::parse(&*bytes).expect("ELF").section_by_name(".stack_sizes").is_some()
    };
    space.compile("", &[MAIN, TWICE, NEXT]);
    assert!(sizes("-r main.o twice.o next.o"));
    space.compile("--no-default-config", &[MAIN, TWICE, NEXT]);
    assert!(!sizes("-r main.o twice.o next.o"));
    // In-process ThinLTO reads none.
    for name in ["main", "twice", "next"] {
        space.real(&format!("clang -O2 -flto=thin -fPIE -c {name}.c")).ok();
    }
    assert!(!sizes(&program("main.o twice.o next.o")));
}

/// The levels that the link line has, for modules that are to be compiled by it.
#[test]
fn levels_of_the_link_line() {
    // No address of another module's symbol: what is not imported comes from the GOT.
    const SUM: &str = "int next(void);\nstatic int sum(const int *x, int n) {\n\
        int s = 0; for (int i = 0; i < n; i++) s += x[i] * x[i]; return s; }\n\
        int twice(int n) { int x[64]; for (int i = 0; i < 64; i++) x[i] = next() + n;\n\
        return sum(x, 64); }\n";
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile("", &[MAIN, ("sum.c", SUM), NEXT]);
        for levels in ["--lto-O2", "--lto-O3", "--lto-O0 --lto-CGO0", "--lto-O1 --lto-CGO1"] {
            // Once lld had no option for the second of the two.
            if levels.contains("CGO") && llvm < 19 {
                continue;
            }
            same_code(&space, &program(&format!("{levels} main.o sum.o next.o")));
        }
    }
}

#[test]
fn it_survives_copies_and_archives() {
    let space = TestSpace::new();
    space.compile(MARK, &[MAIN, TWICE, NEXT]);
    space.real("mkdir moved").ok();
    space.real("mv main.o moved/a.o").ok();
    space.real("cp twice.o moved/b.o").ok();
    space.real("llvm-ar rcs fat.a next.o").ok();
    space.real("llvm-ar rcsT thin.a moved/b.o").ok();
    all_marked(&space, "-r moved/a.o twice.o --whole-archive fat.a", 3);
    all_marked(&space, &program("moved/a.o thin.a fat.a"), 3);
    // Binutils know nothing of bitcode, and need not.
    space.real("ar rcs gnu.a moved/b.o next.o").ok();
    all_marked(&space, &program("moved/a.o gnu.a"), 3);
    space.is_clean();
}

/// An option of LLVM's that the compile and the link have: the link's counts.
#[test]
fn options_of_llvm_that_are_said_twice() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile("-mllvm -import-instr-limit=100", &[MAIN, TWICE, NEXT]);
        let options = "-mllvm -import-instr-limit=5";
        let line = format!("ld.lld {}", program(&format!("{options} main.o twice.o next.o")));
        space.strict(&format!("{line} -o out")).ok();
        assert_eq!(space.real("./out").ok().stdout, "43 3\n", "LLVM {llvm}");
    }
}

/// What a compile reads by a name from its own directory, the back end finds from the link's.
#[test]
fn profiles_of_another_directory() {
    let space = TestSpace::new();
    space.write("sub/profile", "main:100:10\n 1: 10\n");
    space.write("sub/list", "!main\n");
    space.compile("", &[TWICE, NEXT]);
    for option in ["-g -fprofile-sample-use=profile", "-fbasic-block-sections=list=list"] {
        space.write("sub/main.c", MAIN.1);
        let words = format!("clang -O2 -flto=thin -fPIE {option} -c main.c");
        space.shim(&words).within(space.path("sub")).ok();
        let jobs = back_ends(&space, &program("sub/main.o twice.o next.o"));
        let (_, name) = option.rsplit_once('=').expect("a file");
        let file = format!("={}", space.path("sub").join(name).display());
        assert_eq!(jobs.iter().filter(|job| job.contains(&file)).count(), 1, "{jobs:?}");
        let line = format!("ld.lld {}", program("sub/main.o twice.o next.o"));
        space.strict(&format!("{line} -o out")).ok();
        assert_eq!(space.real("./out").ok().stdout, "43 3\n");
    }
}

/// So it does with lists that only the compile reads.
#[test]
fn lists_of_another_directory() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.write("sub/list", "fun:main\n");
        space.compile("", &[TWICE, NEXT]);
        for options in [
            "-fxray-instrument -fxray-always-instrument=list",
            "-fxray-instrument -fxray-never-instrument=list",
            "-fxray-instrument -fxray-attr-list=list",
            "-fexperimental-sanitize-metadata=all -fexperimental-sanitize-metadata-ignorelist=list",
            "-frandomize-layout-seed-file=list",
            "-frewrite-map-file=list",
        ] {
            space.write("sub/main.c", MAIN.1);
            let words = format!("clang -O2 -flto=thin -fPIE {options} -c main.c");
            if !space.shim(&words).within(space.path("sub")).end().status.success() {
                // This alone is of the past.
                assert!(llvm != NEWEST || options.contains("rewrite"), "{options}");
                continue;
            }
            let line = "-r sub/main.o twice.o next.o";
            space.strict(&format!("ld.lld {line} -o out")).ok();
            // Once clang itself wrote no index of XRay's functions.
            if llvm > 16 || !options.contains("xray") {
                same_code_with(&space, line, "sections");
            }
        }
    }
}

#[test]
fn it_goes_around_ccache() {
    let space = TestSpace::new();
    for (name, text) in [MAIN, TWICE, NEXT] {
        space.write(name, text);
    }
    let compile = |name: &str, out: &str| {
        space
            .shim(&format!("ccache clang -O2 -flto=thin -fPIE {MARK} -c {name}.c -o {out}"))
            .env("CCACHE_DIR", space.path("cache"))
            .ok();
    };
    for name in ["main", "twice", "next"] {
        compile(name, &format!("{name}.o"));
        let first = space.read(format!("{name}.o"));
        space.remove(&format!("{name}.o"));
        compile(name, &format!("{name}.o"));
        assert_eq!(space.read(format!("{name}.o")), first, "a hit is the same object");
    }
    let stats = space.real("ccache --print-stats").env("CCACHE_DIR", space.path("cache")).ok();
    assert!(stats.stdout.contains("direct_cache_hit\t3\n"), "{stats}");
    all_marked(&space, &program("main.o twice.o next.o"), 3);
}

/// What ccache holds under another name of the same file is never written through.
#[test]
fn hard_links_of_ccache_keep_their_bytes() {
    let space = TestSpace::new();
    space.write(NEXT.0, NEXT.1);
    let words = "ccache clang -O2 -flto=thin -c next.c -o next.o";
    let caching = |run: crate::space::Run| {
        run.env("CCACHE_DIR", space.path("cache")).env("CCACHE_HARDLINK", "1").ok();
    };
    caching(space.real(words));
    let plain = space.read("next.o");
    let links = || space.path("next.o").metadata().expect("an object").nlink();
    assert!(links() > 1, "ccache made no hard link");
    assert!(plain.starts_with(b"BC"));
    space.remove("next.o");
    caching(space.shim(words));
    assert!(!space.read("next.o").starts_with(b"BC"), "there is no record");
    assert_eq!(links(), 1);
    space.remove("next.o");
    caching(space.real(words));
    assert_eq!(space.read("next.o"), plain, "ccache's own copy has changed");
}

#[test]
fn ccache_before_thinshim_is_refused() {
    let space = TestSpace::new();
    space.write(NEXT.0, NEXT.1);
    std::fs::create_dir(space.path("bin")).expect("a directory");
    std::os::unix::fs::symlink(crate::space::THINSHIM, space.path("bin/thinshim")).expect("a link");
    space
        .real("ccache bin/thinshim clang -O2 -flto=thin -c next.c -o next.o")
        .env("CCACHE_DIR", space.path("cache"))
        .fails(120, &["thinshim ccache clang"]);
    assert!(!space.exists("next.o"));
}

/// The back end's clang is the linker's: an older one could not read its index.
#[test]
fn objects_of_an_older_clang() {
    for older in llvms() {
        let space = TestSpace::new();
        for (name, text) in [MAIN, TWICE, NEXT] {
            space.write(name, text);
            let clang = bin(older).join("clang");
            space.shim(&format!("{} -O2 -flto=thin -fPIE -c {name}", clang.display())).ok();
        }
        let jobs = back_ends(&space, &program("main.o twice.o next.o"));
        assert!(jobs.iter().all(|job| job.starts_with("/usr/lib/llvm-22/bin/clang ")), "{jobs:?}");
        assert_eq!(same_link(&space, &program("main.o twice.o next.o")), 3);
    }
}

/// A bitcode file with a record of the test's own making: tag and value of each entry.
pub(crate) fn with_record(space: &TestSpace, object: &str, entries: &[(u8, &str)]) {
    let bitcode = space.read("plain.o");
    let mut file = Vec::new();
    let len = u32::try_from(bitcode.len()).expect("small");
    for word in [0x0B17_C0DE, 0, 20, len, 0] {
        file.extend_from_slice(&u32::to_le_bytes(word));
    }
    file.extend_from_slice(&bitcode);
    file.extend_from_slice(b"THINSHIM");
    for (tag, value) in entries {
        file.push(*tag);
        file.extend_from_slice(&u32::try_from(value.len()).expect("small").to_le_bytes());
        file.extend_from_slice(value.as_bytes());
    }
    file.resize(file.len().next_multiple_of(4), 0);
    space.write(object, file);
}

pub(crate) fn options(words: &str) -> Vec<(u8, &str)> {
    words.split(' ').map(|word| (b'O', word)).collect()
}

/// Options that would run a program, load a plugin or write a file, and some that are none.
pub(crate) const HOSTILE: [&str; 31] = [
    "-O2 -fplugin=./plugin.so",
    "-fpass-plugin=./plugin.so",
    "-Xclang -load -Xclang ./plugin.so",
    "-Xclang=-load -Xclang=./plugin.so",
    "-mllvm -load=./plugin.so",
    "-B tools",
    "-Btools/ -fno-integrated-as",
    "-fno-integrated-as",
    "--config=response",
    "@response",
    "--target @response",
    "-target @response",
    "-G @response",
    "-Wa,@response",
    "-o elsewhere",
    "-oelsewhere",
    "-MF elsewhere",
    "-save-temps",
    "-fuse-ld=tools/ld",
    "-resource-dir=tools",
    "plugin.c",
    "-S",
    "-###",
    "-Xclang -o -Xclang elsewhere",
    "-Xclang",
    "-ftime-trace=elsewhere",
    "-foptimization-record-file=elsewhere",
    "-Wa,-o,elsewhere",
    "-Wl,elsewhere",
    "--",
    "",
];

/// What hostile options would make clang run or load: each leaves a file, `loaded`.
pub(crate) fn traps(space: &TestSpace) {
    space.real("clang -O2 -flto=thin -fPIE -c twice.c -o plain.o").ok();
    space.write(
        "plugin.c",
        "#include <stdio.h>\n__attribute__((constructor)) static void loaded(void) {\n\
         FILE *file = fopen(\"loaded\", \"w\"); if (file) fclose(file); }\n",
    );
    space.real("clang -shared -fPIC plugin.c -o plugin.so").ok();
    // The first word may be taken for a value.
    space.write("response", "x86_64-linux-gnu -fplugin=./plugin.so");
    space.script("tools/ld", "touch loaded\n");
    space.script("tools/as", "touch loaded\n");
    // What a back end would do with it, were it asked to.
    space.real("clang -x ir plain.o -c -o done -fplugin=./plugin.so").end();
    assert!(space.exists("loaded"), "the plugin does not work");
    space.remove("loaded");
}

#[test]
fn a_hostile_record_is_not_obeyed() {
    let space = TestSpace::new();
    three(&space);
    traps(&space);
    let good = options("-O2 -fPIE");
    with_record(&space, "twice.o", &good);
    assert_eq!(same_link(&space, &program("main.o twice.o next.o")), 3);
    space.remove("recorded");

    for hostile in HOSTILE {
        with_record(&space, "twice.o", &options(hostile));
        let args = program("main.o twice.o next.o");
        let outcome = space.strict(&format!("ld.lld {args} -o recorded")).end();
        assert_eq!(outcome.status.code(), Some(120), "{hostile}: {outcome}");
        assert!(outcome.stderr.contains("twice.o carries"), "{hostile}: {outcome}");
        assert!(!space.exists("recorded"), "{hostile}");

        let run = space.shim(&format!("ld.lld {args} -o recorded"));
        run.env("THINSHIM_SMALL", "0").env("THINSHIM_REPORT", "report").ok();
        let report = space.report();
        let reason = report["fallback"].as_str().expect("a reason");
        assert!(reason.contains("twice.o carries"), "{report}");
        assert_eq!(space.real("./recorded").ok().stdout, "43 3\n", "{hostile}");
        space.remove("recorded");
        for bad in ["loaded", "elsewhere"] {
            assert!(!space.exists(bad), "{hostile}");
        }
    }
    space.is_clean();
}

#[test]
fn a_record_that_cannot_be_read_is_a_reason() {
    let space = TestSpace::new();
    three(&space);
    space.real("clang -O2 -flto=thin -fPIE -c twice.c -o plain.o").ok();
    let args = program("main.o twice.o next.o");
    for (entries, word) in [
        (vec![(b'O', "-O2"), (b'Z', "from the future")], "record"),
        (vec![(b'D', "-fno-such-option")], "-fno-such-option"),
    ] {
        with_record(&space, "twice.o", &entries);
        space.strict(&format!("ld.lld {args} -o out")).fails(120, &["twice.o", word]);
    }
    with_record(&space, "twice.o", &options("-O2 -fPIE"));
    let whole = space.read("twice.o");
    space.write("twice.o", &whole[..whole.len() - 8]);
    space.strict(&format!("ld.lld {args} -o out")).fails(120, &["twice.o", "record"]);
    assert!(!space.exists("out"));
    // Not strict, the linker does it alone.
    space.shim(&format!("ld.lld {args} -o out")).env("THINSHIM_SMALL", "0").ok();
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");
    // An entry that may be skipped.
    with_record(&space, "twice.o", &[(b'O', "-O2"), (b'O', "-fPIE"), (b'z', "new")]);
    space.strict(&format!("ld.lld {args} -o out")).ok();
}

/// As a file of its own, so as a member of an archive, which is told by its name.
#[test]
fn a_bad_record_in_an_archive_is_a_reason() {
    let space = TestSpace::new();
    three(&space);
    space.real("clang -O2 -flto=thin -fPIE -c twice.c -o plain.o").ok();
    for entries in [
        vec![(b'O', "-O2"), (b'Z', "from the future")],
        vec![(b'D', "-fno-such-option")],
        vec![(b'O', "-fplugin=./plugin.so")],
    ] {
        with_record(&space, "twice.o", &entries);
        for (kind, named) in [("rcs", "libtwo.a(twice.o)"), ("rcsT", "twice.o")] {
            let _ = std::fs::remove_file(space.path("libtwo.a"));
            space.real(&format!("llvm-ar {kind} libtwo.a twice.o next.o")).ok();
            for option in ["", "--exclude-libs=ALL"] {
                let line = format!("ld.lld {}", program(&format!("{option} main.o libtwo.a")));
                let outcome = space.strict(&format!("{line} -o out")).fails(120, &[named]);
                assert!(!outcome.stderr.contains("out.thinshim"), "{outcome}");
                let run = space.shim(&format!("{line} -o out")).env("THINSHIM_SMALL", "0");
                run.env("THINSHIM_REPORT", "report").ok();
                let report = space.report();
                let reason = report["fallback"].as_str().unwrap_or_default();
                assert!(reason.contains(named), "{kind} {option}: {report}");
                assert_eq!(space.real("./out").ok().stdout, "43 3\n");
                space.remove("out");
                space.is_clean();
            }
        }
    }
}

/// Bitcode that breaks off: lld's words, or thinshim's, and no output.
#[test]
fn truncated_bitcode() {
    let space = TestSpace::new();
    three(&space);
    let whole = space.read("twice.o");
    space.write("out", "as before");
    for len in [4, 20, 24, whole.len() / 2] {
        space.write("twice.o", &whole[..len]);
        let outcome =
            space.shim("ld.lld -r main.o twice.o -o out").env("THINSHIM_SMALL", "0").end();
        assert!(!outcome.status.success(), "{len}: {outcome}");
        assert!(outcome.stderr.contains("twice.o"), "{len}: {outcome}");
        assert_eq!(space.text("out"), "as before", "{len}");
        space.is_clean();
    }
}
