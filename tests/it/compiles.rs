//! Compiles: what stands beside the object, and what the back end needs of the source tree.

use std::os::unix::fs::PermissionsExt;

use crate::links::NEXT;
use crate::oracle::program;
use crate::space::{TestSpace, llvms};

/// Every file below `directory`, relative to it.
pub(crate) fn files(space: &TestSpace, directory: &str) -> Vec<String> {
    let found = space.real("find . ! -type d").within(space.path(directory)).ok().stdout;
    let mut names: Vec<String> = found.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Headers are precompiled whatever else is asked for, and what calls the compiler proper is no
/// driver's command line: nothing of ours is in either.
#[test]
fn headers_and_the_compiler_proper() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        for words in [
            "a.h",
            "-c a.h",
            "-x c-header a.h -o a.pch",
            "-x c-header -c a.h -o a.pch",
            "-Xclang -emit-pch -x c-header -c a.h -o a.pch",
            "-include-pch a.pch -c a.c -o a.o",
            "-x c-header -x none b.hpp",
        ] {
            let mut outcomes = Vec::new();
            // A precompiled header holds the times of its sources.
            space.write("a.h", "void use(char *, int);\n");
            space.write("b.hpp", "template <class T> T same(T x) { return x; }\n");
            space.write("a.c", "int a(int n) { char b[64]; use(b, n); return b[3]; }\n");
            for side in ["real", "shim"] {
                space.write("a.o", "of another");
                space.real("clang -O2 -flto=thin -x c-header a.h -o a.pch").ok();
                let words = format!("clang -O2 -flto=thin -Werror {words}");
                let run = if side == "real" { space.real(&words) } else { space.shim(&words) };
                let outcome = run.end();
                let object = space.read("a.o");
                let found: Vec<(String, Vec<u8>)> = files(&space, ".")
                    .into_iter()
                    .filter(|name| !name.starts_with("./temp") && name != "./a.o")
                    .map(|name| (name.clone(), space.read(&name)))
                    .collect();
                outcomes.push((outcome.end(), outcome.stderr, object == b"of another", found));
            }
            let (shim, real) = (outcomes.pop(), outcomes.pop());
            assert!(shim == real, "{words}: {shim:?}\n{real:?}");
        }
    }
}

#[test]
fn side_outputs_stay_as_they_are() {
    let space = TestSpace::new();
    for (number, options) in [
        "-c a.c",
        "-c a.c -o out/a.o -MD",
        "-c a.c -o out/a.o -MMD -MF dep.d -MT target -MP",
        "-c a.c -o out/a.o -Wp,-MMD,out/.a.o.d",
        "-c a.c -o out/a.o -g -gsplit-dwarf",
        "-c a.c -o out/a.o -fstack-usage",
        "-c a.c -o out/a.o -ftime-trace",
        "-c a.c -o out/a.o -ftime-trace=out/trace.json",
        "-c a.c -o out/a.o -save-temps",
        "-c a.c -o out/a.o -save-temps=obj",
        "-c a.c -o out/a.o --serialize-diagnostics diagnostics.dia",
        "-c a.c -o out/a.o -fsave-optimization-record",
        "-c a.c -o out/a.o -foptimization-record-file=remarks.yaml",
        "-c a.c -o out/a.o -MJ out/commands.json",
        "-c a.c b.c -MD",
        "-c a.c -oout/a.o",
        "-c -x c - -o out/a.o",
        "-c start.S -o out/start.o",
    ]
    .iter()
    .enumerate()
    {
        for side in ["real", "shim"] {
            // One name for both, since debug information tells it.
            let directory = format!("{number}/work");
            let write = |name: &str, text: &str| space.write(&format!("{directory}/{name}"), text);
            write(
                "a.c",
                "#include \"a.h\"\nint a(int n) { char b[64]; use(b, n); return b[3]; }\n",
            );
            write("a.h", "void use(char *, int);\n");
            write("b.c", "int b;\n");
            write("start.S", ".globl start\nstart: nop\n");
            write("out/.keep", "");
            let words = format!("clang -O2 -flto=thin {options}");
            let run = if side == "real" { space.real(&words) } else { space.shim(&words) };
            run.within(space.path(&directory)).ok();
            let done = space.path(format!("{number}/{side}"));
            std::fs::rename(space.path(directory), done).expect("a new name");
        }
        let (real, shim) = (format!("{number}/real"), format!("{number}/shim"));
        let names = files(&space, &real);
        assert_eq!(files(&space, &shim), names, "{options}");
        for name in names {
            let (real_file, shim_file) = (format!("{real}/{name}"), format!("{shim}/{name}"));
            let mode =
                |file: &str| space.path(file).metadata().expect("a file").permissions().mode();
            assert_eq!(mode(&shim_file), mode(&real_file), "{options}: {name}");
            let (one, other) = (space.read(&real_file), space.read(&shim_file));
            let is = |end: &str| std::path::Path::new(&name).extension().is_some_and(|e| e == end);
            if one.starts_with(b"BC") && is("o") {
                let len = u32::from_le_bytes(other[12..16].try_into().expect("four")) as usize;
                assert!(other[20..20 + len] == one[..], "{options}: {name} is other bitcode");
            } else if !is("json") {
                assert!(one == other, "{options}: {name} differs");
            }
        }
    }
}

