//! Object files by their bytes: kinds, bitcode, the options record, archives.

pub mod bitstream;
pub mod kind;
pub mod module;
pub mod record;
pub mod wrapper;
