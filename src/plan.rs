//! The plan of a link: a value that says what will be run, before anything of it is.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::thinlto::back_end::BackEnd;

/// What a distributed link runs after its thin link.
#[derive(Debug)]
pub struct Plan {
    /// The output of the link.
    pub output: PathBuf,
    /// The real linker.
    pub linker: PathBuf,
    /// The clang of the linker's LLVM.
    pub clang: PathBuf,
    /// The thin link's arguments.
    pub thin_link: Vec<OsString>,
    /// The back ends, in the index's order.
    pub back_ends: Vec<BackEnd>,
    /// The native link's arguments.
    pub native_link: Vec<OsString>,
}

impl Plan {
    /// The plan as JSON. Bytes that are not UTF-8 are shown as U+FFFD.
    pub fn to_json(&self) -> Value {
        let back_ends: Vec<Value> = self
            .back_ends
            .iter()
            .map(|job| {
                json!({
                    "module": text(&job.module),
                    "index": text(job.index.as_os_str()),
                    "output": text(job.output.as_os_str()),
                    "command": command(&self.clang, &job.args()),
                })
            })
            .collect();
        json!({
            "decision": "distribute",
            "output": text(self.output.as_os_str()),
            "thin_link": command(&self.linker, &self.thin_link),
            "back_ends": back_ends,
            "native_link": command(&self.linker, &self.native_link),
        })
    }
}

fn text(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

fn command(program: &Path, args: &[OsString]) -> Vec<String> {
    std::iter::once(program.as_os_str())
        .chain(args.iter().map(OsString::as_os_str))
        .map(text)
        .collect()
}
