//! A make or a ninja below `thinshim run`: the real one, after its jobserver and its `LLVM=/path/`
//! have been put in a form that it can use.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::llvm;
use crate::Failure;
use crate::dispatch::Tool;
use crate::jobserver::{self, Descriptors, Identity, Pool, Source};
use crate::site::Site;
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
        if builder == Builder::Make {
            command.args(llvm::variables(&call.args));
        }
    }
    let error = sigpipe::pass_on(&mut command).exec();
    drop(descriptors);
    Failure::new(format!("cannot run {}: {error}", program.display()))
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
