//! Clang's command line: what a call to the driver asks for.

mod back_end;
mod options;
pub mod table;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

pub use back_end::BackEnd as BackEndCall;
pub use options::{
    Refused, back_end_options, check, depends_on_more, follow_profile, known_to_linker,
    refuses_pic, target, width, with_absolute_files, without_llvm, without_loop_alignment,
};
use table::{Fate, Row};

/// What a clang command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    /// `-flto=thin -c`: run clang, then attach the record to the objects it wrote.
    Compile(Compile),
    /// `-x ir -fthinlto-index=…`: a build system distributes by itself.
    BackEnd(BackEndCall),
    /// A link through the driver: clang is told to call thinshim as its linker.
    Link(Link),
    /// Clang's own business, and why.
    PassThrough(&'static str),
}

/// A ThinLTO compile.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compile {
    /// The back-end options, in order.
    pub options: Vec<OsString>,
    /// Directories given by `-I` and its like, as typed, in the order in which assembly searches them.
    pub search_paths: Vec<OsString>,
    /// An option that nobody here understands.
    pub doubt: Option<OsString>,
    /// The objects that clang will write.
    pub outputs: Vec<PathBuf>,
}

/// A link through the driver, by lld, that may have ThinLTO in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    /// lld as clang looks for it: a path, or a name.
    pub linker: OsString,
    /// Where clang looks first (`-B`).
    pub prefixes: Vec<OsString>,
}

/// One option or input of a command line.
pub(crate) struct Item<'a> {
    /// The table's row; `None` for an input.
    pub(crate) row: Option<&'static Row>,
    /// The option's value, or the input.
    pub(crate) value: &'a OsStr,
    /// The words as typed.
    pub(crate) words: &'a [OsString],
    /// Its value should be the next word, and there is none.
    pub(crate) value_missing: bool,
}

/// The items of a command line without its first word. A missing value counts as empty: clang
/// itself complains of it. An empty word is no input: clang skips it.
pub(crate) fn items(args: &[OsString]) -> impl Iterator<Item = Item<'_>> {
    let mut rest = args;
    let mut only_inputs = false;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        let bytes = first.as_bytes();
        if only_inputs || bytes.len() < 2 || bytes[0] != b'-' {
            rest = after;
            let row = bytes.is_empty().then_some(&table::EMPTY);
            let words = std::slice::from_ref(first);
            return Some(Item { row, value: first, words, value_missing: false });
        }
        if bytes == b"--" {
            only_inputs = true;
        }
        let row = table::find(bytes);
        let joined = OsStr::from_bytes(&bytes[row.name.len()..]);
        let separate = row.takes_next(bytes);
        let (count, value) = match after.first() {
            Some(next) if separate => (2, next.as_os_str()),
            _ => (1, joined),
        };
        let (words, after) = rest.split_at(count);
        rest = after;
        let value_missing = separate && count == 1;
        Some(Item { row: Some(row), value, words, value_missing })
    })
}

