//! Back ends that a build system calls itself: `clang -x ir foo.o -fthinlto-index=… -c -o …`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::items;
use super::options::back_end_options;
use super::table::Fate;

/// A back end, understood.
#[derive(Debug, PartialEq, Eq)]
pub struct BackEnd {
    /// The module.
    pub module: OsString,
    /// Its individual index.
    pub index: PathBuf,
    /// The native object.
    pub output: PathBuf,
    /// Every word that may matter to the object, or to what clang says: all but the names of index and
    /// object, and what only a preprocessor reads where clang is not to speak of unused options.
    pub options: Vec<OsString>,
}

/// Understands a back end's command line; `None`, where anything in it is out of the ordinary.
pub(super) fn parse(args: &[OsString]) -> Option<BackEnd> {
    let (mut module, mut index, mut output) = (None, None, None);
    let (mut object_only, mut is_ir, mut is_lto) = (false, false, false);
    let mut options = Vec::new();
    // Plugins, assembler options that name files, what nobody here understands.
    back_end_options(args).ok()?;
    let silent = is_silent_of_unused(args);
    for item in items(args) {
        let Some(row) = item.row else {
            if !is_ir || module.replace(item.value.to_owned()).is_some() {
                return None;
            }
            continue;
        };
        let name = row.name;
        match row.fate {
            Fate::BackEnd => {
                if index.replace(PathBuf::from(item.value)).is_some() {
                    return None;
                }
                continue;
            }
            Fate::Output => {
                if item.value == "-" || output.replace(PathBuf::from(item.value)).is_some() {
                    return None;
                }
                continue;
            }
            // Without a preprocessor nobody reads these, and no dependency file is written.
            Fate::SearchPath if silent => continue,
            Fate::SideOutput if is_dependency_s(name) && silent => continue,
            Fate::SideOutput if is_dependency_s(name) => {}
            Fate::FrontEnd if is_preprocessor_s(name) && silent => continue,
            Fate::Compile => object_only = true,
            Fate::Language if item.value == "ir" => is_ir = true,
            // The last one counts: a build system takes back what the compile had.
            Fate::Lto => is_lto = item.words[0] != "-fno-lto",
            Fate::BackEndSideOutput if !matches!(name, "-gno-split-dwarf" | "-fno-stack-usage") => {
                return None;
            }
            Fate::OtherAction | Fate::SideOutput | Fate::Program | Fate::Doubt | Fate::Language => {
                return None;
            }
            _ if says_more_than_an_object(name) => return None,
            _ => {}
        }
        options.extend_from_slice(item.words);
    }
    let call = BackEnd { module: module?, index: index?, output: output?, options };
    // With LTO what comes out would be bitcode.
    (object_only && is_ir && !is_lto).then_some(call)
}

/// Whether clang says nothing of options that it has no use for.
fn is_silent_of_unused(args: &[OsString]) -> bool {
    let mut silent = false;
    for item in items(args).filter(|item| item.row.is_some()) {
        match item.words[0].as_bytes() {
            b"-Qunused-arguments" => return true,
            b"-Wno-unused-command-line-argument" => silent = true,
            b"-Wunused-command-line-argument" | b"-Werror=unused-command-line-argument" => {
                silent = false;
            }
            _ => {}
        }
    }
    silent
}

/// Options of dependency files. `-MJ` is none: it writes what the call itself is.
fn is_dependency_s(name: &str) -> bool {
    name.starts_with("-M") && name != "-MJ"
}

fn is_preprocessor_s(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "-D",
        "-U",
        "-Wp,",
        "-include",
        "-imacros",
        "-undef",
        "-nostdinc",
        "--define-macro",
        "--define-macro=",
        "--include",
    ];
    NAMES.contains(&name)
}

