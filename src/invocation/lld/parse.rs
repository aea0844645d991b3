//! Words in, [`Link`] out, with the rules of lld's own driver (`lld/ELF/Driver.cpp`,
//! `LinkerDriver::createFiles` and `readConfigs`; `ELFOptTable::parse` in `DriverUtils.cpp`).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::find::{find, is_input};
use super::link::{Item, Kind, Link, SideOutput, State, Value, What};
use super::row::{Act, Dashes, Fate, Form, Row, Side};

/// Why a command line is not a link for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No link that could be distributed: the real lld does it as without us.
    PassThrough(String),
    /// A link, with something on its command line that only lld itself can do.
    StepAside(String),
    /// lld will refuse it. Hand it over all the same, for lld's own message.
    Bad(String),
}

/// Reads the command line of `ld.lld`, without its name and with response files expanded.
///
/// # Errors
/// A [`Refusal`] where the link is not ours, by the strongest reason there is: `--help` last
/// outweighs an unknown option first.
pub fn parse(words: Vec<OsString>) -> Result<Link, Refusal> {
    let (link, refusal) = read(words);
    refusal.map_or(Ok(link), Err)
}

/// As [`parse`], whatever is on the command line: for finding out what it links.
pub fn parse_anyway(words: Vec<OsString>) -> Link {
    read(words).0
}

fn read(words: Vec<OsString>) -> (Link, Option<Refusal>) {
    let mut parser = Parser {
        link: Link { items: Vec::with_capacity(words.len()), ..Link::default() },
        ..Parser::default()
    };
    let mut at = 0;
    while at < words.len() {
        at = parser.step(&words, at);
    }
    parser.finish(words)
}

/// lld skips empty words.
static EMPTY: Row = Row::new("", Dashes::Either, Form::Flag, Fate::Keep);

/// No value, for options that have none.
const NO_VALUE: Value = Value { word: usize::MAX, at: 0 };

#[derive(Default)]
struct Parser {
    link: Link,
    state: State,
    /// `--push-state`
    stack: Vec<State>,
    relocatable: bool,
    shared: bool,
    pie: bool,
    lto_full: bool,
    /// An input file, as lld's `-v` counts them.
    has_input: bool,
    /// Something to link.
    has_files: bool,
    only_version: bool,
    /// `-mllvm`, which lld reads after all `-plugin-opt=-`.
    mllvm: Vec<OsString>,
    pass_through: Option<String>,
    step_aside: Option<String>,
    bad: Option<String>,
}

impl Parser {
    /// Takes the words of one element, and tells where the next begins.
    fn step(&mut self, words: &[OsString], at: usize) -> usize {
        let word = words[at].as_bytes();
        if word.is_empty() {
            return self.push(at, 1, NO_VALUE, What::Option(&EMPTY));
        }
        if is_input(word) {
            (self.has_input, self.has_files) = (true, true);
            return self.push(at, 1, Value { word: at, at: 0 }, What::Input(self.state));
        }
        if matches!(word, b"-plugin-opt" | b"--plugin-opt")
            && let Some(next) = words.get(at + 1)
        {
            return self.plugin_opt(words, at, word, next);
        }
        let Some((row, joined)) = find(word) else {
            self.step_aside(&words[at], "unknown to thinshim");
            return self.push(at, 1, NO_VALUE, What::Option(&EMPTY));
        };
        let (count, value) = match joined {
            Some(offset) => (1, Value { word: at, at: offset }),
            None if !row.form.takes_value() => (1, NO_VALUE),
            None if at + 1 < words.len() => (2, Value { word: at + 1, at: 0 }),
            None => {
                let words = words[at].display();
                self.bad.get_or_insert_with(|| format!("{words}: missing argument"));
                (1, NO_VALUE)
            }
        };
        self.option(words, at, count, value, row)
    }

    /// lld reads `-plugin-opt x` as `-plugin-opt=x`.
    fn plugin_opt(&mut self, words: &[OsString], at: usize, word: &[u8], next: &OsStr) -> usize {
        let whole = [word, b"=", next.as_bytes()].concat();
        let Some((row, joined)) = find(&whole) else {
            self.step_aside(next, "unknown to thinshim");
            return self.push(at, 2, NO_VALUE, What::Option(&EMPTY));
        };
        let value = joined.map_or(NO_VALUE, |offset| Value {
            word: at + 1,
            at: offset.saturating_sub(word.len() + 1),
        });
        self.option(words, at, 2, value, row)
    }

