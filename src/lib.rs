//! Distributed ThinLTO out of ordinary command lines.
//!
//! `argv` → [`dispatch`] → [`invocation`] → [`decision`] → [`driver`]: thin link, back ends on
//! make's tokens, native link. What is not ThinLTO ends in `exec` of the real tool, or in a fork of
//! one that `thinshim run` has loaded.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`dispatch`] | whose command line this is: clang's, lld's, our own |
//! | [`cli`] | our own subcommands |
//! | [`run`] | `thinshim run`: tools on PATH, a jobserver, warm tools, a summary |
//! | [`site`] | the directory of a `thinshim run`, for all below it |
//! | [`tool`] | the real tools, found past thinshim itself |
//! | [`compile`] | a ThinLTO compile: clang, then the options record on its objects |
//! | [`distribute`] | the back ends of a link that lld distributes itself (DTLTO) |
//! | [`back_end_call`] | a back end that a build system calls itself |
//! | [`steps`] | the steps of a link, for build systems that call them one by one |
//! | [`decision`] | whether a link is distributed, and if not, why |
//! | [`driver`] | one link from its command line to its end |
//! | [`stop`] | how a link goes on, or ends |
//! | [`back_ends`] | the back ends of a link: run, looked at, told of |
//! | [`distribution`] | a distributed link, step by step |
//! | [`plan`] | what a link runs, as a value that can be printed |
//! | [`schedule`] | the event loop: jobs, tokens, signals |
//! | [`linker`] | the real linker, alone, and its threads |
//! | [`cache`] | native objects and outputs of before: keys, entries, the thread that does it |
//! | [`thinlto`] | inputs, scripts, symbols, and the command lines of the three steps |
//! | [`warm`] | compilers and linkers that have loaded once and fork for each job |
//! | [`workdir`] | a link's private directory |
//! | [`invocation`] | grammars: clang's options, lld's options, response files |
//! | [`object`] | bytes: bitcode, its wrapper and record, archives, ELF |
//! | [`jobserver`] | GNU Make's tokens: found, kept, hosted |
//! | [`report`] | JSON lines, summary, live counter |
//! | [`settings`] | the environment's variables |
//! | [`failure`] | our own failures and their exit status |
//! | [`sys`] | signals, children, atomic files; the only `unsafe` but for the library in `warm` |
//!
//! What holds everywhere: pass-through starts no thread and writes no file; doubt means the real
//! tool; clang's exit status is not trusted, its object is looked at; tokens go back unchanged,
//! whatever happens; a record in an object is untrusted input.

pub mod back_end_call;
pub mod back_ends;
pub mod cache;
pub mod cli;
pub mod compile;
pub mod decision;
pub mod dispatch;
pub mod distribute;
pub mod distribution;
pub mod driver;
pub mod failure;
pub mod invocation;
pub mod jobserver;
pub mod linker;
pub mod object;
pub mod plan;
pub mod report;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod site;
pub mod steps;
pub mod stop;
pub mod sys;
pub mod thinlto;
pub mod tool;
pub mod warm;
pub mod workdir;

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use dispatch::{Call, Tool};
pub use failure::Failure;
use invocation::{clang, response};
use site::{Event, Site};

/// Counts how often thinshim has called itself by way of the tools.
const DEPTH_VARIABLE: &str = "THINSHIM_DEPTH";
/// A link through the driver takes two; wrappers of wrappers may take more.
const DEPTH_MAX: u32 = 8;

/// Does what `argv` asks for and returns the process's exit status.
pub fn run(argv: Vec<OsString>) -> ExitCode {
    if env::var_os("THINSHIM_LOG").is_some_and(|value| !value.is_empty()) {
        env_logger::Builder::from_env(env_logger::Env::new().filter("THINSHIM_LOG")).init();
    }
    let result = match dispatch::read(argv, env::var_os(dispatch::LINKER_VARIABLE)) {
        Call::Own(args) => cli::run(args),
        Call::Builder(builder, tool) => Err(run::builder::become_it(builder, &tool)),
        call => refuse_recursion().and_then(|()| run_tool(call)),
    };
    result.unwrap_or_else(|failure| failure.report())
}

