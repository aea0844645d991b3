//! The command line of `ld.lld`: every option of its ELF driver, and what a distributed link does
//! with each.
//!
//! [`parse`] is pure and linear. It keeps the words as they were given, so that the command lines
//! of the thin link and of the native link come out in the same order, with inputs exchanged.

mod codegen;
mod find;
mod link;
mod lto;
mod parse;
mod row;
mod table;
#[cfg(test)]
mod tests;

pub use find::find;
pub use link::{Element, Kind, Link, SideOutput, State};
pub use lto::LtoOptions;
pub use parse::{Refusal, parse, parse_anyway};
pub use row::{Act, Dashes, Fate, Form, Row, Side};
pub use table::ROWS;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Whether a command line (response files expanded) has lld start jobs of its own (DTLTO): they
/// look for tokens among its ancestors, and in what it has inherited.
pub fn starts_jobs(args: &[OsString]) -> bool {
    let rows = args.iter().filter_map(|word| find(word.as_bytes()));
    rows.into_iter().any(|(row, _)| row.name == "thinlto-distributor=")
}
