//! Links of every shape, each against the same link in-process.

use crate::oracle::{self, program, same_link, symbols};
use crate::space::{NEWEST, THINSHIM, TestSpace, llvms};

/// Three modules that import from each other, with a promoted local, and what they print.
pub(crate) const MAIN: (&str, &str) = (
    "main.c",
    "int printf(const char *, ...);\nint twice(int); int next(void);\n\
     int main(void) { next(); return printf(\"%d %d\\n\", twice(21), next()) < 0; }\n",
);
pub(crate) const TWICE: (&str, &str) = (
    "twice.c",
    "int next(void);\nstatic int hidden(int x) { return x * 2 + next(); }\n\
     int twice(int x) { return hidden(x) - 1; }\n",
);
pub(crate) const NEXT: (&str, &str) =
    ("next.c", "static int count;\nint next(void) { return ++count; }\n");

pub(crate) fn three(space: &TestSpace) {
    space.compile("", &[MAIN, TWICE, NEXT]);
}

#[test]
fn direct_objects() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        assert_eq!(same_link(&space, &program("main.o twice.o next.o")), 3);
        assert_eq!(space.real("./recorded").ok().stdout, "43 3\n", "the test's own sum");
        assert!(!space.exists(".recorded.thinshim"));
    }
}

#[test]
fn a_relocatable_link_of_many() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        assert_eq!(same_link(&space, "-r main.o twice.o next.o"), 3);
        assert_eq!(
            same_link(
                &space,
                "-shared --no-undefined -lc -L/usr/lib/x86_64-linux-gnu \
            twice.o next.o"
            ),
            2
        );
    }
}

/// Modules of data that importers have taken the values of, or that nobody reads: their objects may
/// have nothing.
#[test]
fn modules_of_which_nothing_is_left() {
    for llvm in llvms() {
        for (data, user) in [
            (
                "const int t[3] = {1, 2, 3};",
                "extern const int t[3]; int main(void) { return t[1] - 2; }",
            ),
            ("_Bool flag = 0;", "extern _Bool flag; int main(void) { return flag; }"),
            ("int last;", "extern int last; int main(void) { last = 3; return 0; }"),
        ] {
            let space = TestSpace::with_llvm(llvm);
            space.compile("", &[("data.c", data), ("user.c", user)]);
            assert_eq!(same_link(&space, &program("user.o data.o")), 2);
            space.real("./recorded").ok();
        }
    }
}

/// Kbuild's single-object modules: `ld -r -o tmp a.o; mv tmp a.o`, and onto itself.
#[test]
fn a_relocatable_link_of_one_onto_itself() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        assert_eq!(same_link(&space, "-r next.o"), 1);
        space.strict("ld.lld -r -o next.o.tmp next.o").ok();
        space.real("mv next.o.tmp next.o").ok();
        assert!(space.read("next.o").starts_with(b"\x7fELF"));
        space.strict("ld.lld -r -o twice.o twice.o").ok();
        assert!(space.read("twice.o").starts_with(b"\x7fELF"));
        space.strict(&format!("ld.lld {} -o recorded", program("main.o twice.o next.o"))).ok();
        assert_eq!(space.real("./recorded").ok().stdout, "43 3\n");
        space.is_clean();
    }
}

/// As Kbuild's `modfinal`: `-r` with a script, native and bitcode inputs.
#[test]
fn a_link_by_a_script() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.write(
            "module.lds",
            "SECTIONS {\n .modinfo : { *(.modinfo) }\n .text.all 0 : { *(.text .text.[0-9a-zA-Z_]*) }\n}\n",
        );
        space.write(
            "mod.c",
            "__attribute__((section(\".modinfo\"), used)) static const char l[] = \"license=GPL\";\n",
        );
        space.shim("clang -O2 -flto=thin -fPIE -c mod.c").ok();
        space.strict("ld.lld -r -o m.o twice.o next.o").ok();
        let args = "-r --build-id=sha1 -T module.lds m.o mod.o";
        assert_eq!(same_link(&space, args), 1);
        let sections = space.real("llvm-readobj --sections recorded").ok().stdout;
        assert!(sections.contains("Name: .text.all"), "{sections}");
        assert!(sections.contains("Name: .modinfo"), "{sections}");
    }
}

