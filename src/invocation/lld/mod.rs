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
