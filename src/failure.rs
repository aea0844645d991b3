//! thinshim's own failures: one reserved exit status, one sentence for the user.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::process::ExitCode;

/// The exit status of thinshim's own failures. Compilers and linkers stay far below it.
pub const STATUS: u8 = 120;

/// A failure of thinshim's own: says the step, the file and the next thing to try.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure, told in one sentence without a full stop.
    pub fn new(sentence: impl Into<String>) -> Self {
        Failure(sentence.into())
    }

    /// Prints the failure and gives the reserved status.
    pub fn report(&self) -> ExitCode {
        tell("error", &self.0);
        ExitCode::from(STATUS)
    }
}

/// Tells the user of what stops nothing, in one sentence without a full stop.
pub fn warn(sentence: impl Display) {
    tell("warning", &sentence);
}

/// Where stderr takes no words, nobody is there to be told: `eprintln!` would panic, and a good
/// link fail.
fn tell(what: &str, sentence: &dyn Display) {
    let line = format!("thinshim: {what}: {sentence}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

impl Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}
