//! The linker's semantics: which definition counts, what may go, and in which order things run.

use crate::links::{MAIN, NEXT, TWICE, three};
use crate::oracle::{program, same_link, same_program, symbols};
use crate::space::{NEWEST, TestSpace, llvms};

/// Compiles `name` without LTO.
fn native(space: &TestSpace, name: &str, text: &str) {
    space.write(name, text);
    space.shim(&format!("clang -O2 -fPIE -fcommon -c {name}")).ok();
}

/// Names in version scripts that nobody has any more when the native objects are linked.
#[test]
fn version_scripts_name_what_is_optimised_away() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile(
            "-fPIC",
            &[
                ("api.c", "int helper(int x) { return x * 3; }\nint api(int x) { return helper(x) + 1; }\n"),
                ("other.c", "int api(int);\nint other(int x) { return api(x) + 2; }\n"),
            ],
        );
        space.write("v.lds", "V1 { global: api; local: helper; };\n");
        same_link(&space, "-shared --version-script=v.lds api.o other.o");
        same_link(&space, "-shared --version-script v.lds --undefined-version api.o other.o");
        space.write("v.lds", "V1 { global: api; nobody; local: *; };\n");
        let line =
            "ld.lld -shared --version-script=v.lds --no-undefined-version api.o other.o -o no";
        let real = space.real(line).end();
        let shim = space.strict(line).end();
        assert!(real.stderr.contains("nobody"), "{real}");
        assert_eq!((shim.end(), shim.stderr.contains("nobody")), (real.end(), true), "{shim}");
    }
}

/// Weak and strong, common and tentative, comdat: one of the two definitions is native, or none.
#[test]
fn the_definition_that_prevails() {
    const USER: &str = "int printf(const char *, ...);\nint which(void);\nint shared_word(void);\n\
        int main(void) { return printf(\"%d %d\\n\", which(), shared_word()) < 0; }\n";
    const WEAK: &str = "__attribute__((weak)) int which(void) { return 1; }\nint word;\n\
        int shared_word(void) { return word; }\n";
    const STRONG: &str = "int which(void) { return 2; }\nint word = 7;\n";
    const OTHER_WEAK: &str = "__attribute__((weak)) int which(void) { return 3; }\nlong word[4];\n";
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile("-fcommon", &[("user.c", USER)]);
        let pairs = [
            (STRONG, "weak.o other.o"),
            (OTHER_WEAK, "other.o weak.o"),
            (STRONG, "other.o weak.o"),
            (OTHER_WEAK, "weak.o other.o"),
        ];
        // What one release does with all of them, another does with half.
        for &(other, order) in if llvm == NEWEST { &pairs[..] } else { &pairs[..2] } {
            for natives in [&[][..], &["weak.c"], &["other.c"]] {
                for source in [("weak.c", WEAK), ("other.c", other)] {
                    if natives.contains(&source.0) {
                        native(&space, source.0, source.1);
                    } else {
                        space.compile("-fcommon", &[source]);
                    }
                }
                same_link(&space, &program(&format!("user.o {order}")));
                same_link(&space, &program(&format!("user.o --start-lib {order} --end-lib")));
            }
        }
    }
}

/// One of several equal inline functions, in native objects and modules.
#[test]
fn comdats_of_cpp() {
    const HEADER: &str = "inline int &counter() { static int n; return n; }\n\
        template <class T> T twice(T x) { return x + x + counter()++; }\n\
        struct Base { virtual ~Base() {} virtual int id() { return 1; } };\n";
    const A: &str = "#include \"h.hpp\"\nint from_a(Base &b) { return twice(10) + b.id(); }\n";
    const B: &str = "#include \"h.hpp\"\n#include <stdio.h>\nint from_a(Base &);\n\
        struct Derived : Base { int id() override { return 2; } };\n\
        int main() { Derived d; int a = from_a(d); printf(\"%d %d %d\\n\", a, twice(10), counter()); }\n";
    let space = TestSpace::new();
    space.write("h.hpp", HEADER);
    let found = space.real("clang++ -print-file-name=libstdc++.so").ok().stdout;
    let libraries = std::path::Path::new(found.trim()).parent().expect("a directory").display();
    for native in ["", "a", "b"] {
        for (name, text) in [("a", A), ("b", B)] {
            if name == native {
                space.write(&format!("{name}.cpp"), text);
                space.real(&format!("clang++ -O2 -fPIE -c {name}.cpp")).ok();
            } else {
                space.compile("-I.", &[(&format!("{name}.cpp"), text)]);
            }
        }
        for order in ["a.o b.o", "b.o a.o"] {
            same_program(&space, &program(&format!("-L{libraries} {order} -lstdc++ -lm")));
        }
    }
}