/// Understands a clang command line (without its first word, response files expanded).
pub fn parse(args: &[OsString]) -> Invocation {
    if is_proper(args) {
        return Invocation::PassThrough("not the driver");
    }
    let mut compile = Compile::default();
    let mut inputs: Vec<(&OsStr, Language)> = Vec::new();
    let mut thin = false;
    let mut object_only = false;
    let mut output: Option<&OsStr> = None;
    let mut language = Language::OfName;
    let mut linker: Option<&OsStr> = None;
    let mut ld_path: Option<&OsStr> = None;
    let mut fat = false;
    let mut link_inputs = false;
    let mut prefixes = Vec::new();
    let mut target: Option<&OsStr> = None;
    let mut searched: Vec<(u8, &OsStr)> = Vec::new();
    for item in items(args) {
        let Some(row) = item.row else {
            inputs.push((item.value, language.of(item.value)));
            continue;
        };
        match row.fate {
            Fate::OtherAction => return Invocation::PassThrough("not a compile to an object"),
            Fate::BackEnd => {
                return match back_end::parse(args) {
                    Some(call) => Invocation::BackEnd(call),
                    None => Invocation::PassThrough("an odd back end"),
                };
            }
            Fate::Compile => object_only = true,
            Fate::Lto => thin = item.words[0] == "-flto=thin",
            Fate::Output => output = Some(item.value),
            Fate::Language => language = Language::named(item.value),
            Fate::LinkerChoice if row.name == "--ld-path=" => ld_path = Some(item.value),
            Fate::LinkerChoice => linker = Some(item.value),
            Fate::SearchPath => searched.push((search_turn(row.name), item.value)),
            Fate::Linker if is_input(row.name) => link_inputs = true,
            Fate::Program if matches!(row.name, "-B" | "--prefix" | "--prefix=") => {
                prefixes.push(item.value.to_owned());
            }
            Fate::CodeGen if matches!(row.name, "--target" | "--target=" | "-target") => {
                target = Some(item.value);
            }
            Fate::LtoFrontEnd if row.name == "-ffat-lto-objects" => fat = true,
            Fate::LtoFrontEnd if row.name == "-fno-fat-lto-objects" => fat = false,
            _ => {}
        }
    }
    if inputs.iter().any(|&(_, language)| language == Language::Header) {
        return Invocation::PassThrough("a header is precompiled");
    }
    if !object_only {
        if inputs.is_empty() && !link_inputs {
            return Invocation::PassThrough("no input");
        }
        if target.is_some_and(|triple| !is_elf(triple)) {
            return Invocation::PassThrough("no ELF is linked");
        }
        return match which_lld(ld_path, linker, thin) {
            // Whatever the link itself says of LTO, the objects decide: lld looks at those alone.
            Some(linker) => Invocation::Link(Link { linker, prefixes }),
            None => Invocation::PassThrough("another linker"),
        };
    }
    if !thin {
        return Invocation::PassThrough("not ThinLTO");
    }
    if inputs.is_empty() {
        return Invocation::PassThrough("no input");
    }
    if fat {
        return Invocation::PassThrough("fat LTO objects carry no record");
    }
    if inputs.iter().any(|&(_, language)| language == Language::Ir) {
        return Invocation::PassThrough("the input is LLVM IR");
    }
    match output {
        Some(output) if output == "-" => return Invocation::PassThrough("the output is a stream"),
        Some(output) => compile.outputs.push(output.into()),
        None => compile.outputs.extend(inputs.iter().map(|&(input, _)| default_output(input))),
    }
    searched.sort_by_key(|&(turn, _)| turn);
    compile.search_paths = searched.into_iter().map(|(_, path)| path.to_owned()).collect();
    match back_end_options(args) {
        Ok(options) => compile.options = options,
        Err(Refused(word)) => compile.doubt = Some(word),
    }
    Invocation::Compile(compile)
}

/// When assembly searches the directory of an option, wherever that stands: clang reads these kinds one
/// after the other (`ParseHeaderSearchArgs` in `CompilerInvocation.cpp`).
fn search_turn(option: &str) -> u8 {
    match option {
        "-iquote" => 1,
        "-isystem" => 2,
        "-stdlib++-isystem" => 3,
        _ => 0,
    }
}

/// What an input is, as far as it decides what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    /// Its name says it.
    OfName,
    /// A header, which clang precompiles whatever else it is asked to do.
    Header,
    /// LLVM IR.
    Ir,
    /// Another.
    Other,
}

impl Language {
    /// The value of `-x`.
    fn named(name: &OsStr) -> Self {
        match name.as_bytes() {
            b"none" => Self::OfName,
            b"ir" => Self::Ir,
            name if name.ends_with(b"-header") || name.ends_with(b"-header-unit-header") => {
                Self::Header
            }
            _ => Self::Other,
        }
    }

