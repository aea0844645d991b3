//! A call of clang that the `thinshim run` above has done in a warm compiler.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitStatus;

use super::ask::Part;
use super::call::{self, Call};
use crate::dispatch::Tool;
use crate::invocation::clang;
use crate::site::Site;

/// Runs a call of clang, whose program is called `argv0`, to its end, where it is a front end.
/// `None`: it is to be run as usual, nothing has happened yet.
pub fn run(site: &Site, tool: &Tool, program: &Path, argv0: &OsStr) -> Option<ExitStatus> {
    let Tool { command, args } = tool;
    let call = Call { part: Part::FrontEnd, command, program, argv0, args };
    call::run(site, &call, clang::is_front_end)
}