/// Options that give a symbol another meaning, or keep what nobody refers to.
#[test]
fn options_about_symbols() {
    const WRAP: (&str, &str) = (
        "wrap.c",
        "int __real_twice(int);\nint __wrap_twice(int x) { return __real_twice(x) + 100; }\n",
    );
    const OTHER: (&str, &str) = ("other.c", "int other(void) { return 5; }\n");
    const UNUSED: (&str, &str) = ("unused.c", "int unused(void) { return 7; }\n");
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.compile("", &[WRAP, OTHER, UNUSED]);
        let objects = "main.o wrap.o twice.o next.o";
        for source in [None, Some(WRAP), Some(TWICE), Some(MAIN)] {
            if let Some((name, text)) = source {
                native(&space, name, text);
            }
            same_program(&space, &program(&format!("--wrap=twice {objects}")));
            if let Some(source) = source {
                space.compile("", &[source]);
            }
        }
        space.real("llvm-ar rcs libwrap.a wrap.o").ok();
        same_program(&space, &program("--wrap=twice main.o twice.o next.o libwrap.a"));
        same_link(&space, &program("--defsym=next=other main.o twice.o other.o"));
        same_link(&space, &program("--defsym=mark=twice --export-dynamic main.o twice.o next.o"));
        let lazy = "main.o twice.o next.o --start-lib unused.o --end-lib";
        for option in [
            "-u unused",
            "--undefined=unused",
            "--undefined-glob=unus*",
            "--export-dynamic-symbol=twice",
        ] {
            same_link(&space, &program(&format!("{option} {lazy}")));
        }
        same_link(&space, "-shared --init=other --fini=unused other.o unused.o next.o");
        same_link(&space, "-e other other.o next.o");
    }
}

/// A shared library that calls back into the program, which so exports what nothing in it refers to.
#[test]
fn libraries_that_call_back() {
    const BACK: (&str, &str) =
        ("back.c", "int state = 3;\nint back(int x) { return x + state; }\n");
    const USER: (&str, &str) = (
        "user.c",
        "int printf(const char *, ...);\nint call(int);\n\
         int main(void) { return printf(\"%d\\n\", call(4)) < 0; }\n",
    );
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile("-fPIC", &[BACK, USER, NEXT]);
        space.write(
            "call.c",
            "extern int state;\nint back(int);\nint call(int x) { state++; return back(x) + 1; }\n",
        );
        space.real("clang -O2 -fPIC -shared -fuse-ld=lld call.c -o libcall.so").ok();
        space.write("list", "{ back; next; };\n");
        space.write("v.lds", "{ global: back; local: *; };\n");
        for kind in ["rcs", "rcsT"] {
            space.real(&format!("llvm-ar {kind} lib{kind}.a back.o")).ok();
        }
        let exports = |file: &str| -> Vec<String> {
            let listed = space.real(&format!("llvm-nm -D {file}")).ok();
            let mut names: Vec<String> =
                listed.stdout.lines().filter_map(|line| Some(line.get(17..)?.to_owned())).collect();
            names.sort();
            names
        };
        for objects in [
            "user.o back.o libcall.so",
            "libcall.so user.o back.o",
            "user.o librcs.a libcall.so",
            "user.o libcall.so --start-lib back.o --end-lib",
            "--gc-sections user.o librcsT.a libcall.so",
            "--export-dynamic user.o next.o back.o libcall.so",
            "--dynamic-list=list user.o next.o back.o libcall.so",
            "--export-dynamic-symbol=nex* user.o next.o back.o libcall.so",
        ] {
            same_program(&space, &program(&format!("-rpath=. {objects}")));
            assert_eq!(exports("recorded"), exports("reference"), "LLVM {llvm}: {objects}");
            assert_eq!(space.real("./recorded").ok().stdout, "9\n", "{objects}");
        }
        // Of a library, what the version script says; bound within it or not.
        for options in
            ["-Bsymbolic", "-Bsymbolic-functions", "--version-script=v.lds", "--dynamic-list=list"]
        {
            let line = format!("ld.lld -shared {options} back.o next.o");
            space.real(&format!("{line} -o reference")).ok();
            space.strict(&format!("{line} -o recorded")).ok();
            assert_eq!(symbols(&space, "recorded"), symbols(&space, "reference"), "{options}");
            assert_eq!(exports("recorded"), exports("reference"), "LLVM {llvm}: {options}");
        }
    }
}

