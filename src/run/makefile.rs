//! Which makefile a call of make reads first, and whether it speaks of a word.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What make looks for where no `-f` says it (make's manual, "What Name to Give Your Makefile").
const DEFAULT_NAMES: [&str; 3] = ["GNUmakefile", "makefile", "Makefile"];

/// Whether the makefile of a make with these arguments, or one that it includes by its plain path
/// (as the one that a kernel leaves in its `O=` directory does), contains `word`.
pub(super) fn mentions(args: &[OsString], word: &str) -> bool {
    let Read { directory, files } = Read::parse(args);
    let contains = |text: &[u8]| text.windows(word.len()).any(|part| part == word.as_bytes());
    let names = if files.is_empty() {
        let default = DEFAULT_NAMES.map(Path::new).into_iter();
        default.filter(|name| directory.join(name).is_file()).take(1).map(Path::to_owned).collect()
    } else {
        files
    };
    names.iter().any(|name| {
        // A fifo or a terminal is make's own to read.
        let text = read(&directory.join(name));
        let included = || text.split(|&byte| byte == b'\n').filter_map(include);
        contains(&text) || included().any(|path| contains(&read(&directory.join(path))))
    })
}

fn read(path: &Path) -> Vec<u8> {
    if path.is_file() { fs::read(path).unwrap_or_default() } else { Vec::new() }
}

/// The path of an `include` line that names one file and no variable.
fn include(line: &[u8]) -> Option<&Path> {
    let path = line.strip_prefix(b"include ")?.trim_ascii();
    let plain = !path.iter().any(|byte| b"$*? \t".contains(byte));
    plain.then(|| Path::new(OsStr::from_bytes(path)))
}

/// Where make reads what.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    directory: PathBuf,
    files: Vec<PathBuf>,
}

impl Read {
    /// The options that matter, among those of make 4.4 that take a value.
    fn parse(args: &[OsString]) -> Self {
        let mut read = Self::default();
        let mut words = args.iter().map(|word| word.as_bytes());
        while let Some(word) = words.next() {
            if word == b"--" {
                break;
            }
            if let Some(long) = word.strip_prefix(b"--") {
                let mut parts = long.splitn(2, |&byte| byte == b'=');
                let name = parts.next().unwrap_or_default();
                let letter = match name {
                    b"directory" => b'C',
                    b"file" | b"makefile" => b'f',
                    b"include-dir" | b"old-file" | b"assume-old" | b"what-if" | b"assume-new"
                    | b"new-file" | b"eval" => b'o',
                    _ => continue,
                };
                if let Some(value) = parts.next().or_else(|| words.next()) {
                    read.take(letter, value);
                }
            } else if let Some(letters) = word.strip_prefix(b"-") {
                let Some(at) = letters.iter().position(|letter| b"CfIoWEjlO".contains(letter))
                else {
                    continue;
                };
                let rest = &letters[at + 1..];
                // The value of -j, -l and -O is never the next word.
                let optional = b"jlO".contains(&letters[at]);
                let value = if rest.is_empty() && !optional { words.next() } else { Some(rest) };
                if let Some(value) = value {
                    read.take(letters[at], value);
                }
            }
        }
        read
    }

    fn take(&mut self, letter: u8, value: &[u8]) {
        let path = Path::new(OsStr::from_bytes(value));
        match letter {
            // Each is relative to the one before.
            b'C' => self.directory.push(path),
            b'f' => self.files.push(path.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_make() {
        for (line, directory, files) in [
            ("all", "", ""),
            ("-C a -Cb --directory=c --directory d -- -C x", "a/b/c/d", ""),
            ("-f one -j4 --file=two -kf three", "", "one two three"),
            ("-skC a -j -O -l all -fb", "a", "b"),
            ("-I -f -W -C -o -f V=-C --makefile m --eval -f", "", "m"),
            ("-C /x -f", "/x", ""),
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let files = files.split(' ').filter(|name| !name.is_empty()).map(PathBuf::from);
            let expected = Read { directory: directory.into(), files: files.collect() };
            assert_eq!(Read::parse(&args), expected, "{line}");
        }
    }

    #[test]
    fn include_lines() {
        for (line, path) in [
            ("include /src/Makefile", Some("/src/Makefile")),
            ("include  names", Some("names")),
            ("include $(srctree)/Makefile", None),
            ("include a b", None),
            ("# include a", None),
        ] {
            assert_eq!(include(line.as_bytes()), path.map(Path::new), "{line}");
        }
    }
}
