//! Links by way of clang, as the driver.

use crate::links::{MAIN, NEXT, TWICE, three};
use crate::space::{NEWEST, TestSpace, bin, llvms};

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
        space.shim(&format!("clang++ -O2 -flto=thin -c {name}.cpp")).ok();
    }
    let run = space.strict("clang++ -O2 -flto=thin main.o name.o -o prog");
    run.env("THINSHIM_REPORT", "report").ok();
    assert_eq!(space.report()["modules"], 2);
    assert_eq!(space.real("./prog").ok().stdout, "a name\n");
    space.is_clean();
}
