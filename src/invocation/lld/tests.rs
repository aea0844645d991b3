//! The parser on command lines of kernels and of clang.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::*;

mod inverse;
mod oracle;
mod table;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn link(line: &str) -> Link {
    parse(words(line)).unwrap()
}

fn refusal(line: &str) -> Refusal {
    parse(words(line)).unwrap_err()
}

fn strings<T: AsRef<OsStr>>(args: impl IntoIterator<Item = T>) -> String {
    let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    args.join(OsStr::new(" ")).into_string().unwrap()
}

fn inputs(link: &Link) -> Vec<(String, State)> {
    link.elements()
        .filter_map(|element| match element {
            Element::Input { path, state } => Some((strings([path]), state)),
            Element::Library { name, state, .. } => Some((format!("-l{}", name.display()), state)),
            Element::Option { .. } => None,
        })
        .collect()
}

fn thin(link: &Link) -> String {
    strings(print(link.elements().filter(Element::in_thin_link)))
}

fn native(link: &Link) -> String {
    strings(print(link.elements().filter(Element::in_native_link)))
}

/// The LLVMs that are installed here.
pub(super) fn llvms() -> Vec<(u32, PathBuf)> {
    let llvms: Vec<_> = [14, 16, 19, 22]
        .map(|major| (major, PathBuf::from(format!("/usr/lib/llvm-{major}/bin"))))
        .into_iter()
        .filter(|(_, bin)| bin.join("ld.lld").exists())
        .collect();
    let all = std::env::var_os("CI").is_none() || llvms.len() == 4;
    assert!(!llvms.is_empty() && all, "no ld.lld to compare with, or not all");
    llvms
}

/// The words of some elements.
fn print<'a>(elements: impl Iterator<Item = Element<'a>>) -> Vec<OsString> {
    elements
        .flat_map(|element| match element {
            Element::Input { path, .. } => vec![path.to_owned()],
            Element::Library { words, .. } | Element::Option { words, .. } => words.to_vec(),
        })
        .collect()
}

#[test]
fn the_kernel_s_vmlinux_o() {
    let link = link(
        "-m elf_x86_64 -mllvm -import-instr-limit=5 -z noexecstack -r \
         -o vmlinux.o -T .tmp_initcalls.lds --whole-archive vmlinux.a --no-whole-archive \
         --start-group --end-group",
    );
    assert_eq!(link.kind, Kind::Relocatable);
    assert_eq!(link.output, Path::new("vmlinux.o"));
    assert_eq!(link.emulation.as_deref(), Some("elf_x86_64".as_ref()));
    assert_eq!(link.scripts, [Path::new(".tmp_initcalls.lds")]);
    assert_eq!(link.lto.llvm, ["-import-instr-limit=5"]);
    let whole = State { whole_archive: true, is_static: true, ..State::default() };
    assert_eq!(inputs(&link), [("vmlinux.a".into(), whole)]);
    assert_eq!(thin(&link), strings(link.words()));
    assert_eq!(
        native(&link),
        "-m elf_x86_64 -z noexecstack -r -o vmlinux.o \
         -T .tmp_initcalls.lds --whole-archive vmlinux.a --no-whole-archive --start-group --end-group"
    );
}

#[test]
fn the_kernel_s_modules_and_vmlinux() {
    let module = link(
        "-r -m elf_x86_64 -z noexecstack --build-id=sha1 -T scripts/module.lds -o foo.ko foo.o foo.mod.o .module-common.o",
    );
    assert_eq!(module.kind, Kind::Relocatable);
    assert_eq!(inputs(&module).len(), 3);
    assert_eq!(native(&module), strings(module.words()));

    let vmlinux = link(
        "-m elf_x86_64 -z noexecstack --orphan-handling=error --emit-relocs --discard-none -z \
         max-page-size=0x200000 --build-id=sha1 -X --script=arch/x86/kernel/vmlinux.lds \
         --strip-debug -o .tmp_vmlinux1 --whole-archive vmlinux.o .vmlinux.export.o init/version-timestamp.o \
         --no-whole-archive --start-group --end-group .tmp_vmlinux0.kallsyms.o",
    );
    assert_eq!(vmlinux.kind, Kind::Exec);
    assert!(vmlinux.emit_relocs);
    assert_eq!(vmlinux.scripts, [Path::new("arch/x86/kernel/vmlinux.lds")]);
    assert_eq!(inputs(&vmlinux).len(), 4);
    assert_eq!(inputs(&vmlinux)[3].1, State::default());
    assert_eq!(native(&vmlinux), strings(vmlinux.words()));
}

