//! Options of LLVM's code generator that lld registers with LLVM's option parser and clang does
//! not (`llvm/lib/CodeGen/CommandFlags.cpp`, by way of `lld/Common/TargetOptionsCommandFlags`):
//! `-mllvm` is no way to give them to clang.
//!
//! Found by comparing `ld.lld -mllvm=-help-hidden` with `clang -mllvm -help-hidden`, LLVM 14 to 22;
//! a test does the same.
//! clang 14 takes them after `-mllvm`, without any effect.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// How to say an option of LLVM's to clang.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Translation<'a> {
    /// After `-mllvm`, as it stands.
    Same,
    /// Not at all: lld overrides it.
    Nothing,
    /// The value of `-mcpu`.
    Cpu(&'a [u8]),
    /// The value of `-mattr`.
    Attributes(&'a [u8]),
    /// With options of clang's.
    Clang(Vec<OsString>),
    /// There is no way.
    None,
    /// What it writes, counts or repeats is of one process: many would write over each other.
    OneProcess,
}

/// Parts of the names of LLVM's options that write files or statistics, that count what one process
/// does, or that have it go over all modules twice.
const OF_ONE_PROCESS: &[&str] = &[
    "-dot-",
    "-dump-",
    "-output-file",
    "as-secure-log-file",
    "debug-counter",
    "dot-cfg-dir",
    "lto-pass-remarks",
    "lto-stats-file",
    "opt-bisect",
    "pass-remarks-output",
    "stats",
    "summary-file",
    "time-passes",
    "track-memory",
    "two-rounds",
    "view-",
];

/// Sorted.
const CODE_GENERATOR: &[&str] = &[
    "addrsig",
    "align-loops",
    "basic-block-address-map",
    "basic-block-sections",
    "call-graph-section",
    "code-model",
    "data-sections",
    "debug-entry-values",
    "debugger-tune",
    "denormal-fp-math",
    "denormal-fp-math-f32",
    "disable-tail-calls",
    "emit-call-site-info",
    "emulated-tls",
    "enable-approx-func-fp-math",
    "enable-jmc-instrument",
    "enable-no-infs-fp-math",
    "enable-no-nans-fp-math",
    "enable-no-signed-zeros-fp-math",
    "enable-no-trapping-fp-math",
    "enable-sign-dependent-rounding-fp-math",
    "enable-tlsdesc",
    "enable-unsafe-fp-math",
    "exception-model",
    "filetype",
    "float-abi",
    "force-dwarf-frame-section",
    "fp-contract",
    "frame-pointer",
    "function-sections",
    "ignore-xcoff-visibility",
    "large-data-threshold",
    "load",
    "lower-global-dtors-via-cxa-atexit",
    "march",
    "mattr",
    "mcpu",
    "meabi",
    "mxcoff-roptr",
    "no-integrated-as",
    "no-xray-index",
    "nozero-initialized-in-bss",
    "partition-static-data-sections",
    "relax-elf-relocations",
    "relocation-model",
    "separate-named-sections",
    "split-machine-functions",
    "stack-size-section",
    "stack-symbol-ordering",
    "stackrealign",
    "strict-dwarf",
    "swift-async-fp",
    "tailcallopt",
    "thread-model",
    "tls-size",
    "trap-func",
    "unique-basic-block-section-names",
    "unique-section-names",
    "use-ctors",
    "vec-extabi",
    "vector-library",
    "xcoff-traceback-table",
    "xray-function-index",
];

/// Tells how to say `option`, dashes and all, to clang.
pub(super) fn translate(option: &[u8]) -> Translation<'_> {
    let Some(option) = option.strip_prefix(b"-") else {
        return Translation::None;
    };
    let option = option.strip_prefix(b"-").unwrap_or(option);
    let end = option.iter().position(|&byte| byte == b'=');
    let name = &option[..end.unwrap_or(option.len())];
    let value = end.map(|end| &option[end + 1..]);
    let Ok(name) = std::str::from_utf8(name) else {
        return Translation::None;
    };
    if CODE_GENERATOR.binary_search(&name).is_err() {
        let one_process = OF_ONE_PROCESS.iter().any(|part| name.contains(part));
        return if one_process { Translation::OneProcess } else { Translation::Same };
    }
    let on = switch(value);
    match (name, value) {
        // lld sets them all.
        ("addrsig" | "data-sections" | "function-sections", _) => Translation::Nothing,
        ("mcpu", Some(cpu)) => Translation::Cpu(cpu),
        ("mattr", Some(list)) => Translation::Attributes(list),
        ("code-model", Some(model)) => clang(["-mcmodel="], model),
        ("debugger-tune", Some(debugger)) => clang(["-Xclang", "-debugger-tuning="], debugger),
        ("large-data-threshold", Some(size)) => clang(["-mlarge-data-threshold="], size),
        ("tls-size", Some(size)) => clang(["-mtls-size="], size),
        ("relocation-model", Some(b"pic")) => clang(["-fPIC"], b""),
        ("relocation-model", Some(b"static")) => clang(["-fno-pic"], b""),
        _ => match (name, on) {
            ("emulated-tls", Some(true)) => clang(["-femulated-tls"], b""),
            ("emulated-tls", Some(false)) => clang(["-fno-emulated-tls"], b""),
            ("enable-tlsdesc", Some(true)) => clang(["-mtls-dialect=gnu2"], b""),
            ("relax-elf-relocations", Some(true)) => clang(["-Wa,-mrelax-relocations=yes"], b""),
            ("relax-elf-relocations", Some(false)) => clang(["-Wa,-mrelax-relocations=no"], b""),
            ("split-machine-functions", Some(true)) => clang(["-fsplit-machine-functions"], b""),
            ("split-machine-functions", Some(false)) => {
                clang(["-fno-split-machine-functions"], b"")
            }
            ("stack-size-section", Some(true)) => clang(["-fstack-size-section"], b""),
            ("stack-size-section", Some(false)) => clang(["-fno-stack-size-section"], b""),
            ("unique-section-names", Some(true)) => clang(["-funique-section-names"], b""),
            ("unique-section-names", Some(false)) => clang(["-fno-unique-section-names"], b""),
            _ => Translation::None,
        },
    }
}