/// Scripts as inputs: what they bring in decides, and only bitcode makes it matter.
#[test]
fn scripts_that_bring_in_objects() {
    let space = TestSpace::new();
    three(&space);
    space.real("clang -O2 -fPIE -c next.c -o native.o").ok();
    space.write("native.lds", "/* INPUT(twice.o) */ INPUT(native.o)");
    space.write("bitcode.lds", "GROUP(native.o AS_NEEDED(twice.o))");
    space.write("include.lds", "INCLUDE native.lds");
    space.strict("ld.lld -r main.o twice.o native.lds -o out").ok();
    for script in ["bitcode.lds", "include.lds"] {
        space.strict(&format!("ld.lld -r main.o {script} -o no")).fails(120, &[script]);
    }
    space.strict("ld.lld -r include.lds -o out").ok();
    assert!(!space.exists("no"));
    space.is_clean();
}

/// Scripts that choose sections by the names of files, which distributing would change.
#[test]
fn scripts_that_choose_by_files() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.write("native.c", "int native(void) { return 5; }");
        space.real("clang -O2 -fPIE -c native.c").ok();
        space.real("llvm-ar rcs libtwo.a native.o twice.o next.o").ok();
        for (chosen, named) in [
            ("*libtwo.a:native.o(.text*)", true),
            ("KEEP(*libtwo.a:(.text .text.*))", true),
            ("*native.o(.text*)", true),
            ("*main.o(.text*)", true),
            ("# all of lib/* goes first\n*main.o(.text*) /* end */", true),
            ("/*main.o(.text*)*/", false),
            ("*(EXCLUDE_FILE(*native.o *crtend.o) .text*)", true),
            ("*other.o(.text*) *libtwo.a:none.o(.text*) :native.o(.text*)", false),
        ] {
            space.write(
                "by-file.lds",
                format!("SECTIONS {{ .first : {{ {chosen} }} .rest : {{ *(.text*) }} }}"),
            );
            let line =
                "ld.lld -r -T by-file.lds main.o --whole-archive libtwo.a --no-whole-archive";
            space.real(&format!("{line} -o reference")).ok();
            let run = space.shim(&format!("{line} -o out")).env("THINSHIM_SMALL", "0");
            run.env("THINSHIM_REPORT", "report").ok();
            let report = space.report();
            let fallback = report["fallback"].as_str();
            assert_eq!(fallback.is_some_and(|why| why.contains("by-file.lds")), named, "{report}");
            assert!(!fallback.is_some_and(|why| why.contains(".thinshim")), "{report}");
            let chosen_first = |file: &str| {
                let table = space.real(&format!("llvm-nm --format=sysv {file}")).ok().stdout;
                let first = table.lines().filter(|line| line.ends_with("|.first"));
                let mut names: Vec<_> =
                    first.filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect();
                names.sort();
                names
            };
            assert_eq!(chosen_first("out"), chosen_first("reference"), "{chosen}");
            assert!(named != chosen_first("out").is_empty() || llvm != NEWEST, "{chosen}");
            space.is_clean();
        }
    }
}

/// The linker looks for scripts in the library paths, too.
#[test]
fn scripts_in_the_library_paths() {
    let space = TestSpace::new();
    three(&space);
    let all = "*(.text .text.*)";
    space.write("lds/plain.lds", format!("SECTIONS {{ .text : {{ {all} }} }}"));
    space.write("lds/choice.lds", format!("SECTIONS {{ .text : {{ *main.o(.text*) {all} }} }}"));
    space.write("lds/include.lds", "INCLUDE lds/plain.lds");
    space.write("lds/bitcode.lds", "INPUT(next.o)");
    space.write("lds/directory.lds/file", "");
    let line = |script: &str| format!("ld.lld -r -T {script} -L lds main.o twice.o");
    space.strict(&format!("{} next.o -o out", line("plain.lds"))).ok();
    for script in ["choice.lds", "include.lds", "bitcode.lds", "directory.lds"] {
        let named = format!("the linker script lds/{script}");
        let run = space.strict(&format!("{} -o no", line(script)));
        run.fails(120, &[named.as_str(), "THINSHIM_STRICT"]);
    }
    let run = space.strict(&format!("{} -o no", line("nowhere.lds")));
    run.fails(1, &["cannot find linker script nowhere.lds"]);
    assert!(!space.exists("no"));
    space.is_clean();
}

