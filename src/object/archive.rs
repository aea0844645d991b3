//! Archives: their members, where each one's bytes are.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use object::read::archive::ArchiveFile;

use super::kind::{self, Kind};

/// An archive begins with it.
const MAGIC: &[u8] = b"!<arch>\n";

/// Bytes of a member's name, at most: what a path may have (`PATH_MAX` of linux/limits.h). Without
/// a bound every header of an archive could stand for the whole of its table of names.
const NAME_MAX: usize = 4096;

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name in the archive.
    pub name: PathBuf,
    /// Where its bytes are.
    pub place: Place,
}

/// Where a member's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the archive, at these offsets.
    Inside(Range<usize>),
    /// In a file of its own, named by a thin archive: relative to the archive's directory.
    File(PathBuf),
}

/// Bytes of a member's header.
const HEADER: u64 = 60;
/// Names that fit into a header, with the slash that ends them.
const SHORT_NAME: usize = 15;

/// The table of the names that do not fit into their headers, and each name's place in it.
fn long_names(names: &[&[u8]]) -> (Vec<u8>, Vec<Option<usize>>) {
    let mut table = Vec::new();
    let places = names
        .iter()
        .map(|name| {
            (name.len() > SHORT_NAME).then(|| {
                let place = table.len();
                table.extend_from_slice(name);
                table.extend_from_slice(b"/\n");
                place
            })
        })
        .collect();
    (table, places)
}

fn even(size: u64) -> u64 {
    size + size % 2
}

/// Where the headers of members with these names and sizes stand in what [`write`] writes.
pub fn layout(members: &[(OsString, u64)]) -> Vec<u64> {
    let names: Vec<&[u8]> = members.iter().map(|(name, _)| name.as_bytes()).collect();
    let (table, _) = long_names(&names);
    let mut at = MAGIC.len() as u64;
    if !table.is_empty() {
        at += HEADER + even(table.len() as u64);
    }
    members
        .iter()
        .map(|&(_, size)| {
            let here = at;
            at += HEADER + even(size);
            here
        })
        .collect()
}