/// What a compile writes to is what it is: a device, a stream, a symlink, a file without a name.
#[test]
fn odd_outputs() {
    let space = TestSpace::new();
    space.write(NEXT.0, NEXT.1);
    space.shim("clang -O2 -flto=thin -c next.c -o /dev/null").ok();
    let null = std::fs::metadata("/dev/null").expect("a device");
    assert!(std::os::unix::fs::FileTypeExt::is_char_device(&null.file_type()));

    let mut run = space.shim("clang -O2 -flto=thin -c next.c -o -");
    assert!(run.command.output().expect("thinshim").stdout.starts_with(b"BC"));
    assert!(!space.exists("-"));

    space.write("there/real.o", "");
    for side in ["real", "shim"] {
        space.write(&format!("{side}-there"), "");
        let link = space.path(format!("{side}.o"));
        std::os::unix::fs::symlink(format!("{side}-there"), link).expect("a link");
    }
    space.real("clang -O2 -flto=thin -c next.c -o real.o").ok();
    space.shim("clang -O2 -flto=thin -c next.c -o shim.o").ok();
    assert_eq!(space.path("shim.o").is_symlink(), space.path("real.o").is_symlink());
    assert_eq!(space.text("shim-there").is_empty(), space.text("real-there").is_empty());

    // A failed compile leaves what clang leaves.
    space.write("bad.c", "int bad(\n");
    let real = space.real("clang -O2 -flto=thin -c bad.c").end();
    let shim = space.shim("clang -O2 -flto=thin -c bad.c").end();
    assert_eq!((shim.end(), shim.stderr), (real.end(), real.stderr));
    assert!(!space.exists("bad.o"));
    space.is_clean();
}

/// A call that writes no object says nothing of the one that is there.
#[test]
fn the_object_of_another_compile() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.write("a.c", "int a(void) { return 1; }\n");
        space.shim("clang -O2 -flto=thin -c a.c").ok();
        let before = space.read("a.o");
        for words in [
            "-O0 -fdriver-only -c a.c",
            "-O0 -fdriver-only -c a.c -o a.o",
            "-O0 -Xclang -fsyntax-only -c a.c",
            "-O0 -ccc-print-phases -c a.c",
        ] {
            space.shim(&format!("clang -flto=thin {words}")).end();
            assert!(space.read("a.o") == before, "LLVM {llvm}: {words}");
        }
        // The same object again is another.
        space.real("clang -O2 -flto=thin -c a.c").ok();
        space.shim("clang -O2 -flto=thin -c a.c").ok();
        assert!(space.read("a.o") == before, "LLVM {llvm}");
    }
}

