//! What a process has that a warm compiler of another process's must have, too, for its fork to be
//! what `exec` would have given.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::wire::Place;
use crate::sys::{child, sigpipe};

/// Lines of `/proc/self/status` (proc(5)): who it is, what it may do, where it may run, and who
/// looks on.
const STATUS: [&str; 17] = [
    "TracerPid:",
    "Uid:",
    "Gid:",
    "Groups:",
    "THP_enabled:",
    "CapInh:",
    "CapPrm:",
    "CapEff:",
    "CapBnd:",
    "CapAmb:",
    "NoNewPrivs:",
    "Seccomp:",
    "Seccomp_filters:",
    "Speculation_Store_Bypass:",
    "SpeculationIndirectBranch:",
    "Cpus_allowed:",
    "Mems_allowed:",
];

/// Fields of `/proc/self/stat`, counted from 1: session, terminal, nice value, real-time priority,
/// scheduling policy.
const STAT: [usize; 5] = [6, 7, 19, 40, 41];

/// Namespaces, in `/proc/self/ns`.
const NAMESPACES: [&str; 9] =
    ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts"];

/// More of `/proc/self`, whole. One that is not there is not there for others, either.
const FILES: [&str; 5] = ["limits", "cgroup", "oom_score_adj", "personality", "attr/current"];

/// Variables that are read before `main`, by the loader and by constructors: by their beginnings.
/// Sanitizers' and profilers' are those of instrumented compilers.
const EARLY: [&str; 9] =
    ["LD_", "GLIBC", "MALLOC_", "TCMALLOC_", "LLVM_PROFILE_", "ASAN_", "LSAN_", "MSAN_", "UBSAN_"];

/// The circumstances of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// What must be the same, as text.
    pub common: Vec<u8>,
    /// What a job can be given.
    pub place: Place,
}

impl Circumstances {
    /// Those of this process.
    ///
    /// # Errors
    /// The operating system's; or they are such that no warm compiler can have them.
    pub fn read() -> io::Result<Circumstances> {
        let mut common = Vec::with_capacity(4096);
        early_variables(&mut common)?;
        let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let status = fs::read("/proc/self/status")?;
        let status = str::from_utf8(&status).map_err(|_| odd("/proc/self/status"))?;
        let place = place(status).ok_or_else(|| odd("/proc/self/status"))?;
        for line in status.lines().filter(|line| STATUS.iter().any(|name| line.starts_with(name))) {
            add(&mut common, line.as_bytes());
        }
        let stat = fs::read("/proc/self/stat")?;
        let stat = stat_fields(&stat).ok_or_else(|| odd("/proc/self/stat"))?;
        for field in stat {
            add(&mut common, field);
        }
        for name in NAMESPACES {
            let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
            add(&mut common, link.as_os_str().as_bytes());
        }
        for name in FILES {
            add(&mut common, &fs::read(format!("/proc/self/{name}")).unwrap_or_default());
        }
        let root = fs::metadata("/")?;
        add(&mut common, format!("{} {}", root.dev(), root.ino()).as_bytes());
        add(&mut common, child::io_priority().to_string().as_bytes());
        Ok(Circumstances { common, place })
    }
}

fn add(common: &mut Vec<u8>, part: &[u8]) {
    common.extend_from_slice(part);
    common.push(b'\n');
}

/// Adds the variables that are read early.
fn early_variables(common: &mut Vec<u8>) -> io::Result<()> {
    let is_early =
        |name: &OsStr| EARLY.iter().any(|start| name.as_bytes().starts_with(start.as_bytes()));
    let mut early: Vec<_> = env::vars_os().filter(|(name, _)| is_early(name)).collect();
    early.sort();
    for (name, value) in early {
        // Put in where the variable is read, which is once for all jobs.
        if name.as_bytes().starts_with(b"LLVM_PROFILE_")
            && value.as_bytes().windows(2).any(|two| two == b"%p")
        {
            return Err(io::Error::other(format!("{} wants its process", name.display())));
        }
        // A relative path means another file in every directory.
        let mut paths = value.as_bytes().split(|&byte| b":; ".contains(&byte));
        if name.as_bytes().starts_with(b"LD_") && !paths.all(|path| path.starts_with(b"/")) {
            return Err(io::Error::other(format!("{} may name relative paths", name.display())));
        }
        add(common, name.as_bytes());
        add(common, value.as_bytes());
    }
    Ok(())
}

/// What a job can be given, out of `/proc/self/status`.
fn place(status: &str) -> Option<Place> {
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let signals = |name: &str| u64::from_str_radix(value(name)?, 16).ok();
    // Rust's own runtime ignores it here.
    let pipe = if sigpipe::was_ignored() { 0 } else { 1 << (libc::SIGPIPE - 1) };
    Some(Place {
        group: u32::try_from(nix::unistd::getpgrp().as_raw()).ok().filter(|&group| group > 0)?,
        umask: u32::from_str_radix(value("Umask:")?, 8).ok()?,
        blocked: signals("SigBlk:")?,
        ignored: signals("SigIgn:")? & !pipe,
    })
}

/// The fields of `/proc/self/stat` that count. The second, the name, may have blanks in it.
fn stat_fields(stat: &[u8]) -> Option<[&[u8]; STAT.len()]> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let after: Vec<&[u8]> = stat.get(name_end + 2..)?.split(|&byte| byte == b' ').collect();
    let mut fields = [&stat[..0]; STAT.len()];
    for (field, number) in fields.iter_mut().zip(STAT) {
        *field = after.get(number - 3)?;
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_stat() {
        let stat =
            b"12 (a ) b) R 1 2 333 4 5 6 7 8 9 10 11 12 13 14 15 -5 17 18 19 20 21 22 23 24 \
            25 26 27 28 29 30 31 32 33 34 35 36 99 2 39";
        let fields: [&[u8]; 5] = [b"333", b"4", b"-5", b"99", b"2"];
        assert_eq!(stat_fields(stat), Some(fields));
        assert_eq!(stat_fields(b"12 (a) R 1"), None);
        assert_eq!(stat_fields(b""), None);
    }

    #[test]
    fn places() {
        let status = "Umask:\t0027\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n";
        let place = place(status).expect("a place");
        assert_eq!((place.umask, place.blocked, place.ignored), (0o27, 2, 1));
        assert_eq!(super::place("Umask:\t0027\n"), None);
    }

    #[test]
    fn of_this_process() {
        let one = Circumstances::read().expect("circumstances");
        assert_eq!(one.common, Circumstances::read().expect("circumstances").common);
    }
}
