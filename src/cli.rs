//! thinshim's own subcommands. A wrapped tool's arguments never come here.

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::Failure;
use crate::cache::store::Store;
use crate::cache::tell;
use crate::dispatch::{self, Call};
use crate::driver;
use crate::settings::Settings;
use crate::steps::{self, Files};

const AFTER_HELP: &str = "\
Around a build script, as it is:
  thinshim run -j8 -- make LLVM=1
  thinshim run -- ./build.sh                (see `thinshim run --help`)

As a shim, in front of the tools:
  make LLVM=1 CC=\"thinshim clang\" LD=\"thinshim ld.lld\" -j8 vmlinux modules
  make CC=\"thinshim clang -flto=thin\" -j8
  CC=\"thinshim ccache clang\"               (thinshim first, ccache second)
or as links called clang, clang++ and ld.lld, early on PATH.

ThinLTO compiles leave objects that carry their back-end options; ThinLTO links become
a thin link, one back end for each module on make's job tokens, and a native link.
Everything else goes to the real tool untouched.

Environment:
  THINSHIM_LOG=debug      tell what is done, and why (env_logger's syntax)
  THINSHIM_REPORT=FILE    append one JSON line for each ThinLTO link, and each back end
                          that a build system calls by itself
  THINSHIM_STRICT=1       an error where a link would be left to in-process ThinLTO
  THINSHIM_JOBS=N         back ends at once where there is no jobserver
  THINSHIM_SMALL=BYTES    links with no more bitcode are left to lld (0: none; default 16K)
  THINSHIM_OPTIONS=record|link|sections
                          options of back ends: as compiled; as in-process ThinLTO has
                          them; as compiled, with function and data sections
  THINSHIM_MEM_FLOOR=BYTES
                          no further back end starts with less memory free (default 512M)
  THINSHIM_BACKEND_TIMEOUT=SECONDS
                          a back end that takes longer is killed, and its link fails
                          (default 0: none is)
  THINSHIM_CLANG=PATH     the back ends' clang (default: the one beside the real ld.lld)
  THINSHIM_WARM=off       start clang and lld anew for each back end and, under
                          `thinshim run`, each front end and link, instead of forking one
  THINSHIM_CACHE=on|read|off
                          the cache of back ends and links: used, only read, left alone
  THINSHIM_CACHE_DIR=DIR  where it is (default: thinshim in $XDG_CACHE_HOME or ~/.cache)
  THINSHIM_CACHE_SIZE=BYTES
                          its size, at most (default 10G)
  THINSHIM_KEEP=DIR       keep indexes and native objects of a link in DIR (of others at
                          the same time in DIR.1, …)

Exit status: that of the tool; 120 for failures of thinshim's own.";

const RUN_HELP: &str = "\
Examples:
  thinshim run -j8 -- make LLVM=1 vmlinux modules
  thinshim run -- ./build.sh                as many jobs as there are CPUs
  thinshim run -j4 -- make CC=clang CFLAGS='-O2 -flto=thin' LDFLAGS=-flto=thin
  thinshim run -j8 -- ninja -C out          ninja 1.13 or newer takes part in the jobserver
  thinshim run -j8 -- cargo build

COMMAND finds thinshim first on PATH under the names of the tools that are there: clang, clang++,
ld.lld, their versioned names (clang-22), compiler launchers (ccache), make and ninja. Whatever
makes, ninjas and cargos it starts share one jobserver of N jobs, so the command should give them
no -j of their own. Below another make, and without -j, that make's jobserver is shared.

Compiles through clang are forks of a clang that is loaded once for all of the build, and the same as
others in all but their CPU time (THINSHIM_WARM=off: none are).

LLVM=1, LLVM=-22 and LLVM=/path/ all work, on a make's command line and in the environment. A
compiler that is named by its path (CC=/usr/bin/clang) goes round PATH, and is told of at the end.

Signals go to COMMAND, and its exit status, or its death by a signal, is thinshim's. The summary at
the end goes to stderr.";

const STEPS_HELP: &str = "\
A link step by step, as a makefile runs it:
  thinshim thin-link --list out.thinlto-index -- ld.lld -r -o out.o a.o b.o
  thinshim back-end a.o --index a.o.thinlto.bc -o a.thinlto-native.o -- ld.lld -r
  thinshim back-end b.o --index b.o.thinlto.bc -o b.thinlto-native.o -- ld.lld -r
  thinshim native-link --list out.thinlto-index -- ld.lld -r -o out.o a.o b.o

Every step gets the link as it is, so that all of them see the same options; `thinshim` before the
linker's name is skipped. The objects come from `thinshim clang -flto=thin`. A link that cannot be
distributed is one of in-process ThinLTO all the same: the list says so, there is nothing for back
ends to do, and the last step does the work (an error with THINSHIM_STRICT=1). THINSHIM_SMALL has no
say here.";

const DISTRIBUTE_HELP: &str = "\
As lld's distributor:
  ld.lld --thinlto-distributor=$(command -v thinshim) --thinlto-distributor-arg=distribute \\
      --thinlto-remote-compiler=clang a.o b.o -o prog
  clang -flto=thin -fuse-ld=lld -fthinlto-distributor=$(command -v thinshim) \\
      -Xthinlto-distributor=distribute a.o b.o -o prog

lld tells a distributor little of its own options: -mllvm ones, --lto-CGO and CPUs do not come
through. `thinshim ld.lld` has no such limits.";

/// Distributed ThinLTO for Make builds: a jobserver-aware shim in front of clang and ld.lld.
#[derive(Debug, Parser)]
#[command(name = "thinshim", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a build with thinshim in front of its tools, and one jobserver for all of it.
    #[command(after_help = RUN_HELP)]
    Run {
        /// Jobs at once (default: the jobserver of the make above, or one job for each CPU).
        #[arg(short, long, value_name = "N")]
        jobs: Option<NonZeroUsize>,
        /// No summary at the end.
        #[arg(short, long)]
        quiet: bool,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<OsString>,
    },
    /// Print what a link would run, as JSON: `thinshim explain -- ld.lld -r a.o b.o -o c.o`.
    ///
    /// Of what it prints, only the thin link is run.
    Explain {
        /// The linker and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// The first step of a link, for build systems that run the steps themselves: the index.
    ///
    /// Beside each module `foo.o` of the link goes its individual index, `foo.o.thinlto.bc`, which
    /// is written only where it has changed; it is empty for an object without bitcode. FILE lists
    /// the modules that need a back end, one a line, and is written last and always.
    #[command(after_help = STEPS_HELP)]
    ThinLink {
        /// The list of modules to be written.
        #[arg(long, value_name = "FILE")]
        list: PathBuf,
        /// `foo.o.TAG.thinlto.bc`: for objects that several links share.
        #[arg(long)]
        tag: Option<OsString>,
        /// The link: the linker and its arguments, as in-process ThinLTO would get them.
        #[arg(required = true, last = true)]
        link: Vec<OsString>,
    },
    /// The second step of a link, once for each module: its native object.
    ///
    /// The options are those that the module was compiled with, and those of the link that speak
    /// of code generation. An object without bitcode (its index is empty) is copied.
    ///
    /// With a dependency file, a back end whose inputs are those of the last time, byte for byte,
    /// is not run again: its object only becomes newer than they are.
    #[command(after_help = STEPS_HELP)]
    BackEnd {
        /// The module.
        module: OsString,
        /// Its individual index, from the thin link.
        #[arg(long, value_name = "FILE")]
        index: PathBuf,
        /// The native object to be written.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// A file for make that lists what the object was made of; kept for the next time.
        #[arg(long, value_name = "FILE")]
        dependency_file: Option<PathBuf>,
        /// The link: the linker and its arguments, less the inputs.
        #[arg(required = true, last = true)]
        link: Vec<OsString>,
    },
    /// The last step of a link: native objects in the places of the bitcode.
    #[command(after_help = STEPS_HELP)]
    NativeLink {
        /// The list that the thin link has written.
        #[arg(long, value_name = "FILE")]
        list: PathBuf,
        /// `foo.TAG.thinlto-native.o`: for objects that several links share.
        #[arg(long)]
        tag: Option<OsString>,
        /// The link: the linker and its arguments, as in-process ThinLTO would get them.
        #[arg(required = true, last = true)]
        link: Vec<OsString>,
    },
    /// Run the back ends of a link that lld 22 distributes itself (DTLTO).
    ///
    /// lld does the thin link, lists the back ends in FILE and calls this program; then it links
    /// the native objects. They run on make's job tokens, come from the cache, and have the
    /// options that each object was compiled with.
    #[command(after_help = DISTRIBUTE_HELP)]
    Distribute {
        /// What lld has written, in JSON.
        file: PathBuf,
    },
    /// Look after the cache of back ends.
    ///
    /// It is where `THINSHIM_CACHE_DIR` says, else in the user's cache directory
    /// (`~/.cache/thinshim`), and never larger than `THINSHIM_CACHE_SIZE`: what was used longest
    /// ago goes first, so there is no need to clean it.
    #[command(subcommand)]
    Cache(CacheCommand),
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Tell how much is in the cache.
    Stats,
    /// Remove every entry. Links that run meanwhile go on.
    Clean,
    /// Look at every entry, and remove those that are damaged.
    ///
    /// Links do so with each entry that they take. Ends with status 120 where something was
    /// damaged.
    Verify,
    /// Tell which back ends the last link of OBJECT ran, and what had changed for each.
    ///
    /// What changes one back end's result: the compiler, the options, the environment, the
    /// module, its index (what the whole program says of it), the modules that it imports from,
    /// and the files that assembly opens. `thinshim cache why vmlinux.o` tells of a link,
    /// `thinshim cache why kernel/fork.o` of one module in every link that has it.
    Why {
        /// The output of a link, or a bitcode object.
        object: PathBuf,
    },
}

/// `thinshim cache`.
fn cache(command: CacheCommand) -> Result<ExitCode, Failure> {
    let settings = Settings::read()?.cache.ok_or_else(|| {
        Failure::new("cache: there is none without a home; THINSHIM_CACHE_DIR names a directory")
    })?;
    let directory = &settings.directory;
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cache: {}: {error}", directory.display()))
    };
    let writes = matches!(command, CacheCommand::Clean | CacheCommand::Verify);
    let store = Store::open(directory, writes).map_err(|error| fail(&error))?;
    match command {
        CacheCommand::Stats => show(&tell::stats(&store, directory, settings.limit))?,
        CacheCommand::Clean => show(&tell::clean(&store).map_err(|error| fail(&error))?)?,
        CacheCommand::Verify => {
            let (whole, damaged) = tell::verify(&store);
            show(&format!("{whole} entries are whole, {damaged} were damaged and are gone\n"))?;
            if damaged > 0 {
                return Ok(ExitCode::from(crate::failure::STATUS));
            }
        }
        CacheCommand::Why { object } => match tell::why(&store, &object) {
            Some(text) => show(&text)?,
            None => {
                return Err(Failure::new(format!(
                    "cache why: no link of {} is known to {}: name the -o of a distributed link, \
                     or an object that one took, as seen from here",
                    object.display(),
                    directory.display()
                )));
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints an answer. A reader who has seen enough is no failure.
fn show(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Runs one of thinshim's own subcommands; `args` are without argv[0].
///
/// # Errors
/// thinshim's own failures.
pub fn run(args: Vec<OsString>) -> Result<ExitCode, Failure> {
    let argv = std::iter::once(OsString::from("thinshim")).chain(args);
    let cli = match Cli::try_parse_from(argv) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return Ok(match error.exit_code() {
                0 => ExitCode::SUCCESS,
                _ => ExitCode::from(crate::failure::STATUS),
            });
        }
    };
    match cli.command {
        Command::Run { jobs, quiet, command } => {
            crate::run::run(&crate::run::Options { jobs, quiet, command })
        }
        Command::Cache(command) => cache(command),
        Command::Distribute { file } => crate::distribute::run(&file),
        Command::ThinLink { list, tag, link } => {
            steps::thin_link(&Files { list: &list, tag: tag.as_deref() }, link)
        }
        Command::BackEnd { module, index, output, dependency_file, link } => {
            steps::back_end(&module, index, output, dependency_file.as_deref(), link)
        }
        Command::NativeLink { list, tag, link } => {
            steps::native_link(&Files { list: &list, tag: tag.as_deref() }, link)
        }
        Command::Explain { command } => match dispatch::of_link(command) {
            Call::Lld(tool) => {
                let plan = driver::explain(&tool)?;
                show(&format!("{plan:#}\n"))?;
                Ok(ExitCode::SUCCESS)
            }
            _ => Err(Failure::new(
                "explain: give it a linker's command line: \
                     thinshim explain -- ld.lld -r a.o b.o -o c.o",
            )),
        },
    }
}
