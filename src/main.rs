//! `thinshim`: arguments in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    thinshim::run(std::env::args_os().collect())
}
