//! The steps of a link as make runs them, one by one.

use std::fs;
use std::path::Path;

use crate::space::{NEWEST, Outcome, THINSHIM, TestSpace, bin};

/// What a makefile has to know: the names that the steps give to their files.
const MAKEFILE: &str = "\
PARTS = main.o twice.o next.o data.o
NATIVES = $(PARTS:.o=.thinlto-native.o)
out.o: out.thinlto-index $(NATIVES)
	$(SHIM) native-link --list $< -- $(LD) -r -o $@ $(PARTS)
out.thinlto-index: $(PARTS)
	$(SHIM) thin-link --list $@ -- $(LD) -r -o out.o $(PARTS)
$(PARTS:=.thinlto.bc): out.thinlto-index
	+@:
%.thinlto-native.o: %.o %.o.thinlto.bc
	$(SHIM) back-end $< --index $<.thinlto.bc -o $@ --dependency-file .$*.d -- $(LD) -r
%.o: %.c
	$(CC) -O2 -flto=thin -c -o $@ $<
%.o: %.S
	$(CC) -c -o $@ $<
-include $(wildcard .*.d)
";
const MAIN: &str = "int twice(int); int next(int); extern const char data[];\n\
    int printf(const char *, ...);\n\
    int main(void) { printf(\"%d %c\\n\", next(twice(20)), data[0]); return 0; }\n";
const TWICE: &str = "int twice(int x) { return 2 * x; }\n";
const NEXT: &str = "int next(int x) { return x + 1; }\n";
const DATA: &str = "\t.section .rodata\n\t.globl data\ndata:\t.ascii \"d\"\n\
    \t.section .note.GNU-stack,\"\",@progbits\n";

fn project() -> TestSpace {
    let space = TestSpace::new();
    for (name, text) in [
        ("Makefile", MAKEFILE),
        ("main.c", MAIN),
        ("twice.c", TWICE),
        ("next.c", NEXT),
        ("data.S", DATA),
    ] {
        space.write(name, text);
    }
    space
}

fn make(space: &TestSpace, flags: &str) -> Outcome {
    space
        .real(&format!("make {flags}"))
        .args([format!("SHIM={THINSHIM}"), format!("CC={THINSHIM} clang")])
        .args(["LD=thinshim ld.lld"])
        .env("THINSHIM_REPORT", space.path("report"))
        .end()
}

/// Runs make, and counts the back ends that it ran.
#[track_caller]
fn back_ends(space: &TestSpace, flags: &str) -> u64 {
    let _ = fs::remove_file(space.path("report"));
    let outcome = make(space, flags);
    assert!(outcome.status.success(), "{outcome}");
    if !space.exists("report") {
        return 0;
    }
    let lines = space.text("report");
    lines
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert!(line["fallback"].is_null(), "{line}");
            let run = line["backends_run"].as_u64().expect("a number");
            let seconds = line["backends_s"].as_f64().expect("a number");
            assert!(run == 0 || seconds > 0.0, "{line}");
            run
        })
        .sum()
}

fn runs(space: &TestSpace) -> String {
    space.real("clang -no-pie -o prog out.o").ok();
    space.real("./prog").ok().stdout
}

/// Lets a file be newer than all that was made of it, by a clock that need not have ticked.
fn renew(space: &TestSpace, name: &str) {
    let file = fs::OpenOptions::new().append(true).open(space.path(name)).expect(name);
    let later = std::time::SystemTime::now() + std::time::Duration::from_millis(20);
    file.set_modified(later).expect("a time stamp");
    while std::time::SystemTime::now() <= later {
        std::thread::yield_now();
    }
}

#[test]
fn the_steps_give_what_the_link_gives() {
    let space = project();
    assert_eq!(back_ends(&space, "-j3"), 3);
    assert_eq!(runs(&space), "41 d\n");
    space.strict("ld.lld -r -o one.o main.o twice.o next.o data.o").ok();
    assert_eq!(space.read("out.o"), space.read("one.o"));
    assert_eq!(space.text("out.thinlto-index"), "main.o\ntwice.o\nnext.o\n");
    assert_eq!(space.read("data.thinlto-native.o"), space.read("data.o"));
}

/// make drops the `./` of its prerequisites; Kbuild has it in the lists of an external module's parts.
#[test]
fn a_module_may_have_another_name_than_in_the_index() {
    let space = project();
    space.write("Makefile", MAKEFILE.replace("out.o $(PARTS)", "out.o $(PARTS:%=./%)"));
    space.write("Makefile", space.text("Makefile").replace("$@ $(PARTS)", "$@ $(PARTS:%=./%)"));
    assert_eq!(back_ends(&space, ""), 3);
    assert_eq!(space.text("out.thinlto-index"), "./main.o\n./twice.o\n./next.o\n");
    assert_eq!(runs(&space), "41 d\n");
    assert_eq!(back_ends(&space, ""), 0);
    // Clang itself would take the module for one to import from, and write an empty object.
    space
        .shim("back-end main.o --index next.o.thinlto.bc -o main.thinlto-native.o -- ld.lld -r")
        .fails(120, &["main.o", "next.o.thinlto.bc", "thin-link"]);
}