    /// Of an input below this `-x` (`lookupTypeForExtension` in clang's `Driver/Types.cpp`).
    fn of(self, input: &OsStr) -> Self {
        const HEADERS: [&str; 8] = ["h", "H", "hh", "hp", "hpp", "hxx", "h++", "tcc"];
        let end = Path::new(input).extension().and_then(OsStr::to_str);
        match (self, end) {
            (Self::OfName, Some(end)) if HEADERS.contains(&end) => Self::Header,
            (language, _) => language,
        }
    }
}

/// Whether the compiler proper, or the assembler, is called without the driver.
fn is_proper(args: &[OsString]) -> bool {
    args.first().is_some_and(|first| first.as_bytes().starts_with(b"-cc1"))
}

/// The lld that a link uses; `None` for another linker. `--ld-path` comes before `-fuse-ld`
/// (clang's `ToolChain::GetLinkerPath`). With neither it is clang's default, which cannot do ThinLTO
/// unless it is lld.
fn which_lld(ld_path: Option<&OsStr>, fuse_ld: Option<&OsStr>, thin: bool) -> Option<OsString> {
    let is_lld = |name: &OsStr, stem: &str| {
        let name = name.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let rest = name.strip_prefix(stem.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'-')
    };
    match (ld_path, fuse_ld) {
        (Some(path), _) => is_lld(path, "ld.lld").then(|| path.to_owned()),
        (None, Some(path)) if path.as_bytes().starts_with(b"/") => {
            is_lld(path, "ld.lld").then(|| path.to_owned())
        }
        (None, Some(name)) => is_lld(name, "lld").then(|| {
            let mut program = OsString::from("ld.");
            program.push(name);
            program
        }),
        (None, None) => thin.then(|| "ld.lld".into()),
    }
}

/// Whether a driver's command line (response files expanded) ends before a link, so that whatever
/// else it starts knows nothing of job tokens.
pub fn is_front_end(args: &[OsString]) -> bool {
    if is_proper(args) {
        return false;
    }
    items(args).filter_map(|item| item.row).any(|row| match row.fate {
        Fate::Compile => true,
        // Neither says by itself how far to go.
        Fate::OtherAction => !matches!(row.name, "--analyzer-output" | "-emit-llvm" | "-emit-ast"),
        _ => false,
    })
}

/// Whether a linker's option is enough for the driver to link.
fn is_input(name: &str) -> bool {
    matches!(name, "-l" | "-Wl," | "-Xlinker" | "--for-linker")
}

/// Whether a target's objects are ELF: those of others have an lld of another name.
fn is_elf(triple: &OsStr) -> bool {
    const OTHERS: [&str; 9] =
        ["apple", "darwin", "macos", "windows", "mingw", "cygwin", "wasm", "uefi", "aix"];
    let triple = triple.to_string_lossy();
    !OTHERS.iter().any(|other| triple.contains(other))
}

/// The arguments less any `--ld-path=`: the one that thinshim gives must count.
pub fn without_ld_path(args: &[OsString]) -> Vec<OsString> {
    items(args)
        .filter(|item| item.row.is_none_or(|row| row.name != "--ld-path="))
        .flat_map(|item| item.words.iter().cloned())
        .collect()
}

