//! Links by way of clang, as the driver.

use std::fs;

use crate::compiles::files;
use crate::links::{MAIN, NEXT, TWICE, three};
use crate::oracle::{self, symbols};
use crate::space::{NEWEST, Run, TestSpace, bin, llvms};

/// clang as the driver of the link calls thinshim for its linker.
#[test]
fn links_through_the_driver() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        for (name, text) in [MAIN, TWICE, NEXT] {
            space.write(name, text);
            space.shim(&format!("clang -O2 -flto=thin -c {name}")).ok();
        }
        let plain = |words: &str, modules: usize| {
            space.strict(&format!("{words} -o prog")).env("THINSHIM_REPORT", "report").ok();
            let report = space.report();
            assert_eq!(report["output"], "prog", "{report}");
            assert_eq!(report["modules"], modules, "{report}");
            assert_eq!(report["backends_run"], modules, "{report}");
            assert_eq!(space.real("./prog").ok().stdout, "43 3\n", "{words}");
            space.remove("prog");
            space.remove("report");
            space.is_clean();
        };
        plain("clang -O2 -flto=thin main.o twice.o next.o", 3);
        plain("clang -O2 -flto=thin -fuse-ld=lld main.o twice.o next.o", 3);
        plain("clang -O2 -flto=thin main.c twice.c next.c", 3);
        plain("clang -O2 -flto=thin main.c twice.o next.c", 3);
        plain("clang -O2 -flto=thin -static main.o twice.o next.o", 3);
        plain("clang -O2 -flto=thin -no-pie main.o twice.o next.o", 3);
        let path = bin(llvm).join("ld.lld");
        plain(
            &format!("clang -O2 -flto=thin --ld-path={} main.o twice.o next.o", path.display()),
            3,
        );
        // The objects decide, not the link's own options.
        plain("clang -fuse-ld=lld main.o twice.o next.o", 3);
        plain("clang -fno-lto -fuse-ld=lld main.o twice.c next.o", 2);
        plain(&format!("clang --ld-path={} main.o twice.o next.o", path.display()), 3);
        space.real("llvm-ar rcs libtwo.a twice.o next.o").ok();
        plain("clang -fuse-ld=lld main.o -L. -ltwo", 3);
        space.write("words", format!("--ld-path={} -O2 main.o twice.o next.o", path.display()));
        plain("clang @words", 3);
    }
}

/// Links of all kinds by the driver, each beside the same one in-process.
#[test]
fn links_of_every_kind() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile("-fPIC", &[MAIN, TWICE, NEXT]);
        let path = bin(llvm).join("ld.lld");
        space.write("words", format!("-O2 --ld-path={} main.o 'twice.o' next.o", path.display()));
        // What one release does with all of them, another does with some.
        let more = llvm == NEWEST;
        for (words, is_program, each_release) in [
            ("-static-pie main.o twice.o next.o", true, true),
            ("-no-pie -O3 main.c twice.c next.o", true, true),
            ("-shared -fPIC twice.o next.o", false, true),
            ("-r main.o twice.o next.o", false, true),
            ("-O2 -x c - -x none twice.o next.o", true, false),
            ("-static main.o twice.o next.o", true, false),
            ("-no-pie main.o twice.o next.o", true, false),
            ("-rdynamic main.o twice.o next.o", true, false),
            ("-Os main.c twice.o next.c", true, false),
            ("-Wl,-z,now main.o twice.o next.o -Wl,--defsym=other_next=main", true, false),
            ("@words", true, false),
            ("-O2 -march=x86-64-v2 -mtune=generic main.c twice.c next.c", true, false),
            ("-O2 -ffunction-sections -Wl,--gc-sections main.c twice.c next.c", true, false),
            ("-O2 -g main.c twice.c next.c", true, false),
        ] {
            if !(more || each_release) {
                continue;
            }
            let line = format!("clang -fuse-ld=lld -flto=thin {words}");
            let stdin = |run: Run| run.stdin(space.path("main.c"));
            oracle::same_code_by(&space, &line, "-Wl,--lto-obj-path=in-process/o", stdin);
            stdin(space.strict(&format!("{line} -o recorded"))).ok();
            assert_eq!(symbols(&space, "recorded"), symbols(&space, "reference"), "{words}");
            if is_program {
                oracle::same_behaviour(&space, "distributed");
                assert_eq!(oracle::same_behaviour(&space, "recorded").stdout, "43 3\n");
            }
            space.is_clean();
        }
        // Clang has one level for what lld has two.
        for level in ["-O0", "-O1"] {
            let line = format!("clang -fuse-ld=lld -flto=thin {level} main.c twice.c next.o");
            space.real(&format!("{line} -o reference")).ok();
            space.strict(&format!("{line} -o no")).fails(120, &["one level", "exit code 120"]);
            let run = space.shim(&format!("{line} -o recorded")).env("THINSHIM_SMALL", "0");
            run.env("THINSHIM_REPORT", "report").ok();
            assert!(space.report()["fallback"].is_string(), "{}", space.report());
            assert_eq!(symbols(&space, "recorded"), symbols(&space, "reference"), "{level}");
            oracle::same_behaviour(&space, "recorded");
            // The objects know theirs.
            let line = format!("clang -fuse-ld=lld -flto=thin {level} main.o twice.o next.o");
            space.strict(&format!("{line} -o recorded")).ok();
            oracle::same_behaviour(&space, "recorded");
        }
        space.is_clean();
    }
}

