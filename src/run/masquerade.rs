//! thinshim under the names of the tools that PATH has, in a directory that comes first on it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::symlink;
use std::{env, fs, io};

use crate::site::Site;
use crate::tool;

/// Makes the links. A name that PATH does not have gets none: a script that looks for a clang
/// must not find one where there is none.
///
/// # Errors
/// The operating system's.
pub(super) fn fill(site: &Site, path: &OsStr) -> io::Result<()> {
    let own = tool::own_path();
    fs::create_dir(site.tools())?;
    names(path).iter().try_for_each(|name| symlink(&own, site.tools().join(name)))
}

/// The names on `path` that thinshim answers to, where they are not thinshim itself.
fn names(path: &OsStr) -> BTreeSet<OsString> {
    let directories = env::split_paths(path).filter_map(|directory| fs::read_dir(directory).ok());
    let mut names: BTreeSet<OsString> = directories
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| tool::kind(name).is_some() || tool::builder(name).is_some())
        .collect();
    names.retain(|name| tool::find(name).is_some());
    names
}
