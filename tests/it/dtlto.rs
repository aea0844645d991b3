//! thinshim as the distributor of lld's own distributed ThinLTO (LLVM 22).

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::builds::meeting;
use crate::faults::faulty;
use crate::links::three;
use crate::oracle::{program, symbols};
use crate::records::{HOSTILE, options, traps, with_record};
use crate::space::{NEWEST, Run, THINSHIM, TestSpace, bin};

const OBJECTS: &str = "main.o twice.o next.o";

/// A link by the real lld, which calls thinshim.
fn link(space: &TestSpace, args: &str) -> Run {
    space
        .real(&format!("ld.lld {args} --thinlto-distributor-arg=distribute"))
        .args([format!("--thinlto-distributor={THINSHIM}")])
        .env("THINSHIM_REPORT", space.path("report"))
}

#[test]
fn the_same_program() {
    let space = TestSpace::new();
    three(&space);
    space.real("llvm-ar rcs libtwice.a twice.o").ok();
    space.real("llvm-ar rcsT libnext.a next.o").ok();
    for objects in [OBJECTS, "main.o libtwice.a libnext.a"] {
        let args = program(objects);
        space.real(&format!("ld.lld {args} -o reference")).ok();
        // Options as in-process: the same to the byte.
        link(&space, &format!("{args} -o out")).env("THINSHIM_OPTIONS", "link").ok();
        assert!(space.read("out") == space.read("reference"), "{objects}");
        let report = space.report();
        assert_eq!(report["output"], "out", "{report}");
        for count in ["modules", "backends_run"] {
            assert_eq!(report[count], 3, "{report}");
        }
        // Options as compiled: as in a link of thinshim's own.
        space.strict(&format!("ld.lld {args} -o own")).ok();
        for options in ["record", "sections"] {
            link(&space, &format!("{args} -o out")).env("THINSHIM_OPTIONS", options).ok();
            assert_eq!(symbols(&space, "out"), symbols(&space, "own"));
            assert_eq!(space.real("./out").ok().stdout, "43 3\n");
        }
        space.is_clean();
    }
}

#[test]
fn by_way_of_clang() {
    let space = TestSpace::new();
    three(&space);
    for shim in [false, true] {
        let words = format!("clang -flto=thin -fuse-ld=lld {OBJECTS} -o out");
        let run = if shim { space.strict(&words) } else { space.real(&words) };
        run.args([
            &format!("-fthinlto-distributor={THINSHIM}"),
            "-Xthinlto-distributor=distribute",
        ])
        .env("THINSHIM_REPORT", "report")
        .ok();
        assert_eq!(space.report()["backends_run"], 3);
        assert_eq!(space.real("./out").ok().stdout, "43 3\n");
        space.remove("report");
    }
}

/// The kernel's code model, which lld says nothing of: 32-bit absolute relocations, no GOT.
#[test]
fn recorded_options_count() {
    let space = TestSpace::new();
    let sources = [
        ("a.c", "extern int there; int *here(void) { return &there; }\n"),
        (
            "b.c",
            "extern int there; int *here(void); int get(int i) { return here()[i] + there; }\n",
        ),
    ];
    space.compile("-mcmodel=kernel -fno-pie -fno-pic -O1", &sources);
    space.real("ld.lld -r a.o b.o -o reference").ok();
    space.strict("ld.lld -r a.o b.o -o own").ok();
    let relocations = |file: &str| {
        let told = space.real(&format!("llvm-readobj -r {file}")).ok().stdout;
        let mut kinds: Vec<String> = told
            .split_whitespace()
            .filter(|word| word.starts_with("R_X86_64_"))
            .map(str::to_owned)
            .collect();
        kinds.sort();
        kinds
    };
    assert!(relocations("reference").contains(&"R_X86_64_32S".to_owned()));
    for options in ["record", "link"] {
        link(&space, "-r a.o b.o -o out").env("THINSHIM_OPTIONS", options).ok();
        assert_eq!(relocations("out"), relocations("reference"), "{options}");
        assert_eq!(relocations("out"), relocations("own"), "{options}");
    }
    // What this repairs: without thinshim the code is another.
    space.script("plain", "exec clang \"$@\"");
    space.script(
        "distributor",
        "for file; do :; done\nexec python3 - $file <<END\nimport json, subprocess, sys\n\
         d = json.load(open(sys.argv[1]))\n\
         for job in d['jobs']: subprocess.check_call(d['common']['args'] + job['args'])\nEND\n",
    );
    space
        .real("ld.lld -r a.o b.o -o plain.o --thinlto-remote-compiler=./plain")
        .args([format!("--thinlto-distributor={}", space.path("distributor").display())])
        .ok();
    assert_ne!(relocations("plain.o"), relocations("reference"), "LLVM has learned it");
}

