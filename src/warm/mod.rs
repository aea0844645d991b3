//! Compilers that have loaded once and fork for each job.
//!
//! Starting a clang costs 30 ms of CPU before it does anything: mapping and relocating LLVM's
//! libraries, and their constructors. [`Compiler`] starts one with a library of ours preloaded
//! (`preload.rs`, carried in this program and handed on as a file in memory), which stops it
//! before `main`; each job is then a fork of that process. After some jobs it moves its code to
//! huge pages (`text.rs`). What cannot be served so is started as usual.
//!
//! [`Compiler`] serves the back ends of one link. Under `thinshim run`, one [`Server`] for each
//! clang, and for each lld, serves the whole build: [`call`] asks for a job, and the run, which is the
//! parent of all jobs, tells how it ended.

pub mod ask;
pub mod call;
pub mod circumstances;
mod compiler;
pub mod front_end;
pub mod loaded;
#[cfg(clippy)]
pub mod preload;
mod server;
pub mod wire;

pub use circumstances::Circumstances;
pub use compiler::{Compiler, Warm};
pub use server::{Jobs, START_MAX, Server};
