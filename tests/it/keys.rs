//! One change each that only one part of the cache's key tells: without that part the link would
//! be stale, and these tests would fail.

use crate::cache::{OBJECTS, link, link_with};
use crate::links::{MAIN, NEXT, TWICE};
use crate::oracle::program;
use crate::space::TestSpace;

/// Compiles a C file to a module without a hash, as `opt` writes it and other languages'
/// compilers may: its index then tells nothing of the bytes of the code.
fn without_hash(space: &TestSpace, (name, text): (&str, &str)) {
    space.write(name, text);
    space.real(&format!("clang -O2 -fPIE -S -emit-llvm {name} -o text.ll")).ok();
    let object = name.replace(".c", ".o");
    space.real(&format!("opt -module-summary text.ll -o {object}")).ok();
}

/// The individual indexes of a link of the three.
fn indexes(space: &TestSpace, args: &str) -> Vec<Vec<u8>> {
    space.real(&format!("ld.lld {args} --thinlto-index-only -o unused")).ok();
    OBJECTS.split(' ').map(|object| space.read(format!("{object}.thinlto.bc"))).collect()
}

/// Another constant in `next.c`, and nothing that an index would tell.
fn edit_silently(space: &TestSpace, args: &str) {
    let before = indexes(space, args);
    without_hash(space, (NEXT.0, &NEXT.1.replace("++count", "count += 2")));
    assert!(indexes(space, args) == before, "the indexes tell of the edit");
}

fn three_without_hash() -> TestSpace {
    let space = TestSpace::new().cached();
    for source in [MAIN, TWICE, NEXT] {
        without_hash(&space, source);
    }
    space
}

#[test]
fn bytes_of_the_module() {
    let space = three_without_hash();
    let args = format!("-mllvm -import-instr-limit=0 {}", program(OBJECTS));
    assert_eq!(link_with(&space, &args, |run| run), (3, 0));
    edit_silently(&space, &args);
    assert_eq!(link_with(&space, &args, |run| run), (1, 2));
    assert_eq!(space.real("./out").ok().stdout, "45 6\n");
}

#[test]
fn bytes_of_imported_modules() {
    let space = three_without_hash();
    let args = program(OBJECTS);
    assert_eq!(link_with(&space, &args, |run| run), (3, 0));
    edit_silently(&space, &args);
    assert_eq!(link_with(&space, &args, |run| run), (3, 0));
}

/// A function that none of the modules calls: whether it stays, the index alone tells.
const LONELY: &str = "int lonely(void) { return 9; }\n";

fn three_and_lonely() -> TestSpace {
    let space = TestSpace::new().cached();
    space.compile("", &[MAIN, TWICE, (NEXT.0, &format!("{}{LONELY}", NEXT.1))]);
    space
}

/// The same modules, of which another object needs more than before.
#[test]
fn bytes_of_the_index() {
    let space = three_and_lonely();
    let native = |text: &str| {
        space.write("native.c", text);
        space.real("clang -O2 -fPIE -c native.c -o native.o").ok();
    };
    native("int unused;\n");
    let args = program(&format!("{OBJECTS} native.o"));
    assert_eq!(link_with(&space, &args, |run| run), (3, 0));
    native("int lonely(void);\nint unused(void) { return lonely(); }\n");
    assert_eq!(link_with(&space, &args, |run| run), (1, 2));
    let why = space.shim("cache why out").ok().stdout;
    assert!(why.contains("next.o: compiled; changed: index\n"), "{why}");
}

/// Options of the linker: one that its back ends get, and one that only the index tells.
#[test]
fn options_of_the_linker() {
    let space = three_and_lonely();
    link(&space);
    let args = program(OBJECTS);
    let with = |option: &str| link_with(&space, &format!("{option} {args}"), |run| run);
    assert_eq!(with("-mllvm -align-all-functions=6"), (3, 0));
    let why = space.shim("cache why out").ok().stdout;
    assert!(why.contains("next.o: compiled; changed: options\n"), "{why}");
    assert_eq!(with(""), (0, 3));
    assert!(with("--export-dynamic").0 > 0);
    let why = space.shim("cache why out").ok().stdout;
    assert!(why.contains("next.o: compiled; changed: index\n"), "{why}");
    assert_eq!(with(""), (0, 3));
}
