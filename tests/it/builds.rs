//! Whole builds by make, and what thinshim says of them.

use std::os::unix::fs::PermissionsExt;

use crate::links::{MAIN, NEXT, TWICE, three};
use crate::oracle::program;
use crate::space::{NEWEST, Outcome, Run, THINSHIM, TestSpace, bin};

const MAKEFILE: &str = "OBJECTS = main.o libtwo.a\n\
    prog: $(OBJECTS)\n\t$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(OBJECTS)\n\
    libtwo.a: twice.o next.o\n\t$(AR) rcs $@ $^\n\
    clean:\n\trm -f *.o *.a prog\n";

pub(crate) fn project() -> TestSpace {
    let space = TestSpace::new();
    for (name, text) in [MAIN, TWICE, NEXT] {
        space.write(name, text);
    }
    space.write("Makefile", MAKEFILE);
    space
}

fn make(space: &TestSpace, flags: &str) -> Run {
    space
        .real(&format!("make AR=llvm-ar {flags}"))
        .args([format!("CC={THINSHIM} clang"), "CFLAGS=-O2 -flto=thin".to_owned()])
        .env("THINSHIM_STRICT", "1")
        .env("THINSHIM_SMALL", "0")
        .env("THINSHIM_REPORT", space.path("report"))
}

fn quiet(outcome: &Outcome) {
    for word in ["jobserver", "INTERNAL", "thinshim:", "***"] {
        assert!(!outcome.stderr.contains(word), "{outcome}");
    }
}

#[test]
fn a_plain_project() {
    for jobs in ["-j1", "-j2", "-j4", ""] {
        let space = project();
        let outcome = make(&space, jobs).ok();
        quiet(&outcome);
        assert_eq!(space.real("./prog").ok().stdout, "43 3\n");
        let report = space.report();
        assert_eq!(report["modules"], 3, "{report}");
        assert_eq!(report["small"], false, "{report}");
        assert!(report["fallback"].is_null(), "{report}");
        if jobs == "-j1" {
            assert_eq!(report["tokens_max"], 1, "{report}");
        }
        space.is_clean();
    }
}

/// A clang, `meeting`, whose back ends of `main.o` and `twice.o` wait for each other.
pub(crate) fn meeting(space: &TestSpace) {
    nix::unistd::mkfifo(&space.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let clang = bin(NEWEST).join("clang");
    space.script(
        "meeting",
        &format!(
            "case \"$*\" in\n*' main.o '*) timeout 100 cat fifo > /dev/null || exit 1 ;;\n\
             *twice.o*) timeout 100 sh -c 'echo > fifo' || exit 1 ;;\nesac\nexec {} \"$@\"\n",
            clang.display()
        ),
    );
}

/// Two back ends that wait for each other: nobody gets on without a token of make's.
#[test]
fn back_ends_run_on_makes_tokens() {
    let space = project();
    meeting(&space);
    let outcome = make(&space, "-j2").env("THINSHIM_CLANG", space.path("meeting")).ok();
    quiet(&outcome);
    let report = space.report();
    assert_eq!(report["tokens_max"], 2, "{report}");
    let seconds = |name: &str| report[name].as_f64().expect("a number");
    assert!(seconds("first_back_end_s") >= seconds("thin_link_s"), "{report}");
    assert_eq!(space.real("./prog").ok().stdout, "43 3\n");
}

#[test]
fn make_s_is_silent() {
    let space = project();
    for flags in ["-s", "-s -j3"] {
        let outcome = make(&space, flags).ok();
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""), "{flags}");
        make(&space, "clean").ok();
    }
}

