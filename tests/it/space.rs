//! A directory of a test's own, and commands that run in it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use tempfile::TempDir;

/// The program under test.
pub(crate) const THINSHIM: &str = env!("CARGO_BIN_EXE_thinshim");

/// The newest LLVM: what tests use where the version makes no difference.
pub(crate) const NEWEST: u32 = 22;

/// The LLVMs to test with: those installed, or all where the environment insists on them.
pub(crate) fn llvms() -> Vec<u32> {
    let insist = env::var_os("CI").is_some();
    let (here, absent): (Vec<u32>, Vec<u32>) =
        [14, 16, 19, NEWEST].iter().partition(|&&version| bin(version).join("ld.lld").is_file());
    assert!(absent.is_empty() || !insist, "not installed: LLVM {absent:?}");
    if !absent.is_empty() {
        eprintln!("skipped: LLVM {absent:?} are not installed");
    }
    here
}

/// Where an LLVM's programs are.
pub(crate) fn bin(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin"))
}

/// A directory of a test's own, removed at its end; kept and named where the test fails.
pub(crate) struct TestSpace {
    dir: Option<TempDir>,
    path: OsString,
    cache: &'static str,
}

impl TestSpace {
    pub(crate) fn new() -> TestSpace {
        TestSpace::with_llvm(NEWEST)
    }

    pub(crate) fn with_llvm(llvm: u32) -> TestSpace {
        let dir = tempfile::Builder::new().prefix("it-").tempdir().expect("a directory");
        let mut path = bin(llvm).into_os_string();
        path.push(":/usr/bin:/bin");
        let space = TestSpace { dir: Some(dir), path, cache: "off" };
        fs::create_dir(space.temp()).expect("a directory");
        space
    }

    /// With a cache of back ends, in this directory. Elsewhere there is none: tests count back ends.
    pub(crate) fn cached(mut self) -> TestSpace {
        self.cache = "on";
        self
    }

    /// Compiles tools that tell of their start (`tests/meter.c`) into `tools`.
    pub(crate) fn metered_tools(&self, options: &str) {
        fs::create_dir(self.path("tools")).expect("a directory");
        self.write("meter.c", include_str!("../meter.c"));
        for name in ["clang", "ld.lld"] {
            let real = bin(NEWEST).join(name);
            self.real(&format!("clang -O1 {options} meter.c -o"))
                .args([format!("tools/{name}"), format!("-DNAME=\"{name}\"")])
                .args([format!("-DREAL=\"{}\"", real.display())])
                .ok();
        }
    }

    /// Puts a directory of this space first on PATH.
    pub(crate) fn path_first(&mut self, directory: &str) {
        let mut path = self.path(directory).into_os_string();
        path.push(":");
        path.push(&self.path);
        self.path = path;
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.as_ref().expect("it lives as long as this").path()
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    /// TMPDIR of all commands.
    fn temp(&self) -> PathBuf {
        self.path("temp")
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, contents).expect(name);
    }

    /// Writes a program: a shell script.
    pub(crate) fn script(&self, name: &str, text: &str) {
        self.write(name, format!("#!/bin/sh\n{text}"));
        fs::set_permissions(self.path(name), Permissions::from_mode(0o755)).expect(name);
    }

