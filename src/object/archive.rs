//! Archives: their members, where each one's bytes are.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use object::read::archive::ArchiveFile;

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

/// Lists the members of the archive `data`, which was read from `path`, in their order.
///
/// # Errors
/// A sentence, for an archive that breaks the format's rules.
pub fn members(path: &Path, data: &[u8]) -> Result<Vec<Member>, String> {
    let archive = ArchiveFile::parse(data).map_err(|error| error.to_string())?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut members = Vec::new();
    for member in archive.members() {
        let member = member.map_err(|error| error.to_string())?;
        let name = PathBuf::from(OsStr::from_bytes(member.name()));
        let place = if member.is_thin() {
            // An absolute name stands for itself: `join` sees to it.
            Place::File(directory.join(&name))
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