#[test]
fn only_what_changed_is_compiled() {
    let space = project();
    assert_eq!(back_ends(&space, ""), 3);
    let quiet = |flags: &str| {
        let outcome = make(&space, flags);
        assert!(outcome.status.success(), "{outcome}");
        assert!(!outcome.stdout.contains(THINSHIM), "{outcome}");
    };
    quiet("");
    quiet("-n");
    assert!(make(&space, "-q").status.success());

    // The same bytes anew: the links are made again, and no back end runs.
    renew(&space, "twice.c");
    assert_eq!(back_ends(&space, ""), 0);
    quiet("");

    // What main imports.
    space.write("twice.c", TWICE.replace('2', "3"));
    renew(&space, "twice.c");
    let foretold = make(&space, "-n");
    assert!(foretold.stdout.contains("twice.thinlto-native.o"), "{foretold}");
    assert_eq!(space.text("twice.c"), TWICE.replace('2', "3"));
    assert_eq!(back_ends(&space, ""), 2);
    assert_eq!(runs(&space), "61 d\n");
    quiet("");

    // Nobody imports main, and what it gives to others stays the same.
    space.write("main.c", MAIN.replace("%d %c", "%d, %c"));
    renew(&space, "main.c");
    assert_eq!(back_ends(&space, ""), 1);
    assert_eq!(runs(&space), "61, d\n");

    // An object that is not what it was is made again.
    space.write("next.thinlto-native.o", "");
    renew(&space, "next.c");
    assert_eq!(back_ends(&space, ""), 1);
    assert_eq!(runs(&space), "61, d\n");
}

#[test]
fn files_that_assembly_opens_are_prerequisites() {
    let space = project();
    space.write("blob", "d");
    space.write(
        "next.c",
        "int next(int x) { return x + 1; }\n__asm__(\".globl data\\ndata: .incbin \\\"blob\\\"\");\n",
    );
    let makefile = MAKEFILE.replace(" data.o", "");
    space.write("Makefile", makefile);
    assert_eq!(back_ends(&space, ""), 3);
    assert_eq!(runs(&space), "41 d\n");
    space.write("blob", "e");
    renew(&space, "blob");
    assert_eq!(back_ends(&space, ""), 1);
    assert_eq!(runs(&space), "41 e\n");
    // A prerequisite that is gone is no reason to stop before it is missed.
    space.write("next.c", NEXT.replace("x + 1", "x + 2"));
    renew(&space, "next.c");
    space.remove("blob");
    space.write("main.c", MAIN.replace("data[0]", "'f'"));
    renew(&space, "main.c");
    back_ends(&space, "");
    assert_eq!(runs(&space), "42 f\n");
}

#[test]
fn links_that_share_objects() {
    let space = project();
    assert_eq!(back_ends(&space, ""), 3);
    for tag in ["one", "two"] {
        let other = if tag == "one" { "twice.o" } else { "next.o" };
        let list = format!("{tag}.thinlto-index");
        space
            .strict(&format!(
                "thin-link --list {list} --tag {tag} -- ld.lld -r -o {tag}.o main.o {other}"
            ))
            .ok();
        for module in ["main", other.trim_end_matches(".o")] {
            space
                .strict(&format!(
                    "back-end {module}.o --index {module}.o.{tag}.thinlto.bc \
                     -o {module}.{tag}.thinlto-native.o -- ld.lld -r"
                ))
                .ok();
        }
        space
            .strict(&format!(
                "native-link --list {list} --tag {tag} -- ld.lld -r -o {tag}.o main.o {other}"
            ))
            .ok();
        space.strict(&format!("ld.lld -r -o reference.o main.o {other}")).ok();
        assert_eq!(space.read(format!("{tag}.o")), space.read("reference.o"), "{tag}");
    }
}

#[test]
fn members_of_thin_archives_stand_beside_themselves() {
    let space = project();
    space.compile(
        "-fno-pie",
        &[
            ("main.c", MAIN),
            ("lib/twice.c", TWICE),
            ("lib/next.c", NEXT),
            ("lib/none.c", "int none;"),
        ],
    );
    space.write("lib/data.c", "const char data[] = \"d\";");
    space.real("clang -c lib/data.c -o lib/data.o").ok();
    space.real("llvm-ar rcsT lib.a lib/twice.o lib/next.o lib/data.o lib/none.o").ok();
    let link = "-- ld.lld -r -o out.o main.o --start-group lib.a --end-group";
    space.strict(&format!("thin-link --list list {link}")).ok();
    assert_eq!(space.text("list"), "main.o\nlib/twice.o\nlib/next.o\n");
    assert_eq!(space.read("lib/none.o.thinlto.bc"), b"");
    for module in space.text("list").lines().map(|line| line.trim_end_matches(".o")) {
        space
            .strict(&format!("back-end {module}.o --index {module}.o.thinlto.bc -o {module}.thinlto-native.o -- ld.lld -r"))
            .ok();
    }
    space.strict(&format!("native-link --list list {link}")).ok();
    assert_eq!(runs(&space), "41 d\n");

    // Members that are no files of their own have no place to stand.
    space.real("llvm-ar rcs fat.a lib/twice.o").ok();
    space
        .strict("thin-link --list list -- ld.lld -r -o out.o main.o fat.a")
        .fails(120, &["fat.a", "thin one"]);
}

