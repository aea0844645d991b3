//! Distributed ThinLTO out of ordinary command lines.

pub mod compile;
pub mod dispatch;
pub mod failure;
pub mod invocation;
pub mod jobserver;
pub mod object;
pub mod sys;
pub mod tool;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use dispatch::{Call, Tool};
pub use failure::Failure;
use invocation::clang;

/// Does what `argv` asks for and returns the process's exit status.
pub fn run(argv: Vec<OsString>) -> ExitCode {
    let call = dispatch::read(argv, std::env::var_os(dispatch::LINKER_VARIABLE));
    let result = match call {
        Call::Clang(tool) => match clang::parse(&tool.args) {
            clang::Invocation::Compile(compile) => compile::run(&tool, &compile),
            _ => pass_through(&tool),
        },
        Call::Lld(tool) | Call::Other(tool) => pass_through(&tool),
        Call::Own(_) => Ok(ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|failure| failure.report())
}

/// Becomes the real tool, with the same argument bytes.
fn pass_through(tool: &Tool) -> Result<ExitCode, Failure> {
    let program = dispatch::program(tool)?;
    let error = Command::new(&program)
        .arg0(tool.program())
        .args(&tool.command[1..])
        .args(&tool.args)
        .exec();
    Err(Failure::new(format!("cannot run {}: {error}", program.display())))
}