fn run_tool(call: Call) -> Result<ExitCode, Failure> {
    if let Some(site) = Site::current() {
        step_out(&site, &call);
    }
    match call {
        Call::Clang(tool) => match parse_clang(&tool) {
            clang::Invocation::Compile(compile) => compile::run(&tool, &compile),
            clang::Invocation::BackEnd(call) => {
                back_end_call::run(&tool, &call).unwrap_or_else(|| Err(pass_through(&tool)))
            }
            clang::Invocation::Link(link) => link_through_driver(&tool, &link),
            clang::Invocation::PassThrough(_) => front_end(&tool),
        },
        Call::Lld(tool) => driver::run(&tool),
        Call::Other(tool) => {
            if tool::builder(tool.name()).is_some() {
                failure::warn(format_args!(
                    "`thinshim {0}` is {0} alone: for a build through thinshim, \
                     `thinshim run -- {0} …`",
                    tool.name().display()
                ));
            }
            Err(pass_through(&tool))
        }
        Call::Builder(builder, tool) => Err(run::builder::become_it(builder, &tool)),
        Call::Own(args) => cli::run(args),
    }
}

/// Leaves word with the `thinshim run` above, and takes its tools off PATH: the real ones, and
/// what they start, are to meet each other and not thinshim again.
fn step_out(site: &Site, call: &Call) {
    match call {
        Call::Clang(_) => site.tell(Event::Clang),
        Call::Lld(_) => site.tell(Event::Lld),
        _ => {}
    }
    if let Some(path) = env::var_os("PATH") {
        sys::environment::set("PATH", site.without_tools(&path));
    }
}

/// Clang expands response files before it reads options; one that cannot be read is its to refuse.
fn parse_clang(tool: &Tool) -> clang::Invocation {
    if !response::mentioned_in(&tool.args) {
        return clang::parse(&tool.args);
    }
    match response::expand(&tool.args) {
        Ok(args) => clang::parse(&args),
        Err(_) => clang::Invocation::PassThrough("a response file that cannot be read"),
    }
}

/// A program called `clang` that calls thinshim would do so forever.
fn refuse_recursion() -> Result<(), Failure> {
    let depth: u32 =
        env::var(DEPTH_VARIABLE).ok().and_then(|depth| depth.parse().ok()).unwrap_or(0);
    if depth >= DEPTH_MAX {
        return Err(Failure::new(
            "thinshim calls itself without end: is `clang` or `ld.lld` on PATH a script that \
             calls thinshim? Name the real tool by its path",
        ));
    }
    sys::environment::set(DEPTH_VARIABLE, (depth + 1).to_string());
    Ok(())
}

/// Lets clang call thinshim as its linker, and tells that which linker is the real one.
fn link_through_driver(tool: &Tool, link: &clang::Link) -> Result<ExitCode, Failure> {
    let linker: Option<PathBuf> = tool::find(tool.name())
        .and_then(|clang| tool::as_clang_finds(&clang, &link.linker, &link.prefixes));
    let Some(linker) = linker else { return Err(pass_through(tool)) };
    let mut ld_path = OsString::from("--ld-path=");
    ld_path.push(tool::own_path());
    // A response file may hold one, too.
    let args = match response::expand(&tool.args) {
        Ok(words) if clang::without_ld_path(&words).len() < words.len() => words,
        _ => tool.args.clone(),
    };
    let program = dispatch::program(tool)?;
    let mut command = Command::new(&program);
    command
        .arg0(tool.program())
        .args(&tool.command[1..])
        .args(["-fuse-ld=lld".into(), ld_path])
        .args(clang::without_ld_path(&args))
        .env(dispatch::LINKER_VARIABLE, linker);
    let error = sys::sigpipe::pass_on(&mut command).exec();
    Err(Failure::new(format!("cannot run {}: {error}", program.display())))
}

/// A clang that is not ours to change: in a warm compiler, or as it is.
fn front_end(tool: &Tool) -> Result<ExitCode, Failure> {
    let program = dispatch::program(tool)?;
    let warm = Site::current()
        .and_then(|site| warm::front_end::run(&site, tool, &program, tool.program()));
    match warm {
        Some(status) => Ok(sys::child::end_as(status)),
        None => Err(become_program(tool, &program)),
    }
}

/// Becomes the real tool, with the same argument bytes; returns only where that fails.
fn pass_through(tool: &Tool) -> Failure {
    match dispatch::program(tool) {
        Ok(program) => become_program(tool, &program),
        Err(failure) => failure,
    }
}

fn become_program(tool: &Tool, program: &Path) -> Failure {
    let mut command = Command::new(program);
    command.arg0(tool.program()).args(&tool.command[1..]).args(&tool.args);
    let error = sys::sigpipe::pass_on(&mut command).exec();
    Failure::new(format!("cannot run {}: {error}", program.display()))
}
