//! Archives: thin and fat, lazy and whole, with names twice.

use crate::links::{MAIN, NEXT, TWICE, three};
use crate::oracle::{program, same_link, symbols};
use crate::space::{NEWEST, TestSpace, llvms};

const KINDS: [&str; 2] = ["rcs", "rcsT"];

#[test]
fn lazy_members() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.compile("", &[("unused.c", "int unused(void) { return 7; }\n")]);
        for kind in KINDS {
            let archive = format!("lib{kind}.a");
            space.real(&format!("llvm-ar {kind} {archive} unused.o next.o twice.o")).ok();
            same_link(&space, &program(&format!("main.o {archive}")));
            let unused = |out| symbols(&space, out).iter().any(|line| line.starts_with("unused"));
            assert!(!unused("recorded"), "{kind}");
            assert!(!unused("distributed"), "{kind}");
        }
    }
}

#[test]
fn whole_archives() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.compile("", &[("unused.c", "int unused(void) { return 7; }\n")]);
        for kind in KINDS {
            let archive = format!("lib{kind}.a");
            space.real(&format!("llvm-ar {kind} {archive} unused.o next.o twice.o")).ok();
            let args = format!("-r --whole-archive {archive} --no-whole-archive main.o");
            assert_eq!(same_link(&space, &args), 4);
            assert!(symbols(&space, "recorded").iter().any(|line| line == "unused T"));
            let args =
                program(&format!("--push-state --whole-archive {archive} --pop-state main.o"));
            assert_eq!(same_link(&space, &args), 4);
        }
    }
}

/// What only dead bitcode asks for is in the link, but nothing that `--gc-sections` keeps.
#[test]
fn native_members_that_nothing_needs_go() {
    // lld 14 does not tell of them.
    for llvm in llvms().into_iter().filter(|&llvm| llvm > 14) {
        let space = TestSpace::with_llvm(llvm);
        space.compile(
            "",
            &[
                (
                    "main.c",
                    "int never(void); void helper(void);\n\
                     int main(void) { if (never()) helper(); return 0; }\n",
                ),
                ("never.c", "int never(void) { return 0; }\n"),
            ],
        );
        space.write("helper.c", "void missing(void); void helper(void) { missing(); }\n");
        space.real("clang -O2 -fPIE -ffunction-sections -c helper.c").ok();
        space.real("llvm-ar rc libhelper.a helper.o").ok();
        same_link(&space, &program("--gc-sections main.o never.o libhelper.a"));
        space.is_clean();
    }
}

/// LTO inlines the only reference to a member; the constructor in it runs all the same.
#[test]
fn an_extracted_constructor_stays() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile(
            "",
            &[
                ("main.c", "int answer(void);\nint main(void) { return answer(); }\n"),
                (
                    "member.c",
                    "int puts(const char *);\nint answer(void) { return 42; }\n\
                     __attribute__((constructor)) static void begin(void) { puts(\"begun\"); }\n",
                ),
            ],
        );
        for kind in KINDS {
            let archive = format!("lib{kind}.a");
            space.real(&format!("llvm-ar {kind} {archive} member.o")).ok();
            assert_eq!(same_link(&space, &program(&format!("main.o {archive}"))), 2);
            let outcome = space.real("./recorded").end();
            assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(42), "begun\n"));
        }
    }
}

/// One name twice in an archive, and the same in another.
#[test]
fn members_of_one_name() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile(
            "",
            &[
                (
                    "main.c",
                    "int printf(const char *, ...);\nint a(void), b(void), c(void);\n\
                     int main(void) { printf(\"%d%d%d\\n\", a(), b(), c()); return 0; }\n",
                ),
                ("one/same.c", "static int x = 1;\nint a(void) { return x++; }\n"),
                ("two/same.c", "static int x = 2;\nint b(void) { return x++; }\n"),
                ("three/same.c", "static int x = 3;\nint c(void) { return x++; }\n"),
            ],
        );
        space.real("llvm-ar qcs fat.a one/same.o two/same.o").ok();
        space.real("llvm-ar qcs other.a three/same.o").ok();
        space.real("llvm-ar qcsT thin.a one/same.o two/same.o").ok();
        for archives in ["fat.a other.a", "thin.a other.a"] {
            assert_eq!(same_link(&space, &program(&format!("main.o {archives}"))), 4);
            assert_eq!(space.real("./recorded").ok().stdout, "123\n");
            assert_eq!(
                same_link(&space, &format!("-r main.o --whole-archive {archives}")),
                4,
                "{archives}"
            );
        }
    }
}

/// Thin archives in other directories, of members with `..` in their names.
#[test]
fn thin_archives_elsewhere() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile("", &[MAIN, ("a/b/twice.c", TWICE.1), ("c/next.c", NEXT.1)]);
        space.real("llvm-ar rcsT a/in.a a/b/twice.o").ok();
        space.real("llvm-ar rcsT a/out.a c/next.o").ok();
        assert_eq!(same_link(&space, &program("main.o a/in.a a/out.a")), 3);
        let absolute = space.path("a/out.a");
        let args = program(&format!("main.o a/b/../in.a {}", absolute.display()));
        assert_eq!(same_link(&space, &args), 3);
    }
}

