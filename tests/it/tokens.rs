//! Tokens as the tools feel them: counted from outside by the tools themselves.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use crate::jobserver::{make44, ninja};
use crate::run::strict_ninja;
use crate::space::{NEWEST, Outcome, Run, THINSHIM, TestSpace, bin};

/// Compiles the metered tools into `tools`, which comes first on PATH.
fn metered() -> TestSpace {
    let mut space = TestSpace::new();
    space.metered_tools("");
    space.real("clang -O1 -shared -fPIC -DCOUNT_THREADS meter.c -o threads.so").ok();
    space.path_first("tools");
    space
}

/// What the tools wrote down.
#[derive(Debug, Default)]
struct Count {
    /// Most jobs at once: a linker is worth its threads.
    jobs: usize,
    /// Most back ends at once.
    back_ends: usize,
    started: HashMap<String, usize>,
    /// Threads made in each process.
    threads: HashMap<String, usize>,
}

impl Count {
    fn of(log: &str) -> Count {
        let mut count = Count::default();
        let (mut jobs, mut back_ends) = (0, 0);
        for line in log.lines() {
            let [what, name, pid, _, worth] = *line.split(' ').collect::<Vec<_>>() else {
                panic!("{line}");
            };
            let worth: usize = worth.parse().expect("a number");
            let back_end = usize::from(name == "back-end");
            match what {
                "start" => {
                    (jobs, back_ends) = (jobs + worth, back_ends + back_end);
                    *count.started.entry(name.to_owned()).or_default() += 1;
                }
                "end" => (jobs, back_ends) = (jobs - worth, back_ends - back_end),
                _ => *count.threads.entry(pid.to_owned()).or_default() += 1,
            }
            count.jobs = count.jobs.max(jobs);
            count.back_ends = count.back_ends.max(back_ends);
        }
        assert_eq!((jobs, back_ends), (0, 0), "an end is missing");
        count
    }

    fn started(&self, name: &str) -> usize {
        self.started.get(name).copied().unwrap_or(0)
    }
}

/// Compiles modules, and writes a Makefile and a ninja file that link them `links` times.
fn links(space: &TestSpace, links: usize, modules: usize) {
    let mut objects = String::new();
    let mut sources = Vec::new();
    for n in 0..modules {
        let text = format!("int g{n}(int);\nint f{n}(int x) {{ return g{n}(x * {n}) + {n}; }}\n");
        let name = format!("f{n}.c");
        space.write(&name, text);
        sources.push(name);
        write!(objects, " f{n}.o").expect("a string");
    }
    space.shim("clang -O2 -flto=thin -c").args(sources).ok();
    let mut makefile = String::from("LD = ld.lld\nall:");
    let mut rules = String::from("rule ld\n  command = ld.lld -r $in -o $out\n");
    for link in 0..links {
        write!(makefile, " out{link}").expect("a string");
        writeln!(rules, "build out{link}: ld{objects}").expect("a string");
    }
    for link in 0..links {
        write!(makefile, "\nout{link}:\n\t$(PLUS)$(LD) -r{objects} -o $@").expect("a string");
    }
    makefile.push('\n');
    space.write("Makefile", makefile);
    space.write("build.ninja", rules);
}

fn counted(run: Run, space: &TestSpace) -> (Outcome, Count) {
    let _ = fs::remove_file(space.path("log"));
    let outcome = run
        .env("METER_LOG", space.path("log"))
        .env("METER_PRELOAD", space.path("threads.so"))
        .env("THINSHIM_REPORT", space.path("report"))
        .ok();
    (outcome, Count::of(&space.text("log")))
}

/// Never more compilers, linkers and linkers' threads at once than there are jobs.
#[track_caller]
fn within(space: &TestSpace, run: Run, jobs: usize, links: usize, modules: usize) {
    for link in 0..links {
        let _ = fs::remove_file(space.path(format!("out{link}")));
    }
    let (outcome, count) =
        counted(run.env("THINSHIM_STRICT", "1").env("THINSHIM_SMALL", "0"), space);
    assert!(count.jobs <= jobs, "{} at once: {outcome}", count.jobs);
    assert_eq!(count.started("back-end"), links * modules, "{outcome}");
    assert_eq!(count.started("ld.lld"), 2 * links, "{outcome}");
    for threads in count.threads.values() {
        assert!(*threads <= jobs, "{threads} threads: {outcome}");
    }
}

