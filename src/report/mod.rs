//! What happened, told: a JSON line a link, a summary, a live counter.

pub mod progress;
pub mod record;

pub use record::{BACK_END, Report};
