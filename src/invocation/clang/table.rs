//! Clang's driver options, as far as they matter to distributed ThinLTO.
//!
//! One sorted table: how an option takes its value, and what becomes of it. Options that no row
//! names follow their first letters ([`family`]). Source: `clang/Driver/Options.td`.

/// How an option takes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The whole word.
    Flag,
    /// The value is the rest of the word.
    Joined,
    /// The value is the next word.
    Separate,
    /// The rest of the word, or the next word where there is no rest.
    Either,
}

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Changes code generation: recorded, and given to the back end.
    CodeGen,
    /// Concerns the front end alone.
    FrontEnd,
    /// How an instrumented program counts: code generation's where that makes the context-sensitive
    /// instrumentation, else the front end's.
    CsProfile,
    /// A directory that assembly may search for `.incbin` and `.include`.
    SearchPath,
    /// Writes a file beside the object in the compile step, where clang itself names and places
    /// it; the back end must not write it a second time.
    SideOutput,
    /// Writes a file beside the object in the back end's step, which in-process ThinLTO does not
    /// write: not given to the back end either.
    BackEndSideOutput,
    /// Concerns linking alone.
    Linker,
    /// `-c`.
    Compile,
    /// Another action than compiling to an object: clang's own business.
    OtherAction,
    /// `-o`.
    Output,
    /// `-x`.
    Language,
    /// `-flto…`: which LTO, or none.
    Lto,
    /// LTO's own front-end options, which a back end rejects.
    LtoFrontEnd,
    /// `-fthinlto-index=`: this *is* a back end.
    BackEnd,
    /// `-fuse-ld=`, `--ld-path=`: which linker.
    LinkerChoice,
    /// `-mllvm`: the value goes to LLVM's own option parser.
    Llvm,
    /// `-Xclang`: the value goes to the compiler proper.
    Cc1,
    /// `-Wa,`: the values go to the integrated assembler.
    Assembler,
    /// Names a program, a plugin or a configuration: never recorded.
    Program,
    /// May change code generation in a way nobody here understands.
    Doubt,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// The option as typed, with its dashes and, where it belongs to the name, its `=`.
    pub name: &'static str,
    /// How it takes its value.
    pub form: Form,
    /// What becomes of it.
    pub fate: Fate,
}

impl Row {
    /// Whether `word`, which is this option, has its value in the next word.
    pub fn takes_next(&self, word: &[u8]) -> bool {
        match self.form {
            Separate => true,
            Either => word.len() == self.name.len(),
            Flag | Joined => false,
        }
    }
}

const fn row(name: &'static str, form: Form, fate: Fate) -> Row {
    Row { name, form, fate }
}

use Fate::{
    Assembler, BackEnd, BackEndSideOutput, Cc1, CodeGen, Compile, CsProfile, Doubt, FrontEnd,
    Language, Linker, LinkerChoice, Llvm, Lto, LtoFrontEnd, OtherAction, Output, Program,
    SearchPath, SideOutput,
};
use Form::{Either, Flag, Joined, Separate};