/// Options that print, or choose another assembler or compiler process.
fn says_more_than_an_object(name: &str) -> bool {
    const NAMES: [&str; 7] = [
        "-v",
        "--verbose",
        "-ftime-report",
        "-time",
        "-fno-integrated-as",
        "-no-integrated-as",
        "-fno-integrated-cc1",
    ];
    NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_kernel_s_back_end_is_understood() {
        let call = parse(&words(
            "-Wp,-MMD,init/.main.o.d -nostdinc -I./include -include ./include/linux/kconfig.h \
             -D__KERNEL__ -O2 -fno-lto -flto=thin -fsplit-lto-unit -mcmodel=kernel -Wframe-larger-than=2048 \
             -Wno-unused-command-line-argument -fno-lto -x ir -fthinlto-index=init/main.o.thinlto.bc \
             -c -o init/main.thinlto-native.o init/main.o",
        ));
        let options = "-O2 -fno-lto -flto=thin -fsplit-lto-unit -mcmodel=kernel -Wframe-larger-than=2048 \
                       -Wno-unused-command-line-argument -fno-lto -x ir -c";
        assert_eq!(
            call,
            Some(BackEnd {
                module: "init/main.o".into(),
                index: "init/main.o.thinlto.bc".into(),
                output: "init/main.thinlto-native.o".into(),
                options: words(options),
            })
        );
    }

    #[test]
    fn what_clang_would_say_of_unused_options_matters() {
        const PREPROCESSOR: &str = "-Wp,-DX -I. -MD -include x.h";
        let options = |line: &str| {
            let words = words(&format!("{line} -x ir a.o -fthinlto-index=a.bc -c -o b.o"));
            parse(&words).expect("a back end").options
        };
        for silent in [
            "-Qunused-arguments -Werror",
            "-Wno-unused-command-line-argument -Werror",
            "-Wunused-command-line-argument -Wno-unused-command-line-argument",
            "-Wno-unused-command-line-argument -Wno-error=unused-command-line-argument",
        ] {
            assert_eq!(options(&format!("{PREPROCESSOR} {silent}")), options(silent), "{silent}");
        }
        for loud in [
            "",
            "-Werror",
            "-Wno-unused-command-line-argument -Wunused-command-line-argument",
            "-Wno-unused-command-line-argument -Werror=unused-command-line-argument",
            "--start-no-unused-arguments --end-no-unused-arguments",
        ] {
            let all = words(&format!("{PREPROCESSOR} {loud} -x ir -c"));
            assert_eq!(options(&format!("{PREPROCESSOR} {loud}")), all, "{loud}");
        }
    }

    #[test]
    fn what_is_odd_goes_through() {
        let plain = "-O2 -x ir a.o -fthinlto-index=a.bc -c -o b.o";
        assert!(parse(&words(plain)).is_some());
        for more in [
            "-S",
            "-flto=thin",
            "-fno-lto -flto=thin",
            "-gsplit-dwarf",
            "-fstack-usage",
            "-save-temps",
            "-ftime-trace",
            "-fplugin=x.so",
            "-fpass-plugin=x.so",
            "-Xclang -load -Xclang x.so",
            "-mllvm -stats-file=x",
            "-v",
            "-###",
            "b.o",
            "-o c.o",
            "-fthinlto-index=b.bc",
            "-fno-integrated-as",
            "--config=x",
            "--no-such-option",
            "-x c",
            "-Xlinker",
            "-MJ x.json",
        ] {
            assert_eq!(parse(&words(&format!("{plain} {more}"))), None, "{more}");
        }
        for line in [
            "-O2 a.o -fthinlto-index=a.bc -c -o b.o",
            "-x ir a.o -fthinlto-index=a.bc -o b.o",
            "-x ir a.o -fthinlto-index=a.bc -c",
            "-x ir a.o -c -o b.o",
            "-x ir a.o -fthinlto-index=a.bc -c -o -",
        ] {
            assert_eq!(parse(&words(line)), None, "{line}");
        }
    }
}