    fn option(
        &mut self,
        words: &[OsString],
        at: usize,
        count: usize,
        value: Value,
        row: &'static Row,
    ) -> usize {
        let text = value.of(words);
        match row.fate {
            Fate::PassThrough(why) => {
                self.pass_through.get_or_insert_with(|| format!("{}: {why}", words[at].display()));
            }
            Fate::StepAside(why) => self.step_aside(&words[at], why),
            Fate::Keep | Fate::NativeOnly | Fate::ThinOnly | Fate::BackEnd | Fate::Drop => (),
        }
        if row.side != Side::Nothing {
            let named = matches!(row.side, Side::File | Side::DependencyFile);
            let value = if named { text.to_owned() } else { OsString::new() };
            self.link.side_outputs.push(SideOutput { row, value });
        }
        if row.act == Act::Library {
            self.has_files = true;
            return self.push(at, count, value, What::Library(self.state));
        }
        if let Err(why) = self.act(row.act, text) {
            self.step_aside(&words[at], &why);
        }
        self.push(at, count, value, What::Option(row))
    }

    fn push(&mut self, at: usize, count: usize, value: Value, what: What) -> usize {
        self.link.items.push(Item { words: at..at + count, value, what });
        at + count
    }

    /// Does what the option says. An error is a reason to step aside.
    fn act(&mut self, act: Act, value: &OsStr) -> Result<(), String> {
        match act {
            Act::Nothing | Act::Library => (),
            Act::LibraryPath => self.link.library_paths.push(value.to_owned()),
            Act::Sysroot => self.link.sysroot = Some(PathBuf::from(value)),
            Act::Emulation => self.emulation(value),
            Act::Script => self.link.scripts.push(PathBuf::from(value)),
            Act::DefaultScript => self.link.default_script = Some(PathBuf::from(value)),
            Act::ExcludeLibs => self.link.exclude_libs.extend(
                value
                    .as_bytes()
                    .split(|byte| matches!(byte, b',' | b':'))
                    .map(|name| OsStr::from_bytes(name).to_owned()),
            ),
            Act::JustSymbols => self.has_files = true,
            Act::Output => self.link.output = PathBuf::from(value),
            Act::Relocatable => self.relocatable = true,
            Act::Shared => self.shared = true,
            Act::Pie(on) => self.pie = on,
            Act::GcSections(on) => self.link.gc_sections = on,
            Act::Icf(on) => self.link.icf = on,
            Act::EmitRelocs => self.link.emit_relocs = true,
            Act::PlacesSections => self.link.places_sections = true,
            Act::OrdersSections => self.link.orders_sections |= value != "none",
            Act::Version => self.only_version = true,
            Act::Quoting if value == "posix" => (),
            Act::Quoting => return Err("not the quoting of this system".into()),
            Act::Threads => self.link.threads = Some(value.to_owned()),
            Act::ThinltoJobs => {
                // `get_threadpool_strategy` in LLVM's `Threading.cpp`.
                let known = value.is_empty()
                    || value == "all"
                    || value.to_str().is_some_and(|text| text.parse::<u32>().is_ok());
                if !known {
                    self.bad.get_or_insert_with(|| "an invalid job count".to_owned());
                }
                self.link.thinlto_jobs = Some(value.to_owned());
            }
            Act::FatLtoObjects(on) => self.link.fat_lto_objects = on,
            Act::LtoKind => {
                self.lto_full = value == "full";
                self.link.unified_thin = value == "thin";
            }
            Act::Partitions if value == "1" => (),
            Act::Partitions => return Err("more than one regular-LTO partition".into()),
            Act::Mllvm => self.mllvm.push(value.to_owned()),
            Act::PluginOther if value.as_bytes().ends_with(b"lto-wrapper") => (),
            Act::PluginOther => return Err("unknown to thinshim".into()),
            Act::WholeArchive(_)
            | Act::StartGroup
            | Act::EndGroup
            | Act::StartLib
            | Act::EndLib
            | Act::AsNeeded(_)
            | Act::Static(_)
            | Act::PushState
            | Act::PopState
            | Act::Format => self.positional(act, value),
            _ => return self.link.lto.set(act, value),
        }
        Ok(())
    }