#[test]
fn autofdo_and_propeller_kernels() {
    let link = link(
        "-r -o vmlinux.o -mllvm=-enable-fs-discriminator=true -mllvm=-improved-fs-discriminator=true \
         -plugin-opt=thinlto -plugin-opt=-split-machine-functions --lto-sample-profile=k.afdo \
         --lto-basic-block-sections=p_cc_profile.txt -z keep-text-section-prefix vmlinux.a",
    );
    assert_eq!(
        strings(link.lto.overlay_args(22)),
        "-fsplit-machine-functions -Xclang -fprofile-sample-use=k.afdo \
         -fbasic-block-sections=list=p_cc_profile.txt -mllvm -enable-fs-discriminator=true \
         -mllvm -improved-fs-discriminator=true"
    );
    assert_eq!(strings(link.lto.files()), "k.afdo p_cc_profile.txt");
    assert_eq!(native(&link), "-r -o vmlinux.o -z keep-text-section-prefix vmlinux.a");
}

const CLANG: &str = "--hash-style=gnu --build-id --eh-frame-hdr -m elf_x86_64";
const CRT: &str = "/lib/x86_64-linux-gnu/crti.o /usr/lib/gcc/x86_64-linux-gnu/12/crtbeginS.o \
                   -L/usr/lib/gcc/x86_64-linux-gnu/12 -L/lib/x86_64-linux-gnu -L/usr/lib";

#[test]
fn clang_s_pie() {
    let link = link(&format!(
        "{CLANG} -pie -dynamic-linker /lib64/ld-linux-x86-64.so.2 -o prog {CRT} \
         -plugin-opt=mcpu=x86-64 -plugin-opt=O3 -plugin-opt=thinlto -plugin-opt=jobs=2 \
         -plugin-opt=-function-sections=1 x.o -lgcc --as-needed -lgcc_s --no-as-needed -lc \
         /usr/lib/gcc/x86_64-linux-gnu/12/crtendS.o"
    ));
    assert_eq!(link.kind, Kind::Pie);
    assert_eq!(link.thinlto_jobs.as_deref(), Some("2".as_ref()));
    assert_eq!(
        strings(&link.library_paths),
        "/usr/lib/gcc/x86_64-linux-gnu/12 /lib/x86_64-linux-gnu /usr/lib"
    );
    let as_needed = State { as_needed: true, ..State::default() };
    assert_eq!(
        inputs(&link)[2..6],
        [
            ("x.o".into(), State::default()),
            ("-lgcc".into(), State::default()),
            ("-lgcc_s".into(), as_needed),
            ("-lc".into(), State::default()),
        ]
    );
    assert_eq!(
        strings(link.lto.clang_args(link.kind, 22)),
        "--no-default-config -O3 -fPIC -ffunction-sections -fdata-sections -faddrsig \
         -Xclang -target-cpu -Xclang x86-64"
    );
    assert_eq!(strings(link.lto.overlay_args(22)), "");
    assert_eq!(link.lto.inexact(), None);
    assert!(!native(&link).contains("plugin-opt"));
    assert!(!thin(&link).contains("jobs"));
}