#[test]
fn never_more_tools_than_jobs() {
    let space = metered();
    links(&space, 8, 40);
    let new = make44();
    let ld = format!("LD={THINSHIM} ld.lld");
    for (jobs, run) in [
        (1, space.real("make -s -j1")),
        (2, space.run(&new).args(["-s", "-j2"])),
        (3, space.run(&new).args(["-s", "-j3", "--jobserver-style=pipe"])),
        (8, space.real("make -s -j8")),
    ] {
        within(&space, run.args([&ld]), jobs, 8, 40);
    }
}

#[test]
fn never_more_tools_than_jobs_of_a_run() {
    let mut space = metered();
    fs::create_dir(space.path("wheel")).expect("a directory");
    symlink(ninja(), space.path("wheel/ninja")).expect("a link");
    space.path_first("wheel");
    links(&space, 4, 10);
    for (jobs, command) in
        [(1, "make -s"), (2, "/usr/bin/make -s"), (3, "make -s PLUS=+"), (1, "ninja"), (3, "ninja")]
    {
        let run = space.shim(&format!("run -j{jobs} -- {command}"));
        within(&space, run, jobs, 4, 10);
    }
}

/// Links that are left to lld: its threads are jobs, too, unless the user says how many.
#[test]
fn threads_of_links_left_to_lld() {
    let space = metered();
    links(&space, 2, 8);
    let ld = format!("LD={THINSHIM} ld.lld");
    for (small, more) in [("1G", ""), ("0", " --save-temps")] {
        for jobs in [1, 2, 3] {
            let run = space.real(&format!("make -s -j{jobs}")).args([format!("{ld}{more}")]);
            let (outcome, count) = counted(run.env("THINSHIM_SMALL", small), &space);
            assert!(count.jobs <= jobs, "{} at once: {outcome}", count.jobs);
            assert_eq!(count.started("ld.lld"), 2, "{outcome}");
            // With more than one, lld makes those for LTO and those for the rest, which take turns.
            for threads in count.threads.values().filter(|_| jobs == 1) {
                assert!(*threads <= jobs, "{threads} threads: {outcome}");
            }
            let report = space.report();
            assert_eq!(report["small"], small == "1G", "{report}");
            assert_eq!(report["fallback"].is_null(), small == "1G", "{report}");
            let _ = (fs::remove_file(space.path("out0")), fs::remove_file(space.path("out1")));
        }
        // Which of two counts is lld's affair: the last.
        let run = space.real("make -s -j1").args([format!("{ld}{more} --threads=3")]);
        let (outcome, count) = counted(run.env("THINSHIM_SMALL", small), &space);
        assert_eq!(count.jobs, 3, "{outcome}");
        let _ = (fs::remove_file(space.path("out0")), fs::remove_file(space.path("out1")));
    }
}

/// With less memory free than the floor, one back end runs at a time, and the link ends.
#[test]
fn one_at_a_time_below_the_memory_floor() {
    let space = metered();
    links(&space, 1, 40);
    let make = |floor: &str| {
        let _ = fs::remove_file(space.path("out0"));
        let run = space
            .shim("run -j8 -- make -s")
            .env("THINSHIM_MEM_FLOOR", floor)
            .env("THINSHIM_SMALL", "0");
        counted(run, &space).1
    };
    let count = make("1000000G");
    assert_eq!((count.back_ends, count.started("back-end")), (1, 40));
    assert!(make("0").back_ends > 1);
}

/// Four back ends of one link that wait for each other, in every way to get four tokens.
#[test]
fn one_link_uses_every_token() {
    let new = make44();
    let new = new.to_str().expect("UTF-8");
    let ninja = ninja();
    let ninja = ninja.to_str().expect("UTF-8");
    let thinshim = format!("LD={THINSHIM} ld.lld");
    let cargo = env!("CARGO");
    let mut space = TestSpace::new();
    fs::create_dir(space.path("wheel")).expect("a directory");
    symlink(ninja, space.path("wheel/ninja")).expect("a link");
    space.path_first("wheel");
    four(&space);
    for plus in ["", "+"] {
        for words in [
            "make -s -j4 LD=@",
            &format!("{new} -s -j4 LD=@"),
            &format!("{new} -s -j4 --jobserver-style=pipe LD=@"),
            &format!("{THINSHIM} run -j4 -- make -s"),
            &format!("{THINSHIM} run -j4 -- /usr/bin/make -s"),
            &format!("{THINSHIM} run -j4 -- {new} -s"),
            &format!("{THINSHIM} run -j4 -- {new} -s --jobserver-style=pipe"),
            &format!("{THINSHIM} run -j4 -- make -s -f outer.mk"),
            &format!("{THINSHIM} run -j4 -- {new} -s -f outer.mk"),
            &format!("{THINSHIM} run -j4 -- ninja"),
            &format!("{THINSHIM} run -j4 -- make -s -f ninja.mk"),
            &format!("{THINSHIM} run -j4 -- {cargo} build --offline"),
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            let run = space.real(words[0]).args(words[1..].iter().map(|word| match *word {
                "LD=@" => thinshim.as_str(),
                word => word,
            }));
            meet(
                &space,
                run.args([format!("PLUS={plus}")].iter().filter(|_| {
                    !plus.is_empty() && !words.contains(&"ninja") && !words.contains(&cargo)
                })),
            );
        }
    }
    strict_ninja(&mut space);
    for words in ["ninja", "make -s -f ninja.mk", "make -s -f ninja.mk PLUS=+"] {
        meet(&space, space.shim(&format!("run -j4 -- {words}")));
    }
}

