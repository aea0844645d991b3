//! Object files by their bytes: kinds, bitcode, the options record, archives.

pub mod archive;
pub mod assembly;
#[cfg(test)]
mod bits;
pub mod bitstream;
pub mod elf;
pub mod kind;
pub mod module;
pub mod record;
pub mod symbol_table;
pub mod wrapper;
