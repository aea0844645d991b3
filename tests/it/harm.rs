//! What can happen to a cache: kills, a full disk, a disk that is only read. Links give what they
//! give without it, say what is wrong in one line, and leave nothing behind.

use std::fs;
use std::process::Stdio;

use crate::cache::{CACHE, OBJECTS, counts, entries, link, mounted};
use crate::kills::Random;
use crate::links::{MAIN, NEXT, TWICE, three};
use crate::oracle::program;
use crate::space::{Run, TestSpace};

const PROJECTS: usize = 4;
const LINKS: usize = 16;

/// Files of the cache, whole or begun.
fn files(space: &TestSpace) -> usize {
    let mut count = 0;
    let mut directories = vec![space.path(CACHE)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                _ => count += 1,
            }
        }
    }
    count
}

/// Files that a process has begun and not stored.
fn unfinished(space: &TestSpace) -> usize {
    fs::read_dir(space.path(CACHE).join("v1/tmp")).expect("a directory").count()
}

/// Four directories, each with one module of its own and two that all have.
fn projects() -> TestSpace {
    let space = TestSpace::new().cached();
    for number in 0..PROJECTS {
        let main = MAIN.1.replace("21", &format!("{}", 21 + number));
        space.compile("", &[(MAIN.0, &main), TWICE, NEXT]);
        for object in OBJECTS.split(' ') {
            let to = space.path(format!("p{number}/{object}"));
            fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
            fs::rename(space.path(object), to).expect(object);
        }
        let clean = link_in(&space, number, "clean").env("THINSHIM_CACHE", "off");
        clean.ok();
    }
    space
}

fn link_in(space: &TestSpace, project: usize, output: &str) -> Run {
    let run = space.strict(&format!("ld.lld {} -o {output}", program(OBJECTS)));
    run.within(space.path(format!("p{project}"))).env("MAKEFLAGS", "s").env("THINSHIM_JOBS", "2")
}

/// Links of the same and of different projects on one cache, some of them killed at random.
#[test]
fn many_links_and_kills() {
    let space = projects();
    let mut killed = 0;
    for round in 0..6 {
        let told = format!("seed {round}");
        let mut random = Random(round);
        // An empty cache, or one that lacks some entries.
        if round % 2 == 0 {
            let _ = fs::remove_dir_all(space.path(CACHE));
        } else {
            let all = entries(&space);
            for entry in all.iter().filter(|_| random.below(3) == 0) {
                fs::remove_file(entry).expect("an entry");
            }
        }
        let mut children: Vec<_> = (0..LINKS)
            .map(|number| {
                let mut run = link_in(&space, number % PROJECTS, &format!("out{number}"));
                run.command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("thinshim")
            })
            .collect();
        // Each victim dies when so many files have come to the cache, or at its own end.
        let before = files(&space);
        let mut victims = Vec::new();
        for number in 0..LINKS {
            if random.below(3) == 0 {
                let more = usize::try_from(random.below(12)).expect("small");
                victims.push((before + more, number));
            }
        }
        victims.sort_unstable();
        for &(wanted, victim) in &victims {
            while files(&space) < wanted && children[victim].try_wait().expect("it").is_none() {
                std::thread::yield_now();
            }
            children[victim].kill().expect("a child");
        }
        for (number, child) in children.into_iter().enumerate() {
            let output = child.wait_with_output().expect("an end");
            let name = format!("p{}/out{number}", number % PROJECTS);
            let success = output.status.success();
            if success {
                assert!(output.stderr.is_empty(), "{told}: {output:?}");
            } else {
                assert!(victims.iter().any(|two| two.1 == number), "{told}: {output:?}");
                killed += 1;
            }
            if success || space.exists(&name) {
                let clean = space.read(format!("p{}/clean", number % PROJECTS));
                assert!(space.read(&name) == clean, "{told}: {name}");
                space.remove(&name);
            }
        }
        space.shim("cache verify").ok();
        for project in 0..PROJECTS {
            link_in(&space, project, "again").ok();
            let read = |name: &str| space.read(format!("p{project}/{name}"));
            assert!(read("again") == read("clean"), "{told}: p{project}");
        }
    }
    eprintln!("{killed} kills in time");
    assert!(killed > 0, "every kill came too late");
    space.shim("cache clean").ok();
    assert_eq!((entries(&space).len(), unfinished(&space)), (0, 0));
}

/// What a killed link had begun to store goes with the next `clean`.
#[test]
fn clean_takes_what_is_unfinished() {
    let space = TestSpace::new().cached();
    three(&space);
    link(&space);
    assert_eq!(unfinished(&space), 0);
    space.write(&format!("{CACHE}/v1/tmp/.tmpAbCdEf"), "half an entry");
    space.shim("cache clean").ok();
    assert_eq!((entries(&space).len(), unfinished(&space)), (0, 0));
    assert_eq!(link(&space), (3, 0));
}