/// Four modules, a clang whose back ends meet, and builds that link them.
fn four(space: &TestSpace) {
    let names = ["a", "b", "c", "d"];
    for name in names {
        space
            .compile("", &[(&format!("{name}.c"), &format!("int {name}(void) {{ return 1; }}\n"))]);
    }
    for fifo in ["here", "go"] {
        nix::unistd::mkfifo(&space.path(fifo), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    }
    let clang = bin(NEWEST).join("clang");
    space.script(
        "meeting",
        &format!(
            "echo >> {here}\ntimeout 60 head -c 1 {go} > /dev/null || exit 1\nexec {clang} \"$@\"\n",
            here = space.path("here").display(),
            go = space.path("go").display(),
            clang = clang.display(),
        ),
    );
    let link = "-r a.o b.o c.o d.o -o";
    space.write("Makefile", format!("LD = ld.lld\nout:\n\t$(PLUS)$(LD) {link} $@\n.PHONY: out\n"));
    space.write("outer.mk", "all:\n\t$(PLUS)make -s\n");
    space.write("ninja.mk", "all:\n\t@$(PLUS)ninja --quiet\n");
    space.write("build.ninja", format!("rule ld\n  command = ld.lld {link} $out\nbuild out: ld\n"));
    let manifest =
        "[package]\nname = \"it\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n";
    space.write("Cargo.toml", manifest);
    space.write("src/lib.rs", "");
    let root = space.root().display();
    space.write(
        "build.rs",
        format!(
            "fn main() {{ println!(\"cargo::rerun-if-changed=always\");\n\
             let mut ld = std::process::Command::new(\"ld.lld\");\n\
             let args = \"{link} out\".split(' ');\n\
             assert!(ld.args(args).current_dir({root:?}).status().unwrap().success()); }}\n",
            root = root.to_string(),
        ),
    );
}

/// Runs a build whose back ends wait until there are four.
#[track_caller]
fn meet(space: &TestSpace, run: Run) {
    let _ = fs::remove_file(space.path("out"));
    let mut run = run
        .env("THINSHIM_CLANG", space.path("meeting"))
        .env("THINSHIM_STRICT", "1")
        .env("THINSHIM_SMALL", "0")
        .env("RUSTC", Path::new(env!("CARGO")).with_file_name("rustc"))
        .env("CARGO_TARGET_DIR", space.path("target"));
    // Both ends of both, so that nobody waits for somebody to open.
    let open =
        |name: &str| File::options().read(true).write(true).open(space.path(name)).expect("a fifo");
    let (mut here, mut go) = (open("here"), open("go"));
    run.command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let told = format!("{:?}", run.command);
    let child = run.command.spawn().expect("a program");
    // A build that ends too early must not leave this test waiting.
    let mut end = here.try_clone().expect("a copy");
    let outcome = std::thread::spawn(move || {
        let output = child.wait_with_output().expect("a program");
        end.write_all(b"....").expect("a write");
        output
    });
    let mut four = [0; 4];
    here.read_exact(&mut four).expect("four back ends");
    go.write_all(b"....").expect("a write");
    let output = outcome.join().expect("a thread");
    assert!(output.status.success(), "{told}: {output:?}");
    assert_eq!(four, *b"\n\n\n\n", "{told}: {output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    for word in ["INTERNAL", "warning", "another jobserver", "no jobserver"] {
        assert!(!said.contains(word), "{told}: {said}");
    }
    assert!(space.exists("out"), "{told}");
}
