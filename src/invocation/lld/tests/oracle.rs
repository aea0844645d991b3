//! Native objects of clang with the options that [`LtoOptions::clang_args`] makes of a link line,
//! byte for byte against those that lld makes in-process of the same line.

use std::path::Path;
use std::process::Command;

use super::{link, llvms};

const SOURCE: &str = "
    __thread int local;
    static int state[64];
    __attribute__((noinline)) static int cold(int x) {
        for (int i = 0; i < 64; i++)
            state[i] += x * i;
        return state[x & 63];
    }
    int hot(int x) {
        switch (x) {
        case 1: return 4;
        case 2: return 9;
        case 3: return 11;
        case 4: return 2;
        case 77: return cold(x);
        }
        return x * 2 + local++;
    }
";

/// Options of the link line, and the first LLVM that knows them.
const LINES: &[(&str, u32)] = &[
    ("-r", 14),
    ("-shared", 14),
    ("-pie", 14),
    ("", 14),
    ("-pie --lto-O3", 14),
    ("-pie --lto-O0 --lto-CGO0", 19),
    ("-shared --lto-O1 --lto-CGO1", 19),
    ("-pie --lto-O2 --lto-CGO2", 19),
    ("-shared --lto-O3 --lto-CGO3", 19),
    ("-shared --lto-O2 -plugin-opt=mcpu=x86-64-v3", 14),
    ("-shared --lto-O1 --lto-O3", 14),
    ("-shared -plugin-opt=O3 -plugin-opt=mcpu=znver3", 14),
    ("-shared -plugin-opt=-mattr=+avx2,+bmi2", 14),
    ("-shared -plugin-opt=-mcpu=znver2", 14),
    ("-shared -mllvm -align-all-functions=6 -mllvm=-import-instr-limit=5", 14),
    ("-shared -plugin-opt=-generate-arange-section", 14),
    ("-shared -plugin-opt=-function-sections=0 -plugin-opt=-data-sections=0", 14),
    ("-shared -plugin-opt=-unique-section-names=0", 14),
    ("-shared -plugin-opt=-stack-size-section", 14),
    ("-shared -plugin-opt=-emulated-tls", 14),
    ("-shared -plugin-opt=-debugger-tune=lldb", 14),
    ("-shared -plugin-opt=-code-model=medium", 14),
    ("-r -plugin-opt=-relocation-model=static", 14),
    ("-r -plugin-opt=-relocation-model=pic", 14),
    ("-shared -plugin-opt=-enable-tlsdesc", 19),
    ("-shared --lto-basic-block-sections=all", 14),
    ("-shared --lto-basic-block-sections=none", 14),
    ("-shared --lto-basic-block-sections=list.txt", 14),
    ("-shared --lto-basic-block-sections=labels", 14),
    ("-shared --lto-basic-block-sections=all --lto-unique-basic-block-section-names", 14),
    ("-shared --lto-basic-block-address-map", 19),
    ("-shared --lto-basic-block-address-map --no-lto-basic-block-address-map", 19),
    ("-shared --lto-whole-program-visibility", 14),
    ("-shared --lto-sample-profile=sample.txt", 14),
    ("-shared --lto-sample-profile=sample.txt -plugin-opt=-split-machine-functions", 14),
    ("-shared --lto-cs-profile-generate --lto-cs-profile-file=cs.profraw", 14),
    ("-shared --lto-cs-profile-file=cs.profdata --no-lto-pgo-warn-mismatch", 14),
];

#[test]
fn the_back_ends_options_make_what_lld_makes() {
    for (major, bin) in llvms() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, dir) = (bin.as_path(), dir.path());
        std::fs::write(dir.join("hot.c"), SOURCE).unwrap();
        std::fs::write(dir.join("list.txt"), "!hot\n!!0 2\n").unwrap();
        std::fs::write(
            dir.join("sample.txt"),
            "hot:9000:9\n 0: 9\n 8: 9000\ncold:1:1\n 0: 1\n 1: 1\n",
        )
        .unwrap();
        std::fs::write(dir.join("cs.txt"), ":csir\nhot\n1\n3\n10\n2\n3\n").unwrap();
        // A profile in the front end is what makes the back end look for its own.
        std::fs::write(dir.join("front.txt"), "other:1:1\n 1: 1\n").unwrap();
        let front_end = "-O2 -g1 -fPIC -fdebug-info-for-profiling -fprofile-sample-use=front.txt \
                         -flto=thin -c hot.c -o hot.o";
        run(dir, bin, "clang", front_end);
        run(dir, bin, "llvm-profdata", "merge cs.txt -o cs.profdata");
        for (line, since) in LINES.iter().filter(|(_, since)| *since <= major) {
            let line = format!("-m elf_x86_64 -o /dev/null {line} hot.o");
            run(dir, bin, "ld.lld", &format!("{line} --lto-obj-path=lld.o"));
            run(dir, bin, "ld.lld", &format!("{line} --thinlto-index-only"));
            let link = link(&line);
            let options = super::strings(link.lto.clang_args(link.kind, major));
            // What `-r` leaves to the module's own flags.
            let module = if options.contains("-fno-pic") { "" } else { "-fPIC" };
            let back_end = "-x ir hot.o -fthinlto-index=hot.o.thinlto.bc -c -o clang.o";
            run(dir, bin, "clang", &format!("{module} {options} {back_end}"));
            // lld numbers the modules from 1: the first is the regular-LTO partition's.
            let lld = std::fs::read(dir.join("lld.o1")).unwrap();
            let clang = std::fs::read(dir.join("clang.o")).unwrap();
            assert!(!lld.is_empty());
            assert!(lld == clang, "LLVM {major}: {line}: {options} (known since {since})");
        }
    }
}

fn run(dir: &Path, bin: &Path, tool: &str, line: &str) {
    let output = Command::new(bin.join(tool))
        .current_dir(dir)
        .args(line.split_whitespace())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}/{tool} {line}: {words}", bin.display());
}
