//! Compilers' heaps: a short compile spends a tenth of its time on page faults.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

/// glibc's manual, "Memory Allocation Tunables": huge pages by `madvise` (glibc 2.35; others
/// ignore the word), and nothing is given back before the end.
const TUNABLES: &str =
    "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=16777216:glibc.malloc.trim_threshold=1073741824";

const VARIABLE: &str = "GLIBC_TUNABLES";

/// Lets `command`'s heap stand on huge pages, unless the user has tuned it.
pub fn on_huge_pages(command: &mut Command) {
    let mut tunables = env::var_os(VARIABLE).unwrap_or_default();
    let tuned = |text: &OsString| {
        text.as_bytes().windows(b"glibc.malloc".len()).any(|word| word == b"glibc.malloc")
    };
    if tuned(&tunables) || env::vars_os().any(|(name, _)| name.as_bytes().starts_with(b"MALLOC_")) {
        return;
    }
    if !tunables.is_empty() {
        tunables.push(":");
    }
    tunables.push(TUNABLES);
    command.env(VARIABLE, tunables);
}
