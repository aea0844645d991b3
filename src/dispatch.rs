//! From argv to a tool and its arguments, or to thinshim's own subcommands.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::tool::{self, Builder};

/// Names the real linker when clang calls thinshim as its linker (`--ld-path=`), where argv[0]
/// cannot tell.
pub const LINKER_VARIABLE: &str = "THINSHIM_LD";

/// What a call of thinshim means.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// A clang command line.
    Clang(Tool),
    /// An lld command line.
    Lld(Tool),
    /// A tool that thinshim knows nothing of.
    Other(Tool),
    /// A make or a ninja, called by a link of its name: `thinshim run` makes those.
    Builder(Builder, Tool),
    /// thinshim's own arguments (without argv[0]).
    Own(Vec<OsString>),
}

/// A tool and its arguments.
#[derive(Debug, PartialEq, Eq)]
pub struct Tool {
    /// Launchers and the tool, as typed: the last word is the tool.
    pub command: Vec<OsString>,
    /// The tool's arguments, as typed.
    pub args: Vec<OsString>,
}

impl Tool {
    /// The tool's name as typed.
    pub fn name(&self) -> &OsStr {
        self.command.last().map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// The program to execute: the launcher where there is one, else the tool.
    pub fn program(&self) -> &OsStr {
        self.command.first().map_or(OsStr::new(""), OsString::as_os_str)
    }
}

/// thinshim's own subcommands; everything else after `thinshim` is a tool.
const SUBCOMMANDS: [&str; 8] =
    ["back-end", "cache", "distribute", "explain", "help", "native-link", "run", "thin-link"];

/// Reads a call. `linker` is the value of [`LINKER_VARIABLE`].
pub fn read(argv: Vec<OsString>, linker: Option<OsString>) -> Call {
    let mut words = argv.into_iter();
    let own_name = words.next().unwrap_or_default();
    let rest: Vec<OsString> = words.collect();
    // Under a tool's name: a masquerade link.
    if tool::kind(&own_name).is_some() {
        return of_tool(vec![tool::base_name(&own_name).to_owned()], rest);
    }
    if let Some(builder) = tool::builder(&own_name) {
        return Call::Builder(builder, Tool { command: vec![own_name], args: rest });
    }
    let first_is =
        |byte: u8| rest.first().is_some_and(|word| word.as_bytes().first() == Some(&byte));
    if let Some(linker) = linker.filter(|_| first_is(b'-') || first_is(b'@')) {
        return Call::Lld(Tool { command: vec![linker], args: rest });
    }
    match rest.first() {
        None => Call::Own(rest),
        Some(word) if word.as_bytes().starts_with(b"-") => Call::Own(rest),
        Some(word) if SUBCOMMANDS.iter().any(|name| word == name) => Call::Own(rest),
        Some(_) => {
            let mut rest = rest.into_iter();
            let command: Vec<OsString> = rest.by_ref().take(1).collect();
            of_tool(command, rest.collect())
        }
    }
}

/// Sorts a tool's call; a launcher's words move to the command until the compiler's name.
pub fn of_tool(mut command: Vec<OsString>, args: Vec<OsString>) -> Call {
    let mut args = args.into_iter().peekable();
    while command.last().and_then(|name| tool::kind(name)) == Some(tool::Kind::Launcher) {
        match args.next_if(|word| tool::kind(word).is_some()) {
            Some(word) => command.push(word),
            None => break,
        }
    }
    let kind = command.last().and_then(|name| tool::kind(name));
    let tool = Tool { command, args: args.collect() };
    match kind {
        Some(tool::Kind::Clang) => Call::Clang(tool),
        Some(tool::Kind::Lld) => Call::Lld(tool),
        _ => Call::Other(tool),
    }
}

/// Sorts a linker's call as a makefile spells it, be it `thinshim ld.lld`.
pub fn of_link(words: Vec<OsString>) -> Call {
    let own = words.first().is_some_and(|word| tool::base_name(word) == "thinshim");
    let mut words = words.into_iter().skip(usize::from(own));
    let command: Vec<OsString> = words.by_ref().take(1).collect();
    of_tool(command, words.collect())
}

/// Finds the program to execute for a call.
///
/// # Errors
/// A sentence for the user where it is not to be found.
pub fn program(tool: &Tool) -> Result<PathBuf, crate::Failure> {
    tool::find(tool.program()).ok_or_else(|| {
        crate::Failure::new(format!(
            "cannot find `{}`: it is neither a thinshim subcommand nor a program on PATH; \
             see `thinshim --help`",
            tool.program().display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn tool(command: &str, args: &str) -> Tool {
        Tool { command: words(command), args: words(args) }
    }

    #[test]
    fn calls_are_told_apart() {
        let cases = [
            ("thinshim clang -c a.c", None, Call::Clang(tool("clang", "-c a.c"))),
            ("/x/clang++-22 -c a.c", None, Call::Clang(tool("clang++-22", "-c a.c"))),
            ("thinshim ccache clang -c a.c", None, Call::Clang(tool("ccache clang", "-c a.c"))),
            ("thinshim ccache -s", None, Call::Other(tool("ccache", "-s"))),
            ("thinshim ld.lld -r a.o", None, Call::Lld(tool("ld.lld", "-r a.o"))),
            ("/x/thinshim -r a.o", Some("/l/ld.lld"), Call::Lld(tool("/l/ld.lld", "-r a.o"))),
            ("thinshim -r a.o", None, Call::Own(words("-r a.o"))),
            ("thinshim explain -- ld.lld", None, Call::Own(words("explain -- ld.lld"))),
            ("thinshim gcc x", None, Call::Other(tool("gcc", "x"))),
            ("thinshim make x", None, Call::Other(tool("make", "x"))),
            ("/x/make x", None, Call::Builder(Builder::Make, tool("/x/make", "x"))),
            ("ninja", None, Call::Builder(Builder::Ninja, tool("ninja", ""))),
            ("thinshim run clang", None, Call::Own(words("run clang"))),
            ("thinshim", None, Call::Own(vec![])),
        ];
        for (line, linker, expected) in cases {
            assert_eq!(read(words(line), linker.map(OsString::from)), expected, "{line}");
        }
    }
}