/// Sections that nobody refers to go, equal ones are folded.
#[test]
fn garbage_and_equal_functions() {
    const PAIR: (&str, &str) = (
        "pair.c",
        "__attribute__((noinline)) int one(int x) { return x * 31 + 7; }\n\
         __attribute__((noinline)) int two(int x) { return x * 31 + 7; }\n",
    );
    const USER: (&str, &str) = (
        "user.c",
        "int printf(const char *, ...);\nint one(int); int two(int);\n\
         int main(int argc, char **argv) {\n\
         int (*volatile a)(int) = one; int (*volatile b)(int) = two;\n\
         return printf(\"%d %d\\n\", a == b, a(argc) == b(argc)) < 0; }\n",
    );
    const DEAD: (&str, &str) = ("dead.c", "int nobody(void) { return 1; }\nint at_all = 3;\n");
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.compile("", &[MAIN, TWICE, NEXT, DEAD, PAIR, USER]);
        for option in ["--gc-sections", "--icf=all", "--icf=safe", "--gc-sections --icf=all"] {
            same_link(&space, &program(&format!("{option} main.o twice.o next.o dead.o")));
            same_program(&space, &program(&format!("{option} user.o pair.o")));
        }
        same_program(&space, &program("--icf=all --keep-unique=one user.o pair.o"));
        same_link(&space, "-shared --gc-sections twice.o next.o dead.o");
        same_link(&space, &program("--emit-relocs main.o twice.o next.o"));
        space.write("list", "{ twice; };\n");
        same_link(&space, "-shared --dynamic-list=list twice.o next.o dead.o");
        same_link(&space, &program("--dynamic-list=list main.o twice.o next.o dead.o"));
    }
}

/// Constructors run in the order of the command line, as in a build without LTO; in-process ThinLTO
/// puts those of native objects first.
#[test]
fn the_order_of_constructors() {
    let constructor = |letter: char| {
        format!(
            "int puts(const char *);\n__attribute__((constructor)) static void begin(void) {{ puts(\"{letter}\"); }}\n"
        )
    };
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        let (a, b, c) = (constructor('a'), constructor('b'), constructor('c'));
        space
            .compile("", &[("a.c", &a), ("c.c", &c), ("main.c", "int main(void) { return 0; }\n")]);
        native(&space, "b.c", &b);
        let args = program("main.o a.o b.o c.o");
        space.strict(&format!("ld.lld {args} -o out")).ok();
        space.real(&format!("ld.lld {args} -o in-process")).ok();
        for (name, text) in
            [("a.c", &a), ("c.c", &c), ("main.c", &"int main(void) { return 0; }\n".to_owned())]
        {
            native(&space, name, text);
        }
        space.real(&format!("ld.lld {args} -o plain")).ok();
        let says = |program: &str| space.real(&format!("./{program}")).ok().stdout;
        assert_eq!(says("plain"), "a\nb\nc\n");
        assert_eq!(says("out"), "a\nb\nc\n");
        assert_eq!(says("in-process"), "b\na\nc\n", "README tells of this difference");
    }
}

