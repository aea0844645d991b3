//! Back-end options: picked out of a compile's command line, and checked again where they come
//! out of an object.
//!
//! Both ways go through the same table. What passes can change code generation and nothing else:
//! it names no program, plugin, configuration or output.

use std::cell::LazyCell;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::table::{self, Fate, is_plain};
use super::{Item, items};

/// An option that may not, or cannot safely, reach a back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub OsString);

impl Refused {
    /// The sentence for an object, called `name`, whose record has it.
    pub fn in_record_of(&self, name: impl Display) -> String {
        format!(
            "{name} carries the option {}, which no record may hold (if another version of thinshim \
             compiled it, compile it again)",
            self.0.display()
        )
    }
}

/// The back-end options among a compile's arguments, in order.
///
/// # Errors
/// [`Refused`] with the first option that may change code generation in a way nobody here
/// understands, or whose value is missing.
pub fn back_end_options(args: &[OsString]) -> Result<Vec<OsString>, Refused> {
    let mut options = Vec::new();
    let mut cc1_pending = Cc1Pending::None;
    let cs_instrumented = LazyCell::new(|| has_cs_instrumentation(args));
    for item in items(args) {
        let Some(row) = item.row else { continue };
        // Whatever came next would be taken for the value.
        if item.value_missing {
            return Err(Refused(item.words[0].clone()));
        }
        let keep = match row.fate {
            Fate::CodeGen => true,
            Fate::CsProfile => *cs_instrumented,
            Fate::Llvm => keep_llvm(item.value)?,
            Fate::Cc1 => keep_cc1(&mut cc1_pending, &item)?,
            Fate::Assembler => keep_assembler(&item)?,
            Fate::Doubt => return Err(Refused(item.words[0].clone())),
            _ => false,
        };
        if keep {
            // clang expands a response file wherever it stands, a value's place included.
            if let Some(file) = item.words[1..].iter().find(|word| is_response_file(word)) {
                return Err(Refused(file.clone()));
            }
            options.extend_from_slice(item.words);
        }
    }
    Ok(options)
}

/// Whether what words on a compile's command line do to code may hang on more than themselves: on
/// files that they name, or on this machine's processor. Yes where they are not understood.
pub fn depends_on_more(words: &[OsString]) -> bool {
    let native = |word: &OsString| word.as_bytes().ends_with(b"=native");
    back_end_options(words).map_or(true, |options| {
        options.iter().any(|word| word.as_bytes().contains(&b'/') || native(word))
            || with_absolute_files(&options, Path::new("/")) != options
    })
}

/// Whether the back end instruments. Where it does not, clang takes no option that says how.
fn has_cs_instrumentation(args: &[OsString]) -> bool {
    let on = |item: &Item<'_>| item.words[0].as_bytes().starts_with(b"-fcs-profile-generate");
    let said = items(args).filter(|item| on(item) || item.words[0] == "-fno-profile-generate");
    said.last().is_some_and(|item| on(&item))
}

fn is_response_file(word: &OsStr) -> bool {
    word.as_bytes().starts_with(b"@")
}

/// Checks options that come out of an object: every word must be one that
/// [`back_end_options`] would have recorded.
///
/// # Errors
/// [`Refused`] with the first word that would not.
pub fn check(options: &[OsString]) -> Result<(), Refused> {
    let kept = back_end_options(options)?;
    match options
        .iter()
        .zip(kept.iter().map(Some).chain(std::iter::repeat(None)))
        .find(|(given, kept)| Some(*given) != *kept)
    {
        Some((word, _)) => Err(Refused(word.clone())),
        None => Ok(()),
    }
}

/// What the driver takes on position-independent code.
const PIC: [&str; 8] =
    ["-fpic", "-fPIC", "-fpie", "-fPIE", "-fno-pic", "-fno-PIC", "-fno-pie", "-fno-PIE"];

/// Whether the last word of a record on position-independent code is that it is to be none.
pub fn refuses_pic(options: &[OsString]) -> bool {
    let said = items(options).filter(|item| PIC.iter().any(|name| item.words[0] == *name));
    said.last().is_some_and(|item| item.words[0].as_bytes().starts_with(b"-fno-"))
}