#[test]
fn clang_s_other_kinds() {
    let shared = link(&format!("{CLANG} -shared -o lib.so {CRT} -plugin-opt=thinlto x.o -lstdc++"));
    assert_eq!(shared.kind, Kind::Shared);
    let static_pie = link(&format!(
        "{CLANG} -static -pie --no-dynamic-linker -z text {CRT} x.o --start-group -lgcc -lgcc_eh -lc --end-group"
    ));
    assert_eq!(static_pie.kind, Kind::Pie);
    assert_eq!(static_pie.output, Path::new("a.out"));
    assert!(!static_pie.output_given);
    let group = State { in_group: true, is_static: true, ..State::default() };
    assert_eq!(inputs(&static_pie)[3], ("-lgcc".into(), group));
    let plain = link(&format!("{CLANG} -static {CRT} x.o"));
    assert_eq!(plain.kind, Kind::Exec);
    assert_eq!(
        strings(plain.lto.clang_args(plain.kind, 22)),
        "--no-default-config -O2 -fno-pic -ffunction-sections -fdata-sections -faddrsig"
    );
}

#[test]
fn the_state_of_an_input_is_what_stands_before_it() {
    let link = link(
        "a.o --start-lib b.o --end-lib --push-state --whole-archive --as-needed -Bstatic c.a \
         --pop-state d.a -b binary e.bin --format=default -Bstatic -lf -dy -lg -n -lh",
    );
    let none = State::default();
    let expected = [
        ("a.o", none),
        ("b.o", State { in_lib: true, in_group: true, ..none }),
        ("c.a", State { whole_archive: true, as_needed: true, is_static: true, ..none }),
        ("d.a", none),
        ("e.bin", State { binary: true, ..none }),
        ("-lf", State { is_static: true, ..none }),
        ("-lg", none),
        ("-lh", State { is_static: true, ..none }),
    ];
    assert_eq!(inputs(&link), expected.map(|(name, state)| (name.to_owned(), state)));
}

#[test]
fn relocatable_is_static_wherever_it_stands() {
    let link = link("-lc -Bdynamic -lm -r");
    assert!(inputs(&link).iter().all(|(_, state)| state.is_static));
}

#[test]
fn numbers_of_threads() {
    for good in ["1", "16", "0x4", "0X4", "010", "0b11", "0o7"] {
        assert!(parse(words(&format!("x.o --threads=0 --threads={good}"))).is_ok(), "{good}");
    }
    for bad in ["0", "x", "-1", "+1", "2x", "", "09", "0x", "0b2", "4294967296"] {
        let line = format!("x.o --threads=4 --threads={bad}");
        assert!(matches!(refusal(&line), Refusal::Bad(_)), "{bad}");
    }
}

#[test]
fn llvm_s_own_answers() {
    for option in ["-help", "--help-list-hidden", "-version"] {
        let line = format!("x.o -mllvm {option}");
        assert!(matches!(refusal(&line), Refusal::PassThrough(_)), "{option}");
    }
}

#[test]
fn a_plugin_option_of_two_words_is_one() {
    let link = link(
        "-plugin-opt O3 --plugin-opt -mattr=+avx2,-sse4a -plugin-opt thinlto -plugin-opt mcpu=znver4 x.o",
    );
    assert_eq!(link.lto.opt_level, Some(3));
    assert_eq!(strings(&link.lto.mattrs), "+avx2 -sse4a");
    assert_eq!(link.lto.mcpu.as_deref(), Some("znver4".as_ref()));
    assert_eq!(native(&link), "x.o");
    assert_eq!(thin(&link), strings(link.words()));
    assert!(matches!(refusal("x.o -plugin-opt thinlto-index-only"), Refusal::PassThrough(_)));
    assert!(matches!(refusal("x.o -plugin-opt /lib/LTO.so"), Refusal::StepAside(_)));
    assert!(parse(words("x.o -plugin-opt /usr/lib/gcc/lto-wrapper")).is_ok());
    assert!(matches!(refusal("x.o -plugin-opt"), Refusal::StepAside(_)));
}

