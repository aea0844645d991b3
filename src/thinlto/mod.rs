//! The three steps of a distributed ThinLTO link, each as the command line that does it.

pub mod back_end;
pub mod dtlto;
pub mod extracted;
pub mod inputs;
pub mod module;
pub mod names;
pub mod namesake;
mod native_inputs;
pub mod native_link;
pub mod resolution;
pub mod script;
pub mod section_order;
pub mod thin_link;
