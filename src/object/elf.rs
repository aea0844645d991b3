//! ELF headers: is this native object what a back end should have written, which sections has it,
//! what does it define, and is that to be another kind of symbol?

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::symbol_table::Visibility;
use object::read::elf::{FileHeader, SectionHeader, SectionTable, Sym};
use object::{Endianness, ReadRef, SectionIndex, elf};

/// The name of the sections that make a `-r` link's cost grow with the square of their number.
pub const PATCHABLE: &[u8] = b"__patchable_function_entries";

/// The section that holds a fat object's bitcode.
const FAT: &[u8] = b".llvm.lto";

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
    /// It has bitcode beside its code (`-ffat-lto-objects`).
    pub fat: bool,
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

/// What sections are found by.
struct Tables<'data, H: FileHeader, R: ReadRef<'data>> {
    header: &'data H,
    endian: Endianness,
    sections: SectionTable<'data, H, R>,
    names: &'data [u8],
}

fn broken(error: object::Error) -> String {
    format!("it is not a whole ELF object ({error})")
}

fn tables<'data, H: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(
    data: R,
) -> Result<Tables<'data, H, R>, String> {
    let header = H::parse(data).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    let sections = header.sections(endian, data).map_err(broken)?;
    let names = match header.shstrndx(endian, data).map_err(broken)? {
        0 => &[][..],
        index => {
            let section = sections.section(SectionIndex(index as usize)).map_err(broken)?;
            section.data(endian, data).map_err(broken)?
        }
    };
    Ok(Tables { header, endian, sections, names })
}

fn class<H: FileHeader<Endian = Endianness>>(data: &[u8]) -> Result<Native, String> {
    let Tables { header, endian, sections, names } = tables::<H, _>(data)?;
    if header.e_type(endian) != elf::ET_REL {
        return Err("it is not a relocatable object".into());
    }
    if sections.is_empty() {
        return Err("it has no sections".into());
    }
    let mut native = Native {
        machine: header.e_machine(endian).0,
        patchable_sections: 0,
        has_contents: false,
        fat: false,
    };
    for section in sections.iter() {
        // Contents past the file's end: cut short.
        section.data(endian, data).map_err(broken)?;
        let flags = section.sh_flags(endian).0;
        let size: u64 = section.sh_size(endian).into();
        let kind = section.sh_type(endian);
        native.has_contents |= flags & elf::SHF_ALLOC.0 != 0 && size != 0;
        if kind == elf::SHT_SYMTAB {
            // Local symbols come first: the null symbol, and what the assembler may add (the file's
            // name, RISC-V's `$d`).
            let entry: u64 = section.sh_entsize(endian).into();
            let locals: u64 = section.sh_info(endian).into();
            native.has_contents |= entry != 0 && size / entry > locals;
        }
        // Not the whole name: each of many sections may claim one that is as long as the file.
        let name = names.get(section.sh_name(endian) as usize..).unwrap_or_default();
        let is = |wanted| name.strip_prefix(wanted).is_some_and(|rest| rest.first() == Some(&0));
        native.fat |= is(FAT);
        let is_patchable = flags & elf::SHF_LINK_ORDER.0 != 0 && is(PATCHABLE);
        native.patchable_sections += usize::from(is_patchable);
    }
    Ok(native)
}

/// A section, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// Its whole name.
    pub name: &'a [u8],
    /// Contents of a program that a `-r` link keeps as they are: not of a group, not mergeable, not tied
    /// to another section.
    pub plain: bool,
}

/// Shows the sections of a relocatable object in their order, but for those that hold relocations
/// and those with a name of more than `longest` bytes.
///
/// # Errors
/// A sentence, for anything that is not an ELF object.
pub fn named_sections<'data, R: ReadRef<'data>>(
    data: R,
    longest: usize,
    see: impl FnMut(Named<'data>),
) -> Result<(), String> {
    match data.read_bytes_at(0, 5) {
        Ok(&[b'\x7f', b'E', b'L', b'F', width]) if width == elf::ELFCLASS64.0 => {
            named_in::<elf::FileHeader64<Endianness>, R>(data, longest, see)
        }
        Ok(&[b'\x7f', b'E', b'L', b'F', width]) if width == elf::ELFCLASS32.0 => {
            named_in::<elf::FileHeader32<Endianness>, R>(data, longest, see)
        }
        _ => Err("it is not an ELF object".into()),
    }
}

fn named_in<'data, H: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(
    data: R,
    longest: usize,
    mut see: impl FnMut(Named<'data>),
) -> Result<(), String> {
    let Tables { endian, sections, names, .. } = tables::<H, R>(data)?;
    for section in sections.iter() {
        let kind = section.sh_type(endian);
        if [elf::SHT_REL, elf::SHT_RELA, elf::SHT_CREL].contains(&kind) {
            continue;
        }
        let name = names.get(section.sh_name(endian) as usize..).unwrap_or_default();
        let name = name.get(..=longest).unwrap_or(name);
        let Some(end) = name.iter().position(|&byte| byte == 0) else { continue };
        let contents = [elf::SHT_PROGBITS, elf::SHT_NOBITS].contains(&kind);
        let usual = elf::SHF_ALLOC.0 | elf::SHF_WRITE.0 | elf::SHF_EXECINSTR.0;
        let plain = contents && section.sh_flags(endian).0 & !usual == 0;
        see(Named { name: &name[..end], plain });
    }
    Ok(())
}

/// A symbol that an object defines for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Global<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Another definition may take its place.
    pub weak: bool,
}

