//! thinshim against the real clang, lld and make.
//!
//! Each test works in a [`space::TestSpace`]. What a link should give is never written down: the
//! real linker does the same link beside it ([`oracle`]).

mod archives;
mod builds;
mod cache;
mod cached_links;
mod compiles;
mod driver;
mod dtlto;
mod fallbacks;
mod faults;
mod front_ends;
mod harm;
mod jobserver;
mod keys;
mod kills;
mod links;
mod options;
mod oracle;
mod passthrough;
mod records;
mod run;
mod run_steps;
mod rust;
mod section_orders;
mod space;
mod steps;
mod symbols;
mod tokens;
mod visibility;
mod walk;
mod warm;
