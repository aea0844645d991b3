//! What a file is, by its magic number, as the linker tells (`llvm/BinaryFormat/Magic.cpp`).

/// A kind of linker input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// LLVM bitcode, with or without a wrapper.
    Bitcode,
    /// An ELF file of any type.
    Elf,
    /// An archive that holds its members.
    Archive,
    /// An archive that names its members.
    ThinArchive,
    /// Anything else; the linker takes it for a linker script.
    Other,
}

/// The kind of a file that starts with `head` (eight bytes tell).
pub fn of(head: &[u8]) -> Kind {
    if head.starts_with(b"BC\xC0\xDE") || head.starts_with(b"\xDE\xC0\x17\x0B") {
        Kind::Bitcode
    } else if head.starts_with(b"\x7fELF") {
        Kind::Elf
    } else if head.starts_with(b"!<arch>\n") {
        Kind::Archive
    } else if head.starts_with(b"!<thin>\n") {
        Kind::ThinArchive
    } else {
        Kind::Other
    }
}
