//! GNU Make's jobserver: finding one, taking tokens without ever losing one, hosting one.
//!
//! Text to meaning in `makeflags`, its effects in `discovery` and `ancestry`; [`Pool`] is what
//! a link's event loop sees, and behind it a `keeper` process is the only reader of tokens;
//! [`Host`] is the other side, for `thinshim run`.

mod ancestry;
mod descriptors;
mod discovery;
mod host;
mod keeper;
mod makeflags;
mod pool;
mod scrub;

pub use descriptors::Descriptors;
pub use discovery::{Environment, Identity, Source, asked};
pub use host::Host;
pub use makeflags::{jobs, variables, with_auth};
pub use pool::Pool;
pub use scrub::scrub;