/// What a relocatable object defines for others.
///
/// # Errors
/// A sentence, for anything that is not an ELF object.
pub fn globals(data: &[u8]) -> Result<Vec<Global<'_>>, String> {
    match data.get(4) {
        Some(&width) if width == elf::ELFCLASS64.0 => {
            globals_in::<elf::FileHeader64<Endianness>>(data)
        }
        Some(&width) if width == elf::ELFCLASS32.0 => {
            globals_in::<elf::FileHeader32<Endianness>>(data)
        }
        _ => Err("it is not an ELF object".into()),
    }
}

fn globals_in<H: FileHeader<Endian = Endianness>>(data: &[u8]) -> Result<Vec<Global<'_>>, String> {
    let Tables { endian, sections, .. } = tables::<H, _>(data)?;
    let symbols = sections.symbols(endian, data, elf::SHT_SYMTAB).map_err(broken)?;
    let mut globals = Vec::new();
    for symbol in symbols.iter() {
        let bind = symbol.st_bind();
        if bind == elf::STB_LOCAL || symbol.is_undefined(endian) {
            continue;
        }
        let name = symbol.name(endian, symbols.strings()).map_err(broken)?;
        globals.push(Global { name, weak: bind == elf::STB_WEAK });
    }
    Ok(globals)
}

/// What a symbol is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// No more visible than that.
    pub visibility: Visibility,
    /// Not weak.
    pub strong: bool,
}

/// Makes the global symbols that a relocatable object defines what they are to be by their names.
/// Returns whether one was not.
///
/// # Errors
/// A sentence, for anything that is not an ELF object.
pub fn change_globals(data: &mut [u8], wanted: impl Fn(&[u8]) -> Wanted) -> Result<bool, String> {
    // `st_info` of `Elf64_Sym` and of `Elf32_Sym`; `st_other` follows it.
    let (changes, info_at) = match data.get(4) {
        Some(&width) if width == elf::ELFCLASS64.0 => {
            (changes::<elf::FileHeader64<Endianness>>(data, wanted)?, 4)
        }
        Some(&width) if width == elf::ELFCLASS32.0 => {
            (changes::<elf::FileHeader32<Endianness>>(data, wanted)?, 12)
        }
        _ => return Err("it is not an ELF object".into()),
    };
    for &(at, bytes) in &changes {
        let place = data.get_mut(at + info_at..at + info_at + bytes.len());
        place.ok_or("its symbols are cut short")?.copy_from_slice(&bytes);
    }
    Ok(!changes.is_empty())
}

/// Where the symbols are that are to be other ones, and their `st_info` and `st_other` then.
fn changes<H: FileHeader<Endian = Endianness>>(
    data: &[u8],
    wanted: impl Fn(&[u8]) -> Wanted,
) -> Result<Vec<(usize, [u8; 2])>, String> {
    let Tables { endian, sections, .. } = tables::<H, _>(data)?;
    let table = sections.iter().find(|section| section.sh_type(endian) == elf::SHT_SYMTAB);
    let Some(table) = table else { return Ok(Vec::new()) };
    let start: u64 = table.sh_offset(endian).into();
    let entry: u64 = table.sh_entsize(endian).into();
    let symbols = sections.symbols(endian, data, elf::SHT_SYMTAB).map_err(broken)?;
    let mut found = Vec::new();
    for (index, symbol) in (0..).zip(symbols.symbols()) {
        let bind = symbol.st_bind();
        if bind == elf::STB_LOCAL || symbol.is_undefined(endian) {
            continue;
        }
        let wanted = wanted(symbol.name(endian, symbols.strings()).map_err(broken)?);
        let own = match symbol.st_visibility() {
            elf::STV_DEFAULT => Visibility::Default,
            elf::STV_PROTECTED => Visibility::Protected,
            _ => Visibility::Hidden,
        };
        let bind = if wanted.strong && bind == elf::STB_WEAK { elf::STB_GLOBAL } else { bind };
        let visibility = match wanted.visibility {
            _ if wanted.visibility <= own => symbol.st_visibility(),
            Visibility::Default => elf::STV_DEFAULT,
            Visibility::Protected => elf::STV_PROTECTED,
            Visibility::Hidden => elf::STV_HIDDEN,
        };
        let (info, other) = (symbol.st_info().0, symbol.st_other().0);
        let bytes = [bind.0 << 4 | info & 0xf, other & !3 | visibility.0];
        if bytes != [info, other] {
            let at = usize::try_from(start + index * entry).map_err(|_| "it is too large")?;
            found.push((at, bytes));
        }
    }
    Ok(found)
}