/// What the linker tells of its inputs on stdout and in files speaks of the user's.
#[test]
fn words_about_inputs() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile("-ffunction-sections", &[MAIN, TWICE, NEXT]);
        space.real("llvm-ar rcs libtwo.a twice.o next.o").ok();
        for option in [
            "-M",
            "--print-map",
            "--cref",
            "--print-gc-sections --gc-sections",
            "--print-icf-sections --icf=all",
            "-t",
            "-y twice",
            "--trace-symbol=twice",
            "--print-memory-usage",
            "--time-trace",
            "--time-trace=out.json",
        ] {
            let line = format!("ld.lld {} {option}", program("main.o libtwo.a"));
            if !space.real(&format!("{line} -o reference")).end().status.success() {
                assert!(llvm != NEWEST, "{option}");
                continue;
            }
            let outcome = space.strict(&format!("{line} -o out")).ok();
            assert!(!outcome.stdout.contains(".thinshim"), "{option}: {outcome}");
            if ["-M", "-t"].contains(&option) {
                assert!(outcome.stdout.contains("libtwo.a(twice.o)"), "{option}: {outcome}");
            }
            for file in ["out.time-trace", "out.json"] {
                if space.exists(file) {
                    assert!(!space.text(file).contains(".thinshim"), "{option}");
                    space.remove(file);
                }
            }
        }
        space.is_clean();
    }
}

/// Bitcode by ways that only the linker knows.
#[test]
fn bitcode_that_nobody_saw() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.compile("", &[("pragma.c", "#pragma comment(lib, \"two\")\nint twice(int);\nint main(void) { return twice(21) != 43; }\n")]);
        space.real("llvm-ar rcs libtwo.a twice.o next.o").ok();
        for directory in ["lib", "root/lib"] {
            space.write(&format!("{directory}/twice.o"), space.read("twice.o"));
            space.write(&format!("{directory}/libtwo.a"), space.read("libtwo.a"));
        }
        space.remove("twice.o");
        space.write("lib/group.lds", "INPUT(twice.o)");
        space.write("root/lib/root.lds", "GROUP(/lib/libtwo.a)");
        space.write("search.lds", "SEARCH_DIR(lib) INPUT(-ltwo)");
        for objects in [
            "main.o next.o lib/group.lds",
            "--sysroot=root main.o root/lib/root.lds",
            "main.o search.lds",
            "pragma.o -L.",
        ] {
            let line = format!("ld.lld {}", program(objects));
            // Not every release looks beside the script.
            if !space.real(&format!("{line} -o reference")).end().status.success() {
                continue;
            }
            let run = space.shim(&format!("{line} -o out")).env("THINSHIM_SMALL", "0");
            run.env("THINSHIM_REPORT", "report").ok();
            let report = space.report();
            assert!(report["fallback"].is_string(), "{objects}: {report}");
            oracle::same_behaviour(&space, "out");
            space.strict(&format!("{line} -o no")).fails(120, &["which holds bitcode"]);
            space.is_clean();
        }
    }
}

#[test]
fn lazy_objects_and_groups() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.compile("", &[("unused.c", "int unused(void) { return 7; }\n")]);
        let args = program("main.o --start-lib unused.o next.o twice.o --end-lib");
        same_link(&space, &args);
        assert!(!symbols(&space, "recorded").iter().any(|line| line.contains("unused")));
        same_link(&space, &program("--start-group twice.o next.o --end-group main.o"));
    }
}

#[test]
fn native_objects_between_modules() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.shim("clang -O2 -fPIE -c twice.c").ok();
        assert!(space.read("twice.o").starts_with(b"\x7fELF"));
        assert_eq!(same_link(&space, &program("main.o twice.o next.o")), 2);
    }
}

