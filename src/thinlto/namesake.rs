//! Archives that an option speaks of by name (`--exclude-libs`): their members cannot stand alone.
//!
//! lld asks for the name of the archive alone, not for its directory. So an archive of that name
//! stands in the work directory: for the thin link with all members, where lld calls them
//! `lib.a(b.o at 8)` and each has a copy of that name for the back ends; for the native link with the
//! native objects of those that were extracted.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::object::archive;
use crate::tool::base_name;

/// An archive in the place of another one.
#[derive(Debug)]
pub struct Namesake {
    /// The one that the user knows.
    pub original: PathBuf,
    /// Where this one stands, and what is made of it.
    pub directory: PathBuf,
    /// Every member is linked, needed or not.
    pub whole: bool,
    /// Its members, in order.
    pub members: Vec<Member>,
}

/// A member of a namesake.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: OsString,
    /// Its bytes.
    pub bytes: Source,
    /// What it is in [`Inputs::modules`](super::inputs::Inputs::modules); `None`: native.
    pub module: Option<usize>,
}

/// Where a member's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// Which of its bytes; `None`: all.
    pub range: Option<Range<usize>>,
}

/// An archive to be written for a step.
#[derive(Debug, PartialEq, Eq)]
pub struct Made {
    /// Where.
    pub path: PathBuf,
    /// Every member is to be linked.
    pub whole: bool,
    /// Names and bytes of the members.
    pub members: Vec<(OsString, Source)>,
}

impl Namesake {
    fn base(&self) -> &OsStr {
        base_name(self.original.as_os_str())
    }

    /// The archive for the thin link.
    pub fn for_thin_link(&self) -> Made {
        let members = self.members.iter();
        Made {
            path: self.directory.join(self.base()),
            whole: self.whole,
            members: members.map(|member| (member.name.clone(), member.bytes.clone())).collect(),
        }
    }

    /// The archives for the native link, in order. What the thin link extracted is linked in any
    /// case (see `native_link`); native members between are as lazy as before.
    pub fn for_native_link(&self, natives: &[Option<PathBuf>]) -> Vec<Made> {
        let mut made: Vec<Made> = Vec::new();
        for member in &self.members {
            let bytes = match member.module {
                None => member.bytes.clone(),
                Some(index) => match &natives[index] {
                    Some(native) => Source { file: native.clone(), range: None },
                    None => continue,
                },
            };
            let whole = self.whole || member.module.is_some();
            if made.last().is_none_or(|last| last.whole != whole) {
                let directory = self.directory.join(made.len().to_string());
                made.push(Made { path: directory.join(self.base()), whole, members: Vec::new() });
            }
            let last = made.len() - 1;
            made[last].members.push((member.name.clone(), bytes));
        }
        made
    }

    /// Every path at which it may stand.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let numbered = (0..=self.members.len()).map(|run| self.directory.join(run.to_string()));
        let directories = std::iter::once(self.directory.clone()).chain(numbered);
        directories.map(|directory| directory.join(self.base()))
    }

    /// How lld's name for each member ends in the thin link's archive: `lib.a(b.o at 8)`.
    /// `members` has names and sizes.
    pub fn names(original: &Path, members: &[(OsString, u64)]) -> Vec<OsString> {
        let base = base_name(original.as_os_str());
        archive::layout(members)
            .into_iter()
            .zip(members)
            .map(|(offset, (member, _))| {
                let mut name = base.to_owned();
                name.push("(");
                name.push(member);
                name.push(format!(" at {offset})"));
                name
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_extracted_stays_out() {
        let member = |name: &str, module| Member {
            name: name.into(),
            bytes: Source { file: name.into(), range: Some(0..8) },
            module,
        };
        let namesake = Namesake {
            original: "lib/x.a".into(),
            directory: "w/0".into(),
            whole: false,
            members: vec![
                member("a.o", Some(0)),
                member("b.o", Some(1)),
                member("native.o", None),
                member("c.o", Some(2)),
            ],
        };
        let natives = [Some("1.o".into()), None, Some("2.o".into())];
        let made = namesake.for_native_link(&natives);
        let told: Vec<(&Path, bool, usize)> =
            made.iter().map(|made| (made.path.as_path(), made.whole, made.members.len())).collect();
        assert_eq!(
            told,
            [
                (Path::new("w/0/0/x.a"), true, 1),
                (Path::new("w/0/1/x.a"), false, 1),
                (Path::new("w/0/2/x.a"), true, 1)
            ]
        );
        assert_eq!(made[2].members[0].1, Source { file: "2.o".into(), range: None });
        assert_eq!(namesake.for_thin_link().members.len(), 4);
    }
}