    pub(crate) fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn text(&self, name: impl AsRef<Path>) -> String {
        String::from_utf8_lossy(&self.read(name)).into_owned()
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).expect(name);
    }

    /// A command in this directory: its words are split at blanks.
    pub(crate) fn real(&self, words: &str) -> Run {
        let mut words = words.split_whitespace();
        let program = words.next().expect("a program");
        // `Command` looks a name up on its own PATH, not on the child's.
        let found = if program.contains('/') {
            self.path(program)
        } else {
            env::split_paths(&self.path)
                .map(|directory| directory.join(program))
                .find(|path| path.is_file())
                .unwrap_or_else(|| panic!("no {program} on PATH"))
        };
        self.run(&found).args(words)
    }

    /// thinshim with these words after its name.
    pub(crate) fn shim(&self, words: &str) -> Run {
        self.run(Path::new(THINSHIM)).args(words.split_whitespace())
    }

    /// As [`Self::shim`], for a link that must be distributed.
    pub(crate) fn strict(&self, words: &str) -> Run {
        self.shim(words).env("THINSHIM_STRICT", "1").env("THINSHIM_SMALL", "0")
    }

    pub(crate) fn run(&self, program: &Path) -> Run {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("THINSHIM") || text.starts_with("CCACHE") || text.contains("MAKE") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.root())
            .env_remove("MFLAGS")
            .env("PATH", &self.path)
            .env("TMPDIR", self.temp())
            // Never the user's.
            .env("THINSHIM_CACHE_DIR", self.path("cache-of-back-ends"))
            .env("THINSHIM_CACHE", self.cache)
            .env("THINSHIM_WARM", env::var_os("THINSHIM_TEST_WARM").unwrap_or_default())
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        Run { command }
    }

    /// Compiles C files by way of thinshim, each to an object beside it.
    pub(crate) fn compile(&self, options: &str, sources: &[(&str, &str)]) {
        for (name, text) in sources {
            self.write(name, text);
            let object = Path::new(name).with_extension("o");
            let compiler = match Path::new(name).extension() {
                Some(end) if end == "cpp" => "clang++",
                _ => "clang",
            };
            self.shim(&format!(
                "{compiler} -O2 -flto=thin -fPIE {options} -c {name} -o {}",
                object.display()
            ))
            .ok();
        }
    }

    /// The last line that `THINSHIM_REPORT=report` wrote.
    pub(crate) fn report(&self) -> serde_json::Value {
        let text = self.text("report");
        let line = text.lines().last().expect("a line");
        serde_json::from_str(line).expect("JSON")
    }

    /// Names below this directory that only thinshim or a killed tool would have left.
    pub(crate) fn litter(&self) -> Vec<PathBuf> {
        let mut litter = Vec::new();
        let mut directories = vec![self.root().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if directory == self.temp() || name.contains("thinshim") || name.contains(".tmp") {
                    litter.push(path);
                } else if path.is_dir() && !path.is_symlink() {
                    directories.push(path);
                }
            }
        }
        litter
    }

    pub(crate) fn is_clean(&self) {
        let litter = self.litter();
        assert!(litter.is_empty(), "left behind: {litter:?}");
    }
}

impl Drop for TestSpace {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept for a look: {}", dir.keep().display());
        }
    }
}

/// A command to be run.
pub(crate) struct Run {
    pub(crate) command: Command,
}

impl Run {
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Run {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    pub(crate) fn stdin(mut self, file: impl AsRef<Path>) -> Run {
        self.command.stdin(fs::File::open(file).expect("a file"));
        self
    }

    pub(crate) fn within(mut self, directory: impl AsRef<Path>) -> Run {
        self.command.current_dir(directory);
        self
    }

    /// Runs it to its end, however that is.
    pub(crate) fn end(mut self) -> Outcome {
        let output = self.command.output().expect("a program");
        Outcome {
            told: format!("{:?}", self.command),
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it; it must succeed.
    #[track_caller]
    pub(crate) fn ok(self) -> Outcome {
        let outcome = self.end();
        assert!(outcome.status.success(), "{outcome}");
        outcome
    }

    /// Runs it; it must exit with `status`, and its words must hold all of `words`.
    #[track_caller]
    pub(crate) fn fails(self, status: i32, words: &[&str]) -> Outcome {
        let outcome = self.end();
        assert_eq!(outcome.status.code(), Some(status), "{outcome}");
        for word in words {
            assert!(outcome.stderr.contains(word), "no {word:?} in {outcome}");
        }
        outcome
    }
}

/// How a command ended.
pub(crate) struct Outcome {
    pub(crate) told: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Exit status and signal.
    pub(crate) fn end(&self) -> (Option<i32>, Option<i32>) {
        (self.status.code(), self.status.signal())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { told, status, stdout, stderr } = self;
        writeln!(formatter, "{told}\n{status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}
