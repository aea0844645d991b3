//! The cache of back ends: what was compiled once is not compiled again.
//!
//! A *key* ([`key`]) digests everything that a native object depends on; the *store* ([`store`])
//! holds objects by key. What has no key is compiled, and counted with its reason. The thread that
//! does all this for a link is the [`worker`].

pub mod bound;
pub mod desk;
pub mod digest;
pub mod environment;
pub mod files;
pub mod history;
pub mod identity;
pub mod key;
pub mod settings;
pub mod signature;
pub mod store;
pub mod tell;
pub mod worker;

pub use desk::{Desk, Hit, Outcome, Start};
pub use worker::Cache;