/// Objects of others have the options that lld asks for.
#[test]
fn objects_without_a_record() {
    let space = TestSpace::new();
    three(&space);
    space.real("clang -O2 -flto=thin -fPIE -c twice.c").ok();
    let args = program(OBJECTS);
    space.real(&format!("ld.lld {args} -o reference")).ok();
    link(&space, &format!("{args} -o out")).ok();
    assert_eq!(symbols(&space, "out"), symbols(&space, "reference"));
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");
}

#[test]
fn the_cache_is_used() {
    let space = TestSpace::new().cached();
    three(&space);
    let args = program(OBJECTS);
    for (run, hits) in [(3, 0), (0, 3)] {
        link(&space, &format!("{args} -o out")).ok();
        let report = space.report();
        assert_eq!((&report["backends_run"], &report["cache_hits"]), (&run.into(), &hits.into()));
        assert_eq!(space.real("./out").ok().stdout, "43 3\n");
    }
}

#[test]
fn a_back_end_fails() {
    let space = TestSpace::new();
    three(&space);
    for (fault, words) in [
        (": > \"$out\"", "it is empty"),
        ("echo no such luck >&2; exit 3", "no such luck"),
        ("kill -SEGV $$", "signal: 11"),
        ("sleep 1000", "THINSHIM_BACKEND_TIMEOUT"),
    ] {
        faulty(&space, fault);
        space.write("out", "as before");
        let outcome = link(&space, &format!("{} -o out", program(OBJECTS)))
            .env("THINSHIM_CLANG", space.path("faulty"))
            .env("THINSHIM_BACKEND_TIMEOUT", "3")
            .fails(1, &["thinshim: error: link of out: back end of twice.o", words]);
        assert_eq!(outcome.stderr.matches("thinshim:").count(), 1, "{outcome}");
        assert_eq!(space.text("out"), "as before");
        for entry in std::fs::read_dir(space.root()).expect("a directory") {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            assert!(!name.contains("native") && !name.contains("json"), "left behind: {name}");
        }
    }
}

/// Two back ends that wait for each other, on make's tokens.
#[test]
fn back_ends_run_on_makes_tokens() {
    let space = TestSpace::new();
    three(&space);
    meeting(&space);
    let args = program(OBJECTS);
    space.write(
        "Makefile",
        format!(
            "out:\n\t+ld.lld {args} -o out --thinlto-distributor={THINSHIM} \
             --thinlto-distributor-arg=distribute\n"
        ),
    );
    for (jobs, clang, most) in
        [("-j2", space.path("meeting"), 2), ("-j1", bin(NEWEST).join("clang"), 1)]
    {
        space
            .real(&format!("make -B {jobs}"))
            .env("THINSHIM_CLANG", clang)
            .env("THINSHIM_REPORT", space.path("report"))
            .ok();
        let report = space.report();
        assert_eq!(report["tokens_max"], most, "{report}");
        assert_eq!(space.real("./out").ok().stdout, "43 3\n");
    }
}

/// lld is killed: nobody goes on without it.
#[test]
fn lld_is_killed() {
    let space = TestSpace::new();
    three(&space);
    for fifo in ["fifo", "end"] {
        mkfifo(&space.path(fifo), Mode::S_IRWXU).expect("a fifo");
    }
    faulty(&space, "exec 9> end; echo > fifo; exec sleep 1000");
    let mut run = link(&space, &format!("{} -o out", program(OBJECTS)))
        .env("THINSHIM_CLANG", space.path("faulty"));
    let mut lld = run.command.stdout(Stdio::null()).spawn().expect("lld");
    let open = |name| File::open(space.path(name)).expect("a fifo");
    // In the script's order; the second ends with the back end.
    let mut end = open("end");
    open("fifo").read_to_end(&mut Vec::new()).expect("a fifo");
    kill(Pid::from_raw(lld.id().cast_signed()), Signal::SIGKILL).expect("a signal");
    lld.wait().expect("lld");
    end.read_to_end(&mut Vec::new()).expect("the back end is gone");
    assert!(!space.exists("out"));
}

#[test]
fn odd_requests() {
    let space = TestSpace::new();
    space.write("text", "main.o");
    space.shim("distribute gone.json").fails(120, &["gone.json"]);
    space.shim("distribute text").fails(120, &["distribute: text", "--thinlto-distributor"]);
    space.shim("distribute").fails(120, &["FILE"]);
}

