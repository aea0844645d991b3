//! The options of code generation on a link line, as clang takes them in a back end.
//!
//! Source: `createConfig` in `lld/ELF/LTO.cpp`, against `runThinLTOBackend` in clang's
//! `BackendUtil.cpp`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::codegen::{Translation, translate};
use super::link::Kind;
use super::row::Act;

/// What the link line says on code generation. `None` and `false` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LtoOptions {
    /// `--lto-O`; lld's default is 2.
    pub opt_level: Option<u8>,
    /// `--lto-CGO`; lld's default is 3 with `--lto-O3`, else 2.
    pub cg_level: Option<u8>,
    /// `-plugin-opt=mcpu=`. clang's driver always gives one, `x86-64` for want of a better.
    pub mcpu: Option<OsString>,
    /// `-plugin-opt=-mattr=`, split: `+avx2`.
    pub mattrs: Vec<OsString>,
    /// `-mllvm` and `-plugin-opt=-`, for LLVM's own option parser, with their dashes.
    pub llvm: Vec<OsString>,
    /// Those of them that clang does not know as LLVM's, as clang's.
    pub clang: Vec<OsString>,
    /// `--lto-sample-profile=`
    pub sample_profile: Option<OsString>,
    /// `--lto-cs-profile-generate`
    pub cs_profile_generate: bool,
    /// `--lto-cs-profile-file=`: written by the program, or read by the compiler.
    pub cs_profile_file: Option<OsString>,
    /// `--lto-basic-block-sections=`: `all`, `none`, `labels` or a file.
    pub basic_block_sections: Option<OsString>,
    /// `--lto-basic-block-address-map`
    pub basic_block_address_map: bool,
    /// `--lto-unique-basic-block-section-names`
    pub unique_basic_block_section_names: bool,
    /// `--no-lto-pgo-warn-mismatch`
    pub no_pgo_warn_mismatch: bool,
}

impl LtoOptions {
    /// The options that LTO inside lld would have compiled a module with, for clang's driver
    /// of the linker's own LLVM (`major` is its version).
    ///
    /// Not in them is what lld reads out of the module itself: its target, its code model, and for
    /// `-r` its PIC level.
    pub fn clang_args(&self, kind: Kind, major: u32) -> Vec<OsString> {
        let mut args = Args::default();
        if major >= READS_CONFIGURATION {
            // lld reads none.
            args.one("--no-default-config");
        }
        args.one(format!("-O{}", self.opt_level()));
        if self.opt_level() == 1 {
            // lld unrolls loops at every level, clang from 2 on.
            args.one("-funroll-loops");
        }
        match kind {
            Kind::Shared | Kind::Pie => args.one("-fPIC"),
            Kind::Exec => args.one("-fno-pic"),
            Kind::Relocatable => (),
        }
        // lld sets these whatever the module was compiled with.
        args.all(["-ffunction-sections", "-fdata-sections", "-faddrsig"]);
        if let Some(cpu) = &self.mcpu {
            args.cc1("-target-cpu");
            args.cc1(cpu);
        }
        self.overlay(&mut args, major);
        args.0
    }

    /// The options that the link line asks for in so many words: they go after those that an
    /// object brings along.
    ///
    /// The levels of optimisation and the CPU are not among them: an object's own options know
    /// them better than the link line, where clang's driver puts its defaults.
    pub fn overlay_args(&self, major: u32) -> Vec<OsString> {
        let mut args = Args::default();
        self.overlay(&mut args, major);
        args.0
    }

