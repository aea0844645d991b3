//! The cache of back ends and of links: what was compiled or linked once is not done again.
//!
//! A *key* ([`key`]) digests everything that a native object depends on; the *store* ([`store`])
//! holds objects by key. What has no key is compiled, and counted with its reason. The thread that
//! does all this for a link is the [`worker`]. An output as a whole has a key, too, where that can
//! be told ([`link_key`]); then nothing is run at all ([`link`]).

pub mod bound;
pub mod claim;
pub mod desk;
pub mod digest;
pub mod environment;
pub mod facts;
pub mod files;
pub mod history;
pub mod identity;
pub mod key;
pub mod link;
pub mod link_key;
pub mod link_record;
pub mod settings;
pub mod signature;
pub mod store;
pub mod tell;
pub mod worker;

pub use desk::{Brought, Desk, Hit, Outcome, Start};
pub use link::CachedLink;
pub use worker::Cache;
