//! The native link's inputs as the linker comes to them, and their sections.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use object::ReadCache;

use super::inputs::{Inputs, Piece};
use crate::invocation::lld::Element;
use crate::object::archive::{self, Place};
use crate::object::elf::{self, Named};
use crate::object::kind::{self, Kind};

/// An object, or an archive of objects.
pub(super) struct Input<'a> {
    path: &'a Path,
    /// An object is linked only where something needs it, so at a place that is not known.
    lazy: bool,
    /// Members are.
    lazy_members: bool,
}

/// The native link's inputs. `None` where one is looked for, or is not what it seems.
pub(super) fn in_order<'a>(
    inputs: &'a Inputs<'_>,
    natives: &'a [Option<PathBuf>],
    regular: Option<&'a Path>,
) -> Option<Vec<Input<'a>>> {
    let mut files = Vec::with_capacity(inputs.pieces.len());
    for piece in &inputs.pieces {
        files.push(match piece {
            Piece::Word(Element::Option { .. }) => continue,
            Piece::Word(Element::Input { path, state }) if !state.binary => Input {
                path: Path::new(*path),
                lazy: state.in_lib,
                lazy_members: !state.whole_archive,
            },
            Piece::Module { index, .. } => match &natives[*index] {
                Some(native) => Input::object(native, false),
                None => continue,
            },
            Piece::Native { path, lazy } => Input::object(Path::new(path), *lazy),
            Piece::Word(_) | Piece::Namesake(_) => return None,
        });
    }
    files.extend(regular.map(|path| Input::object(path, false)));
    Some(files)
}

impl<'a> Input<'a> {
    fn object(path: &'a Path, lazy: bool) -> Self {
        Input { path, lazy, lazy_members: true }
    }

    /// Shows the sections whose names are no longer than `longest`, in order, with whether their
    /// object is lazy. `None`: this is no object and no archive of objects.
    pub(super) fn sections(
        &self,
        longest: usize,
        see: &mut dyn FnMut(Named<'_>, bool),
    ) -> Option<()> {
        let (kind, file) = open(self.path)?;
        match kind {
            Kind::Elf => of_object(file, longest, &mut |section| see(section, self.lazy)),
            Kind::Archive | Kind::ThinArchive => {
                let data = fs::read(self.path).ok()?;
                let mut see = |section: Named<'_>| see(section, self.lazy_members);
                for member in archive::members(self.path, &data).ok()? {
                    match member.place {
                        Place::Inside(range) => {
                            elf::named_sections(data.get(range)?, longest, &mut see).ok()?;
                        }
                        // lld looks into no archive in an archive.
                        Place::File(path) => match open(&path)? {
                            (Kind::Elf, file) => of_object(file, longest, &mut see)?,
                            _ => return None,
                        },
                    }
                }
                Some(())
            }
            Kind::Bitcode | Kind::Other => None,
        }
    }
}

fn open(path: &Path) -> Option<(Kind, File)> {
    let mut file = File::open(path).ok()?;
    let mut head = [0; 8];
    file.read_exact(&mut head).and_then(|()| file.rewind()).ok()?;
    Some((kind::of(&head), file))
}

fn of_object(file: File, longest: usize, see: &mut dyn FnMut(Named<'_>)) -> Option<()> {
    elf::named_sections(&ReadCache::new(file), longest, see).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_in_an_archive_is_not_looked_into() {
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path().join("self.a");
        let member = |name: &str, size: usize| format!("{name:<16}{:<32}{size:<10}`\n", "0");
        let thin = format!("!<thin>\n{}self.a/\n{}", member("//", 8), member("/0", 8));
        fs::write(&archive, thin).unwrap();
        let mut seen = 0;
        let input = Input::object(&archive, false);
        assert_eq!(input.sections(9, &mut |_, _| seen += 1), None);
        assert_eq!(seen, 0);
    }
}