    /// What LTO inside lld would do that no option of clang's can say.
    pub fn inexact(&self) -> Option<&'static str> {
        // `help` has lld print what there is.
        if self.mcpu.as_deref().is_some_and(|cpu| cpu == "native" || cpu == "help") {
            return Some(
                "for lld, mcpu=native is a name without features, and clang has no such option",
            );
        }
        let cg_level = self.cg_level.unwrap_or(self.opt_level().max(2));
        (cg_level != self.opt_level())
            .then_some("clang has one level for optimisation and code generation")
    }

    /// The files that the back ends read.
    pub fn files(&self) -> impl Iterator<Item = &OsStr> {
        let profile = self.cs_profile_file.as_deref().filter(|_| !self.cs_profile_generate);
        let list = self.basic_block_sections.as_deref().filter(|value| is_list(value));
        self.sample_profile.as_deref().into_iter().chain(profile).chain(list)
    }

    fn opt_level(&self) -> u8 {
        self.opt_level.unwrap_or(2)
    }

    fn overlay(&self, args: &mut Args, major: u32) {
        for attribute in &self.mattrs {
            args.cc1("-target-feature");
            args.cc1(attribute);
        }
        args.all(&self.clang);
        if let Some(file) = &self.sample_profile {
            // Not by way of the driver, which puts an option of LLVM's beside it that lld does not.
            args.cc1(joined("-fprofile-sample-use=", file));
        }
        match &self.cs_profile_file {
            _ if self.cs_profile_generate => {
                args.cc1("-fprofile-instrument=csllvm");
                if let Some(file) = &self.cs_profile_file {
                    args.cc1(joined("-fprofile-instrument-path=", file));
                }
            }
            // The driver's spelling: clang 22's cc1 wants the kind of the profile, too, 19's knows
            // no way to say it.
            Some(file) => args.one(joined("-fprofile-use=", file)),
            None => (),
        }
        match &self.basic_block_sections {
            // From LLVM 20 on lld warns that the labels have an option of their own, and does
            // nothing.
            Some(value) if value == "labels" && major >= 20 => (),
            Some(value) if is_list(value) => {
                args.one(joined("-fbasic-block-sections=list=", value));
            }
            Some(value) => args.one(joined("-fbasic-block-sections=", value)),
            None => (),
        }
        if self.basic_block_address_map {
            args.one("-fbasic-block-address-map");
        }
        if self.unique_basic_block_section_names {
            args.one("-funique-basic-block-section-names");
        }
        if self.no_pgo_warn_mismatch {
            args.all(["-mllvm", "-no-pgo-warn-mismatch"]);
        }
        for option in &self.llvm {
            args.one("-mllvm");
            args.one(option);
        }
    }

    /// Takes one option of the table. An error is a reason to step aside.
    pub(super) fn set(&mut self, act: Act, value: &OsStr) -> Result<(), String> {
        let some = || Some(value.to_owned());
        match act {
            Act::OptLevel => self.opt_level = Some(level(value)?),
            Act::CgLevel => self.cg_level = Some(level(value)?),
            Act::PluginMinus => {
                let mut option = OsString::from("-");
                option.push(value);
                return self.llvm_option(&option);
            }
            Act::Mcpu => self.mcpu = some(),
            // Empty is as good as not given, for lld.
            Act::SampleProfile => self.sample_profile = some().filter(|file| !file.is_empty()),
            Act::CsProfileGenerate => self.cs_profile_generate = true,
            Act::CsProfileFile => self.cs_profile_file = some().filter(|file| !file.is_empty()),
            Act::BasicBlockSections => {
                self.basic_block_sections = some().filter(|value| !value.is_empty());
            }
            Act::BasicBlockAddressMap(on) => self.basic_block_address_map = on,
            Act::UniqueBasicBlockSectionNames(on) => self.unique_basic_block_section_names = on,
            Act::PgoWarnMismatch(on) => self.no_pgo_warn_mismatch = !on,
            _ => return Err("its meaning is not written down".into()),
        }
        Ok(())
    }

    /// Takes one option of LLVM's own.
    pub(super) fn llvm_option(&mut self, option: &OsStr) -> Result<(), String> {
        match translate(option.as_bytes()) {
            Translation::Same => self.llvm.push(option.to_owned()),
            Translation::Nothing => (),
            Translation::Cpu(cpu) => self.mcpu = Some(OsStr::from_bytes(cpu).to_owned()),
            Translation::Attributes(list) => self.mattrs.extend(
                list.split(|&byte| byte == b',')
                    .filter(|name| !name.is_empty())
                    .map(|name| OsStr::from_bytes(name).to_owned()),
            ),
            Translation::Clang(args) => self.clang.extend(args),
            Translation::OneProcess => {
                return Err(format!(
                    "{}: what it writes or counts is one process's",
                    option.display()
                ));
            }
            Translation::None => {
                return Err(format!("{}: nothing to say it to clang with", option.display()));
            }
        }
        Ok(())
    }
}

/// From this release on clang reads `clang.cfg` unasked.
const READS_CONFIGURATION: u32 = 16;

/// A command line in the making.
#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn one(&mut self, arg: impl Into<OsString>) {
        self.0.push(arg.into());
    }

    fn all(&mut self, args: impl IntoIterator<Item = impl Into<OsString>>) {
        self.0.extend(args.into_iter().map(Into::into));
    }

    fn cc1(&mut self, arg: impl Into<OsString>) {
        self.one("-Xclang");
        self.one(arg);
    }
}

fn joined(option: &str, value: &OsStr) -> OsString {
    let mut arg = OsString::from(option);
    arg.push(value);
    arg
}

/// Whether the value of `--lto-basic-block-sections=` names a file.
fn is_list(value: &OsStr) -> bool {
    !matches!(value.as_bytes(), b"all" | b"none" | b"labels")
}

fn level(value: &OsStr) -> Result<u8, String> {
    match value.as_bytes() {
        [digit @ b'0'..=b'3'] => Ok(digit - b'0'),
        _ => Err("not a level of optimisation".into()),
    }
}