/// The directories in which assembly looks for files, in the order in which clang does without LTO.
#[test]
fn the_order_of_search_paths() {
    const MAIN: &str = "int puts(const char *);\nint main(void) { const char *at;\n\
        __asm__(\".pushsection .rodata\\n7: .incbin \\\"which.txt\\\"\\n.byte 0\\n.popsection\\n\"\n\
        \"lea 7b(%%rip), %0\" : \"=r\"(at));\nreturn puts(at) < 0; }\n";
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.write("main.c", MAIN);
        space.write("one/which.txt", "one");
        space.write("two/which.txt", "two");
        for options in [
            "-I one -I two",
            "-Itwo --include-directory=one",
            "-isystem two -I one",
            "-isystem two -isystem one",
            "-isystem two -iquote one",
            "-iquote two -I one",
            "-idirafter two -I one",
            "-idirafter two -isystem one",
            "-idirafter two -iquote one",
            "-cxx-isystem two -I one",
            "-isystem-after two -I one",
            "-stdlib++-isystem two -isystem one",
            "-isystem two -Wa,-I,one",
        ] {
            let (real, shim) = (
                space.real(&format!("clang -O2 -fPIE {options} -c main.c -o native.o")),
                space.shim(&format!("clang -O2 -fPIE -flto=thin {options} -c main.c")),
            );
            real.ok();
            shim.ok();
            let line = |object: &str, out: &str| format!("ld.lld {} -o {out}", program(object));
            space.real(&line("native.o", "reference")).ok();
            space.strict(&line("main.o", "out")).ok();
            let said = |program: &str| space.real(&format!("./{program}")).ok().stdout;
            assert_eq!(said("out"), said("reference"), "LLVM {llvm}: {options}");
        }
    }
}

/// Assembly that names files: found from the compile's directory, whatever the link's.
#[test]
fn incbin() {
    let main = "int printf(const char *, ...);\nextern const char top[], below[];\n\
                const char *inner(void);\n\
                int main(void) { printf(\"%s%s%s\\n\", top, below, inner()); return 0; }\n";
    let data = |symbol: &str, file: &str| {
        format!(
            "__asm__(\".pushsection .rodata\\n.globl {symbol}\\n{symbol}:\\n\
             .incbin \\\"{file}\\\"\\n.byte 0\\n.popsection\\n\");\n"
        )
    };
    let inner = "const char *inner(void) { const char *at;\n__asm__(\".pushsection .rodata\\n\
                 7: .incbin \\\"inner.txt\\\"\\n.byte 0\\n.popsection\\nlea 7b(%%rip), %0\" : \"=r\"(at));\n\
                 return at; }\n";
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.write("sub/top.txt", "top ");
        space.write("include/below.txt", "below ");
        space.write("include/inner.txt", "inner");
        space.write("sub/main.c", main);
        space.write("sub/top.c", data("top", "top.txt"));
        space.write("sub/below.c", data("below", "below.txt"));
        space.write("sub/inner.c", inner);
        // clang 19 looks for the file without regard to -I.
        let words = "clang -O2 -flto=thin -I../include -c below.c";
        if !space.real(words).within(space.path("sub")).end().status.success() {
            space.write("sub/below.c", "const char below[] = \"below \";\n");
        }
        for name in ["main", "top", "below", "inner"] {
            space
                .shim(&format!("clang -O2 -flto=thin -fPIE -I../include -c {name}.c"))
                .within(space.path("sub"))
                .ok();
        }
        let objects = "sub/main.o sub/top.o sub/below.o sub/inner.o";
        space.strict(&format!("ld.lld {} -o out", program(objects))).ok();
        assert_eq!(space.real("./out").ok().stdout, "top below inner\n");
    }
}
