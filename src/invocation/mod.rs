//! Command lines understood: clang's, lld's, response files. Pure, but for response files:
//! no file is touched here.

pub mod clang;
pub mod lld;
pub mod response;