/// The table, sorted by name (a test sees to it).
pub static TABLE: &[Row] = &[
    row("-###", Flag, OtherAction),
    row("--CLASSPATH", Separate, FrontEnd),
    row("--analyze", Flag, OtherAction),
    row("--analyzer-output", Separate, OtherAction),
    row("--ansi", Flag, CodeGen),
    row("--autocomplete=", Joined, OtherAction),
    row("--compile", Flag, Compile),
    row("--config", Separate, Doubt),
    row("--config-system-dir=", Joined, Doubt),
    row("--config-user-dir=", Joined, Doubt),
    row("--config=", Joined, Doubt),
    row("--coverage", Flag, FrontEnd),
    row("--cuda-gpu-arch=", Joined, Doubt),
    row("--define-macro", Separate, FrontEnd),
    row("--define-macro=", Joined, FrontEnd),
    row("--dependencies", Flag, OtherAction),
    row("--driver-mode=", Joined, Doubt),
    row("--dyld-prefix=", Joined, Linker),
    row("--dynamic-linker", Separate, Linker),
    row("--end-no-unused-arguments", Flag, FrontEnd),
    row("--for-linker", Separate, Linker),
    row("--gcc-install-dir=", Joined, Program),
    row("--gcc-toolchain", Separate, Program),
    row("--gcc-toolchain=", Joined, Program),
    row("--gcc-triple=", Joined, Program),
    row("--help", Joined, OtherAction),
    row("--imacros", Separate, FrontEnd),
    row("--include", Separate, FrontEnd),
    row("--include-directory", Separate, SearchPath),
    row("--include-directory=", Joined, SearchPath),
    row("--ld-path=", Joined, LinkerChoice),
    row("--library-directory", Separate, Linker),
    row("--no-default-config", Flag, CodeGen),
    row("--no-integrated-cpp", Flag, FrontEnd),
    row("--no-warnings", Flag, FrontEnd),
    row("--offload-arch=", Joined, Doubt),
    row("--output", Separate, Output),
    row("--output=", Joined, Output),
    row("--param", Either, FrontEnd),
    row("--param=", Joined, FrontEnd),
    row("--pedantic", Flag, FrontEnd),
    row("--pedantic-errors", Flag, FrontEnd),
    row("--pie", Flag, Linker),
    row("--pipe", Flag, FrontEnd),
    row("--precompile", Flag, OtherAction),
    row("--prefix", Separate, Program),
    row("--prefix=", Joined, Program),
    row("--preprocess", Flag, OtherAction),
    row("--print-", Joined, OtherAction),
    row("--ptxas-path=", Joined, Program),
    row("--resource=", Joined, FrontEnd),
    row("--rtlib=", Joined, Linker),
    row("--save-temps", Flag, SideOutput),
    row("--save-temps=", Joined, SideOutput),
    row("--serialize-diagnostics", Separate, SideOutput),
    row("--shared", Flag, Linker),
    row("--specs=", Joined, Doubt),
    row("--start-no-unused-arguments", Flag, FrontEnd),
    row("--static", Flag, Linker),
    row("--std=", Joined, CodeGen),
    row("--stdlib=", Joined, FrontEnd),
    row("--sysroot", Separate, FrontEnd),
    row("--sysroot=", Joined, FrontEnd),
    row("--system-header-prefix=", Joined, FrontEnd),
    row("--target", Separate, CodeGen),
    row("--target=", Joined, CodeGen),
    row("--trigraphs", Flag, FrontEnd),
    row("--undefine-macro", Separate, FrontEnd),
    row("--unwindlib=", Joined, Linker),
    row("--verbose", Flag, FrontEnd),
    row("--version", Flag, OtherAction),
    row("--warn-", Joined, FrontEnd),
    row("--write-dependencies", Flag, SideOutput),
    row("-A", Either, FrontEnd),
    row("-B", Either, Program),
    row("-C", Flag, FrontEnd),
    row("-CC", Flag, FrontEnd),
    row("-D", Either, FrontEnd),
    row("-E", Flag, OtherAction),
    row("-F", Either, FrontEnd),
    row("-G", Either, CodeGen),
    row("-H", Flag, FrontEnd),
    row("-I", Either, SearchPath),
    row("-L", Either, Linker),
    row("-M", Flag, OtherAction),
    row("-MD", Flag, SideOutput),
    row("-MF", Either, SideOutput),
    row("-MG", Flag, SideOutput),
    row("-MJ", Either, SideOutput),
    row("-MM", Flag, OtherAction),
    row("-MMD", Flag, SideOutput),
    row("-MP", Flag, SideOutput),
    row("-MQ", Either, SideOutput),
    row("-MT", Either, SideOutput),
    row("-MV", Flag, SideOutput),
    row("-N", Flag, Linker),
    row("-O", Joined, CodeGen),
    row("-Ofast", Joined, CodeGen),
    row("-P", Flag, FrontEnd),
    row("-Q", Joined, FrontEnd),
    row("-R", Joined, FrontEnd),
    row("-S", Flag, OtherAction),
    row("-T", Either, Linker),
    row("-Tbss", Either, Linker),
    row("-Tdata", Either, Linker),
    row("-Ttext", Either, Linker),
    row("-U", Either, FrontEnd),
    row("-V", Flag, FrontEnd),
    row("-W", Joined, FrontEnd),
    row("-Wa,", Joined, Assembler),
    row("-Wl,", Joined, Linker),
    row("-Wp,", Joined, FrontEnd),
    row("-X", Joined, Doubt),
    row("-Xanalyzer", Separate, FrontEnd),
    row("-Xassembler", Separate, Assembler),
    row("-Xclang", Separate, Cc1),
    row("-Xclang=", Joined, Cc1),
    row("-Xlinker", Separate, Linker),
    row("-Xparser", Separate, FrontEnd),
    row("-Xpreprocessor", Separate, FrontEnd),
    row("-Xthinlto-distributor=", Joined, Linker),
    row("-Z", Either, Linker),
    row("-ansi", Flag, CodeGen),
    row("-arch", Separate, Doubt),
    row("-b", Either, Doubt),
    row("-c", Flag, Compile),
    row("-canonical-prefixes", Flag, FrontEnd),
    row("-ccc-", Joined, Doubt),
    row("-coverage", Flag, FrontEnd),
    row("-cuid=", Joined, Doubt),
    row("-cxx-isystem", Either, FrontEnd),
    row("-d", Joined, FrontEnd),
    row("-dumpdir", Separate, FrontEnd),
    row("-dumpmachine", Flag, OtherAction),
    row("-dumpversion", Flag, OtherAction),
    row("-e", Either, Linker),
    row("-emit-ast", Flag, OtherAction),
    row("-emit-llvm", Flag, OtherAction),
    // Clang 14 and 15 want it with `-ftrivial-auto-var-init=zero`.
    row("-enable-trivial-auto-var-init-zero-knowing-it-will-be-removed-from-clang", Flag, FrontEnd),
    row("-faddress-space-map-mangling=", Joined, FrontEnd),
    row("-fauto-profile=", Joined, CodeGen),
    row("-fbasic-block-sections=", Joined, CodeGen),
    row("-fbuild-session-file=", Joined, FrontEnd),
    row("-fcallgraph-info", Joined, BackEndSideOutput),
    row("-fcolor-diagnostics", Flag, FrontEnd),
    row("-fcoverage-", Joined, FrontEnd),
    row("-fcrash-diagnostics-dir=", Joined, FrontEnd),
    row("-fcs-profile-generate=", Joined, CodeGen),
    row("-fdebug-compilation-dir", Separate, FrontEnd),
    row("-fdebug-compilation-dir=", Joined, FrontEnd),
    row("-fdebug-prefix-map=", Joined, FrontEnd),
    row("-fdepfile-entry=", Joined, SideOutput),
    row("-fdiagnostics-", Joined, FrontEnd),
    row("-fdriver-only", Flag, OtherAction),
    row("-fembed-bitcode", Joined, Doubt),
    row("-fembed-offload-object=", Joined, Doubt),
    row("-fexperimental-openacc-macro-override", Separate, FrontEnd),
    row("-fexperimental-sanitize-metadata", Joined, FrontEnd),
    row("-ffat-lto-objects", Flag, LtoFrontEnd),
    row("-ffile-compilation-dir=", Joined, FrontEnd),
    row("-ffile-prefix-map=", Joined, FrontEnd),
    row("-ffile-reproducible", Flag, FrontEnd),
    row("-filelist", Separate, Doubt),
    row("-fintegrated-as", Flag, FrontEnd),
    row("-fintegrated-cc1", Flag, FrontEnd),
    row("-flto", Flag, Lto),
    row("-flto-jobs=", Joined, Linker),
    row("-flto=", Joined, Lto),
    row("-fmacro-backtrace-limit=", Joined, FrontEnd),
    row("-fmacro-prefix-map=", Joined, FrontEnd),
    row("-fmemory-profile-use=", Joined, FrontEnd),
    row("-fmessage-length=", Joined, FrontEnd),
    row("-fmodule", Joined, FrontEnd),
    row("-fmodules-user-build-path", Separate, FrontEnd),
    row("-fno-color-diagnostics", Flag, FrontEnd),
    row("-fno-fat-lto-objects", Flag, LtoFrontEnd),
    row("-fno-integrated-as", Flag, FrontEnd),
    row("-fno-integrated-cc1", Flag, FrontEnd),
    row("-fno-lto", Flag, Lto),
    row("-fno-sanitize", Joined, FrontEnd),
    row("-fno-save-optimization-record", Flag, FrontEnd),
    row("-fno-split-lto-unit", Flag, LtoFrontEnd),
    row("-fno-stack-usage", Flag, BackEndSideOutput),
    row("-fno-unified-lto", Flag, LtoFrontEnd),
    row("-fno-whole-program-vtables", Flag, LtoFrontEnd),
    row("-foffload", Joined, Doubt),
    row("-fopenmp-targets=", Joined, Doubt),
    row("-foptimization-record-", Joined, SideOutput),
    row("-fparse-all-comments", Flag, FrontEnd),
    row("-fpass-plugin=", Joined, Program),
    row("-fplugin", Joined, Program),
    row("-fproc-stat-report", Joined, SideOutput),
    row("-fprofile-continuous", Flag, CsProfile),
    row("-fprofile-exclude-files=", Joined, FrontEnd),
    row("-fprofile-filter-files=", Joined, FrontEnd),
    row("-fprofile-generate", Flag, FrontEnd),
    row("-fprofile-generate=", Joined, FrontEnd),
    row("-fprofile-instr-generate", Joined, FrontEnd),
    row("-fprofile-instr-use=", Joined, FrontEnd),
    row("-fprofile-list=", Joined, FrontEnd),
    row("-fprofile-remapping-file=", Joined, CodeGen),
    row("-fprofile-sample-use=", Joined, CodeGen),
    row("-fprofile-use=", Joined, CodeGen),
    row("-frandom-seed=", Joined, FrontEnd),
    row("-frandomize-layout-seed", Joined, FrontEnd),
    row("-frecord-command-line", Flag, FrontEnd),
    row("-frewrite-map-file=", Joined, FrontEnd),
    row("-fsanitize", Joined, FrontEnd),
    row("-fsave-optimization-record", Joined, SideOutput),
    row("-fshow-", Joined, FrontEnd),
    row("-fsplit-lto-unit", Flag, LtoFrontEnd),
    row("-fstack-usage", Flag, BackEndSideOutput),
    row("-fsyntax-only", Flag, OtherAction),
    row("-ftemporal-profile", Flag, CsProfile),
    row("-fthin-link-bitcode=", Joined, SideOutput),
    row("-fthinlto-distributor=", Joined, Linker),
    row("-fthinlto-index=", Joined, BackEnd),
    row("-ftime-report", Joined, FrontEnd),
    row("-ftime-trace", Flag, SideOutput),
    row("-ftime-trace-granularity=", Joined, SideOutput),
    row("-ftime-trace-verbose", Flag, SideOutput),
    row("-ftime-trace=", Joined, SideOutput),
    row("-ftrapv-handler", Separate, FrontEnd),
    row("-ftrapv-handler=", Joined, FrontEnd),
    row("-ftrivial-auto-var-init", Joined, FrontEnd),
    row("-funified-lto", Flag, LtoFrontEnd),
    row("-fuse-ld=", Joined, LinkerChoice),
    row("-fvirtual-function-elimination", Flag, LtoFrontEnd),
    row("-fwhole-program-vtables", Flag, LtoFrontEnd),
    row("-fxray-always-instrument=", Joined, FrontEnd),
    row("-fxray-attr-list=", Joined, FrontEnd),
    row("-fxray-instruction-threshold", Either, FrontEnd),
    row("-fxray-never-instrument=", Joined, FrontEnd),
    row("-gcc-toolchain", Separate, Program),
    row("-gen-cdb-fragment-path", Separate, SideOutput),
    // In-process ThinLTO writes whole DWARF unless the link names a directory for `.dwo` files.
    row("-gno-split-dwarf", Flag, BackEndSideOutput),
    row("-gsplit-dwarf", Flag, BackEndSideOutput),
    row("-gsplit-dwarf=", Joined, BackEndSideOutput),
    row("-help", Flag, OtherAction),
    row("-idirafter", Either, FrontEnd),
    row("-iframework", Either, FrontEnd),
    row("-iframeworkwithsysroot", Either, FrontEnd),
    row("-imacros", Either, FrontEnd),
    row("-imultilib", Separate, FrontEnd),
    row("-include", Either, FrontEnd),
    row("-include-pch", Separate, FrontEnd),
    row("-index-header-map", Flag, FrontEnd),
    row("-integrated-as", Flag, FrontEnd),
    row("-iprefix", Either, FrontEnd),
    row("-iquote", Either, SearchPath),
    row("-isysroot", Either, FrontEnd),
    row("-isystem", Either, SearchPath),
    row("-isystem-after", Either, FrontEnd),
    row("-ivfsoverlay", Either, FrontEnd),
    row("-iwithprefix", Either, FrontEnd),
    row("-iwithprefixbefore", Either, FrontEnd),
    row("-iwithsysroot", Either, FrontEnd),
    row("-l", Either, Linker),
    row("-meabi", Separate, CodeGen),
    row("-mllvm", Separate, Llvm),
    row("-mllvm=", Joined, Llvm),
    row("-mmlir", Separate, Doubt),
    row("-module-", Joined, FrontEnd),
    row("-module-dependency-dir", Separate, SideOutput),
    row("-mthread-model", Separate, CodeGen),
    row("-n", Flag, Linker),
    row("-no-canonical-prefixes", Flag, FrontEnd),
    row("-no-integrated-as", Flag, FrontEnd),
    row("-no-pie", Flag, Linker),
    row("-nodefaultlibs", Flag, Linker),
    row("-nogpuinc", Flag, FrontEnd),
    row("-nogpulib", Flag, Linker),
    row("-nolibc", Flag, Linker),
    row("-nopie", Flag, Linker),
    row("-nostartfiles", Flag, Linker),
    row("-nostdinc", Flag, FrontEnd),
    row("-nostdinc++", Flag, FrontEnd),
    row("-nostdlib", Flag, Linker),
    row("-nostdlib++", Flag, Linker),
    row("-nostdlibinc", Flag, FrontEnd),
    row("-o", Either, Output),
    row("-p", Flag, CodeGen),
    row("-pedantic", Flag, FrontEnd),
    row("-pedantic-errors", Flag, FrontEnd),
    row("-pg", Flag, CodeGen),
    row("-pie", Flag, Linker),
    row("-pipe", Flag, FrontEnd),
    row("-print-", Joined, OtherAction),
    row("-pthread", Flag, FrontEnd),
    row("-pthreads", Flag, FrontEnd),
    row("-r", Flag, Linker),
    row("-rdynamic", Flag, Linker),
    row("-regcall4", Flag, FrontEnd),
    row("-relocatable-pch", Flag, FrontEnd),
    row("-resource-dir", Separate, FrontEnd),
    row("-resource-dir=", Joined, FrontEnd),
    row("-rpath", Separate, Linker),
    row("-rtlib=", Joined, Linker),
    row("-s", Flag, Linker),
    row("-save-stats", Joined, SideOutput),
    row("-save-temps", Flag, SideOutput),
    row("-save-temps=", Joined, SideOutput),
    row("-serialize-diagnostics", Separate, SideOutput),
    row("-shared", Flag, Linker),
    row("-shared-libgcc", Flag, Linker),
    row("-shared-libsan", Flag, Linker),
    row("-specs=", Joined, Doubt),
    row("-static", Flag, Linker),
    row("-static-libgcc", Flag, Linker),
    row("-static-libsan", Flag, Linker),
    row("-static-libstdc++", Flag, Linker),
    row("-static-pie", Flag, Linker),
    row("-std=", Joined, CodeGen),
    row("-stdlib++-isystem", Either, SearchPath),
    row("-stdlib=", Joined, FrontEnd),
    row("-t", Flag, Linker),
    row("-target", Separate, CodeGen),
    row("-time", Flag, FrontEnd),
    row("-traditional-cpp", Flag, FrontEnd),
    row("-trigraphs", Flag, FrontEnd),
    row("-u", Either, Linker),
    row("-undef", Flag, FrontEnd),
    row("-unwindlib=", Joined, Linker),
    row("-v", Flag, FrontEnd),
    row("-verify-pch", Flag, OtherAction),
    row("-w", Flag, FrontEnd),
    row("-working-directory", Either, Doubt),
    row("-working-directory=", Joined, Doubt),
    row("-x", Either, Language),
    row("-z", Either, Linker),
];