/// Code that the compiler adds to the program's.
#[test]
fn instrumented_programs() {
    // In place of the profile's runtime library, which is not installed with every clang.
    const COUNT: (&str, &str) = (
        "count.c",
        "#include <stdio.h>\nextern long start __asm__(\"__start___llvm_prf_cnts\");\n\
         extern long stop __asm__(\"__stop___llvm_prf_cnts\");\n\
         __attribute__((destructor)) static void tell(void) {\n\
         long all = 0; for (long *at = &start; at < &stop; at++) all += *at; printf(\"%ld\\n\", all); }\n",
    );
    const CALL: (&str, &str) = (
        "call.c",
        "int printf(const char *, ...);\nint twice(int); int next(void);\n\
         int main(int argc, char **argv) { int (*call)(int) = argc > 1 ? (int (*)(int))next : twice;\n\
         return printf(\"%d\\n\", call(4)) < 0; }\n",
    );
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        let both = |words: &str| {
            let line = format!("clang -fuse-ld=lld -flto=thin {words}");
            space.real(&format!("{line} -o reference")).ok();
            space.strict(&format!("{line} -o recorded")).ok();
            assert_eq!(symbols(&space, "recorded"), symbols(&space, "reference"), "{words}");
            oracle::same_behaviour(&space, "recorded").stdout
        };
        space.write(COUNT.0, COUNT.1);
        space.real("clang -O2 -c count.c").ok();
        space.compile("-fprofile-generate", &[MAIN, TWICE, NEXT]);
        let said = both("-Wl,-u,__llvm_profile_raw_version main.o twice.o next.o count.o");
        assert!(said.starts_with("43 3\n") && !said.ends_with("\n0\n"), "{said}");
        space.compile("-fsanitize=undefined -fsanitize-trap=undefined", &[MAIN, TWICE, NEXT]);
        both("-fsanitize=undefined -fsanitize-trap=undefined main.o twice.o next.o");
        let options = "-fsanitize=cfi-icall -fvisibility=hidden -fno-sanitize-ignorelist";
        space.compile(options, &[CALL, TWICE, NEXT]);
        both(&format!("{options} call.o twice.o next.o"));
        let wrong = |program: &str| space.real(&format!("./{program} wrong")).end().end();
        assert_eq!(wrong("recorded"), wrong("reference"));
        assert_ne!(wrong("recorded"), (Some(0), None), "the call is not looked at");
        space.is_clean();
    }
}

/// What the driver leaves behind, in-process and distributed.
#[test]
fn temporary_files_that_are_kept() {
    let space = TestSpace::new();
    for words in ["-save-temps", "-save-temps=obj", "-Wl,-Map=out.map"] {
        for (tool, directory) in [("", "real"), ("shim", "shim")] {
            let _ = fs::remove_dir_all(space.path(directory));
            for (name, text) in [MAIN, TWICE, NEXT] {
                space.write(&format!("{directory}/{name}"), text);
            }
            let line =
                format!("clang -O2 -fuse-ld=lld -flto=thin {words} main.c twice.c next.c -o out");
            let run = if tool.is_empty() { space.real(&line) } else { space.strict(&line) };
            let outcome = run.within(space.path(directory)).ok();
            assert_eq!((outcome.stdout, outcome.stderr), (String::new(), String::new()), "{words}");
        }
        assert_eq!(files(&space, "shim"), files(&space, "real"), "{words}");
    }
}