#[test]
fn code_generation_in_all_spellings() {
    let options = |line: &str| strings(link(&format!("x.o {line}")).lto.overlay_args(22));
    for line in
        ["--lto-sample-profile=p", "-plugin-opt=sample-profile=p", "--plugin-opt=sample-profile=p"]
    {
        assert_eq!(options(line), "-Xclang -fprofile-sample-use=p");
    }
    for line in ["-mllvm -x=1", "--mllvm -x=1", "--mllvm=-x=1", "-mllvm=-x=1", "-plugin-opt=-x=1"] {
        assert_eq!(options(line), "-mllvm -x=1");
    }
    // lld reads all of the plugin's before any of -mllvm.
    assert_eq!(options("-mllvm -x=1 -plugin-opt=-x=2"), "-mllvm -x=2 -mllvm -x=1");
    assert_eq!(
        options("--lto-cs-profile-generate --lto-cs-profile-file=f"),
        "-Xclang -fprofile-instrument=csllvm -Xclang -fprofile-instrument-path=f"
    );
    assert_eq!(options("-plugin-opt=cs-profile-path=f"), "-fprofile-use=f");
    assert_eq!(options("--lto-basic-block-sections=all"), "-fbasic-block-sections=all");
    assert_eq!(options("--lto-basic-block-sections=labels"), "");
    assert_eq!(options("--lto-basic-block-address-map"), "-fbasic-block-address-map");
    assert_eq!(
        options("--lto-unique-basic-block-section-names --no-lto-pgo-warn-mismatch"),
        "-funique-basic-block-section-names -mllvm -no-pgo-warn-mismatch"
    );
    let labels = link("x.o --lto-basic-block-sections=labels").lto;
    assert_eq!(strings(labels.overlay_args(19)), "-fbasic-block-sections=labels");
}

#[test]
fn levels_that_clang_cannot_tell_apart_are_named() {
    assert!(link("x.o --lto-O1").lto.inexact().is_some());
    assert!(link("x.o --lto-O3 --lto-CGO2").lto.inexact().is_some());
    assert!(link("x.o --lto-O3").lto.inexact().is_none());
    assert!(link("x.o -plugin-opt=O2 --lto-CGO2").lto.inexact().is_none());
    assert!(matches!(refusal("x.o --lto-Os"), Refusal::StepAside(_)));
}

#[test]
fn a_processor_that_only_lld_finds_out_is_named() {
    for line in ["-plugin-opt=mcpu=native", "-mllvm -mcpu=native", "-plugin-opt=-mcpu=native"] {
        assert!(link(&format!("x.o {line}")).lto.inexact().is_some(), "{line}");
    }
    assert!(link("x.o -plugin-opt=mcpu=native -plugin-opt=mcpu=x86-64").lto.inexact().is_none());
}

#[test]
fn side_outputs_are_named_and_made_once() {
    let link = link(
        "x.o -Map=x.map --cref --dependency-file x.d --time-trace -t --print-gc-sections --Map -",
    );
    assert_eq!(strings(link.side_files()), "x.map x.d a.out.time-trace");
    assert!(link.is_talkative());
    assert_eq!(link.side_outputs.len(), 7);
    assert_eq!(thin(&link), "x.o -t");
    assert_eq!(
        native(&link),
        "x.o -Map=x.map --cref --dependency-file x.d --time-trace --print-gc-sections --Map -"
    );
}

#[test]
fn what_is_no_link_of_ours_passes_through() {
    for line in [
        "--help",
        "--bogus --version x.o --save-temps",
        "-v",
        "-V",
        "-m elf_x86_64",
        "",
        "x.o --thinlto-index-only",
        "x.o --thinlto-index-only=list",
        "x.o --plugin-opt=thinlto-index-only=list",
        "x.o --thinlto-distributor=thinshim --thinlto-distributor-arg=distribute",
        "x.o -mi386pep",
    ] {
        assert!(matches!(refusal(line), Refusal::PassThrough(_)), "{line}");
    }
    assert!(parse(words("-v x.o")).is_ok());
}