#[test]
fn libraries_by_name() {
    let space = TestSpace::new();
    three(&space);
    space.write("lib/empty", "");
    space.real("llvm-ar rcs lib/libtwo.a twice.o next.o").ok();
    same_link(&space, &program("main.o -Llib -ltwo"));
    same_link(&space, &program("main.o -L lib -l:libtwo.a"));
}

#[test]
fn response_files() {
    let space = TestSpace::new();
    three(&space);
    space.real("mkdir odd\\dir").ok();
    for (from, to) in [("twice.o", "odd name.o"), ("next.o", "it's \"next\".o")] {
        std::fs::rename(space.path(from), space.path(to)).expect(to);
    }
    space.write("inner.rsp", "'odd name.o'\n");
    space.write("objects.rsp", "main.o @inner.rsp\n\"it's \\\"next\\\".o\"\n");
    assert_eq!(same_link(&space, &program("@objects.rsp")), 3);
}

#[test]
fn a_response_file_with_an_open_quote() {
    let space = TestSpace::new();
    three(&space);
    for text in ["main.o 'twice.o", "main.o \"twice.o\\\""] {
        space.write("open.rsp", text);
        space.write("out", "as before");
        space.shim("ld.lld -r @open.rsp -o out").fails(120, &["open.rsp", "quote"]);
        assert_eq!(space.text("out"), "as before");
        space.is_clean();
    }
}

#[test]
fn paths_of_all_kinds() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.write("deep/er/x", "");
        space.compile("", &[("deep/er/main.c", MAIN.1), ("side/twice.c", TWICE.1), NEXT]);
        let absolute = space.path("next.o");
        let args =
            program(&format!("deep/er/../er/main.o ./side/../side/twice.o {}", absolute.display()));
        assert_eq!(same_link(&space, &args), 3);
        // From below, where each `..` leaves the directory.
        let args = program("main.o ../../side/twice.o ../.././next.o");
        space.strict(&format!("ld.lld {args} -o prog")).within(space.path("deep/er")).ok();
        assert_eq!(space.real("deep/er/prog").ok().stdout, "43 3\n");
        space.is_clean();
    }
}

/// The index of a module stands under the module's path in a directory, where an absolute path is a
/// relative one.
#[test]
fn an_absolute_path_that_is_a_relative_one() {
    let space = TestSpace::new();
    three(&space);
    let absolute = space.path("twice.o");
    let relative = absolute.strip_prefix("/").expect("a root").display().to_string();
    space.write(&relative, space.read("next.o"));
    let objects = format!("main.o {} {relative}", absolute.display());
    let line = format!("ld.lld {}", program(&objects));
    space.strict(&format!("{line} -o no")).fails(120, &["have one name below a directory"]);
    assert!(!space.exists("no"));
    space.shim(&format!("{line} -o out")).env("THINSHIM_SMALL", "0").ok();
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");
    space.is_clean();
}

/// Both summaries: modules for regular LTO keep their partition beside the back ends.
#[test]
fn regular_lto_beside_thinlto() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.shim("clang -O2 -flto=full -fPIE -c next.c").ok();
        same_link(&space, &program("main.o twice.o next.o"));
        assert_eq!(space.real("./recorded").ok().stdout, "43 3\n");
        same_link(&space, "-r main.o twice.o next.o");
        // The partition's object comes last, where all are still linked for their bytes.
        space.write("text.txt", "a text\n");
        for option in ["-b", "--format"] {
            let inputs = format!("main.o twice.o next.o {option} binary text.txt");
            same_link(&space, &format!("-m elf_x86_64 -r {inputs}"));
            let symbols = symbols(&space, "recorded");
            assert!(symbols.iter().any(|line| line == "next T"), "{symbols:?}");
            assert!(!symbols.iter().any(|line| line.contains("regular_o")), "{symbols:?}");
        }
    }
}