/// Without ThinLTO in it a link by lld is as without thinshim, and another linker's stays so.
#[test]
fn other_links_through_the_driver() {
    let space = TestSpace::new();
    space.write("main.c", "int main(void) { return 42; }\n");
    space.shim("clang -O2 -flto=thin -c main.c -o bitcode.o").ok();
    space.real("clang -O2 -c main.c").ok();
    for words in ["clang main.o", "clang -fuse-ld=lld main.o", "clang -fuse-ld=lld main.c"] {
        space.real(&format!("{words} -o real")).ok();
        space.strict(&format!("{words} -o shim")).env("THINSHIM_REPORT", "report").ok();
        assert!(space.read("shim") == space.read("real"), "{words}");
    }
    assert!(!space.exists("report"), "no ThinLTO, no report");
    for words in ["clang bitcode.o", "clang -fuse-ld=bfd bitcode.o", "clang -fuse-ld=lld gone.o"] {
        let real = space.real(&format!("{words} -o x")).end();
        let shim = space.strict(&format!("{words} -o x")).end();
        assert_eq!((shim.end(), shim.stderr), (real.end(), real.stderr), "{words}");
    }
    let real = space.real("clang -fuse-ld=lld -### bitcode.o -o x").ok();
    let shim = space.shim("clang -fuse-ld=lld -### bitcode.o -o x").ok();
    assert_eq!(shim.stderr, real.stderr);
    space.is_clean();
}

/// `-B` and `-fuse-ld=lld-VERSION` choose among llds.
#[test]
fn the_lld_that_clang_would_take() {
    let space = TestSpace::new();
    three(&space);
    for at in ["b/ld.lld", "b/ld.lld-7"] {
        let real = bin(NEWEST).join("ld.lld");
        space.script(at, &format!("echo $0 >> taken\nexec {} \"$@\"\n", real.display()));
    }
    for (words, at) in [
        ("-fuse-ld=lld -Bb", "b/ld.lld"),
        ("-flto=thin -Bb", "b/ld.lld"),
        ("-flto=thin -fuse-ld=lld-7 --prefix=b", "b/ld.lld-7"),
        ("-fuse-ld=lld-7 -B b", "b/ld.lld-7"),
        ("-flto=thin --ld-path=b/ld.lld-7", "b/ld.lld-7"),
    ] {
        let link = space.strict(&format!("clang {words} main.o twice.o next.o -o prog"));
        link.env("THINSHIM_CLANG", bin(NEWEST).join("clang")).ok();
        assert_eq!(space.real("./prog").ok().stdout, "43 3\n", "{words}");
        let taken = space.text("taken");
        assert!(taken.lines().all(|line| line.ends_with(at)), "{words}: {taken}");
        space.remove("taken");
    }
}

#[test]
fn cpp_through_the_driver() {
    let space = TestSpace::new();
    space.write(
        "main.cpp",
        "#include <cstdio>\n#include <string>\nstd::string name();\n\
         int main() { try { throw name(); } catch (const std::string &s) { std::puts(s.c_str()); } }\n",
    );
    space.write("name.cpp", "#include <string>\nstd::string name() { return \"a name\"; }\n");
    for name in ["main", "name"] {
        space.shim(&format!("clang++ -O2 -flto=thin -fPIC -c {name}.cpp")).ok();
    }
    let run = space.strict("clang++ -O2 -flto=thin main.o name.o -o prog");
    run.env("THINSHIM_REPORT", "report").ok();
    assert_eq!(space.report()["modules"], 2);
    assert_eq!(space.real("./prog").ok().stdout, "a name\n");
    for words in ["-static-libstdc++ -static-libgcc", "-static", "-fno-exceptions -shared -fPIC"] {
        let line = format!("clang++ -O2 -fuse-ld=lld -flto=thin {words} main.o name.o");
        let (real, shim) = (
            space.real(&format!("{line} -o reference")).end(),
            space.strict(&format!("{line} -o recorded")).end(),
        );
        assert_eq!((shim.end(), &shim.stderr), (real.end(), &real.stderr), "{words}");
        assert!(real.status.success(), "{real}");
        if !words.contains("-shared") {
            oracle::same_behaviour(&space, "recorded");
        }
    }
    space.is_clean();
}
