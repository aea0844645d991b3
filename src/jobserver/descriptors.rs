//! A jobserver's pipe under two numbers, for makes to inherit.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::Command;

use crate::sys::fd;

/// The open ends of a named pipe.
#[derive(Debug)]
pub struct Descriptors {
    read: OwnedFd,
    write: OwnedFd,
}

impl Descriptors {
    /// Above the single digits that a shell script may redirect, and bash's own.
    const LEAST: RawFd = 100;

    /// Opens `path`, which somebody has open already, with descriptions of its own: a make sets
    /// `O_NONBLOCK` on what it inherits.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path) -> io::Result<Descriptors> {
        let read = raise(&File::open(path)?)?;
        let write = raise(&OpenOptions::new().write(true).open(path)?)?;
        Ok(Descriptors { read, write })
    }

    /// ` NAME=R,W`.
    pub fn option(&self, name: &str) -> OsString {
        format!(" {name}={},{}", self.read.as_raw_fd(), self.write.as_raw_fd()).into()
    }

    /// Lets `command` inherit them under their numbers.
    pub fn bequeath(&self, command: &mut Command) {
        fd::inherit(command, vec![self.read.as_raw_fd(), self.write.as_raw_fd()]);
    }
}

fn raise(file: &File) -> io::Result<OwnedFd> {
    // A small limit on open files is no reason to fail.
    fd::duplicate(file.as_raw_fd(), Descriptors::LEAST)
        .or_else(|_| fd::duplicate(file.as_raw_fd(), 10))
}
