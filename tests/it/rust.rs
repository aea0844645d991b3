//! Links of rustc's bitcode beside clang's: objects that clang did not make, without a record.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::links::{MAIN, NEXT, TWICE, three};
use crate::oracle::{self, program, same_link, symbols};
use crate::space::{NEWEST, Run, THINSHIM, TestSpace, bin};

/// In place of `twice.c`.
const RUST_TWICE: &str = "#![no_std]\n\
    #[panic_handler] fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }\n\
    unsafe extern \"C\" { fn next() -> i32; }\n\
    #[unsafe(no_mangle)] pub extern \"C\" fn twice(x: i32) -> i32 { x * 2 + unsafe { next() } - 1 }\n";

const RUST_MAIN: &str = "unsafe extern \"C\" { fn next() -> i32; fn twice(x: i32) -> i32; }\n\
    #[unsafe(no_mangle)] pub extern \"C\" fn sum() -> i32 {\n\
    (0..4).map(|x| unsafe { twice(x) }).sum::<i32>() }\n\
    fn main() {\n\
    let mut words = vec![unsafe { next() }.to_string(), format!(\"{}\", sum())];\n\
    words.sort();\n\
    std::panic::set_hook(Box::new(|_| ()));\n\
    println!(\"{}\", words.join(\" \"));\n\
    let caught = std::panic::catch_unwind(|| panic!(\"{}\", words.len()));\n\
    std::process::exit(i32::from(caught.is_err()) * 7);\n}\n";

/// `None` where there is none whose bitcode the newest lld reads.
fn rustc() -> Option<PathBuf> {
    let rustc = Path::new(env!("CARGO")).with_file_name("rustc");
    let told = std::process::Command::new(&rustc).arg("-vV").output().ok()?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let llvm = told.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    let major: u32 = llvm.split('.').next()?.parse().ok()?;
    if major > NEWEST {
        assert!(std::env::var_os("CI").is_none(), "rustc is of LLVM {major}");
        eprintln!("skipped: rustc is of LLVM {major}");
        return None;
    }
    Some(rustc)
}

fn run(space: &TestSpace, rustc: &Path, words: &str) -> Run {
    space.run(rustc).args(["-O", "-Clinker-plugin-lto"]).args(words.split_whitespace())
}

/// Functions of either language in the other's.
#[test]
fn a_static_library() {
    let Some(rustc) = rustc() else { return };
    let space = TestSpace::new();
    three(&space);
    space.write("twice.rs", RUST_TWICE);
    let compile =
        |words: &str| run(&space, &rustc, &format!("-Cpanic=abort twice.rs {words}")).ok();
    compile("--crate-type=lib --emit=obj -o twice.o");
    assert!(space.read("twice.o").starts_with(b"BC"));
    assert_eq!(same_link(&space, &program("main.o twice.o next.o")), 3);
    assert_eq!(space.real("./recorded").ok().stdout, "43 3\n");
    compile("--crate-type=staticlib -o libtwice.a");
    assert!(same_link(&space, &program("main.o libtwice.a next.o")) >= 3);
    assert_eq!(space.real("./recorded").ok().stdout, "43 3\n");
    space.is_clean();
}

/// rustc calls clang, and that thinshim: with rlibs, version scripts and the standard library.
#[test]
fn rustc_as_the_driver() {
    let Some(rustc) = rustc() else { return };
    let space = TestSpace::new();
    space.compile("-fPIC", &[MAIN, TWICE, NEXT]);
    space.write("main.rs", RUST_MAIN);
    std::fs::create_dir(space.path("shim")).expect("a directory");
    symlink(THINSHIM, space.path("shim/clang")).expect("a link");
    let link = |clang: PathBuf, words: &str| {
        run(&space, &rustc, &format!("main.rs -Clink-arg=-fuse-ld=lld {words}"))
            .args([format!("-Clinker={}", clang.display())])
            .args(["-Clink-arg=twice.o", "-Clink-arg=next.o"])
    };
    for (kind, output) in [("--crate-type=bin", ""), ("--crate-type=cdylib", ".so")] {
        let [reference, recorded] = ["reference", "recorded"].map(|name| format!("{name}{output}"));
        link(bin(NEWEST).join("clang"), &format!("{kind} -o {reference}")).ok();
        link(space.path("shim/clang"), &format!("{kind} -o {recorded}"))
            .env("THINSHIM_STRICT", "1")
            .env("THINSHIM_SMALL", "0")
            .env("THINSHIM_REPORT", space.path("report"))
            .ok();
        let report = space.report();
        assert!(report["backends_run"].as_u64() >= Some(3), "{report}");
        assert_eq!(symbols(&space, &recorded), symbols(&space, &reference), "{kind}");
        let exports = |file: &str| {
            let listed = space.real(&format!("llvm-nm -D --defined-only --format=posix {file}"));
            let listed = listed.ok().stdout;
            listed
                .lines()
                .filter_map(|line| line.split(' ').next().map(str::to_owned))
                .collect::<Vec<_>>()
        };
        assert_eq!(exports(&recorded), exports(&reference), "{kind}");
    }
    let said = oracle::same_behaviour(&space, "recorded");
    assert_eq!((said.status.code(), said.stdout.as_str()), (Some(7), "1 22\n"), "{said}");
}