/// What an empty word is.
pub static EMPTY: Row = row("", Flag, FrontEnd);
static CODEGEN_FAMILY: Row = row("", Flag, CodeGen);
static DOUBT: Row = row("", Flag, Doubt);

/// The row for `word`, an option with its leading dash.
///
/// Among the rows that match, the longest name counts, as in LLVM's option parser.
pub fn find(word: &[u8]) -> &'static Row {
    // Every row whose name begins `word` also begins all rows sorted between the two, so that the
    // nearest row from below tells how much of `word` is worth a further look.
    let mut key = word;
    while let Some(below) = TABLE.partition_point(|row| row.name.as_bytes() <= key).checked_sub(1) {
        let row = &TABLE[below];
        let name = row.name.as_bytes();
        let common = name.iter().zip(key).take_while(|(a, b)| a == b).count();
        if common < name.len() {
            key = &key[..common];
        } else if accepts(row, word) {
            return row;
        } else {
            key = &key[..common - 1];
        }
    }
    family(word)
}

/// Whether `row`, whose name begins `word`, takes it.
fn accepts(row: &Row, word: &[u8]) -> bool {
    match row.form {
        Flag | Separate => word.len() == row.name.len(),
        Joined | Either => true,
    }
}

/// What an option that no row names becomes: `-f`, `-m` and `-g` options change code generation,
/// or do the back end no harm, where they are plain words; anything else is doubtful.
fn family(word: &[u8]) -> &'static Row {
    match word {
        [b'-', b'f' | b'm' | b'g', rest @ ..] if is_plain(rest) => &CODEGEN_FAMILY,
        _ => &DOUBT,
    }
}