    /// What holds for the inputs after it.
    fn positional(&mut self, act: Act, value: &OsStr) {
        let state = &mut self.state;
        let fault = match act {
            Act::WholeArchive(on) => {
                state.whole_archive = on;
                None
            }
            Act::AsNeeded(on) => {
                state.as_needed = on;
                None
            }
            Act::Static(on) => {
                state.is_static = on;
                None
            }
            Act::StartGroup => {
                std::mem::replace(&mut state.in_group, true).then_some("nested --start-group")
            }
            Act::EndGroup => (!std::mem::take(&mut state.in_group)).then_some("stray --end-group"),
            Act::StartLib => {
                state.in_lib = true;
                std::mem::replace(&mut state.in_group, true)
                    .then_some("nested --start-lib, or one in --start-group")
            }
            Act::EndLib => {
                state.in_group = false;
                (!std::mem::take(&mut state.in_lib)).then_some("stray --end-lib")
            }
            Act::Format => {
                state.binary = value == "binary";
                (!matches!(value.as_bytes(), b"binary" | b"elf" | b"default"))
                    .then_some("unknown --format value")
            }
            Act::PushState => {
                self.stack.push(*state);
                None
            }
            Act::PopState => match self.stack.pop() {
                Some(State { as_needed, is_static, whole_archive, .. }) => {
                    *state = State { whole_archive, as_needed, is_static, ..*state };
                    None
                }
                None => Some("unbalanced --push-state/--pop-state"),
            },
            _ => None,
        };
        if let Some(fault) = fault {
            self.bad.get_or_insert_with(|| fault.to_owned());
        }
    }

    /// lld is its MinGW driver where the emulation is one of Windows' (`lld/Common/DriverDispatcher.cpp`).
    fn emulation(&mut self, value: &OsStr) {
        if matches!(
            value.as_bytes(),
            b"i386pe" | b"i386pep" | b"thumb2pe" | b"arm64pe" | b"arm64ecpe" | b"mipspe"
        ) {
            self.pass_through.get_or_insert_with(|| format!("-m {}: not ELF", value.display()));
        }
        self.link.emulation = Some(value.to_owned());
    }

    fn step_aside(&mut self, option: &OsStr, why: &str) {
        self.step_aside.get_or_insert_with(|| format!("{}: {why}", option.display()));
    }

    fn finish(mut self, words: Vec<OsString>) -> (Link, Option<Refusal>) {
        for option in std::mem::take(&mut self.mllvm) {
            if prints_and_ends(&option) {
                self.pass_through.get_or_insert_with(|| "-mllvm: asks for help".into());
            }
            if let Err(why) = self.link.lto.llvm_option(&option) {
                self.step_aside("-mllvm".as_ref(), &why);
            }
        }
        if self.only_version && !self.has_input {
            self.pass_through.get_or_insert_with(|| "-v: asks for the version".into());
        }
        if !self.has_files {
            self.pass_through.get_or_insert_with(|| "no input files".into());
        }
        if self.relocatable && self.shared {
            self.bad.get_or_insert_with(|| "-r and -shared may not be used together".into());
        }
        if self.relocatable && self.pie {
            self.bad.get_or_insert_with(|| "-r and -pie may not be used together".into());
        }
        if self.link.threads.as_deref().is_some_and(|threads| !is_positive(threads)) {
            self.bad.get_or_insert_with(|| "--threads: no positive number".into());
        }
        if self.lto_full {
            self.step_aside("--lto=full".as_ref(), "no ThinLTO");
        }
        let refusal = self
            .pass_through
            .map(Refusal::PassThrough)
            .or(self.bad.map(Refusal::Bad))
            .or(self.step_aside.map(Refusal::StepAside));
        let mut link = self.link;
        link.words = words;
        link.kind = match (self.relocatable, self.shared, self.pie) {
            (true, ..) => Kind::Relocatable,
            (_, true, _) => Kind::Shared,
            (_, _, true) => Kind::Pie,
            _ => Kind::Exec,
        };
        link.output_given = !link.output.as_os_str().is_empty();
        if !link.output_given {
            link.output = PathBuf::from("a.out");
        }
        if self.relocatable {
            // `-r` is static from the first word on, wherever it stands.
            for item in &mut link.items {
                if let What::Input(state) | What::Library(state) = &mut item.what {
                    state.is_static = true;
                }
            }
        }
        (link, refusal)
    }
}

/// Whether LLVM's option parser answers by itself (`CommandLine.cpp`), and nothing is linked.
fn prints_and_ends(option: &OsStr) -> bool {
    let name = option.as_bytes();
    let name = name.strip_prefix(b"--").or(name.strip_prefix(b"-")).unwrap_or(name);
    matches!(
        name,
        b"h" | b"help" | b"help-hidden" | b"help-list" | b"help-list-hidden" | b"version"
    )
}

/// Whether lld takes it for a positive number (`llvm::to_integer` with a radix by the prefix).
fn is_positive(text: &OsStr) -> bool {
    let Some(text) = text.to_str() else { return false };
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'0'..=b'9', ..] => (&lower[1..], 8),
        _ => (&lower[..], 10),
    };
    !digits.starts_with('+') && u32::from_str_radix(digits, radix).is_ok_and(|number| number > 0)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::PassThrough(why) | Self::StepAside(why) | Self::Bad(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for Refusal {}