/// Disks of every size, in bytes and in files: at one of them an entry is the first that does not
/// fit, at one the memo, at one the directories.
#[test]
fn a_disk_that_fills_up() {
    let space = TestSpace::new().cached();
    three(&space);
    link(&space);
    let words = format!(
        "on() {{\nmount -t tmpfs -o $1 tmpfs {CACHE}\n\
         for round in first second; do\nLINK 2> said\ncmp out clean\ncat said >&2\n\
         if grep -v 'cannot write to the cache.*No space left' said; then exit 1; fi\n\
         test $(wc -l < said) -le 1\ntest -z \"$(find {CACHE} -path '*/tmp/*')\"\ndone\n\
         test ! -d {CACHE}/v1/tmp || $SHIM cache verify\numount {CACHE}\n}}\n\
         for size in 4 8 12 16 20 24 28 32 40 64; do on size=${{size}}k; done\n\
         for files in 2 4 6 8 10 11 12 13 14 15 16 24; do on nr_inodes=$files; done"
    );
    let Some(outcome) = mounted(&space, &words) else { return };
    assert!(outcome.stderr.contains("No space left"), "{outcome}");
    assert_eq!(counts(&space), (0, 3), "the last disk is large enough");
}

/// A cache that others fill, on a disk that is only read or below another user's hands: what it
/// has is taken, what it lacks or has damaged is compiled.
#[test]
fn a_cache_that_cannot_be_written() {
    let space = TestSpace::new().cached();
    three(&space);
    link(&space);
    space.compile("", &[(MAIN.0, &MAIN.1.replace("21", "22"))]);
    let read_only = format!("mount --bind {CACHE} {CACHE}\nmount -o remount,bind,ro {CACHE}\n");
    let as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups ";
    let clean = space.strict(&format!("ld.lld {} -o clean", program(OBJECTS)));
    clean.env("THINSHIM_CACHE", "off").ok();
    space.real("chmod -R a+rwX .").ok();
    space.real(&format!("chmod -R go-w {CACHE}")).ok();
    for (mount, user) in [(read_only.as_str(), ""), ("", as_nobody)] {
        let words = format!("umask 0\nrm -f out report\n{mount}{user}LINK\ncmp out clean");
        let Some(outcome) = mounted(&space, &words) else { return };
        assert_eq!(counts(&space), (1, 2), "{user}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
        assert!(outcome.stderr.contains("cannot write to the cache"), "{outcome}");
        let words =
            format!("umask 0\n{mount}export THINSHIM_CACHE=read\n{user}LINK\ncmp out clean");
        let Some(outcome) = mounted(&space, &words) else { return };
        assert_eq!((counts(&space), outcome.stderr.as_str()), ((1, 2), ""), "{user}");
    }
    // A flipped bit that nobody can repair.
    let hit = entries(&space).into_iter().find(|path| {
        let mut data = fs::read(path).expect("an entry");
        let good = data.clone();
        data[100] ^= 1;
        fs::remove_file(path).expect("an entry");
        fs::write(path, data).expect("an entry");
        let run = space.strict(&format!("ld.lld {} -o out", program(OBJECTS)));
        run.env("THINSHIM_CACHE", "read").env("THINSHIM_REPORT", "report").ok();
        let used = counts(&space) == (2, 1);
        if !used {
            fs::remove_file(path).expect("an entry");
            fs::write(path, good).expect("an entry");
        }
        used
    });
    assert!(hit.is_some(), "no entry is used");
    let words = format!("{read_only}LINK\ncmp out clean\nLINK\ncmp out clean");
    let Some(outcome) = mounted(&space, &words) else { return };
    assert_eq!(counts(&space), (2, 1));
    assert_eq!(outcome.stderr.matches("was damaged").count(), 2, "{outcome}");
}

/// Nothing can be renamed or cloned from one file system to another.
#[test]
fn a_cache_on_another_file_system() {
    let space = TestSpace::new().cached();
    three(&space);
    link(&space);
    let on_tmpfs =
        format!("mount -t tmpfs tmpfs {CACHE}\nLINK\ncmp out clean\nLINK\ncmp out clean");
    let build_on_tmpfs = "mkdir -p disk\nmount -t tmpfs tmpfs disk\ncp *.o disk\ncd disk\n\
                          LINK\ncmp out ../clean\nLINK\ncmp out ../clean";
    for words in [on_tmpfs.as_str(), build_on_tmpfs] {
        let Some(outcome) = mounted(&space, words) else { return };
        assert_eq!((counts(&space), outcome.stderr.as_str()), ((0, 3), ""), "{words}");
    }
}