#[test]
fn split_lto_units_of_cpp() {
    let class = "struct Shape { virtual int area(int) = 0; virtual ~Shape() {} };\n\
                 Shape *square(); Shape *line();\n";
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.write("shape.h", class);
        let options = "-fsplit-lto-unit -fwhole-program-vtables -fvisibility=hidden \
                       -fno-exceptions -nostdinc++";
        space.compile(
            options,
            &[
                (
                    "main.cpp",
                    "#include \"shape.h\"\nextern \"C\" int printf(const char *, ...);\n\
                     int main() { return printf(\"%d %d\\n\", square()->area(4), line()->area(4)) < 0; }\n",
                ),
                (
                    "square.cpp",
                    "#include \"shape.h\"\nnamespace { struct Square : Shape { \
                     int area(int x) override { return x * x; } }; Square s; }\n\
                     Shape *square() { return &s; }\n",
                ),
                (
                    "line.cpp",
                    "#include \"shape.h\"\nstruct Line : Shape { \
                     int area(int x) override { return x; } };\nstatic Line l;\n\
                     Shape *line() { return &l; }\nvoid operator delete(void *) noexcept {}\n\
                     void operator delete(void *, unsigned long) noexcept {}\n\
                     extern \"C\" void __cxa_pure_virtual() { for (;;) {} }\n\
                     namespace __cxxabiv1 { struct __class_type_info { virtual ~__class_type_info(); }; \
                     struct __si_class_type_info { virtual ~__si_class_type_info(); }; \
                     __class_type_info::~__class_type_info() {} \
                     __si_class_type_info::~__si_class_type_info() {} }\n",
                ),
            ],
        );
        assert_eq!(same_link(&space, &program("main.o square.o line.o")), 3);
        assert_eq!(space.real("./recorded").ok().stdout, "16 4\n");
    }
}

/// The thin link alone knows that a virtual function has one implementation, and only where the option says that
/// nobody else can have another.
#[test]
fn virtual_calls_that_the_whole_program_decides() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.write("shape.h", "struct Shape { virtual int area(int) = 0; };\nShape *any();\n");
        space.compile(
            "-fwhole-program-vtables -fno-split-lto-unit -fno-rtti -fno-exceptions -fno-inline",
            &[
                ("main.cpp", "#include \"shape.h\"\nint main() { return any()->area(4); }\n"),
                (
                    "square.cpp",
                    "#include \"shape.h\"\nextern \"C\" void __cxa_pure_virtual() { for (;;) {} }\n\
                     struct Square : Shape { int area(int x) override; };\n\
                     int Square::area(int x) { return x * x; }\n\
                     static Square square;\nShape *any() { return &square; }\n",
                ),
            ],
        );
        let direct = |option: &str| {
            assert_eq!(same_link(&space, &program(&format!("{option} main.o square.o"))), 2);
            assert_eq!(space.real("./recorded").end().end(), (Some(16), None));
            let code = space
                .real("llvm-objdump -d --no-show-raw-insn --disassemble-symbols=main recorded");
            code.ok().stdout.contains("Square")
        };
        assert!(direct("--lto-whole-program-visibility"), "LLVM {llvm}");
        assert!(!direct("--no-lto-whole-program-visibility"), "LLVM {llvm}");
    }
}

/// Objects that clang made without thinshim take the options of the link line.
#[test]
fn objects_without_a_record() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        three(&space);
        space.real("clang -O2 -flto=thin -fPIE -c twice.c").ok();
        assert!(space.read("twice.o").starts_with(b"BC"));
        assert_eq!(same_link(&space, &program("main.o twice.o next.o")), 3);
        // What -r says nothing of is nobody's guess.
        space.strict("ld.lld -r main.o twice.o -o out").fails(120, &["twice.o", "THINSHIM_STRICT"]);
        assert!(!space.exists("out"));
    }
}

/// What was compiled for a fixed address, in a link that has none.
#[test]
fn objects_for_a_fixed_address() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile("-fno-pie", &[MAIN, TWICE]);
        space.compile(
            "-fno-pic",
            &[(
                "next.c",
                "static int count; int *counter = &count;\nint next(void) { return ++*counter; }\n",
            )],
        );
        let line = format!("ld.lld {}", program("-z text main.o twice.o next.o"));
        // Whatever code there is, a program comes of it in-process.
        space.real(&format!("{line} -o reference")).ok();
        space.strict(&format!("{line} -o recorded")).ok();
        oracle::same_behaviour(&space, "recorded");
        assert_eq!(space.real("./recorded").ok().stdout, "43 3\n");
    }
}

