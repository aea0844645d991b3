//! A make or a ninja below `thinshim run`: the real one, after its jobserver and its `LLVM=/path/`
//! have been put in a form that it can use.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::llvm;
use crate::Failure;
use crate::dispatch::Tool;
use crate::jobserver::{self, Descriptors, Identity, Pool, Source};
use crate::site::{Event, Site};
use crate::sys::{fd, sigpipe};
use crate::tool::{self, Builder};

/// Becomes the real builder; returns only where that fails.
pub fn become_it(builder: Builder, call: &Tool) -> Failure {
    // By its bare name, since a path would be that of our link.
    let name = tool::base_name(call.name());
    let Some(program) = tool::find(name) else {
        return Failure::new(format!("cannot find `{}` on PATH", name.display()));
    };
    let mut command = Command::new(&program);
    command.arg0(call.program()).args(&call.args);
    // An end stays open until it is inherited.
    let mut descriptors = None;
    if let Some(site) = Site::current() {
        descriptors = share_jobs(builder, &site, &mut command);
        if builder == Builder::Ninja && builds(&call.args) && goes_its_own_way(&program) {
            // Its own words may be read: CMake's tests of compilers are ninja's.
            site.tell(Event::OlderNinja);
        }
        if builder == Builder::Make {
            command.args(llvm::variables(&call.args));
        }
    }
    let error = sigpipe::pass_on(&mut command).exec();
    drop(descriptors);
    Failure::new(format!("cannot run {}: {error}", program.display()))
}

/// Whether ninja is to run jobs: `CMake` calls it for its tools and its version, too.
fn builds(args: &[OsString]) -> bool {
    let other = |word: &OsString| {
        let word = word.as_encoded_bytes();
        word.starts_with(b"-t") || matches!(word, b"--version" | b"-h" | b"--help" | b"-n")
    };
    !args.iter().any(other)
}

/// Whether a ninja has no client for jobservers: those before 1.13, but for Kitware's, which say so.
fn goes_its_own_way(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = version.unwrap_or_default();
    let mut numbers = version.trim().split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => {
            (major, minor) < (1, 13) && !version.contains("jobserver")
        }
        _ => false,
    }
}

/// Names the run's jobserver as the builder understands it. One of another make's is left alone.
fn share_jobs(builder: Builder, site: &Site, command: &mut Command) -> Option<Descriptors> {
    let fifo = site.jobserver();
    let ours = Identity::of_path(&fifo).ok()?;
    let pool = Pool::join();
    if pool.identity() != Some(ours) {
        // Looking has closed them to children.
        if let Source::Inherited { read, write } = *pool.source() {
            fd::inherit(command, vec![read, write]);
        }
        return None;
    }
    let mut auth = OsString::from(" --jobserver-auth=fifo:");
    auth.push(&fifo);
    // Make 4.3 dies of a last `fifo:`, and cannot reach a pipe that it has not inherited.
    let descriptors = match builder {
        Builder::Make => Some(Descriptors::open(&fifo).ok()?),
        Builder::Ninja => None,
    };
    if let Some(descriptors) = &descriptors {
        auth.push(descriptors.option("--jobserver-auth"));
        descriptors.bequeath(command);
    }
    let makeflags = env::var_os("MAKEFLAGS").unwrap_or_default();
    command.env("MAKEFLAGS", jobserver::with_auth(&makeflags, OsStr::new(&auth)));
    descriptors
}
