//! How much memory a new process may still count on.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is free is read no more often than this: that takes as long as all else that the start of a
/// back end takes here, and a back end needs longer to grow.
const GOOD_FOR: Duration = Duration::from_millis(200);

/// Tells whether less memory than a floor is left.
#[derive(Debug)]
pub struct Gauge {
    floor: u64,
    enough_at: Option<Instant>,
}

impl Gauge {
    /// For `floor` bytes; 0: never.
    pub fn new(floor: u64) -> Gauge {
        Gauge { floor, enough_at: None }
    }

    /// Whether less is left, as `available` says now, or said shortly before if that was enough.
    pub fn is_low(&mut self, now: Instant, available: impl FnOnce() -> Option<u64>) -> bool {
        if self.floor == 0 || self.enough_at.is_some_and(|then| now < then + GOOD_FOR) {
            return false;
        }
        let low = available().is_some_and(|bytes| bytes < self.floor);
        self.enough_at = (!low).then_some(now);
        low
    }
}

/// Bytes that can be had without swapping, here and in every memory cgroup (v2) that this
/// process is in. `None`: nobody knows.
pub fn available_bytes() -> Option<u64> {
    let machine = fs::read("/proc/meminfo").ok().and_then(|text| parse_available(&text));
    let groups = own_groups().into_iter().filter_map(|group| headroom_of(&group));
    machine.into_iter().chain(groups).min()
}

/// `MemAvailable` of `/proc/meminfo` (proc(5)), which is in KiB whatever its unit says.
fn parse_available(meminfo: &[u8]) -> Option<u64> {
    let line = meminfo
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"MemAvailable:"))?;
    let number = str::from_utf8(line).ok()?.split_ascii_whitespace().next()?;
    number.parse::<u64>().ok()?.checked_mul(1024)
}

/// The directories of our own cgroup and those above it, as far as they can be seen.
fn own_groups() -> Vec<PathBuf> {
    let (Ok(cgroup), Ok(mounts)) =
        (fs::read("/proc/self/cgroup"), fs::read("/proc/self/mountinfo"))
    else {
        return Vec::new();
    };
    let Some((root, mount)) = parse_mount(&mounts) else { return Vec::new() };
    let Some(group) = parse_group(&cgroup) else { return Vec::new() };
    // A container often sees its own group as the root of the mount.
    let Ok(below) = group.strip_prefix(&root) else { return vec![mount] };
    let own = mount.join(below);
    own.ancestors().take_while(|dir| dir.starts_with(&mount)).map(Path::to_owned).collect()
}

/// Our path in the v2 hierarchy: the line `0::/path` of `/proc/self/cgroup` (cgroups(7)).
fn parse_group(cgroup: &[u8]) -> Option<PathBuf> {
    let path = cgroup.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// Root and mount point of the first cgroup2 in `/proc/self/mountinfo` (proc(5)).
fn parse_mount(mountinfo: &[u8]) -> Option<(PathBuf, PathBuf)> {
    mountinfo.split(|&byte| byte == b'\n').find_map(|line| {
        let fields: Vec<_> = line.split(|&byte| byte == b' ').collect();
        // Optional fields end with a lone dash; the file system's type follows.
        let dash = fields.iter().skip(6).position(|&field| field == b"-")? + 6;
        (*fields.get(dash + 1)? == b"cgroup2").then(|| (unescape(fields[3]), unescape(fields[4])))
    })
}

/// Undoes the octal escapes (`\040`) of blanks and backslashes in mountinfo.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let code = after.get(..3).filter(|_| byte == b'\\');
        let code = code.and_then(|code| u8::from_str_radix(str::from_utf8(code).ok()?, 8).ok());
        if code.is_some() {
            rest = &after[3..];
        }
        path.push(code.unwrap_or(byte));
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

fn headroom_of(group: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let limits = [read("memory.max"), read("memory.high")];
    let limit = limits.iter().flatten().filter_map(|text| text.trim().parse().ok()).min()?;
    let current = read("memory.current")?.trim().parse().ok()?;
    Some(headroom(limit, current, read("memory.stat").map_or(0, |stat| parse_reclaimable(&stat))))
}

/// A build fills its group with page cache, which the kernel gives up before it kills: as in
/// `MemAvailable`, cache is not memory spent.
fn headroom(limit: u64, current: u64, reclaimable: u64) -> u64 {
    limit.saturating_sub(current.saturating_sub(reclaimable))
}

/// Bytes of clean file cache and slabs in a cgroup's `memory.stat`; those of tmpfs are not on
/// the file lists.
fn parse_reclaimable(stat: &str) -> u64 {
    let value = |name: &str| -> u64 {
        let number = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    let cache = value("active_file").saturating_add(value("inactive_file"));
    let busy = value("file_dirty").saturating_add(value("file_writeback"));
    cache.saturating_sub(busy).saturating_add(value("slab_reclaimable"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_machine() {
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn only_enough_is_remembered() {
        let mut gauge = Gauge::new(100);
        let now = Instant::now();
        assert!(gauge.is_low(now, || Some(99)));
        assert!(!gauge.is_low(now, || Some(100)));
        assert!(!gauge.is_low(now + GOOD_FOR / 2, || panic!("just looked")));
        assert!(gauge.is_low(now + GOOD_FOR, || Some(0)));
        assert!(!gauge.is_low(now + GOOD_FOR, || None));
        assert!(!Gauge::new(0).is_low(now, || panic!("nobody cares")));
    }

    #[test]
    fn meminfo() {
        let text = b"MemTotal:       24000000 kB\nMemFree:  7 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(parse_available(text), Some(20_000_000 * 1024));
        for odd in ["", "MemAvailable:", "MemAvailable: x kB", "MemAvailable: 99999999999999999999"]
        {
            assert_eq!(parse_available(odd.as_bytes()), None, "{odd}");
        }
    }

    #[test]
    fn groups_and_mounts() {
        let cgroup = b"12:memory:/v1\n0::/user.slice/a:b\n";
        assert_eq!(parse_group(cgroup), Some("/user.slice/a:b".into()));
        assert_eq!(parse_group(b"12:memory:/v1\n"), None);
        let mounts = b"22 1 0:21 / /proc rw - proc proc rw\n\
            30 22 0:26 /docker/x /sys/fs/cgroup\\040two rw,nosuid shared:4 master:1 - cgroup2 cgroup rw\n";
        assert_eq!(parse_mount(mounts), Some(("/docker/x".into(), "/sys/fs/cgroup two".into())));
        assert_eq!(
            parse_mount(b"30 22 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw\n"),
            None
        );
    }

    #[test]
    fn cache_is_not_memory_spent() {
        let stat = "anon 100\nfile 900\nfile_dirty 50\nfile_writeback 10\ninactive_file 400\n\
            active_file 300\nslab_reclaimable 20\n";
        assert_eq!(parse_reclaimable(stat), 660);
        assert_eq!(parse_reclaimable(""), 0);
        assert_eq!(headroom(2000, 1500, 660), 1160);
        assert_eq!(headroom(2000, 2500, 0), 0);
        assert_eq!(headroom(2000, 500, 660), 2000);
    }

    proptest! {
        #[test]
        fn any_text(bytes: Vec<u8>) {
            parse_available(&bytes);
            parse_group(&bytes);
            parse_mount(&bytes);
            unescape(&bytes);
            parse_reclaimable(&String::from_utf8_lossy(&bytes));
        }
    }
}
