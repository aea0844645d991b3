//! Who may see a symbol, where modules say different things of it: as in-process.

use crate::oracle::{program, symbols};
use crate::space::{TestSpace, llvms};

/// It has other words for the symbols of [`DEFINES`].
const DECLARES: &str = "#define HIDDEN __attribute__((visibility(\"hidden\")))\n\
    extern HIDDEN int state, unused;\nint next(void) HIDDEN;\nint gone(void) HIDDEN;\n\
    extern __attribute__((visibility(\"protected\"))) int guarded;\n\
    HIDDEN __attribute__((weak)) int often(void) { return 3; }\n\
    int use(void) { return state + next() + guarded + often() + (0 && unused && gone()); }\n";
const DEFINES: &str = "int state = 5, unused, guarded, open;\n\
    int next(void) { return ++open; }\nint gone(void) { return 4; }\n\
    __attribute__((weak)) int often(void) { return 3; }\n\
    void set(int to) { state = to; guarded = open = to + often(); }\n";

/// Names with how visible they are, of symbols that others may use.
fn visible(space: &TestSpace, file: &str) -> Vec<String> {
    let listed = space.real(&format!("llvm-readelf -sW {file}")).ok();
    let mut found: Vec<String> = listed
        .stdout
        .lines()
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, _, _, _, bind @ ("GLOBAL" | "WEAK"), visibility, _, name] = columns[..] else {
                return None;
            };
            Some(format!("{name} {bind} {visibility}"))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Does a link in-process and distributed.
fn the_same(space: &TestSpace, line: &str) -> Vec<String> {
    space.real(&format!("{line} -o reference")).ok();
    space.strict(&format!("{line} -o out")).env("THINSHIM_SMALL", "0").ok();
    assert_eq!(symbols(space, "out"), symbols(space, "reference"), "{line}");
    let found = visible(space, "out");
    assert_eq!(found, visible(space, "reference"), "{line}");
    found
}

#[test]
fn what_is_hidden_anywhere_is_hidden() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile("-fPIC", &[("declares.c", DECLARES), ("defines.c", DEFINES)]);
        for order in ["declares.o defines.o", "defines.o declares.o"] {
            let exported = the_same(&space, &format!("ld.lld -shared {order}"));
            let has = |symbol: &str| exported.iter().any(|name| name.starts_with(symbol));
            assert!(
                has("set ") && has("guarded ") && !has("state ") && !has("next "),
                "{exported:?}"
            );
            let relocatable = the_same(&space, &format!("ld.lld -r {order}"));
            assert!(relocatable.contains(&"state GLOBAL HIDDEN".into()), "{relocatable:?}");
            assert!(relocatable.contains(&"guarded GLOBAL PROTECTED".into()), "{relocatable:?}");
        }
        space.is_clean();
    }
}

/// What nobody takes out of its archive says nothing.
#[test]
fn archives_of_both() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        space.compile(
            "-fPIC",
            &[
                ("declares.c", DECLARES),
                ("defines.c", DEFINES),
                ("user.c", "void set(int); void user(void) { set(1); }\n"),
                (
                    "both.c",
                    "void set(int); int use(void); int both(void) { set(1); return use(); }\n",
                ),
            ],
        );
        space.real("llvm-ar rc lib.a declares.o defines.o").ok();
        let exported = the_same(&space, "ld.lld -shared user.o lib.a");
        assert!(exported.contains(&"state GLOBAL DEFAULT".into()), "{exported:?}");
        let exported = the_same(&space, "ld.lld -shared both.o lib.a");
        assert!(!exported.contains(&"state GLOBAL DEFAULT".into()), "{exported:?}");
        the_same(&space, "ld.lld -shared --exclude-libs=lib.a both.o lib.a");
        the_same(&space, "ld.lld -shared --start-lib declares.o defines.o --end-lib both.o");
        space.is_clean();
    }
}

/// One of them is for regular LTO.
#[test]
fn regular_lto_beside_thinlto() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        let compile = |name: &str, text: &str, kind: &str, output: &str| {
            space.write(name, text);
            space.shim(&format!("clang -O2 -fPIC {kind} -c {name} -o {output}")).ok();
        };
        for (name, text, to) in [("declares.c", DECLARES, "a"), ("defines.c", DEFINES, "b")] {
            compile(name, text, "-flto=thin", &format!("{to}.thin.o"));
            compile(name, text, "-flto=full", &format!("{to}.full.o"));
        }
        the_same(&space, "ld.lld -shared a.thin.o b.full.o");
        the_same(&space, "ld.lld -shared a.full.o b.thin.o");
        space.is_clean();
    }
}