#[test]
fn what_only_lld_can_do_is_left_to_it_by_name() {
    for option in [
        "--lto-emit-llvm",
        "--lto-emit-asm",
        "-plugin-opt=emit-asm",
        "--save-temps",
        "--save-temps=opt",
        "--lto-partitions=2",
        "-plugin-opt=lto-partitions=4",
        "--lto=full",
        "--lto-obj-path=x",
        "-plugin-opt=obj-path=x",
        "--thinlto-single-module=x",
        "--thinlto-emit-index-files",
        "--opt-remarks-filename x",
        "-plugin-opt=opt-remarks-filename=x",
        "-plugin-opt=dwo_dir=x",
        "--load-pass-plugin=x.so",
        "--lto-newpm-passes=x",
        "--remap-inputs=a=b",
        "--reproduce=x.tar",
        "--chroot x",
        "--rsp-quoting=windows",
        "--option-of-tomorrow",
        "-mllvm -load=x.so",
        "-plugin-opt=-align-loops=32",
        "-plugin-opt=unheard-of",
    ] {
        let Refusal::StepAside(why) = refusal(&format!("x.o {option}")) else {
            panic!("{option}: not left to lld");
        };
        let name = option.split([' ', '=']).next().unwrap();
        assert!(why.starts_with(name), "{option}: {why}");
    }
    assert!(parse(words("x.o --lto-partitions=1 --lto=thin --rsp-quoting=posix")).is_ok());
}

#[test]
fn what_lld_will_refuse_is_bad() {
    for line in [
        "x.o -o",
        "x.o --end-group",
        "--start-group --start-group x.o",
        "--start-group --start-lib x.o",
        "x.o --end-lib",
        "x.o --pop-state",
        "-r -shared x.o",
        "-r -pie x.o",
        "--format=coff x.o",
    ] {
        assert!(matches!(refusal(line), Refusal::Bad(_)), "{line}");
    }
}

#[test]
fn lists_and_scripts() {
    let link = link(
        "x.o --exclude-libs=a.a,b.a:c.a --exclude-libs ALL -dT d.lds --sysroot=/s --sysroot /t \
         --threads=4 --gc-sections -o x -o y",
    );
    assert_eq!(strings(&link.exclude_libs), "a.a b.a c.a ALL");
    assert_eq!(link.scripts_in_force().collect::<Vec<_>>(), [Path::new("d.lds")]);
    assert_eq!(link.sysroot.as_deref(), Some(Path::new("/t")));
    assert_eq!(link.threads.as_deref(), Some("4".as_ref()));
    assert!(link.gc_sections);
    assert_eq!(link.output, Path::new("y"));
}

#[test]
fn sections_that_a_link_picks() {
    for option in [
        "--gc-sections",
        "-r --gc-sections",
        "--icf=safe",
        "--symbol-ordering-file=f",
        "--symbol-ordering-file f",
        "-call-graph-ordering-file=f",
        "--bp-startup-sort=function",
        "--bp-compression-sort=both",
        "--shuffle-sections=*=1",
        "--call-graph-profile-sort",
        "--call-graph-profile-sort=cdsort",
    ] {
        assert!(link(&format!("x.o {option}")).picks_sections(), "{option}");
    }
    for option in [
        "",
        "-r",
        "--gc-sections --no-gc-sections",
        "--icf=all --icf=none",
        "--bp-startup-sort=none",
        "--call-graph-profile-sort=none",
        "--no-call-graph-profile-sort",
    ] {
        assert!(!link(&format!("x.o {option}")).picks_sections(), "{option}");
    }
}

#[test]
fn empty_words_are_skipped_and_kept() {
    let link = parse(vec!["".into(), "x.o".into(), "-o".into(), "".into()]).unwrap();
    assert_eq!(link.output, Path::new("a.out"));
    assert_eq!(inputs(&link).len(), 1);
    assert_eq!(link.elements().count(), 3);
}

#[test]
fn words_need_not_be_utf_8() {
    let path = OsString::from_vec(b"\xff.o".to_vec());
    let out = OsString::from_vec(b"-o\xfe".to_vec());
    let link = parse(vec![path.clone(), out]).unwrap();
    assert_eq!(link.output, Path::new(&OsString::from_vec(b"\xfe".to_vec())));
    assert_eq!(
        link.elements().next().unwrap(),
        Element::Input { path: &path, state: State::default() }
    );
}

#[test]
fn jobs_of_the_linker() {
    for (line, expected) in [
        ("a.o --thinlto-distributor=x -o b", true),
        ("a.o --thinlto-jobs=2 -o b", false),
        ("thinlto-distributor=x", false),
        ("", false),
    ] {
        let words: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        assert_eq!(starts_jobs(&words), expected, "{line}");
    }
}
