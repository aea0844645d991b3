//! A call of clang that the `thinshim run` above has done in a warm compiler.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitStatus;

use super::ask::Part;
use super::call::{self, Call};
use crate::dispatch::Tool;
use crate::invocation::{clang, response};
use crate::site::Site;

/// Runs a call of clang, whose program is called `argv0`, to its end, where it is a front end.
/// `None`: it is to be run as usual, nothing has happened yet.
pub fn run(site: &Site, call: &Tool, program: &Path, argv0: &OsStr) -> Option<ExitStatus> {
    // A launcher starts compilers itself.
    if call.command.len() != 1 {
        return None;
    }
    let expanded = if response::mentioned_in(&call.args) {
        Cow::Owned(response::expand(&call.args).ok()?)
    } else {
        Cow::Borrowed(&call.args)
    };
    if !clang::is_front_end(&expanded) {
        return None;
    }
    let part = Part::FrontEnd;
    call::run(site, &Call { part, program, argv0, args: &call.args, expanded: &expanded })
}
