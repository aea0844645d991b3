//! A run's private directory, gone when the run is, however that ends.

use std::fs::Permissions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::site::Site;
use crate::sys::guardian::{Guarded, Guardian};

/// The directory.
#[derive(Debug)]
pub(super) struct Directory {
    _dir: TempDir,
    // Dismissed last: a kill may come in the middle of the removal.
    _guardian: Guardian,
    site: Site,
}

impl Directory {
    /// Makes a directory that only this user can look into, with a name that needs no quoting:
    /// ninja knows none.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn create() -> io::Result<Directory> {
        let usual = std::env::temp_dir();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,@".contains(byte);
        let usable = usual.is_absolute() && usual.as_os_str().as_bytes().iter().all(plain);
        let parent = if usable { usual } else { "/tmp".into() };
        let private = Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new()
            .prefix("thinshim-run-")
            .permissions(private)
            .tempdir_in(parent)?;
        let guardian = Guardian::set(dir.path(), Guarded::Directory)?;
        let site = Site::at(dir.path());
        Ok(Directory { _dir: dir, _guardian: guardian, site })
    }

    /// As those below know it.
    pub(super) fn site(&self) -> &Site {
        &self.site
    }
}