/// Writes an archive in GNU's format, without a symbol table: lld has no need of one.
pub fn write(members: &[(&OsStr, &[u8])]) -> Vec<u8> {
    let names: Vec<&[u8]> = members.iter().map(|(name, _)| name.as_bytes()).collect();
    let (table, places) = long_names(&names);
    let mut out = MAGIC.to_vec();
    let mut put = |name: &[u8], contents: &[u8]| {
        let mut header = name.to_vec();
        header.resize(16, b' ');
        let size = contents.len();
        // Date, owner, group, mode.
        let rest = format!("{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644);
        header.extend_from_slice(rest.as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(contents);
        if size % 2 == 1 {
            out.push(b'\n');
        }
    };
    if !table.is_empty() {
        put(b"//", &table);
    }
    for ((name, contents), place) in members.iter().zip(places) {
        match place {
            Some(place) => put(format!("/{place}").as_bytes(), contents),
            None => put(&[name.as_bytes(), b"/"].concat(), contents),
        }
    }
    out
}

/// Lists the members of the archive `data`, which was read from `path`, in their order.
///
/// # Errors
/// A sentence, for an archive that breaks the format's rules.
pub fn members(path: &Path, data: &[u8]) -> Result<Vec<Member>, String> {
    // The library reads those of AIX and z/OS, too.
    if !matches!(kind::of(data), Kind::Archive | Kind::ThinArchive) {
        return Err("it is not an archive".into());
    }
    let archive = ArchiveFile::parse(data).map_err(|error| error.to_string())?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut members = Vec::new();
    for member in archive.members() {
        let member = member.map_err(|error| error.to_string())?;
        if member.name().len() > NAME_MAX {
            return Err(format!("a member's name has more than {NAME_MAX} bytes"));
        }
        let name = PathBuf::from(OsStr::from_bytes(member.name()));
        let place = if member.is_thin() {
            // An absolute name stands for itself: `join` sees to it.
            Place::File(no_option(directory.join(&name)))
        } else {
            let (start, size) = member.file_range();
            let range = usize::try_from(start)
                .ok()
                .and_then(|start| Some(start..start.checked_add(usize::try_from(size).ok()?)?))
                .filter(|range| range.end <= data.len())
                .ok_or_else(|| format!("member {} ends past the archive", name.display()))?;
            Place::Inside(range)
        };
        members.push(Member { name, place });
    }
    Ok(members)
}

/// A path that no tool takes for an option or a response file.
fn no_option(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_bytes().first() {
        Some(b'-' | b'@') => Path::new(".").join(path),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    fn files() -> impl Strategy<Value = Vec<(OsString, Vec<u8>)>> {
        let byte = (1_u8..=255).prop_filter("ends a name", |byte| !b"/\n".contains(byte));
        let name = proptest::collection::vec(byte, 1..40).prop_map(OsString::from_vec);
        proptest::collection::vec((name, proptest::collection::vec(any::<u8>(), 0..40)), 0..8)
    }

    proptest! {
        #[test]
        fn what_was_written_is_listed(files in files()) {
            let written: Vec<(&OsStr, &[u8])> =
                files.iter().map(|(name, data)| (name.as_os_str(), data.as_slice())).collect();
            let archive = write(&written);
            let listed = members(Path::new("a.a"), &archive).unwrap();
            let read: Vec<(&OsStr, &[u8])> = listed
                .iter()
                .map(|member| match &member.place {
                    Place::Inside(range) => (member.name.as_os_str(), &archive[range.clone()]),
                    Place::File(file) => panic!("{} is no member", file.display()),
                })
                .collect();
            prop_assert_eq!(read, written);
            let sizes: Vec<_> =
                files.iter().map(|(name, data)| (name.clone(), data.len() as u64)).collect();
            let starts = listed.iter().map(|member| match &member.place {
                Place::Inside(range) => range.start as u64 - HEADER,
                Place::File(_) => 0,
            });
            prop_assert_eq!(layout(&sizes), starts.collect::<Vec<_>>());
        }

        #[test]
        fn members_lie_inside_whatever_the_bytes(
            files in files(),
            thin in any::<bool>(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let written: Vec<(&OsStr, &[u8])> =
                files.iter().map(|(name, data)| (name.as_os_str(), data.as_slice())).collect();
            let mut archive = write(&written);
            if thin {
                archive[..MAGIC.len()].copy_from_slice(b"!<thin>\n");
            }
            for (at, byte) in changes {
                let at = at.index(archive.len());
                archive[at] = byte;
            }
            for member in members(Path::new("a.a"), &archive).unwrap_or_default() {
                if let Place::Inside(range) = member.place {
                    prop_assert!(range.start <= range.end && range.end <= archive.len());
                }
            }
        }
    }

    /// A thin archive whose table of names holds one name, and one member of that name.
    fn thin(name: &str) -> Vec<u8> {
        let pad = if name.len().is_multiple_of(2) { "" } else { "\n" };
        let table = format!("{name}/\n{pad}");
        let member = |name: &str, size: usize| format!("{name:<16}{:<32}{size:<10}`\n", "0");
        let mut archive = b"!<thin>\n".to_vec();
        archive.extend(member("//", table.len()).bytes().chain(table.bytes()));
        archive.extend(member("/0", 4).bytes());
        archive
    }

    #[test]
    fn other_systems_archives_are_none() {
        // AIX's: its table may name one member many times.
        let aix = format!("<bigaf>\n{:<20}{:<20}{:<20}{:<20}{:<20}{:<20}", 0, 0, 0, 0, 0, 0);
        assert!(members(Path::new("a.a"), aix.as_bytes()).is_err());
    }

    #[test]
    fn names_are_paths() {
        let path = Path::new("dir/a.a");
        let listed = members(path, &thin("b.o")).unwrap();
        assert_eq!(listed[0].place, Place::File("dir/b.o".into()));
        for (archive, name, file) in [
            ("a.a", "-b.o", "./-b.o"),
            ("a.a", "@b.o", "./@b.o"),
            ("a.a", "b.o", "b.o"),
            ("dir/a.a", "@b.o", "dir/@b.o"),
        ] {
            let listed = members(Path::new(archive), &thin(name)).unwrap();
            assert_eq!(listed[0].place, Place::File(file.into()));
        }
        assert!(members(path, &thin(&"n".repeat(NAME_MAX))).is_ok());
        let error = members(path, &thin(&"n".repeat(NAME_MAX + 1))).unwrap_err();
        assert!(error.contains("more than 4096 bytes"), "{error}");
    }
}
