//! The bound on the cache's size: what was used longest ago goes first.
//!
//! The file `size` counts what is stored. It is counted up before an entry appears, so that a
//! process that is killed leaves the count too high, never too low; an eviction counts anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::store::Store;

/// An eviction leaves this share of the limit, so that the next store does not evict again.
const KEPT_PERCENT: u64 = 80;
/// Why such an entry is not stored.
pub const TOO_LARGE: &str = "it is too large for a cache of that size (THINSHIM_CACHE_SIZE)";
/// File systems hand out space in blocks.
const BLOCK: u64 = 4096;

/// A file of the cache.
#[derive(Debug)]
pub struct Item {
    /// Where.
    pub path: PathBuf,
    /// Its size on disk.
    pub size: u64,
    /// When it was last used.
    pub used: SystemTime,
}

/// Every entry, memo and history of the cache.
pub fn items(store: &Store) -> Vec<Item> {
    let mut items = Vec::new();
    let mut directories: Vec<PathBuf> =
        ["objects", "links", "outputs", "tools"].map(|name| store.root().join(name)).to_vec();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                directories.push(entry.path());
            } else {
                let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                items.push(Item { path: entry.path(), size: on_disk(meta.len()), used });
            }
        }
    }
    items
}

fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK) * BLOCK
}

/// Whether `bytes` are more than one entry may take of `limit`: to make room for it would cost
/// most of the others.
pub fn is_too_large(bytes: u64, limit: u64) -> bool {
    on_disk(bytes) > limit / 2
}

/// Counts `bytes` that are about to be stored; evicts where that passes `limit`.
///
/// # Errors
/// The operating system's.
pub fn count(store: &Store, bytes: u64, limit: u64) -> io::Result<()> {
    let mut file = locked(store.root())?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    // Without a count there is one to be made.
    let before: Option<u64> = text.trim().parse().ok();
    let sum = before.map(|before| before + on_disk(bytes)).filter(|&sum| sum <= limit);
    let sum = match sum {
        Some(sum) => sum,
        None => evict(store, limit.saturating_sub(on_disk(bytes))) + on_disk(bytes),
    };
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(sum.to_string().as_bytes())
}

/// Forgets the count: the next store makes a new one.
///
/// # Errors
/// The operating system's.
pub fn recount(store: &Store) -> io::Result<()> {
    locked(store.root())?.set_len(0)
}

fn locked(root: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(root.join("size"))?;
    file.lock()?;
    Ok(file)
}

/// Removes what was used longest ago, where there is more than `limit`; returns what is left.
fn evict(store: &Store, limit: u64) -> u64 {
    store.sweep();
    let mut items = items(store);
    let mut sum: u64 = items.iter().map(|item| item.size).sum();
    if sum <= limit {
        return sum;
    }
    items.sort_by_key(|item| item.used);
    let goal = limit / 100 * KEPT_PERCENT;
    for item in items {
        if sum <= goal {
            break;
        }
        if fs::remove_file(&item.path).is_ok() {
            sum -= item.size;
        }
    }
    log::info!("the cache was full: evicted down to {sum} bytes");
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::digest::Digest;
    use crate::cache::store::{Found, Shelf};
    use std::fs::FileTimes;
    use std::time::Duration;

    fn put(store: &Store, name: &str, limit: u64) -> Digest {
        let key = Digest::of(name.as_bytes());
        count(store, 5000, limit).expect("a count");
        store.put(&key, &[7; 5000], b"").expect("an entry");
        key
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let space = tempfile::tempdir().expect("a directory");
        let store = Store::open(space.path(), true).expect("a store");
        let limit = 40 * BLOCK;
        let keys: Vec<Digest> = (0..20).map(|at| put(&store, &at.to_string(), limit)).collect();
        let hit = |key: &Digest| matches!(store.get(key), Ok(Found::Hit(_)));
        assert!(keys.iter().all(hit), "20 of 2 blocks fit");
        for (at, key) in keys.iter().enumerate() {
            let name = key.to_string();
            let path = store.shelf(Shelf::Objects).join(&name[..2]).join(&name[2..]);
            // The first is the one last used.
            let age = Duration::from_secs(if at == 0 { 100 } else { 10_000 - at as u64 });
            let times = FileTimes::new().set_modified(SystemTime::now() - age);
            File::open(path).and_then(|file| file.set_times(times)).expect("times");
        }
        let new = put(&store, "new", limit);
        assert!(hit(&new) && hit(&keys[0]) && hit(&keys[19]) && !hit(&keys[1]));
        let left = items(&store).iter().map(|item| item.size).sum::<u64>();
        assert!(left <= limit && left >= limit / 2, "{left}");
    }

    #[test]
    fn without_a_count_it_is_made() {
        let space = tempfile::tempdir().expect("a directory");
        let store = Store::open(space.path(), true).expect("a store");
        put(&store, "a", 1 << 20);
        fs::write(store.root().join("size"), "rubbish").expect("a file");
        put(&store, "b", 1 << 20);
        let size = fs::read_to_string(store.root().join("size")).expect("a count");
        assert_eq!(size, (4 * BLOCK).to_string());
        recount(&store).expect("no count");
        put(&store, "a", 1 << 20);
        // What is stored again counts twice until the next eviction.
        let size = fs::read_to_string(store.root().join("size")).expect("a count");
        assert_eq!(size, (6 * BLOCK).to_string());
    }
}