/// The ELF machine of a target triple's architecture; `None` for one that is not known here.
/// Source: LLVM's `TargetParser/Triple.cpp` and the ELF writers of its targets.
pub fn machine_of(triple: &str) -> Option<u16> {
    let architecture = triple.split('-').next().unwrap_or_default();
    let machine = match architecture {
        "x86_64" | "amd64" => elf::EM_X86_64,
        "i386" | "i486" | "i586" | "i686" if triple.ends_with("-elfiamcu") => elf::EM_IAMCU,
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

/// The ELF machine where an option of clang's (`-m32` and its like) turns `machine` into another one.
/// Source: `computeTargetTriple` in clang's `Driver/Driver.cpp`.
pub fn machine_with(machine: u16, option: &OsStr) -> u16 {
    let x86 = [elf::EM_386, elf::EM_X86_64, elf::EM_IAMCU].iter().any(|x86| x86.0 == machine);
    let powerpc = [elf::EM_PPC, elf::EM_PPC64].iter().any(|powerpc| powerpc.0 == machine);
    match option.as_bytes() {
        b"-miamcu" if x86 => elf::EM_IAMCU.0,
        b"-m16" | b"-m32" if x86 => elf::EM_386.0,
        b"-m64" | b"-mx32" if x86 => elf::EM_X86_64.0,
        b"-m32" if powerpc => elf::EM_PPC.0,
        b"-m64" if powerpc => elf::EM_PPC64.0,
        _ => machine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-bit object: these names, and a section with `SHF_LINK_ORDER` for each of these places
    /// in them.
    fn with_names(names: &[u8], places: &[u32]) -> Vec<u8> {
        const HEADER: u16 = 64;
        let mut object = b"\x7fELF\x02\x01\x01".to_vec();
        object.resize(16, 0);
        let count = places.len() as u16 + 2; // a handful
        for half in [1, 62, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0] {
            object.extend(u16::to_le_bytes(half));
        }
        object.extend((u64::from(HEADER) + names.len() as u64).to_le_bytes());
        for half in [0, 0, HEADER, 0, 0, HEADER, count, 1] {
            object.extend(u16::to_le_bytes(half));
        }
        assert_eq!(object.len(), usize::from(HEADER));
        object.extend(names);
        let mut section = |name: u32, kind: u32, flags: u64, offset: u64, size: u64| {
            object.extend(name.to_le_bytes().into_iter().chain(kind.to_le_bytes()));
            for word in [flags, 0, offset, size, 0, 0, 0] {
                object.extend(u64::to_le_bytes(word));
            }
        };
        section(0, 0, 0, 0, 0);
        section(0, elf::SHT_STRTAB.0, 0, HEADER.into(), names.len() as u64);
        for &place in places {
            section(place, elf::SHT_PROGBITS.0, elf::SHF_LINK_ORDER.0, 0, 0);
        }
        object
    }

    #[test]
    fn patchable_sections_are_counted_by_their_whole_name() {
        let names = b"\0__patchable_function_entries\0.__patchable_function_entries.x\0\
                      __patchable_function_entries";
        let last = names.len() as u32 - 28; // without its end
        let native = read(&with_names(names, &[0, 1, 1, 2, 31, last, 1 << 30])).unwrap();
        assert_eq!(native.patchable_sections, 2);
        assert_eq!(read(&with_names(names, &[])).unwrap().patchable_sections, 0);
    }

    #[test]
    fn rubbish_is_told_from_objects() {
        assert!(read(b"").is_err());
        assert!(read(b"\x7fELF").is_err());
        assert!(read(b"\x7fELF\x02\x01\x01 and then nothing").is_err());
    }
}