/// What `--wrap` redirects is as strong as it was: a wrapper comes out of an archive, or is missed.
#[test]
fn wrapped_functions() {
    const OTHER: &str = "int other(int x) { return x; }\n";
    const WRAP: &str =
        "int __real_other(int); int __wrap_other(int x) { return __real_other(x) + 40; }\n";
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm);
        let compile = |name: &str, text: &str, lto: &str, output: &str| {
            space.write(name, text);
            space.shim(&format!("clang -O2 -fPIE {lto} -c {name} -o {output}")).ok();
        };
        compile("other.c", OTHER, "-flto=thin", "other.o");
        compile("other.c", OTHER, "-flto=full", "full.o");
        compile(
            "main.c",
            "int other(int); int main(void) { return other(2); }\n",
            "-flto=thin",
            "main.o",
        );
        compile("wrap.c", WRAP, "-flto=thin", "wrap.o");
        compile("wrap.c", WRAP, "", "native.o");
        compile(
            "weak.c",
            "__attribute__((weak)) int other(int x) { return x + 9; }\n",
            "",
            "weak.o",
        );
        space.real("llvm-ar rc libw.a native.o").ok();
        for (inputs, status) in [
            ("main.o other.o wrap.o", 42),
            ("main.o other.o native.o", 42),
            ("main.o other.o libw.a", 42),
            ("main.o other.o -L. -lw", 42),
            ("main.o other.o --start-lib native.o --end-lib", 42),
            ("main.o full.o libw.a", 42),
            ("weak.o main.o other.o wrap.o", 42),
            ("main.o other.o --defsym=__wrap_other=__real_other", 2),
        ] {
            let line = format!("ld.lld --wrap=other {}", program(inputs));
            space.real(&format!("{line} -o reference")).ok();
            space.strict(&format!("{line} -o out")).env("THINSHIM_SMALL", "0").ok();
            for file in ["reference", "out"] {
                let ran = space.real(&format!("./{file}")).end();
                assert_eq!(ran.status.code(), Some(status), "LLVM {llvm}, {inputs}: {file}");
            }
        }
        let missing = format!("ld.lld --wrap=other {} -o out", program("main.o other.o"));
        let run = space.strict(&missing).env("THINSHIM_SMALL", "0");
        run.fails(1, &["undefined symbol: __wrap_other"]);
    }
}

/// Copies are called what the user knows: in maps, for Make, and in what lld says.
#[test]
fn copies_have_the_users_names() {
    let space = TestSpace::new();
    let more = "int more(void) { return 1; }\n";
    space.compile("-fPIC", &[("declares.c", DECLARES), ("defines.c", DEFINES), ("more.c", more)]);
    let line = "more.o declares.o defines.o";
    let names = "-Map=map --dependency-file=dependencies";
    space.strict(&format!("ld.lld -shared {line} {names} -o out")).env("THINSHIM_SMALL", "0").ok();
    for file in ["map", "dependencies"] {
        let text = space.text(file);
        assert!(text.contains("defines.o") && !text.contains(".thinshim"), "{file}: {text}");
    }
    let made = space.text("dependencies");
    assert!(made.contains("more.o") && made.contains("declares.o"), "{made}");
    let link = format!("-- ld.lld -r {line} -Map=map -o out");
    space.strict(&format!("thin-link --list list {link}")).ok();
    for module in ["more", "declares", "defines"] {
        let files =
            format!("{module}.o --index {module}.o.thinlto.bc -o {module}.thinlto-native.o");
        space.strict(&format!("back-end {files} -- ld.lld -r")).ok();
    }
    space.strict(&format!("native-link --list list {link}")).ok();
    let map = space.text("map");
    assert!(map.contains("defines.thinlto-native.o:(.text") && !map.contains("resolved"), "{map}");
    let of_set = map.lines().skip_while(|line| !line.contains("defines.thinlto-native.o:(.text"));
    assert!(of_set.take(12).any(|line| line.ends_with(" set")), "{map}");
}

/// Objects of 32 bits, and with the other order of bytes.
#[test]
fn other_machines() {
    for target in ["i686", "aarch64", "aarch64_be", "riscv64", "powerpc64le", "s390x"] {
        let space = TestSpace::new();
        let options = format!("--target={target}-linux-gnu -fPIC");
        space.compile(&options, &[("declares.c", DECLARES), ("defines.c", DEFINES)]);
        let found = the_same(&space, "ld.lld -r declares.o defines.o");
        assert!(found.contains(&"state GLOBAL HIDDEN".into()), "{target}: {found:?}");
    }
}

#[test]
fn steps_one_by_one() {
    let space = TestSpace::new();
    space.compile("-fPIC", &[("declares.c", DECLARES), ("defines.c", DEFINES)]);
    let link = "-- ld.lld -r declares.o defines.o -o out";
    space.real("ld.lld -r declares.o defines.o -o reference").ok();
    space.strict(&format!("thin-link --list list {link}")).ok();
    for module in ["declares", "defines"] {
        let files =
            format!("{module}.o --index {module}.o.thinlto.bc -o {module}.thinlto-native.o");
        space.strict(&format!("back-end {files} -- ld.lld -r")).ok();
    }
    let native = space.read("defines.thinlto-native.o");
    space.strict(&format!("native-link --list list {link}")).ok();
    assert_eq!(visible(&space, "out"), visible(&space, "reference"));
    assert!(space.read("defines.thinlto-native.o") == native, "the object was written to");
}