/// A Boolean value as LLVM's option parser reads it.
fn switch(value: Option<&[u8]>) -> Option<bool> {
    match value {
        None | Some(b"" | b"true" | b"TRUE" | b"True" | b"1") => Some(true),
        Some(b"false" | b"FALSE" | b"False" | b"0") => Some(false),
        Some(_) => None,
    }
}

/// Options of clang's, the value joined to the last.
fn clang<const N: usize>(options: [&str; N], value: &[u8]) -> Translation<'static> {
    let mut args = options.map(OsString::from).to_vec();
    if let Some(last) = args.last_mut() {
        last.push(OsStr::from_bytes(value));
    }
    Translation::Clang(args)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_list_is_sorted() {
        assert!(CODE_GENERATOR.is_sorted());
    }

    /// The options that `command` lists, hidden ones too.
    fn listed(command: &mut Command) -> BTreeSet<String> {
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.strip_prefix("  -"))
            .filter_map(|line| line.trim_start_matches('-').split([' ', '=']).next())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn what_lld_registers_and_clang_does_not_is_in_the_list() {
        for (major, bin) in super::super::tests::llvms() {
            let lld =
                listed(Command::new(bin.join("ld.lld")).args(["-mllvm", "-help-hidden", "x"]));
            let clang = listed(Command::new(bin.join("clang")).args([
                "-mllvm",
                "-help-hidden",
                "-xc",
                "-c",
                "/dev/null",
            ]));
            assert!(lld.len() > 1000 && clang.len() > 1000, "LLVM {major} lists no options");
            for name in lld.difference(&clang) {
                assert!(CODE_GENERATOR.contains(&name.as_str()), "LLVM {major}: -{name}");
            }
        }
    }

    #[test]
    fn what_many_processes_would_write_is_left_to_one() {
        for option in [
            "-stats",
            "-time-passes",
            "-info-output-file=x",
            "-lto-pass-remarks-output=x",
            "-callgraph-dot-filename-prefix=x",
            "-ir-dump-directory=x",
            "-view-block-layout-with-bfi=graph",
            "-opt-bisect-limit=100",
            "-debug-counter=dce-transform=1-2",
            "-codegen-data-thinlto-two-rounds",
        ] {
            assert_eq!(translate(option.as_bytes()), Translation::OneProcess, "{option}");
        }
    }

    #[test]
    fn llvm_s_own_stay_as_they_are() {
        assert_eq!(translate(b"-import-instr-limit=5"), Translation::Same);
        assert_eq!(translate(b"--import-instr-limit=5"), Translation::Same);
        assert_eq!(translate(b"-generate-arange-section"), Translation::Same);
    }

    #[test]
    fn the_code_generator_s_are_said_to_clang_or_not_at_all() {
        assert_eq!(translate(b"-function-sections=1"), Translation::Nothing);
        assert_eq!(translate(b"-mattr=+avx2,-sse3"), Translation::Attributes(b"+avx2,-sse3"));
        assert_eq!(translate(b"-code-model=kernel"), clang(["-mcmodel=kernel"], b""));
        assert_eq!(
            translate(b"-debugger-tune=lldb"),
            clang(["-Xclang", "-debugger-tuning=lldb"], b"")
        );
        assert_eq!(
            translate(b"-split-machine-functions"),
            clang(["-fsplit-machine-functions"], b"")
        );
        assert_eq!(translate(b"-load=plugin.so"), Translation::None);
        assert_eq!(translate(b"-align-loops=4"), Translation::None);
        assert_eq!(translate(b"-mcpu"), Translation::None);
        assert_eq!(translate(b"positional"), Translation::None);
    }
}
