//! The environment variables that clang reads and that can change what a back end writes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::digest::{Digest, Parts};
use crate::invocation::clang;

/// Variables whose names begin so:
///
/// * `CCC_`: clang's driver edits its command line by `CCC_OVERRIDE_OPTIONS` and `CCC_ADD_ARGS`.
/// * `CLANG_`, `LLVM_`, `FORCE_CLANG_`: configuration files, crash directories, the producer's name.
/// * `LD_`, `GLIBC_TUNABLES`: which libraries the loader gives to clang.
const READ: [&str; 6] = ["CCC_", "CLANG_", "LLVM_", "FORCE_CLANG_", "LD_", "GLIBC_TUNABLES"];

/// Search paths of the driver, and what chooses a target's version. `SOURCE_DATE_EPOCH` is not
/// among them: only the preprocessor reads it.
const READ_WHOLE: [&str; 9] = [
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "SDKROOT",
    "MACOSX_DEPLOYMENT_TARGET",
    "IPHONEOS_DEPLOYMENT_TARGET",
];

/// These make clang write files of its own.
const WRITES: [&str; 2] = ["CC_PRINT_", "CC_LOG_DIAGNOSTICS"];

/// The digest of the variables that matter.
///
/// # Errors
/// Why back ends in this environment cannot be cached.
pub fn digest(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Digest, &'static str> {
    let begins = |name: &OsStr, with: &[&str]| {
        with.iter().any(|start| name.as_bytes().starts_with(start.as_bytes()))
    };
    let mut read: Vec<(OsString, OsString)> = Vec::new();
    for (name, value) in variables {
        if begins(&name, &WRITES) {
            return Err("the environment makes clang write a log");
        }
        if begins(&name, &["CCC_"]) && edits_depend_on_more(&value) {
            return Err("the environment edits options that name files, or the processor");
        }
        if begins(&name, &READ) || READ_WHOLE.iter().any(|whole| name == *whole) {
            read.push((name, value));
        }
    }
    read.sort();
    let mut parts = Parts::new();
    for (name, value) in &read {
        parts.add(name.as_bytes());
        parts.add(value.as_bytes());
    }
    Ok(parts.digest())
}

/// Whether an edit of the driver's command line (`applyOneOverrideOption` in clang's `Driver.cpp`)
/// has an option that hangs on more than its words.
fn edits_depend_on_more(edits: &OsStr) -> bool {
    let words = edits.as_bytes().split(|&byte| byte == b' ');
    let options: Vec<OsString> = words
        .map(|word| word.strip_prefix(b"+").or(word.strip_prefix(b"^")).unwrap_or(word))
        .map(|word| OsStr::from_bytes(word).to_owned())
        .collect();
    clang::depends_on_more(&options)
        // Text in the place of text may make any option.
        || edits.as_bytes().starts_with(b"s/")
        || edits.as_bytes().windows(3).any(|three| three == b" s/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_clang_reads_counts() {
        let with = |pairs: &[(&str, &str)]| {
            digest(pairs.iter().map(|(name, value)| (name.into(), value.into())))
        };
        let none = with(&[]);
        assert_eq!(with(&[("HOME", "/x"), ("SOURCE_DATE_EPOCH", "1")]), none);
        assert_ne!(with(&[("CCC_OVERRIDE_OPTIONS", "+-O0")]), none);
        assert_ne!(with(&[("LD_PRELOAD", "x.so")]), none);
        for edits in ["# +-fbasic-block-sections=list=x", "+-march=native", "s/-O1/-O2/"] {
            assert!(with(&[("CCC_OVERRIDE_OPTIONS", edits)]).is_err(), "{edits}");
        }
        assert_eq!(
            with(&[("CPATH", "a"), ("LLVM_X", "b")]),
            with(&[("LLVM_X", "b"), ("CPATH", "a")])
        );
        assert!(with(&[("CC_PRINT_OPTIONS", "1")]).is_err());
    }
}
