//! Command lines understood: clang's, lld's, response files. Pure: no file is touched here.

pub mod clang;
