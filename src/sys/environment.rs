//! This process's environment, as its children get it.
#![expect(unsafe_code, reason = "setenv is not for processes with threads")]

use std::ffi::OsStr;

/// Sets a variable for every child to come.
pub fn set(name: &str, value: impl AsRef<OsStr>) {
    // SAFETY: thinshim is one thread, which is here and reads no variable meanwhile.
    unsafe { std::env::set_var(name, value) }
}
