//! Clang's command line: what a call to the driver asks for.

mod back_end;
mod options;
pub mod table;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

pub use back_end::BackEnd as BackEndCall;
pub use options::{
    Refused, back_end_options, check, known_to_linker, target, without_loop_alignment,
};
use table::{Fate, Form, Row};

/// What a clang command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    /// `-flto=thin -c`: run clang, then attach the record to the objects it wrote.
    Compile(Compile),
    /// `-x ir -fthinlto-index=…`: a build system distributes by itself.
    BackEnd(BackEndCall),
    /// A link with ThinLTO through the driver: clang is told to call thinshim as its linker.
    Link(Link),
    /// Clang's own business, and why.
    PassThrough(&'static str),
}

/// A ThinLTO compile.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compile {
    /// The back-end options, in order.
    pub options: Vec<OsString>,
    /// Directories given by `-I` and its like, as typed.
    pub search_paths: Vec<OsString>,
    /// An option that nobody here understands.
    pub doubt: Option<OsString>,
    /// The objects that clang will write.
    pub outputs: Vec<PathBuf>,
}

/// A ThinLTO link through the driver.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    /// The user named the linker's path; it must then be told apart from a linker that is not lld.
    pub ld_path: Option<OsString>,
}

/// One option or input of a command line.
pub(crate) struct Item<'a> {
    /// The table's row; `None` for an input.
    pub(crate) row: Option<&'static Row>,
    /// The option's value, or the input.
    pub(crate) value: &'a OsStr,
    /// The words as typed.
    pub(crate) words: &'a [OsString],
}

/// The items of a command line without its first word. A missing value counts as empty: clang
/// itself complains of it.
pub(crate) fn items(args: &[OsString]) -> impl Iterator<Item = Item<'_>> {
    let mut rest = args;
    let mut only_inputs = false;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        let bytes = first.as_bytes();
        if only_inputs || bytes.len() < 2 || bytes[0] != b'-' {
            rest = after;
            let words = std::slice::from_ref(first);
            return Some(Item { row: None, value: first, words });
        }
        if bytes == b"--" {
            only_inputs = true;
        }
        let row = table::find(bytes);
        let joined = OsStr::from_bytes(&bytes[row.name.len()..]);
        let separate = row.form == Form::Separate || row.form == Form::Either && joined.is_empty();
        let (count, value) = match after.first() {
            Some(next) if separate => (2, next.as_os_str()),
            _ => (1, joined),
        };
        let (words, after) = rest.split_at(count);
        rest = after;
        Some(Item { row: Some(row), value, words })
    })
}

/// Understands a clang command line (without its first word, response files expanded).
pub fn parse(args: &[OsString]) -> Invocation {
    let mut compile = Compile::default();
    let mut inputs: Vec<(&OsStr, bool)> = Vec::new();
    let mut thin = false;
    let mut object_only = false;
    let mut output: Option<&OsStr> = None;
    let mut language_is_ir = false;
    let mut linker: Option<&OsStr> = None;
    let mut ld_path: Option<&OsStr> = None;
    let mut fat = false;
    for item in items(args) {
        let Some(row) = item.row else {
            inputs.push((item.value, language_is_ir));
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
            Fate::Language => language_is_ir = item.value == "ir",
            Fate::LinkerChoice if row.name == "--ld-path=" => ld_path = Some(item.value),
            Fate::LinkerChoice => linker = Some(item.value),
            Fate::SearchPath => compile.search_paths.push(item.value.to_owned()),
            Fate::LtoFrontEnd if row.name == "-ffat-lto-objects" => fat = true,
            Fate::LtoFrontEnd if row.name == "-fno-fat-lto-objects" => fat = false,
            _ => {}
        }
    }
    if !thin {
        return Invocation::PassThrough("not ThinLTO");
    }
    if inputs.is_empty() {
        return Invocation::PassThrough("no input");
    }
    if !object_only {
        let is_lld = |name: &OsStr| {
            let name = name.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            name == b"lld" || name.starts_with(b"lld-") || name.starts_with(b"ld.lld")
        };
        // `--ld-path` comes before `-fuse-ld` (clang's ToolChain::GetLinkerPath).
        return match (ld_path, linker) {
            (Some(path), _) if !is_lld(path) => Invocation::PassThrough("another linker"),
            (None, Some(name)) if !is_lld(name) => Invocation::PassThrough("another linker"),
            (path, _) => Invocation::Link(Link { ld_path: path.map(OsStr::to_owned) }),
        };
    }
    if fat {
        return Invocation::PassThrough("fat LTO objects carry no record");
    }
    if inputs.iter().any(|&(_, is_ir)| is_ir) {
        return Invocation::PassThrough("the input is LLVM IR");
    }
    match output {
        Some(output) if output == "-" => return Invocation::PassThrough("the output is a stream"),
        Some(output) => compile.outputs.push(output.into()),
        None => compile.outputs.extend(inputs.iter().map(|&(input, _)| default_output(input))),
    }
    match back_end_options(args) {
        Ok(options) => compile.options = options,
        Err(Refused(word)) => compile.doubt = Some(word),
    }
    Invocation::Compile(compile)
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
            "-flto=thin -c a.c -ffat-lto-objects",
            "-flto=thin --version",
        ] {
            assert!(matches!(parse(&words(line)), Invocation::PassThrough(_)), "{line}");
        }
    }

    #[test]
    fn a_link_through_the_driver_is_seen() {
        for line in ["-flto=thin a.o", "-flto=thin a.c -fuse-ld=lld-22 -o p", "-flto=thin a.o -r"] {
            assert!(matches!(parse(&words(line)), Invocation::Link(_)), "{line}");
        }
    }

    #[test]
    fn an_option_not_understood_is_a_doubt() {
        let compile = compile("-flto=thin -c a.c --no-such-option");
        assert_eq!(compile.doubt, Some("--no-such-option".into()));
    }
}