/// The object that `clang -c INPUT` writes: the base name with its last suffix replaced by `.o`,
/// in the working directory (clang's `Driver::GetNamedOutputPath`).
fn default_output(input: &OsStr) -> PathBuf {
    let name = input.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let stem = match name.iter().rposition(|&byte| byte == b'.') {
        Some(dot) => &name[..dot],
        None => name,
    };
    let mut output = stem.to_vec();
    output.extend_from_slice(b".o");
    PathBuf::from(OsString::from_vec(output))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn compile(line: &str) -> Compile {
        match parse(&words(line)) {
            Invocation::Compile(compile) => compile,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_kernel_compile_is_recorded() {
        let compile = compile(
            "-Wp,-MMD,init/.main.o.d -nostdinc -I./include -include ./include/linux/kconfig.h \
             -D__KERNEL__ --target=x86_64-linux-gnu -fintegrated-as -Werror=unknown-warning-option \
             -fmacro-prefix-map=./= -std=gnu11 -fshort-wchar -O2 -fno-omit-frame-pointer -mno-sse \
             -mcmodel=kernel -mllvm -inline-threshold=3 -Wa,-mx86-used-note=no -flto=thin \
             -fsplit-lto-unit -fvisibility=hidden -c -o init/main.o init/main.c",
        );
        assert_eq!(
            compile.options,
            words(
                "--target=x86_64-linux-gnu -std=gnu11 -fshort-wchar -O2 -fno-omit-frame-pointer \
                 -mno-sse -mcmodel=kernel -mllvm -inline-threshold=3 -Wa,-mx86-used-note=no \
                 -fvisibility=hidden"
            )
        );
        assert_eq!(compile.outputs, [PathBuf::from("init/main.o")]);
        assert_eq!(compile.search_paths, words("./include"));
        assert_eq!(compile.doubt, None);
    }

    #[test]
    fn outputs_are_named_as_clang_names_them() {
        let compile = compile("-flto=thin -c dir/a.b.c ../plain");
        assert_eq!(compile.outputs, [PathBuf::from("a.b.o"), PathBuf::from("plain.o")]);
    }

    #[test]
    fn the_last_lto_option_counts() {
        assert!(matches!(parse(&words("-flto -flto=thin -c a.c")), Invocation::Compile(_)));
        for line in [
            "-flto=thin -fno-lto -c a.c",
            "-flto=thin -flto=full -c a.c",
            "-c a.c",
            "-flto=thin -S a.c",
            "-flto=thin -c a.c -o -",
            "-flto=thin -E a.c",
            "-flto=thin -c -x ir a.bc",
            "-flto=thin -fuse-ld=bfd a.o",
            "a.o",
            "-fuse-ld=bfd a.o",
            "-fuse-ld=lld --ld-path=/usr/bin/ld.bfd a.o",
            "-fuse-ld=lld -c a.c",
            "-fuse-ld=lld -O2 -g",
            "-fuse-ld=lld --target=wasm32 a.o",
            "-fuse-ld=/usr/bin/ld.gold a.o",
            "-flto=thin -c a.c -ffat-lto-objects",
            "-flto=thin --version",
            "-flto=thin a.h",
            "-flto=thin -c a.hpp",
            "-flto=thin -x c-header a -o a.pch",
            "-flto=thin -x c-header -x none a.c a.h",
            "-cc1 -flto=thin -emit-obj a.c -o a.o",
        ] {
            assert!(matches!(parse(&words(line)), Invocation::PassThrough(_)), "{line}");
        }
    }

    #[test]
    fn a_link_through_the_driver_is_seen() {
        for (line, expected) in [
            ("-flto=thin a.o", "ld.lld"),
            ("-flto=thin a.c -fuse-ld=lld-22 -o p", "ld.lld-22"),
            ("-flto=thin a.o -r", "ld.lld"),
            ("-fuse-ld=lld a.o", "ld.lld"),
            ("-fuse-ld=/l/ld.lld a.o", "/l/ld.lld"),
            ("--ld-path=/l/ld.lld-19 -fuse-ld=bfd a.o", "/l/ld.lld-19"),
            ("-fuse-ld=lld -shared -Wl,--whole-archive,a.a -o a.so", "ld.lld"),
            ("-fno-lto -fuse-ld=lld --target=x86_64-linux-gnu a.o", "ld.lld"),
        ] {
            match parse(&words(line)) {
                Invocation::Link(link) => assert_eq!(link.linker, expected, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn empty_words_are_no_inputs() {
        let mut line = words("-flto=thin -c a.c");
        line.insert(1, OsString::new());
        let Invocation::Compile(compile) = parse(&line) else { panic!("no compile") };
        assert_eq!(compile.outputs, [PathBuf::from("a.o")]);
        assert_eq!(parse(&[OsString::new()]), Invocation::PassThrough("no input"));
    }

    #[test]
    fn an_option_not_understood_is_a_doubt() {
        let compile = compile("-flto=thin -c a.c --no-such-option");
        assert_eq!(compile.doubt, Some("--no-such-option".into()));
    }
}