/// Those of a record's options that in-process ThinLTO knows from the module itself: the target
/// and the code model and, where the link does not decide it (`relocatable`), whether code is
/// position-independent (LLVM's `LTOBackend.cpp`, `createTargetMachine`).
pub fn known_to_linker(options: &[OsString], relocatable: bool) -> Vec<OsString> {
    const ALWAYS: [&str; 5] =
        ["--target", "-target", "-mcmodel=", "-mabi=", "-mlarge-data-threshold="];
    chosen(options, |word| {
        ALWAYS.iter().any(|name| word.starts_with(name.as_bytes()))
            || relocatable && PIC.iter().any(|name| word == name.as_bytes())
    })
}

/// Whether a record asks for code by a profile, or for sections of basic blocks: what a link leaves
/// out where its line does not say the same (lld's `--lto-sample-profile`,
/// `--lto-basic-block-sections`), and of which a small module has as much need as a large one.
pub fn follow_profile(options: &[OsString]) -> bool {
    const NAMES: [&str; 6] = [
        "-fauto-profile=",
        "-fbasic-block-",
        "-fprofile-sample-use=",
        "-fprofile-use=",
        "-fsplit-machine-functions",
        "-funique-basic-block-section-names",
    ];
    let named = |word: &[u8]| NAMES.iter().any(|name| word.starts_with(name.as_bytes()));
    items(options).any(|item| named(item.words[0].as_bytes()))
}

/// A record's options less `-falign-loops`, which in-process ThinLTO has no way to know.
pub fn without_loop_alignment(options: &[OsString]) -> Vec<OsString> {
    chosen(options, |word| !word.starts_with(b"-falign-loops"))
}

/// A record's options with the files of profiles and section lists as seen from anywhere: `here` is
/// where the compile runs, and the link may be elsewhere. A name that is absolute stays as it is.
pub fn with_absolute_files(options: &[OsString], here: &Path) -> Vec<OsString> {
    const NAMES: [&str; 5] = [
        "-fauto-profile=",
        "-fbasic-block-sections=list=",
        "-fprofile-remapping-file=",
        "-fprofile-sample-use=",
        "-fprofile-use=",
    ];
    // What clang takes without a name (`addPGOAndCoverageFlags` in `Driver/ToolChains/Clang.cpp`).
    const DEFAULT: [&str; 3] = ["-fprofile-instr-use", "-fprofile-use", "-fprofile-use="];
    let option = |name: &str, file: &OsStr| {
        let mut option = OsString::from(name);
        option.push(here.join(file));
        option
    };
    let absolute = |word: &OsString| {
        if DEFAULT.iter().any(|name| word == *name) {
            return option("-fprofile-use=", OsStr::new("default.profdata"));
        }
        let named = NAMES.iter().find_map(|&name| {
            let file = word.as_bytes().strip_prefix(name.as_bytes())?;
            (!file.is_empty()).then(|| option(name, OsStr::from_bytes(file)))
        });
        named.unwrap_or_else(|| word.clone())
    };
    let mut all = Vec::with_capacity(options.len());
    for item in items(options) {
        match item.words {
            [word] => all.push(absolute(word)),
            words => all.extend_from_slice(words),
        }
    }
    all
}

/// The target triple among a record's options; the last counts.
pub fn target(options: &[OsString]) -> Option<&str> {
    if let Some(told) = only_target(options) {
        return told.to_str();
    }
    last_target(options)?.to_str()
}

/// The option that turns the target of others into the one of another width; `-miamcu` counts wherever
/// it stands, else the last does. A value that looks like one would be none that clang takes.
pub fn width(options: &[OsString]) -> Option<&OsStr> {
    let mut found: Option<&OsStr> = None;
    for word in options {
        let named = matches!(word.as_bytes(), b"-m16" | b"-m32" | b"-m64" | b"-mx32" | b"-miamcu");
        if named && found.is_none_or(|found| found != "-miamcu") {
            found = Some(word);
        }
    }
    found
}