/// Members of thin archives that a tool would take for an option or a response file.
#[test]
fn members_that_look_like_options() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        for (from, to) in [("twice.o", "-twice.o"), ("next.o", "@next.o")] {
            std::fs::rename(space.path(from), space.path(to)).expect(to);
        }
        space.real("llvm-ar rcsT thin.a ./-twice.o ./@next.o").ok();
        for archive in ["thin.a", "--whole-archive thin.a --no-whole-archive"] {
            assert_eq!(same_link(&space, &program(&format!("main.o {archive}"))), 3);
            assert_eq!(space.real("./recorded").ok().stdout, "43 3\n");
        }
        space.is_clean();
    }
}

#[test]
fn native_and_bitcode_members_mixed() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.write("unused.c", "int unused(void) { return 7; }\n");
        space.real("clang -O2 -fPIE -c unused.c").ok();
        space.real("clang -O2 -fPIE -c next.c").ok();
        for kind in KINDS {
            let archive = format!("lib{kind}.a");
            space.real(&format!("llvm-ar {kind} {archive} unused.o next.o twice.o")).ok();
            assert_eq!(same_link(&space, &program(&format!("main.o {archive}"))), 2);
            assert!(!symbols(&space, "recorded").iter().any(|line| line.starts_with("unused")));
            let args = program(&format!("main.o --whole-archive {archive} --no-whole-archive"));
            assert_eq!(same_link(&space, &args), 2);
        }
    }
}

/// What an archive defines is no longer the shared object's to export, and LTO knows it.
#[test]
fn excluded_archives() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile("-fPIC", &[MAIN, TWICE, ("x.c", NEXT.1), ("y/unused.c", "int unused;")]);
        let long = "a_name_of_more_than_fifteen_bytes.o";
        space.real(&format!("mv x.o {long}")).ok();
        space.write(
            "late.c",
            "int printf(const char *, ...);\nint late(void) { return printf(\"\"); }",
        );
        space.real("clang -O2 -fPIC -c late.c").ok();
        let exports =
            |file: &str| space.real(&format!("llvm-nm -D --defined-only {file}")).ok().stdout;
        for kind in KINDS {
            let archive = format!("lib{kind}.a");
            space.real(&format!("llvm-ar {kind} {archive} y/unused.o late.o {long} twice.o")).ok();
            for (options, modules) in [
                (format!("main.o --exclude-libs {archive} {archive}"), 3),
                (format!("--exclude-libs=x.a,ALL main.o -L. -l:{archive}"), 3),
                (format!("--exclude-libs ALL --whole-archive {archive} main.o"), 4),
                (format!("--exclude-libs other.a main.o {archive}"), 3),
            ] {
                let args = format!("-shared -L/usr/lib/x86_64-linux-gnu {options} -lc");
                assert_eq!(same_link(&space, &args), modules, "{args}");
                assert_eq!(exports("recorded"), exports("distributed"), "{args}");
                let names = |file| -> Vec<String> {
                    exports(file)
                        .lines()
                        .filter_map(|line| line.split(' ').nth(2))
                        .map(str::to_owned)
                        .collect()
                };
                assert_eq!(names("recorded"), names("reference"), "{args}");
                assert_eq!(
                    names("recorded").contains(&"next".to_owned()),
                    args.contains("other.a"),
                    "{args}"
                );
            }
            // A program exports nothing in any case; its constructors and lazy members stay.
            same_link(&space, &program(&format!("--exclude-libs ALL main.o {archive}")));
            assert_eq!(space.real("./recorded").ok().stdout, "43 3\n");
            let args = format!("--exclude-libs ALL --export-dynamic main.o {archive}");
            same_link(&space, &program(&args));
            assert_eq!(same_link(&space, &format!("-r --exclude-libs ALL main.o {archive}")), 3);
            space.is_clean();
        }
    }
}

/// Messages and side files speak of the user's archive.
#[test]
fn excluded_archives_keep_their_names() {
    let space = TestSpace::new();
    three(&space);
    space.real("llvm-ar rcs libtwo.a twice.o").ok();
    let args = program("--exclude-libs ALL main.o libtwo.a");
    let outcome =
        space.strict(&format!("ld.lld {args} -o out")).fails(1, &["undefined symbol: next"]);
    assert!(!outcome.stderr.contains(".thinshim"), "{outcome}");
    let options = "-Map=out.map --dependency-file=out.d --cref";
    space.strict(&format!("ld.lld {args} next.o {options} -o out")).ok();
    for (file, archive) in [("out.map", "libtwo.a(twice.o)"), ("out.d", "libtwo.a")] {
        let text = space.text(file);
        assert!(text.contains(archive) && !text.contains(".thinshim"), "{file}: {text}");
    }
    // Without a temporary place beside the output.
    space.strict(&format!("ld.lld {args} next.o -o /dev/null")).ok();
    space.is_clean();
}

