//! What the operating system is asked for; the only home of `unsafe` outside warm compilers.

pub mod child;
pub mod commit;
pub mod deadline;
pub mod environment;
pub mod fd;
pub mod fork;
pub mod guardian;
pub mod heap;
pub mod memory;
pub mod signals;
pub mod sigpipe;
pub mod spread;
pub mod step;
pub mod told;
