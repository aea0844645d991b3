//! A back-end compile: one module and its individual index, through clang, to a native object.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::module::Module;
use crate::invocation::clang;
use crate::invocation::lld::{Kind, Link};
use crate::object::elf::{self, Native};
use crate::object::module::defines_symbols;

/// Where the options of the back ends come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OptionsFrom {
    /// Each module's record; where there is none, the link line.
    #[default]
    Record,
    /// The link line, as in-process ThinLTO has them, for every module.
    Link,
    /// The record, and what in-process ThinLTO adds to it; less what that cannot know.
    Sections,
}

impl OptionsFrom {
    /// Reads the value of `THINSHIM_OPTIONS`.
    ///
    /// # Errors
    /// The value, where it is none of ours.
    pub fn from_variable(value: Option<&OsStr>) -> Result<Self, OsString> {
        match value.map(OsStr::as_bytes) {
            None | Some(b"" | b"record") => Ok(OptionsFrom::Record),
            Some(b"link") => Ok(OptionsFrom::Link),
            Some(b"sections") => Ok(OptionsFrom::Sections),
            Some(other) => Err(OsStr::from_bytes(other).to_owned()),
        }
    }
}

/// A back-end compile to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackEnd {
    /// The module, by the linker's name for it.
    pub module: OsString,
    /// Its size in bytes: what tells long compiles from short ones.
    pub size: u64,
    /// Its individual index.
    pub index: PathBuf,
    /// The native object to be written.
    pub output: PathBuf,
    /// Clang's options, less search paths.
    pub options: Arc<[OsString]>,
    /// Where assembly looks for files.
    pub search_paths: Vec<OsString>,
    /// The machine that the native object must be for, where the target is known.
    pub machine: Option<u16>,
}

impl BackEnd {
    /// The back end of `module`, with its options and the directories in which assembly looks for
    /// files.
    pub fn new(
        module: &Module,
        index: PathBuf,
        output: PathBuf,
        options: Arc<[OsString]>,
        search_paths: Vec<OsString>,
    ) -> BackEnd {
        BackEnd {
            options,
            search_paths,
            module: module.path.clone(),
            size: module.size,
            index,
            output,
            machine: machine(module),
        }
    }

    /// Clang's arguments.
    pub fn args(&self) -> Vec<OsString> {
        let mut args = Vec::with_capacity(self.options.len() + 4 * self.search_paths.len() + 8);
        args.extend_from_slice(&self.options);
        args.extend(search_options(&self.search_paths));
        let mut index_option = OsString::from("-fthinlto-index=");
        index_option.push(&self.index);
        args.extend([
            // Front-end options among the recorded ones mean nothing for IR.
            OsString::from("-Wno-unused-command-line-argument"),
            "-x".into(),
            "ir".into(),
            self.module.clone(),
            index_option,
            "-c".into(),
            "-o".into(),
            self.output.as_os_str().to_owned(),
        ]);
        args
    }
}

/// What in-process ThinLTO does in any case (`createConfig` in `lld/ELF/LTO.cpp`).
const SECTIONS: [&str; 3] = ["-ffunction-sections", "-fdata-sections", "-faddrsig"];

/// The options of a module's back end, for clang `major`.
///
/// # Errors
/// A sentence naming the module, for one whose options cannot be trusted or known.
pub fn options(
    link: &Link,
    module: &Module,
    from: OptionsFrom,
    major: u32,
) -> Result<Vec<OsString>, String> {
    let name = Path::new(&module.path).display();
    let Some(record) = &module.record else {
        return without_record(link, module, major);
    };
    clang::check(&record.options).map_err(|refused| refused.in_record_of(&name))?;
    let mut options = match from {
        OptionsFrom::Record => recorded(link, &record.options, major),
        OptionsFrom::Link => {
            clang::known_to_linker(&record.options, link.kind == Kind::Relocatable)
        }
        OptionsFrom::Sections => {
            clang::without_loop_alignment(&recorded(link, &record.options, major))
        }
    };
    match from {
        OptionsFrom::Record => {
            options.extend(link.lto.overlay_args(major));
            options.extend(
                link.picks_sections().then_some(SECTIONS).into_iter().flatten().map(OsString::from),
            );
        }
        OptionsFrom::Link => options.extend(link.lto.clang_args(link.kind, major)),
        OptionsFrom::Sections => {
            options.extend(link.lto.overlay_args(major));
            options.extend(SECTIONS.map(OsString::from));
        }
    }
    Ok(options)
}

/// Before this release LLVM takes most options of its own only once, from then on the last counts.
const TAKES_OPTIONS_AGAIN: u32 = 15;

/// A record's options, less what the link says again, and what it has decided against them.
fn recorded(link: &Link, options: &[OsString], major: u32) -> Vec<OsString> {
    let mut options = if major < TAKES_OPTIONS_AGAIN {
        clang::without_llvm(options, &link.lto.llvm)
    } else {
        options.to_vec()
    };
    // In-process, all code of such a link is position-independent (`createConfig` in
    // `lld/ELF/LTO.cpp`), whatever it was compiled for.
    if matches!(link.kind, Kind::Shared | Kind::Pie) && clang::refuses_pic(&options) {
        options.push("-fPIC".into());
    }
    options
}

/// The options for directories in which assembly looks for files.
pub fn search_options<'a>(
    paths: impl IntoIterator<Item = &'a OsString>,
) -> impl Iterator<Item = OsString> {
    let options = |path: &OsString| ["-Xclang".into(), "-I".into(), "-Xclang".into(), path.clone()];
    paths.into_iter().flat_map(options)
}

