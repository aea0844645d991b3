//! The oracle: the same link by the real linker, in one process, from the same objects.

use std::fs;

use object::{Object, ObjectSection};

use crate::space::{Outcome, Run, TestSpace};

/// Before and after the objects of a position-independent program.
pub(crate) const PROGRAM: (&str, &str) = (
    "-pie --hash-style=gnu --eh-frame-hdr -m elf_x86_64 -dynamic-linker /lib64/ld-linux-x86-64.so.2 \
     /usr/lib/x86_64-linux-gnu/Scrt1.o /usr/lib/x86_64-linux-gnu/crti.o \
     -L/usr/lib/x86_64-linux-gnu",
    "-lc /usr/lib/x86_64-linux-gnu/crtn.o",
);

/// A program's link line.
pub(crate) fn program(objects: &str) -> String {
    format!("{} {objects} {}", PROGRAM.0, PROGRAM.1)
}

/// Does a link three times: in-process, distributed with the options that in-process ThinLTO has,
/// and distributed with the recorded ones; both must be the same link as the first. `args` has no
/// `-o`.
///
/// Returns the number of modules.
#[track_caller]
pub(crate) fn same_link(space: &TestSpace, args: &str) -> usize {
    let count = same_code(space, args);
    space.strict(&format!("ld.lld {args} -o recorded")).env("THINSHIM_REPORT", "report").ok();
    let report = space.report();
    assert_eq!(report["modules"], count, "{report}");
    assert_eq!(report["backends_run"], count, "{report}");
    assert_eq!(report["small"], false, "{report}");
    assert!(report["fallback"].is_null(), "{report}");
    assert_eq!(symbols(space, "recorded"), symbols(space, "reference"));
    if !args.contains("-r ") && !args.contains("-shared") {
        same_behaviour(space, "recorded");
        same_behaviour(space, "distributed");
    }
    count
}

/// The half of [`same_link`] that compares code: byte for byte, each native object.
#[track_caller]
pub(crate) fn same_code(space: &TestSpace, args: &str) -> usize {
    same_code_with(space, args, "link")
}

/// As [`same_code`], with this `THINSHIM_OPTIONS`.
#[track_caller]
pub(crate) fn same_code_with(space: &TestSpace, args: &str, options: &str) -> usize {
    let line = format!("ld.lld {args}");
    same_code_by(space, &line, "--lto-obj-path=in-process/o", |run| {
        run.env("THINSHIM_OPTIONS", options)
    })
}

/// As [`same_code`], for a link by any command line; `objects` makes lld write its native ones to `in-process/o`.
/// `with` says what else is to hold.
#[track_caller]
pub(crate) fn same_code_by(
    space: &TestSpace,
    line: &str,
    objects: &str,
    with: impl Fn(Run) -> Run,
) -> usize {
    for directory in ["in-process", "kept"] {
        let _ = fs::remove_dir_all(space.path(directory));
    }
    fs::create_dir(space.path("in-process")).expect("a directory");
    with(space.real(&format!("{line} -o reference {objects}"))).ok();
    let run = space.strict(&format!("{line} -o distributed")).env("THINSHIM_OPTIONS", "link");
    with(run.env("THINSHIM_KEEP", "kept")).ok();
    let modules = space.text("kept/modules");
    let modules: Vec<&str> = modules.lines().collect();
    for (at, module) in modules.iter().enumerate() {
        let number = at + 1;
        let reference = space.read(format!("in-process/o{number}"));
        let distributed = space.read(format!("kept/native/{number:04}.o"));
        assert!(
            comparable(&reference) == comparable(&distributed),
            "{module} (number {number}) has other code, in {}",
            space.root().display()
        );
    }
    if space.exists("kept/regular.o") {
        assert!(
            comparable(&space.read("in-process/o")) == comparable(&space.read("kept/regular.o")),
            "the regular-LTO partition has other code, in {}",
            space.root().display()
        );
    }
    let next = format!("in-process/o{}", modules.len() + 1);
    assert!(!space.exists(&next), "in-process has more modules than {modules:?}");
    assert_eq!(symbols(space, "distributed"), symbols(space, "reference"));
    modules.len()
}

/// Does a program's link in-process and distributed: the same names of symbols, and the same behaviour. For what
/// code of other bytes comes of: in position-independent code a back end loads the address of a symbol that it does
/// not import from the GOT, which the linker turns into the instruction that in-process ThinLTO writes.
#[track_caller]
pub(crate) fn same_program(space: &TestSpace, args: &str) {
    space.real(&format!("ld.lld {args} -o reference")).ok();
    space.strict(&format!("ld.lld {args} -o recorded")).ok();
    let names = |file| -> Vec<String> {
        let mut names: Vec<String> = symbols(space, file)
            .iter()
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("recorded"), names("reference"));
    same_behaviour(space, "recorded");
}

/// An object less the order of `.llvm_addrsig`: its numbers are sorted, and stand at the end.
fn comparable(object: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let file = object::File::parse(object).expect("an ELF object");
    let range = file.section_by_name(".llvm_addrsig").and_then(|section| section.file_range());
    let Some((start, len)) = range else { return (object.to_vec(), Vec::new()) };
    let range =
        usize::try_from(start).expect("small")..usize::try_from(start + len).expect("small");
    let mut rest = object.to_vec();
    // ULEB128: the last byte of each number has no high bit.
    let mut numbers: Vec<Vec<u8>> = object[range.clone()]
        .split_inclusive(|byte| byte & 0x80 == 0)
        .map(<[u8]>::to_vec)
        .collect();
    numbers.sort();
    rest[range].fill(0);
    (rest, numbers)
}

/// Symbols with their kinds, without their addresses.
pub(crate) fn symbols(space: &TestSpace, file: &str) -> Vec<String> {
    let listed = space.real(&format!("llvm-nm --format=posix {file}")).ok();
    let mut symbols: Vec<String> = listed
        .stdout
        .lines()
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    symbols.sort();
    symbols
}

#[track_caller]
pub(crate) fn same_behaviour(space: &TestSpace, program: &str) -> Outcome {
    let reference = space.real("./reference").end();
    let outcome = space.real(&format!("./{program}")).end();
    assert_eq!(
        (outcome.end(), &outcome.stdout, &outcome.stderr),
        (reference.end(), &reference.stdout, &reference.stderr)
    );
    outcome
}