#[test]
fn a_broken_archive_is_named() {
    let space = TestSpace::new();
    three(&space);
    space.real("llvm-ar rcs lib.a twice.o next.o").ok();
    let archive = space.read("lib.a");
    space.write("cut.a", &archive[..archive.len() - 100]);
    space.write("mad.a", [b"!<arch>\n".as_slice(), &[b'x'; 200]].concat());
    space.real("llvm-ar rcsT gone.a twice.o next.o").ok();
    space.write("out", "as before");
    for (archive, named) in [("cut.a", "cut.a"), ("mad.a", "mad.a")] {
        space
            .strict(&format!("ld.lld -r main.o {archive} -o out"))
            .fails(120, &[named, "thinshim"]);
        assert_eq!(space.text("out"), "as before");
    }
    space.remove("next.o");
    space.strict("ld.lld -r main.o gone.a -o out").fails(120, &["next.o"]);
    assert_eq!(space.text("out"), "as before");
    space.is_clean();
}

/// Inputs that are met twice, that are lazy without an archive, or that give only a part of themselves.
#[test]
fn inputs_of_other_kinds() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.write("native.c", "int next(void) { static int n; return ++n; }\nint left = 1;\n");
        space.write("unused.c", "int unused(void) { return 7; }\n");
        for name in ["native", "unused"] {
            space.real(&format!("clang -O2 -fPIE -c {name}.c")).ok();
        }
        space.write("text.txt", "a text\n");
        space.real("ld.lld -m elf_x86_64 -r -b binary text.txt -o text.o").ok();
        space.real("llvm-ar rcs liba.a twice.o").ok();
        space.real("llvm-ar rcs libb.a next.o unused.o").ok();
        let all = [
            "main.o liba.a libb.a liba.a",
            "main.o libb.a liba.a libb.a liba.a",
            "main.o -L. -la -lb -la",
            "main.o --whole-archive liba.a --no-whole-archive libb.a liba.a",
            "main.o --start-lib twice.o native.o unused.o --end-lib",
            "--start-lib unused.o native.o twice.o --end-lib main.o",
            "main.o twice.o next.o -b binary text.txt -b elf unused.o",
            "main.o twice.o next.o --format=binary text.txt --format=default",
            "main.o twice.o next.o text.o",
            "main.o twice.o next.o --just-symbols=unused.o",
            "-R unused.o main.o twice.o next.o",
        ];
        // What one release does with all of them, another does with every third.
        for objects in all.iter().step_by(if llvm == NEWEST { 1 } else { 3 }) {
            same_link(&space, &program(objects));
            assert_eq!(space.real("./recorded").ok().stdout, "43 3\n", "LLVM {llvm}: {objects}");
        }
        // The bytes of a module, which nobody compiles.
        same_link(&space, &program("main.o twice.o next.o -b binary twice.o -b elf"));
        space.is_clean();
    }
}

/// A member that only bitcode asks for, and none of it once that is compiled: in-process its
/// constructor is linked.
#[test]
fn native_members_that_bitcode_asked_for_stay() {
    // lld 14 does not tell of them.
    for llvm in llvms().into_iter().filter(|&llvm| llvm > 14) {
        let space = TestSpace::with_llvm(llvm);
        space.compile(
            "",
            &[
                (
                    "main.c",
                    "int printf(const char *, ...);\nint enabled(void); void anchor(void);\n\
                     int plugged;\nint main(void) { if (enabled()) anchor();\n\
                     return printf(\"%d\\n\", plugged) < 0; }\n",
                ),
                ("enabled.c", "int enabled(void) { return 0; }\n"),
            ],
        );
        space.write(
            "plug.cpp",
            "extern \"C\" int plugged;\nextern \"C\" void anchor(void) {}\nvoid other(int) {}\n\
             __attribute__((constructor)) static void start(void) { plugged = 1; }\n",
        );
        space.real("clang++ -O2 -fPIE -c plug.cpp").ok();
        space.real("llvm-ar rc libplug.a plug.o").ok();
        space.real("llvm-ar rc mixed.a enabled.o plug.o").ok();
        for inputs in [
            "main.o enabled.o libplug.a",
            "main.o enabled.o -L. -lplug",
            "main.o enabled.o --start-lib plug.o --end-lib",
            "main.o mixed.a",
            "--exclude-libs=mixed.a main.o mixed.a",
            "--gc-sections main.o enabled.o libplug.a",
        ] {
            let line = format!("ld.lld {}", program(inputs));
            for (run, output) in [(space.real(&line), "inside"), (space.strict(&line), "steps")] {
                run.args(["-o", output]).ok();
                let ran = space.real(&format!("./{output}")).ok();
                assert_eq!(ran.stdout, "1\n", "LLVM {llvm}: {inputs}");
            }
        }
        space.is_clean();
    }
}