/// A record is as little trusted as in a link of thinshim's own. Here nobody is left to do the link.
#[test]
fn a_hostile_record_is_not_obeyed() {
    let space = TestSpace::new();
    three(&space);
    traps(&space);
    let line = format!("{} -o out", program(OBJECTS));
    with_record(&space, "twice.o", &options("-O2 -fPIE"));
    link(&space, &line).ok();
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");
    space.write("out", "as before");
    for from in ["record", "link", "sections"] {
        for hostile in HOSTILE {
            with_record(&space, "twice.o", &options(hostile));
            let run = link(&space, &line).env("THINSHIM_OPTIONS", from);
            let outcome = run.fails(1, &["thinshim: error: link of out: twice.o carries"]);
            assert!(!outcome.stderr.contains("back end of"), "{hostile}: {outcome}");
            assert_eq!(space.text("out"), "as before", "{hostile}");
            for bad in ["loaded", "elsewhere"] {
                assert!(!space.exists(bad), "{hostile}");
            }
        }
        // From a compile that thinshim did not understand, or a thinshim that is newer.
        for (entries, word) in [
            (vec![(b'O', "-O2"), (b'Z', "from the future")], "record"),
            (vec![(b'O', "-O2"), (b'D', "-fno-such-option")], "-fno-such-option"),
        ] {
            with_record(&space, "twice.o", &entries);
            let outcome = link(&space, &line).env("THINSHIM_OPTIONS", from).end();
            if from == "link" && word != "record" {
                assert!(outcome.status.success(), "{outcome}");
                space.write("out", "as before");
            } else {
                assert!(!outcome.status.success(), "{outcome}");
                assert!(outcome.stderr.contains("twice.o"), "{outcome}");
                assert!(outcome.stderr.contains(word), "{outcome}");
                assert_eq!(space.text("out"), "as before");
            }
        }
    }
}

/// Directories of a record are absolute, and stay directories whatever they are called.
#[test]
fn a_search_path_is_no_option() {
    let space = TestSpace::new();
    three(&space);
    traps(&space);
    let line = format!("{} -o out", program(OBJECTS));
    for (path, absolute) in [
        ("/-load", true),
        ("/@response", true),
        ("-load", false),
        ("./plugin.so", false),
        ("-o", false),
        ("@response", false),
        ("-fplugin=./plugin.so", false),
        ("--", false),
        ("", false),
    ] {
        let entries = [&options("-O2 -fPIE")[..], &[(b'S', path), (b'S', "/elsewhere")]].concat();
        with_record(&space, "twice.o", &entries);
        let own = format!("ld.lld {line}");
        if absolute {
            link(&space, &line).ok();
            assert_eq!(space.real("./out").ok().stdout, "43 3\n", "{path}");
            space.strict(&own).ok();
        } else {
            let words = ["twice.o: its options record"];
            link(&space, &line).fails(1, &words);
            space.strict(&own).fails(120, &words);
            space.shim(&own).env("THINSHIM_SMALL", "0").ok();
        }
        assert_eq!(space.real("./out").ok().stdout, "43 3\n", "{path}");
        assert!(!space.exists("loaded"), "{path}");
    }
}

/// What DTLTO itself does not see: clang exits 0 without the module that it imports from.
#[test]
fn a_missing_import_fails() {
    let space = TestSpace::new();
    three(&space);
    space.write("out", "as before");
    for fault in [
        "mv next.o away; real \"$@\"; mv away next.o",
        "cp next.o away; head -c 300 away > next.o; real \"$@\"; mv away next.o",
        "truncate -s 100 $index; real \"$@\"",
        "rm $index; real \"$@\"",
        "real \"$@\"; truncate -s -8 \"$out\"",
        "real --target=x86_64-linux-gnu -c -x c /dev/null -o \"$out\"",
    ] {
        faulty(&space, fault);
        link(&space, &format!("{} -o out", program(OBJECTS)))
            .env("THINSHIM_CLANG", space.path("faulty"))
            .env("THINSHIM_JOBS", "1")
            .fails(1, &["thinshim: error: link of out: back end of twice.o"]);
        assert_eq!(space.text("out"), "as before", "{fault}");
    }
}

/// Modules for regular LTO are lld's own to compile, beside the back ends.
#[test]
fn regular_lto_beside_thinlto() {
    let space = TestSpace::new();
    three(&space);
    space.shim("clang -O2 -flto=full -fPIE -c next.c").ok();
    let args = program(OBJECTS);
    space.real(&format!("ld.lld {args} -o reference")).ok();
    link(&space, &format!("{args} -o out")).env("THINSHIM_OPTIONS", "link").ok();
    assert!(space.read("out") == space.read("reference"));
    assert_eq!(space.report()["modules"], 2, "{}", space.report());
    link(&space, &format!("{args} -o out")).ok();
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");
}
