//! ELF headers: is this native object what a back end should have written?

use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, elf};

/// The name of the sections that make a `-r` link's cost grow with the square of their number.
pub const PATCHABLE: &[u8] = b"__patchable_function_entries";

/// What a native object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Native {
    /// `e_machine`.
    pub machine: u16,
    /// Sections called [`PATCHABLE`] with `SHF_LINK_ORDER`.
    pub patchable_sections: usize,
    /// It defines or refers to a symbol, or has contents: not the empty object that lld writes
    /// for an absent regular-LTO partition.
    pub has_contents: bool,
}

/// Reads a relocatable object.
///
/// # Errors
/// A sentence, for anything that is not a whole relocatable ELF object.
pub fn read(data: &[u8]) -> Result<Native, String> {
    if data.is_empty() {
        return Err("it is empty".into());
    }
    match data.get(4) {
        Some(&width) if width == elf::ELFCLASS64.0 => class::<elf::FileHeader64<Endianness>>(data),
        Some(&width) if width == elf::ELFCLASS32.0 => class::<elf::FileHeader32<Endianness>>(data),
        _ => Err("it is not an ELF object".into()),
    }
}

fn class<H: FileHeader<Endian = Endianness>>(data: &[u8]) -> Result<Native, String> {
    let broken = |error: object::Error| format!("it is not a whole ELF object ({error})");
    let header = H::parse(data).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    if header.e_type(endian) != elf::ET_REL {
        return Err("it is not a relocatable object".into());
    }
    let sections = header.sections(endian, data).map_err(broken)?;
    if sections.is_empty() {
        return Err("it has no sections".into());
    }
    let mut native =
        Native { machine: header.e_machine(endian).0, patchable_sections: 0, has_contents: false };
    for section in sections.iter() {
        // Contents past the file's end: cut short.
        section.data(endian, data).map_err(broken)?;
        let flags = section.sh_flags(endian).0;
        let size: u64 = section.sh_size(endian).into();
        let kind = section.sh_type(endian);
        native.has_contents |= flags & elf::SHF_ALLOC.0 != 0 && size != 0;
        if kind == elf::SHT_SYMTAB {
            // The null symbol, and the FILE symbol that the assembler may add.
            let entry: u64 = section.sh_entsize(endian).into();
            native.has_contents |= entry != 0 && size / entry > 2;
        }
        if flags & elf::SHF_LINK_ORDER.0 != 0
            && sections.section_name(endian, section).is_ok_and(|name| name == PATCHABLE)
        {
            native.patchable_sections += 1;
        }
    }
    Ok(native)
}

/// The ELF machine of a target triple's architecture; `None` for one that is not known here.
/// Source: LLVM's `TargetParser/Triple.cpp` and the ELF writers of its targets.
pub fn machine_of(triple: &str) -> Option<u16> {
    let architecture = triple.split('-').next().unwrap_or_default();
    let machine = match architecture {
        "x86_64" | "amd64" => elf::EM_X86_64,
        "i386" | "i486" | "i586" | "i686" => elf::EM_386,
        "aarch64" | "aarch64_be" | "arm64" => elf::EM_AARCH64,
        "riscv32" | "riscv64" => elf::EM_RISCV,
        "loongarch32" | "loongarch64" => elf::EM_LOONGARCH,
        "powerpc64" | "powerpc64le" | "ppc64" | "ppc64le" => elf::EM_PPC64,
        "powerpc" | "ppc" => elf::EM_PPC,
        "s390x" | "systemz" => elf::EM_S390,
        "mips" | "mipsel" | "mips64" | "mips64el" => elf::EM_MIPS,
        _ if architecture.starts_with("arm") || architecture.starts_with("thumb") => elf::EM_ARM,
        _ => return None,
    };
    Some(machine.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rubbish_is_told_from_objects() {
        assert!(read(b"").is_err());
        assert!(read(b"\x7fELF").is_err());
        assert!(read(b"\x7fELF\x02\x01\x01 and then nothing").is_err());
    }
}