/// A lone symbol that nobody defines: lld's own words, with the user's names in them.
#[test]
fn an_undefined_symbol_is_told_of_the_module() {
    let space = TestSpace::new();
    three(&space);
    let args = program("main.o twice.o");
    let reference = space.real(&format!("ld.lld {args} -o reference")).end();
    let outcome = space
        .strict(&format!("ld.lld {args} -o out"))
        .fails(1, &["undefined symbol: next", "main.o:(main)"]);
    assert!(!outcome.stderr.contains(".thinshim"), "{outcome}");
    assert!(reference.stderr.contains("undefined symbol: next"), "{reference}");
    assert!(!space.exists("out"));
    space.is_clean();
}

#[test]
fn maps_and_dependencies_speak_of_modules() {
    let space = TestSpace::new();
    three(&space);
    space.real("llvm-ar rcs libnext.a next.o").ok();
    let args = program("main.o twice.o libnext.a");
    let options = "-Map=out.map --dependency-file=out.d --cref";
    space.strict(&format!("ld.lld {args} {options} -o out")).ok();
    for file in ["out.map", "out.d"] {
        let text = space.text(file);
        for module in ["main.o", "twice.o"] {
            assert!(text.contains(module), "no {module} in {file}: {text}");
        }
        assert!(!text.contains(".thinshim"), "{file}: {text}");
    }
    assert!(space.text("out.d").contains(" libnext.a"), "{}", space.text("out.d"));
    assert!(space.text("out.map").contains("libnext.a(next.o)"), "{}", space.text("out.map"));
}

#[test]
fn the_output_may_be_a_device_or_a_symlink() {
    let space = TestSpace::new();
    three(&space);
    let args = program("main.o twice.o next.o");
    space.strict(&format!("ld.lld {args} -o /dev/null")).ok();
    let null = std::fs::metadata("/dev/null").expect("a device");
    assert!(std::os::unix::fs::FileTypeExt::is_char_device(&null.file_type()));
    assert!(!std::path::Path::new("/dev/.null.thinshim").exists());

    for tool in ["reference", "out"] {
        space.write(&format!("there/{tool}"), "old");
        std::os::unix::fs::symlink(format!("there/{tool}"), space.path(tool)).expect("a link");
    }
    space.real(&format!("ld.lld {args} -o reference")).ok();
    space.strict(&format!("ld.lld {args} -o out")).ok();
    assert_eq!(space.path("out").is_symlink(), space.path("reference").is_symlink());
    assert_eq!(space.text("there/out") == "old", space.text("there/reference") == "old");
    oracle::same_behaviour(&space, "out");
    space.is_clean();
}

/// What is short for the user may be long in words: more than this stack's kernel takes.
#[test]
fn a_long_command_line() {
    let space = TestSpace::new();
    three(&space);
    space.write("empty.c", "");
    space.real("clang -c empty.c -o empty.o").ok();
    let directory = format!("{}/{}", "a".repeat(200), "b".repeat(200));
    let mut words = String::from("-r main.o twice.o next.o");
    for number in 0..400 {
        let name = format!("{directory}/{number}.o");
        space.write(&name, space.read("empty.o"));
        words.push('\n');
        words.push_str(&name);
    }
    space.write("words", words);
    for warm in ["on", "off"] {
        let script = format!("ulimit -s 512; exec {THINSHIM} ld.lld @words -o out");
        let run = space.real("sh -c").args([script]).env("THINSHIM_STRICT", "1");
        let run = run.env("THINSHIM_SMALL", "0").env("THINSHIM_WARM", warm);
        run.env("THINSHIM_REPORT", "report").ok();
        assert_eq!(space.report()["backends_run"], 3);
        space.strict("ld.lld -r main.o twice.o next.o -o short").ok();
        assert_eq!(symbols(&space, "out"), symbols(&space, "short"));
    }
}