fn last_target(options: &[OsString]) -> Option<&OsStr> {
    let targets = items(options).filter(|item| {
        item.row.is_some_and(|row| matches!(row.name, "--target=" | "--target" | "-target"))
    });
    Some(targets.last()?.value)
}

/// The triple where one word tells it, and that can be seen without a look at the others: a link asks
/// thousands of modules. `None`: not so plain.
fn only_target(options: &[OsString]) -> Option<&OsStr> {
    let mut found = None;
    for (at, word) in options.iter().enumerate() {
        let word = word.as_bytes();
        if word == b"--" || word.starts_with(b"-target") {
            return None;
        }
        if word.starts_with(b"--target") {
            if found.is_some() {
                return None;
            }
            found = Some((at, word.strip_prefix(b"--target=")?));
        }
    }
    let (at, triple) = found?;
    // The word before may take it for its value.
    let takes = |before: &OsString| table::find(before.as_bytes()).takes_next(before.as_bytes());
    let before = at.checked_sub(1).map(|before| &options[before]);
    (!before.is_some_and(takes)).then(|| OsStr::from_bytes(triple))
}

/// A record's options less those of LLVM's own that are among `others`, with whatever value.
pub fn without_llvm(options: &[OsString], others: &[OsString]) -> Vec<OsString> {
    let among = |option: &OsStr| others.iter().any(|other| llvm_name(other) == llvm_name(option));
    items(options)
        .filter(|item| item.row.is_none_or(|row| row.fate != Fate::Llvm) || !among(item.value))
        .flat_map(|item| item.words.iter().cloned())
        .collect()
}

/// The name of an option of LLVM's own, which may have one dash or two, and a value.
fn llvm_name(option: &OsStr) -> &[u8] {
    let option = option.as_bytes();
    let name = option.strip_prefix(b"-").unwrap_or(option);
    let name = name.strip_prefix(b"-").unwrap_or(name);
    name.split(|&byte| byte == b'=').next().unwrap_or_default()
}

fn chosen(options: &[OsString], wanted: impl Fn(&[u8]) -> bool) -> Vec<OsString> {
    items(options)
        .filter(|item| wanted(item.words[0].as_bytes()))
        .flat_map(|item| item.words.iter().cloned())
        .collect()
}

/// LLVM's own options. A name that speaks of loading, writing or viewing, or a value with a path,
/// could name a plugin, an output or a program.
fn keep_llvm(option: &OsStr) -> Result<bool, Refused> {
    const FORBIDDEN: [&str; 14] = [
        "load",
        "plugin",
        "output",
        "file",
        "dir",
        "path",
        "view",
        "dot",
        "dump",
        "save",
        "write",
        "print-changed",
        "record",
        "exec",
    ];
    let text = option.to_str().ok_or_else(|| Refused(option.to_owned()))?;
    let name = text.split('=').next().unwrap_or(text);
    let known_good = ["-enable-", "-disable-", "-improved-", "-import-", "-inline"];
    let suspicious = FORBIDDEN.iter().any(|word| name.contains(word))
        && !known_good.iter().any(|good| name.starts_with(good));
    if !is_plain(option.as_bytes()) || !name.starts_with('-') || suspicious {
        return Err(Refused(option.to_owned()));
    }
    Ok(true)
}

#[derive(PartialEq)]
enum Cc1Pending {
    None,
    /// The next `-Xclang` word is the value of an LLVM option.
    Llvm,
    /// The next `-Xclang` word is the value of a known option.
    Value,
}

/// Options of the compiler proper. Those that only concern the front end are left out.
fn keep_cc1(pending: &mut Cc1Pending, item: &Item<'_>) -> Result<bool, Refused> {
    let refused = || Refused(item.value.to_owned());
    match std::mem::replace(pending, Cc1Pending::None) {
        Cc1Pending::Llvm => return keep_llvm(item.value),
        Cc1Pending::Value if is_plain(item.value.as_bytes()) => return Ok(true),
        Cc1Pending::Value => return Err(refused()),
        Cc1Pending::None => {}
    }
    let word = item.value.to_str().ok_or_else(refused)?;
    match word {
        "-mllvm" => *pending = Cc1Pending::Llvm,
        "-target-cpu" | "-tune-cpu" | "-target-feature" | "-target-abi" | "-mrelocation-model"
        | "-pic-level" => *pending = Cc1Pending::Value,
        _ if super::table::find(word.as_bytes()).fate == Fate::CodeGen => {}
        _ if super::table::find(word.as_bytes()).fate == Fate::FrontEnd => return Ok(false),
        _ => return Err(refused()),
    }
    Ok(true)
}