#[test]
fn a_list_of_another_link_is_refused() {
    let space = project();
    assert_eq!(back_ends(&space, ""), 3);
    let link = "native-link --list out.thinlto-index -- ld.lld -r -o out.o";
    space.shim(&format!("{link} main.o twice.o")).fails(120, &["next.o", "thin-link"]);
    space.write("out.thinlto-index", "main.o\ntwice.o\n");
    space.shim(&format!("{link} main.o twice.o next.o")).fails(120, &["next.o", "thin-link"]);
    space.write("out.thinlto-index", "main.o\n");
    space.write("main.thinlto-native.o", "");
    space.shim(&format!("{link} main.o")).fails(120, &["main.thinlto-native.o"]);
}

#[test]
fn a_run_does_not_take_back_ends_for_links() {
    let space = project();
    let make = space.shim("run -j2 -- make").args([format!("SHIM={THINSHIM}")]);
    let outcome = make.args([format!("CC={THINSHIM} clang"), "LD=ld.lld".to_owned()]).ok();
    for line in [
        "thinshim: 1 ThinLTO link: 1 distributed, 0 small (left to lld), 0 fallbacks\n",
        "thinshim: 3 back ends called by the build: 3 run, 0 from the cache\n",
    ] {
        assert!(outcome.stderr.contains(line), "{outcome}");
    }
    assert!(!outcome.stderr.contains("jobserver:"), "{outcome}");
}

/// Objects without a record, in a link that says nothing of their options.
#[test]
fn what_cannot_be_distributed_is_linked_in_process() {
    let space = project();
    let make = |strict: &str| {
        let clang = bin(NEWEST).join("clang");
        space
            .real("make")
            .args([format!("SHIM={THINSHIM}"), format!("CC={}", clang.display())])
            .args(["LD=ld.lld"])
            .env("THINSHIM_STRICT", strict)
            .env("THINSHIM_REPORT", space.path("report"))
    };
    make("1").fails(2, &["no record", "THINSHIM_STRICT"]);
    assert!(!space.exists("out.thinlto-index"));
    make("0").ok();
    assert_eq!(runs(&space), "41 d\n");
    assert!(space.report()["fallback"].is_string(), "{}", space.report());
}

#[test]
fn clang_s_words_and_status_go_through() {
    let space = project();
    space.write("next.c", "__asm__(\"no_such_instruction\");\nint next(int x) { return x + 1; }\n");
    let outcome = make(&space, "");
    assert!(
        !outcome.status.success() && outcome.stderr.contains("no_such_instruction"),
        "{outcome}"
    );
    assert!(!space.exists("next.thinlto-native.o") && !space.exists(".next.d"), "{outcome}");
    assert!(Path::new(&space.path("twice.o")).exists());
    space.shim("back-end a.o --index none -o b.o -- ld.lld -r").fails(120, &["none", "thin-link"]);
    space.shim("back-end a.o --index none -o b.o -- gcc -r").fails(120, &["ld.lld"]);
    let list = space.shim("native-link --list none -- ld.lld -r twice.o -o b.o");
    list.fails(120, &["native link", "none", "thin-link"]);
}

/// Nothing takes the place of a device, and a back end has no use for one.
#[test]
fn devices_stay_what_they_are() {
    let space = project();
    assert_eq!(back_ends(&space, "-j3"), 3);
    let back_end = |output: &str| {
        let words = "main.o --index main.o.thinlto.bc --dependency-file listed -o";
        space.shim(&format!("back-end {words} {output} -- ld.lld -r"))
    };
    let fifo = space.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    back_end("fifo").fails(120, &["fifo", "no regular file"]);
    space.write("main.o.thinlto.bc", "");
    back_end("fifo").fails(120, &["fifo", "no regular file"]);
    let kind = fs::symlink_metadata(&fifo).expect("it is there").file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind));
    space.remove("out.thinlto-index");
    assert_eq!(back_ends(&space, "-j3"), 0);
    for _ in 0..2 {
        std::os::unix::fs::symlink("/dev/null", space.path("listed")).expect("a link");
        back_end("main.native.o").ok();
        assert!(space.path("listed").is_symlink());
        space.remove("listed");
    }
    space.remove("fifo");
}
