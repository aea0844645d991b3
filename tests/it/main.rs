//! thinshim against the real clang, lld and make.
//!
//! Each test works in a [`space::TestSpace`]. What a link should give is never written down: the
//! real linker does the same link beside it ([`oracle`]).

#![expect(missing_docs, reason = "a test binary has no readers of its documentation")]

mod archives;
mod jobserver;
mod links;
mod oracle;
mod space;