/// Options of the integrated assembler. `-I` takes the next value; none of them writes a file,
/// but a response file would bring in anything.
fn keep_assembler(item: &Item<'_>) -> Result<bool, Refused> {
    let harmless = item.value.as_bytes().split(|&byte| byte == b',').all(|word| {
        !word.starts_with(b"@") && !word.starts_with(b"-o") && !word.starts_with(b"-a")
    });
    if harmless { Ok(true) } else { Err(Refused(item.words[0].clone())) }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::word;
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    proptest! {
        #[test]
        fn a_target_is_seen_at_once_or_looked_for(
            args in proptest::collection::vec(
                prop_oneof![
                    Just("--target=a-b-c"), Just("--target=d"), Just("--target"), Just("-target"), Just("-mllvm"),
                    Just("-Xclang"), Just("--"), Just("-march"), Just("-march=x"), Just("-o"), Just("-O2"), Just("x"),
                    Just("-I"), Just("-D"), Just("-"), Just(""),
                ],
                0..6,
            ),
        ) {
            let args: Vec<OsString> = args.into_iter().map(OsString::from).collect();
            if let Some(seen) = only_target(&args) {
                prop_assert_eq!(Some(seen), last_target(&args));
            }
            let plain = [OsString::from("-O2"), "--target=e".into()];
            prop_assert_eq!(only_target(&plain), Some("e".as_ref()));
        }

        #[test]
        fn items_print_as_they_were_and_a_record_passes_whatever_follows(
            args in proptest::collection::vec(word().prop_map(OsString::from_vec), 0..8),
        ) {
            let printed: Vec<OsString> = items(&args).flat_map(|item| item.words.to_vec()).collect();
            prop_assert_eq!(&printed, &args);
            if let Ok(mut options) = back_end_options(&args) {
                prop_assert_eq!(check(&options), Ok(()));
                let more = OsString::from("--no-such-option");
                options.push(more.clone());
                prop_assert_eq!(check(&options), Err(Refused(more)));
            }
        }
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_record_cannot_name_a_program_a_plugin_or_an_output() {
        for line in [
            "-fplugin=/tmp/x.so",
            "-fpass-plugin=x.so",
            "-Xclang -load -Xclang x.so",
            "-Xclang -add-plugin",
            "-mllvm -load=x.so",
            "-mllvm -info-output-file=x",
            "-Xclang -mllvm -Xclang -load=x.so",
            "-B/tmp",
            "-fuse-ld=/tmp/ld",
            "--ld-path=/tmp/ld",
            "--config=x.cfg",
            "--config x.cfg",
            "-o /etc/passwd",
            "@file",
            "file.c",
            "-Wa,@file",
            "-ftime-trace=/tmp/x",
            "-fsave-optimization-record",
            "-foptimization-record-file=x",
            "-fstack-usage",
            "-gsplit-dwarf",
            "-save-temps",
            "-MD",
            "-MF x",
            "-Xlinker x",
            "-fcrash-diagnostics-dir=/x",
            "-specs=x",
            "-S",
            "-x c",
            "-mllvm",
            "-Xclang",
            "--",
            // Each would take the word after the record for its value.
            "-O2 -target",
            "-Xassembler",
            "-G",
            "--target @file",
            "-target @file",
            "-G @file",
            "-meabi @file",
            "-mthread-model @file",
        ] {
            assert!(check(&words(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn options_of_llvm_are_told_by_their_names() {
        let line = "-O2 -mllvm -a=1 -mllvm=-b -mllvm --ab -Xclang -target-cpu -Xclang a -g";
        let less = |others: &str| without_llvm(&words(line), &words(others));
        assert_eq!(less("-c -O2 -g"), words(line));
        assert_eq!(less("--a -b=2 -ab=false"), words("-O2 -Xclang -target-cpu -Xclang a -g"));
        assert_eq!(check(&less("-a")), Ok(()));
    }

    #[test]
    fn files_are_seen_from_anywhere() {
        for (line, expected) in [
            ("-fprofile-use=a.profdata", "-fprofile-use=/c/a.profdata"),
            ("-O2 -fprofile-use", "-O2 -fprofile-use=/c/default.profdata"),
            ("-fprofile-instr-use", "-fprofile-use=/c/default.profdata"),
            ("-fprofile-use=", "-fprofile-use=/c/default.profdata"),
            ("-fprofile-sample-use=p/a.afdo -g", "-fprofile-sample-use=/c/p/a.afdo -g"),
            ("-fauto-profile=../a", "-fauto-profile=/c/../a"),
            ("-fbasic-block-sections=list=l", "-fbasic-block-sections=list=/c/l"),
            ("-fprofile-remapping-file=m", "-fprofile-remapping-file=/c/m"),
            ("-fprofile-sample-use=/p/a", "-fprofile-sample-use=/p/a"),
            ("-fbasic-block-sections=all", "-fbasic-block-sections=all"),
            ("-fno-profile-use -fprofile-sample-use=", "-fno-profile-use -fprofile-sample-use="),
            ("-target -fprofile-use", "-target -fprofile-use"),
        ] {
            let options = with_absolute_files(&words(line), Path::new("/c"));
            assert_eq!(options, words(expected));
            assert_eq!(check(&options), Ok(()));
        }
    }

    #[test]
    fn the_last_word_on_position_independence_counts() {
        for (line, refused) in [
            ("-O2", false),
            ("-fPIC", false),
            ("-O2 -fno-pie", true),
            ("-fPIE -fno-pic -O2", true),
            ("-fno-PIC -fno-PIE -fpie", false),
            ("-target -fno-pic", false),
        ] {
            assert_eq!(refuses_pic(&words(line)), refused, "{line}");
        }
    }

    #[test]
    fn how_a_profile_counts_is_recorded_with_the_second_instrumentation() {
        for (line, expected) in [
            ("-fprofile-generate -ftemporal-profile", ""),
            (
                "-ftemporal-profile -fcs-profile-generate=x",
                "-ftemporal-profile -fcs-profile-generate=x",
            ),
            (
                "-fcs-profile-generate -fno-profile-generate -fprofile-continuous",
                "-fcs-profile-generate -fno-profile-generate",
            ),
        ] {
            let options = back_end_options(&words(line)).expect("known options");
            assert_eq!(options, words(expected), "{line}");
            assert_eq!(check(&options), Ok(()));
        }
    }

    #[test]
    fn a_value_that_is_a_word_of_its_own_is_no_input() {
        for (line, kept) in [
            ("-fdebug-compilation-dir . -g", "-g"),
            ("-fmodules-user-build-path x", ""),
            ("-ftrapv -ftrapv-handler x", "-ftrapv"),
            ("-fxray-instruction-threshold 9", ""),
            ("-fxray-instruction-threshold=9", ""),
            ("-module-dependency-dir x", ""),
        ] {
            assert_eq!(items(&words(line)).filter(|item| item.row.is_none()).count(), 0, "{line}");
            assert_eq!(back_end_options(&words(line)), Ok(words(kept)), "{line}");
        }
        for line in ["-filelist x", "-mmlir x", "-gen-cdb-fragment-path x"] {
            assert!(check(&words(line)).is_err(), "{line}");
            assert_eq!(items(&words(line)).count(), 1, "{line}");
        }
    }

    #[test]
    fn what_was_recorded_passes_the_check() {
        let line = "--target=x86_64-linux-gnu -O2 -mcmodel=kernel -mllvm -enable-fs-discriminator=true \
                    -Xclang -target-cpu -Xclang x86-64 -Wa,-mx86-used-note=no -fprofile-use=/p/x.prof \
                    -fbasic-block-sections=list=/p/x -g -gdwarf-5 -falign-loops=1 -std=gnu11 -target x";
        assert_eq!(check(&words(line)), Ok(()));
    }
}