/// Functions that only the back ends call. A member of bitcode is brought in by the thin link; one that is native is
/// found in the order of the command line, as in a build without LTO, where in-process ThinLTO takes a
/// shared library's before an archive's.
#[test]
fn libcalls_bring_in_members() {
    const USER: &str = "int printf(const char *, ...);\nstruct big { char c[4096]; } a, b; extern int copies;\n\
        int main(void) { b.c[9] = 7; a = b; return printf(\"%d %d\\n\", a.c[9], copies) < 0; }\n";
    const COUNT: &str = "int copies;\n";
    const COPY: &str = "extern int copies;\nvoid *memcpy(char *d, const char *s, unsigned long n) {\n\
        copies++; for (char *to = d; n; n--) *to++ = *s++; return d; }\n";
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        native(&space, "count.c", COUNT);
        let args = program("user.o libcopy.a count.o");
        space.compile("", &[("user.c", USER)]);
        space.compile("-fno-builtin", &[("copy.c", COPY)]);
        space.real("llvm-ar rcs libcopy.a copy.o").ok();
        same_program(&space, &args);
        space.real("clang -O2 -fPIE -fno-builtin -c copy.c").ok();
        space.real("llvm-ar rcs libcopy.a copy.o").ok();
        space.strict(&format!("ld.lld {args} -o out")).ok();
        native(&space, "user.c", USER);
        space.real(&format!("ld.lld {args} -o plain")).ok();
        assert_eq!(space.real("./out").ok().stdout, space.real("./plain").ok().stdout);
    }
}

/// What in-process ThinLTO refuses is refused, with its words.
#[test]
fn failures_stay_failures() {
    const TWO: (&str, &str) = ("two.c", "int twice(int x) { return x; }\n");
    const ASM: (&str, &str) = ("asm.c", "void next(void) { __asm__(\"no such instruction\"); }\n");
    const NEVER: (&str, &str) = (
        "never.c",
        "__attribute__((error(\"never\"))) void never(void);\nint next(void) { never(); return 1; }\n",
    );
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.compile("", &[TWO]);
        space.write("native.c", TWO.1);
        space.real("clang -O2 -fPIE -c native.c").ok();
        for (name, text) in [ASM, NEVER] {
            space.write(name, text);
            space.shim(&format!("clang -O2 -flto=thin -fPIE -c {name}")).end();
        }
        for (objects, word) in [
            ("main.o twice.o next.o two.o", "duplicate symbol"),
            ("main.o twice.o next.o native.o", "duplicate symbol"),
            ("main.o twice.o", "undefined symbol"),
            ("main.o twice.o asm.o", "no such instruction"),
            ("main.o twice.o never.o", "never"),
        ] {
            // Clang itself may have said so.
            if objects.split(' ').any(|name| !space.exists(name)) {
                continue;
            }
            let line = format!("ld.lld {} -o no", program(objects));
            let (real, shim) = (space.real(&line).end(), space.strict(&line).end());
            assert!(!real.status.success() && real.stderr.contains(word), "{real}");
            assert!(!shim.status.success() && shim.stderr.contains(word), "{shim}");
            assert!(!shim.stderr.contains(".thinshim"), "{shim}");
            assert!(!space.exists("no"), "{objects}");
        }
        space.is_clean();
    }
}

/// Objects with bitcode beside their code, where the link is to use it.
#[test]
fn fat_objects() {
    let space = TestSpace::with_llvm(NEWEST);
    three(&space);
    space.shim("clang -O2 -flto=thin -ffat-lto-objects -fPIE -c twice.c").ok();
    space.real("llvm-ar rcs libtwo.a twice.o").ok();
    assert_eq!(same_link(&space, &program("main.o twice.o next.o")), 2);
    for objects in ["main.o twice.o next.o", "main.o libtwo.a next.o"] {
        let line = format!("ld.lld {} --fat-lto-objects", program(objects));
        space.real(&format!("{line} -o reference")).ok();
        let run = space.shim(&format!("{line} -o out")).env("THINSHIM_SMALL", "0");
        run.env("THINSHIM_REPORT", "report").ok();
        let report = space.report();
        assert!(report["fallback"].as_str().is_some_and(|why| why.contains("beside its code")));
        assert_eq!(symbols(&space, "out"), symbols(&space, "reference"));
        assert_eq!(space.real("./out").ok().stdout, "43 3\n");
        space.strict(&format!("{line} -o no")).fails(120, &["beside its code"]);
    }
}
