//! A ThinLTO compile: clang, then the record on what it wrote.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::Failure;
use crate::dispatch::{self, Tool};
use crate::invocation::clang::{self, Compile};
use crate::object::record::Record;
use crate::object::{module, wrapper};
use crate::site::{Event, Site};
use crate::sys::{child, commit};
use crate::tool;
use crate::warm::front_end;

/// Runs the compile and attaches the record to its objects.
///
/// # Errors
/// thinshim's own failures; clang's are its exit status.
pub fn run(call: &Tool, compile: &Compile) -> Result<ExitCode, Failure> {
    refuse_outer_ccache()?;
    let site = Site::current();
    if let Some(site) = &site {
        site.tell(Event::Compile);
    }
    let program = dispatch::program(call)?;
    let before: Vec<Option<Version>> = compile.outputs.iter().map(|file| version(file)).collect();
    let warm = site.and_then(|site| front_end::run(&site, call, &program, program.as_os_str()));
    let status = if let Some(status) = warm {
        status
    } else {
        let mut command = Command::new(&program);
        command.args(&call.command[1..]).args(&call.args);
        child::run(&mut command).map_err(|error| {
            Failure::new(format!("compile: cannot run {}: {error}", program.display()))
        })?
    };
    if status.success() {
        let now = compile.outputs.iter().map(|file| version(file));
        // What clang has not written may be of other options.
        let written: Vec<&PathBuf> = compile
            .outputs
            .iter()
            .zip(before.into_iter().zip(now))
            .filter_map(|(output, (before, now))| (before != now).then_some(output))
            .collect();
        for (at, output) in written.iter().enumerate() {
            if let Err(failure) = attach(output, compile) {
                // Make would take them for results, and their link would do without their options.
                for output in &written[at..] {
                    let _ = fs::remove_file(output);
                }
                return Err(failure);
            }
        }
    }
    Ok(child::end_as(status))
}

/// What tells a file from the one of before: device, inode, size, and the last change, which a hard
/// link of ccache's has anew, too.
type Version = (u64, u64, u64, i64, i64);

/// `None`: there is none.
fn version(file: &Path) -> Option<Version> {
    let meta = fs::metadata(file).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
}

/// A ccache *outside* thinshim takes thinshim for the compiler: it would hand out objects without
/// noticing that clang has changed.
fn refuse_outer_ccache() -> Result<(), Failure> {
    let parent = fs::read_link(format!("/proc/{}/exe", nix::unistd::getppid()));
    let outer = parent.is_ok_and(|exe| {
        let name = tool::base_name(exe.as_os_str());
        name == "ccache" || name == "sccache"
    });
    if outer {
        return Err(Failure::new(
            "compile: ccache calls thinshim, so it cannot see which clang compiles; \
             put thinshim first: CC=\"thinshim ccache clang\"",
        ));
    }
    Ok(())
}

/// Wraps the bitcode at `output` and puts the record behind it. What is not bitcode (the object of
/// an assembler file, `/dev/null`) stays as it is.
fn attach(output: &Path, compile: &Compile) -> Result<(), Failure> {
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(format!("compile: cannot {what} {}: {error}", output.display()))
    };
    match fs::metadata(output) {
        Ok(meta) if meta.is_file() => {}
        _ => return Ok(()),
    }
    let file = fs::read(output).map_err(|error| fail("read", &error))?;
    let Some(parts) = wrapper::split(&file) else { return Ok(()) };
    let Some(header) = wrapper::header(parts.bitcode.len()) else { return Ok(()) };
    let mut record = Record {
        options: from_anywhere(&compile.options),
        search_paths: Vec::new(),
        doubt: compile.doubt.clone(),
    };
    match module::facts(parts.bitcode, true) {
        Ok(facts) => {
            // Another clang may be the back end, with another default target.
            if clang::target(&record.options).is_none() {
                record.options.insert(0, format!("--target={}", facts.triple).into());
            }
            if facts.asm_files {
                record.search_paths = absolute(&compile.search_paths)
                    .map_err(|error| fail("name the search paths of", &error))?;
            }
        }
        Err(_) => record.doubt = Some(OsString::from("bitcode that thinshim cannot read")),
    }
    commit::replace(output, |to| {
        to.write_all(&header)?;
        to.write_all(parts.bitcode)?;
        to.write_all(&record.to_bytes())
    })
    .map_err(|error| fail("write the record to", &error))
}

/// The options as they hold wherever the link is. Where there is no working directory any more, no
/// file was found in it.
fn from_anywhere(options: &[OsString]) -> Vec<OsString> {
    match std::env::current_dir() {
        Ok(here) => clang::with_absolute_files(options, &here),
        Err(_) => options.to_vec(),
    }
}

/// The search paths as the compile saw them, and its working directory, where assembly looks
/// first.
fn absolute(paths: &[OsString]) -> std::io::Result<Vec<OsString>> {
    let here: PathBuf = std::env::current_dir()?;
    let mut absolute = vec![here.clone().into_os_string()];
    for path in paths.iter().filter(|path| !path.as_bytes().starts_with(b"=")) {
        let path: &OsStr = path;
        absolute.push(here.join(path).into_os_string());
    }
    Ok(absolute)
}
