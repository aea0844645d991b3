//! How a link goes on, or ends.

use std::process::{ExitCode, ExitStatus};

use nix::sys::signal::Signal;

use crate::sys::child;

/// Whether a link goes on.
#[derive(Debug)]
pub enum Step {
    /// To its next step.
    Go,
    /// It has ended.
    Stop(Stop),
}

/// What comes of a thin link.
#[derive(Debug)]
pub enum ThinLinked {
    /// The index: the link goes on.
    Go,
    /// The link has ended.
    Stop(Stop),
    /// The knowledge that in-process ThinLTO has to do the link, for this reason.
    InProcess(String),
}

/// How a link ended.
#[derive(Debug)]
pub enum Stop {
    /// As its last tool ended.
    Status(ExitStatus),
    /// With the exit status of a back end.
    Code(u8),
    /// By a signal to this process.
    Interrupted(Signal),
}

impl Stop {
    /// Ends this process in the same way, or says how it should end.
    pub fn end(self) -> ExitCode {
        match self {
            Stop::Status(status) => child::end_as(status),
            Stop::Code(code) => ExitCode::from(code),
            Stop::Interrupted(signal) => child::end_by(signal),
        }
    }
}
