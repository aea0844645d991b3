//! Compilers that have loaded once and fork for each job.
//!
//! Starting a clang costs 30 ms of CPU before it does anything: mapping and relocating LLVM's
//! libraries, and their constructors. [`Compiler`] starts one with a library of ours preloaded
//! (`preload.rs`, carried in this program and handed on as a file in memory), which stops it
//! before `main`; each job is then a fork of that process. What cannot be served so is started
//! as usual.

mod compiler;
#[cfg(clippy)]
pub mod preload;
mod server;
pub mod wire;

pub use compiler::{Compiler, Warm};
