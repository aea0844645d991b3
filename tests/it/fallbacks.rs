//! Links that are left to in-process ThinLTO: the real linker's files, and a reason.

use crate::links::three;
use crate::oracle::{self, program};
use crate::space::{TestSpace, llvms};

/// lld takes `--reproduce` out of the environment, too: for a link of bitcode the tar file is to hold what the
/// user links, and for others nothing changes.
#[test]
fn a_tar_file_that_the_environment_asks_for() {
    for llvm in llvms() {
        let space = TestSpace::with_llvm(llvm).cached();
        three(&space);
        let line = format!("ld.lld {}", program("main.o twice.o next.o"));
        space.real(&format!("{line} -o reference")).ok();
        let names = |tar: &str| -> Vec<String> {
            let listed = space.real(&format!("tar -tf {tar}")).ok().stdout;
            listed.lines().map(str::to_owned).collect()
        };
        space.real(&format!("{line} -o out --reproduce=t.tar")).ok();
        let expected = names("t.tar");
        assert!(expected.iter().any(|name| name.ends_with("/twice.o")), "{expected:?}");
        // The second time, a link that is small might come out of the cache.
        for small in ["0", "16K", "16K"] {
            space.remove("t.tar");
            let run = space.shim(&format!("{line} -o out")).env("LLD_REPRODUCE", "t.tar");
            run.env("THINSHIM_SMALL", small).env("THINSHIM_REPORT", "report").ok();
            assert_eq!(names("t.tar"), expected, "LLVM {llvm}, small: {small}");
            let report = space.report();
            let fallback = report["fallback"].as_str().unwrap_or_default();
            assert!(fallback.starts_with("LLD_REPRODUCE"), "{report}");
            oracle::same_behaviour(&space, "out");
            // As the cache would have it for the next link.
            space.shim(&format!("{line} -o out")).env("THINSHIM_SMALL", small).ok();
        }
        space.remove("t.tar");
        let run = space.strict(&format!("{line} -o no")).env("LLD_REPRODUCE", "t.tar");
        run.fails(120, &["LLD_REPRODUCE", "THINSHIM_STRICT"]);
        assert!(!space.exists("no") && !space.exists("t.tar"));
        space.real("clang -O2 -fPIE -c next.c -o native.o").ok();
        space.strict("ld.lld -r native.o -o out").env("LLD_REPRODUCE", "t.tar").ok();
        assert!(space.exists("t.tar"));
    }
}
