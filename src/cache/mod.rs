//! The cache of back ends: what was compiled once is not compiled again.
//!
//! A *key* ([`key`]) digests everything that a native object depends on. The *store* ([\`store\`]) holds
//! objects by key.

pub mod bound;
pub mod digest;
pub mod environment;
pub mod files;
pub mod identity;
pub mod key;
pub mod settings;
pub mod signature;
pub mod store;