/// The options of a module that says nothing of its compile: those of in-process ThinLTO.
fn without_record(link: &Link, module: &Module, major: u32) -> Result<Vec<OsString>, String> {
    let name = Path::new(&module.path).display();
    let triple = module.triple.as_deref().unwrap_or_default();
    let plain = triple.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if triple.is_empty() || !plain {
        return Err(format!("{name} has no record and no target triple"));
    }
    if link.kind == Kind::Relocatable {
        // In-process, the module's own flags say whether its code is position-independent.
        return Err(format!("{name} has no record of its options, and -r says nothing of them"));
    }
    let mut options = vec![OsString::from(format!("--target={triple}"))];
    options.extend(link.lto.clang_args(link.kind, major));
    Ok(options)
}

/// The machine a module's native object must be for.
pub fn machine(module: &Module) -> Option<u16> {
    let options = module.record.as_ref().map(|record| &record.options[..]);
    machine_by(options.unwrap_or_default(), module)
}

/// The machine of a module's native object by these options; what they leave open, the module says.
pub fn machine_by(options: &[OsString], module: &Module) -> Option<u16> {
    let machine = elf::machine_of(clang::target(options).or(module.triple.as_deref())?)?;
    Some(clang::width(options).map_or(machine, |option| elf::machine_with(machine, option)))
}

/// What must be there before clang starts: it exits 0 without an index or an import, and leaves
/// an empty object.
///
/// # Errors
/// A sentence that names the file.
pub fn check_inputs(job: &BackEnd) -> Result<(), String> {
    match fs::metadata(&job.index) {
        Ok(meta) if meta.len() > 0 => Ok(()),
        Ok(_) => Err(format!("its index {} is empty", job.index.display())),
        Err(error) => Err(format!("its index {}: {error}", job.index.display())),
    }
}

/// Whether a back end that exited 0 wrote what it should have.
///
/// # Errors
/// A sentence about the object.
pub fn verify(job: &BackEnd) -> Result<Native, String> {
    verify_in(&mut Vec::new(), job)
}

/// As [`verify`], for one of many: `room` is for an object's bytes.
///
/// # Errors
/// A sentence about the object.
pub fn verify_in(room: &mut Vec<u8>, job: &BackEnd) -> Result<Native, String> {
    room.clear();
    File::open(&job.output)
        .and_then(|mut file| file.read_to_end(room))
        .map_err(|error| format!("its object {}: {error}", job.output.display()))?;
    verify_bytes(job, room)
}

/// As [`verify`], for an object's bytes.
///
/// # Errors
/// A sentence about the object.
pub fn verify_bytes(job: &BackEnd, data: &[u8]) -> Result<Native, String> {
    let output = job.output.display();
    let native = elf::read(data).map_err(|what| format!("its object {output}: {what}"))?;
    match job.machine {
        Some(machine) if machine != native.machine => {
            Err(format!("its object {output} is for ELF machine {}, not {machine}", native.machine))
        }
        // The index is only read where there is something to doubt.
        _ if !native.has_contents
            && fs::read(&job.index)
                .is_ok_and(|index| defines_symbols(&index, job.module.as_bytes())) =>
        {
            Err(format!("its object {output} has nothing of what the module defines"))
        }
        _ => Ok(native),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invocation::lld;
    use crate::object::record::Record;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    /// The options of a module with this record in a link by this line.
    fn options_of(record: &str, line: &str, from: OptionsFrom, major: u32) -> String {
        let link = lld::parse(words(line)).unwrap();
        let record = Record { options: words(record), ..Record::default() };
        let module = Module {
            path: "x.o".into(),
            size: 0,
            record: Some(Arc::new(record)),
            triple: None,
            thin: true,
            regular: false,
        };
        let options = options(&link, &module, from, major).unwrap();
        options.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn llvm_14_takes_an_option_once() {
        let line = "x.o -mllvm -import-instr-limit=5 -plugin-opt=-other";
        let record = "-mllvm -import-instr-limit=9 -O2 -mllvm -third";
        let link_s = "-mllvm -other -mllvm -import-instr-limit=5";
        for from in [OptionsFrom::Record, OptionsFrom::Sections] {
            let old = options_of(record, line, from, 14);
            assert!(old.starts_with(&format!("-O2 -mllvm -third {link_s}")), "{old}");
            let new = options_of(record, line, from, 22);
            assert!(new.starts_with(&format!("{record} {link_s}")), "{new}");
        }
    }

    #[test]
    fn the_link_decides_on_position_independence() {
        let options = |record: &str, line: &str| {
            options_of(record, &format!("x.o {line}"), OptionsFrom::Record, 22)
        };
        for kind in ["-pie", "-shared"] {
            assert_eq!(options("-fno-pie -O2", kind), "-fno-pie -O2 -fPIC");
            assert_eq!(options("-fno-pic -fPIE", kind), "-fno-pic -fPIE");
            assert_eq!(options("-O2", kind), "-O2");
        }
        for kind in ["-r", ""] {
            assert_eq!(options("-fno-pie -O2", kind), "-fno-pie -O2");
        }
        let sections = options_of("-fno-pic", "-pie x.o", OptionsFrom::Sections, 22);
        assert!(sections.starts_with("-fno-pic -fPIC "), "{sections}");
    }
}