/// A word that cannot name a file elsewhere: no slash, no `@`, nothing unusual.
pub fn is_plain(word: &[u8]) -> bool {
    word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_=+,.:".contains(byte))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_is_sorted() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} < {}", pair[0].name, pair[1].name);
        }
    }

    /// A word that is in the table, or nearly, or anything.
    pub(in super::super) fn word() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "-{0,2}[a-zA-Z=-]{0,12}".prop_map(String::into_bytes),
            (0..TABLE.len(), "[=a-z0-9]{0,3}").prop_map(|(row, tail)| format!(
                "{}{tail}",
                TABLE[row].name
            )
            .into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..12),
        ]
    }

    proptest! {
        #[test]
        fn the_search_finds_what_a_walk_through_the_table_finds(word in word()) {
            let walked = TABLE
                .iter()
                .filter(|row| word.starts_with(row.name.as_bytes()) && accepts(row, &word))
                .max_by_key(|row| row.name.len());
            prop_assert!(std::ptr::eq(find(&word), walked.unwrap_or_else(|| family(&word))));
        }
    }

    #[test]
    fn the_longest_name_counts() {
        assert_eq!(find(b"-Wa,-mx86").fate, Assembler);
        assert_eq!(find(b"-Wall").fate, FrontEnd);
        assert_eq!(find(b"-MMD").fate, SideOutput);
        assert_eq!(find(b"-fsanitize-recover=x").fate, FrontEnd);
        assert_eq!(find(b"-funroll-loops").fate, CodeGen);
        assert_eq!(find(b"-ffoo=/etc/passwd").fate, Doubt);
        assert_eq!(find(b"-ftime-tracex").fate, CodeGen);
        assert_eq!(find(b"-oout").fate, Output);
        assert_eq!(find(b"--no-such").fate, Doubt);
    }
}