/// A slow link tells of itself, but not under `make -s`.
#[test]
fn a_slow_link_has_a_summary() {
    let space = project();
    let clang = bin(NEWEST).join("clang");
    // The one test that needs a link to take long: over a second.
    space.script("slow", &format!("sleep 1\nexec {} \"$@\"\n", clang.display()));
    let slow = |flags: &str| make(&space, flags).env("THINSHIM_CLANG", space.path("slow")).ok();
    let outcome = slow("-j3");
    assert!(outcome.stderr.starts_with("  LTO     prog  3 modules"), "{outcome}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    space.remove("prog");
    assert_eq!(slow("-s -j3").stderr, "");
}

#[test]
fn reports_tell_small_links_and_fallbacks() {
    let space = TestSpace::new();
    three(&space);
    let args = program("main.o twice.o next.o");
    space.shim(&format!("ld.lld {args} -o out")).env("THINSHIM_REPORT", "report").ok();
    let report = space.report();
    assert_eq!(report["output"], "out", "{report}");
    assert_eq!(report["small"], true, "{report}");
    assert_eq!(report["modules"], 3, "{report}");
    assert_eq!(report["backends_run"], 0, "{report}");
    assert!(report["fallback"].is_null(), "{report}");
    assert_eq!(space.real("./out").ok().stdout, "43 3\n");

    // In-process ThinLTO would drop the profile.
    space.write("profile", "main:100:10\n 1: 10\n");
    let profile = format!("-g -fprofile-sample-use={}", space.path("profile").display());
    space.compile(&profile, &[TWICE]);
    for (from, run) in [("record", 3), ("link", 0)] {
        let run_it = space.shim(&format!("ld.lld {args} -o out")).env("THINSHIM_OPTIONS", from);
        run_it.env("THINSHIM_REPORT", "report").ok();
        assert_eq!(space.report()["backends_run"], run, "{from}");
    }

    let fallback = space.shim(&format!("ld.lld {args} --save-temps -o out"));
    fallback.env("THINSHIM_SMALL", "0").env("THINSHIM_REPORT", "report").ok();
    let report = space.report();
    assert_eq!(report["small"], false, "{report}");
    assert!(
        report["fallback"].as_str().is_some_and(|text| text.contains("save-temps")),
        "{report}"
    );
    assert_eq!(space.text("report").lines().count(), 4);
    space
        .strict(&format!("ld.lld {args} --save-temps -o other"))
        .fails(120, &["save-temps", "THINSHIM_STRICT"]);
    assert!(!space.exists("other"));
}

#[test]
fn explain_runs_nothing_but_the_thin_link() {
    let space = TestSpace::new();
    three(&space);
    let explain = |args: &str| -> serde_json::Value {
        let told = space.shim(&format!("explain -- ld.lld {args} -o out"));
        let told = told.env("THINSHIM_SMALL", "0").ok().stdout;
        serde_json::from_str(&told).expect("JSON")
    };
    let plan = explain(&program("main.o twice.o next.o"));
    assert_eq!(plan["decision"], "distribute");
    assert_eq!(plan["output"], "out");
    assert_eq!(plan["back_ends"].as_array().map(Vec::len), Some(3), "{plan}");
    for step in ["thin_link", "native_link"] {
        assert!(plan[step][0].as_str().is_some_and(|tool| tool.ends_with("ld.lld")), "{plan}");
    }
    assert!(!space.exists("out"));
    space.is_clean();
    assert_eq!(explain("-r main.o --save-temps")["decision"], "fallback");
    space.real("clang -c next.c").ok();
    let reason = |args: &str| {
        let told = explain(args);
        assert_eq!(told["decision"], "pass-through", "{told}");
        told["reason"].as_str().expect("a reason").to_owned()
    };
    assert_eq!(reason("-r next.o"), "no ThinLTO bitcode is linked");
    assert!(reason("-r main.o --thinlto-index-only").contains("--thinlto-index-only"));
    let spelt_as_in_make = space.shim("explain -- thinshim ld.lld -r next.o -o out").ok();
    assert!(spelt_as_in_make.stdout.contains("pass-through"), "{spelt_as_in_make}");
    let small = space.shim("explain -- ld.lld -r main.o -o out").ok();
    assert!(small.stdout.contains("\"small\""), "{small}");
    space.shim("explain -- gcc x.c").fails(120, &["explain"]);
    space.shim("explain").fails(120, &["explain"]);
}

#[test]
fn help_and_bad_settings() {
    let space = TestSpace::new();
    let help = space.shim("--help").ok().stdout;
    for word in ["THINSHIM_REPORT", "120", "explain"] {
        assert!(help.contains(word), "{help}");
    }
    assert!(space.shim("--version").ok().stdout.starts_with("thinshim "));
    space.shim("").fails(120, &[]);
    space.shim("--no-such-option").fails(120, &["--no-such-option"]);
    three(&space);
    for (name, value) in [
        ("THINSHIM_SMALL", "x"),
        ("THINSHIM_OPTIONS", "odd"),
        ("THINSHIM_MEM_FLOOR", "-1"),
        ("THINSHIM_BACKEND_TIMEOUT", "soon"),
        ("THINSHIM_STRICT", "maybe"),
        ("THINSHIM_WARM", "hot"),
        ("THINSHIM_JOBS", "0"),
        ("THINSHIM_CACHE", "off!"),
        ("THINSHIM_CLANG", "/no/such/clang"),
    ] {
        let run = space.shim("ld.lld -r main.o twice.o -o out").env(name, value);
        run.fails(120, &[name, value]);
        assert!(!space.exists("out"));
        // Not after hours of compiling.
        let run = space.shim("run -- touch begun").env(name, value);
        run.fails(120, &[name, value]);
        assert!(!space.exists("begun"));
    }
    for value in ["off", "0", ""] {
        let fallback = space.shim("ld.lld -r main.o twice.o --save-temps -o out");
        fallback.env("THINSHIM_STRICT", value).ok();
    }
}

#[test]
fn a_forgotten_run_is_told_of() {
    let space = TestSpace::new();
    let outcome = space.shim("make --version").ok();
    assert!(outcome.stdout.contains("GNU Make"), "{outcome}");
    assert!(outcome.stderr.contains("`thinshim run -- make …`"), "{outcome}");
}

#[test]
fn what_cannot_be_written_is_named() {
    let space = TestSpace::new();
    three(&space);
    space.write("file", "");
    let link = || space.strict("ld.lld -r main.o twice.o -o out").env("THINSHIM_SMALL", "0");
    link()
        .env("THINSHIM_REPORT", "file/report")
        .fails(120, &["THINSHIM_REPORT=file/report", "out"]);
    link().env("THINSHIM_KEEP", "file/kept").fails(120, &["THINSHIM_KEEP", "file/kept", "out"]);
    space.is_clean();
}

/// As make tells it: `jobserver unavailable`.
#[test]
fn a_jobserver_out_of_reach_is_told_of() {
    let space = TestSpace::new();
    three(&space);
    let link = space.strict("ld.lld -r main.o twice.o -o out").env("THINSHIM_SMALL", "0");
    let outcome = link.env("MAKEFLAGS", " -j8 --jobserver-auth=fifo:/no/such/fifo").ok();
    assert_eq!(outcome.stderr.matches("jobserver is out of reach").count(), 1, "{outcome}");
    assert!(outcome.stderr.contains("/no/such/fifo"), "{outcome}");
}

/// Not root, no HOME, sources that cannot be written to: as package builders do it.
#[test]
fn a_package_builders_environment() {
    let space = project();
    for name in ["main.c", "twice.c", "next.c"] {
        std::fs::set_permissions(space.path(name), std::fs::Permissions::from_mode(0o444))
            .expect("a mode");
    }
    let mut run = make(&space, "-j2");
    run.command.env_remove("HOME").env_remove("TMPDIR");
    run.ok();
    assert_eq!(space.real("./prog").ok().stdout, "43 3\n");
}
