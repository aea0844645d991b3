//! The table against the real lld, and the search in it.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::super::*;
use super::llvms;

#[test]
fn the_table_is_sorted_and_says_each_name_once() {
    assert!(ROWS.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn every_option_that_lld_helps_with_is_in_the_table() {
    for (version, bin) in llvms() {
        let help = Command::new(bin.join("ld.lld")).arg("--help").output().unwrap().stdout;
        let help = String::from_utf8(help).unwrap();
        let options: Vec<_> = help.lines().filter_map(|line| line.strip_prefix("  -")).collect();
        assert!(options.len() > 250, "lld {version} has another kind of --help");
        for option in options {
            let word = option.split_whitespace().next().unwrap();
            let spaced = option[word.len()..].starts_with(" <");
            assert!(known(&format!("-{word}"), spaced), "lld {version}: -{option}");
        }
    }
}

/// `--help` hides some. Every string in lld itself that could be an option's name is tried: lld
/// takes none that the table does not know.
#[test]
fn every_option_that_lld_has_is_in_the_table() {
    std::thread::scope(|scope| {
        for (version, bin) in llvms() {
            scope.spawn(move || {
                let lld = std::fs::canonicalize(bin.join("ld.lld")).unwrap();
                let program = std::fs::read(&lld).unwrap();
                let words: Vec<_> = words_in(&program)
                    .into_iter()
                    // The parser's own: its value makes the option.
                    .filter(|word| word.trim_start_matches('-') != "plugin-opt")
                    .collect();
                let (known, strange): (Vec<_>, Vec<_>) =
                    words.into_iter().partition(|word| find(word.as_bytes()).is_some());
                assert!(known.len() > 300, "lld {version} hides its options: {}", known.len());
                for words in strange.chunks(ERRORS_MAX) {
                    let refused = refused(&lld, words);
                    let taken = words.iter().find(|word| !refused.contains(*word));
                    assert_eq!(taken, None, "lld {version} has it, the table has not");
                }
                // Where the releases differ, the table has the newest's form.
                for words in known.chunks(ERRORS_MAX / 2).filter(|_| version == 22) {
                    for (word, separate) in words.iter().zip(separate(&lld, words)) {
                        let (row, at) = find(word.as_bytes()).unwrap();
                        let agreed = separate == (at.is_none() && row.form.takes_value());
                        assert!(agreed, "lld takes {word} in another form than {row:?}");
                    }
                }
            });
        }
    });
}

/// lld stops after that many.
const ERRORS_MAX: usize = 19;

/// The strings in a program that could be options, as they are written. Since LLVM 17 they stand
/// there with their dashes.
fn words_in(program: &[u8]) -> BTreeSet<String> {
    let strings: Vec<&str> = program
        .split(|&byte| byte == 0)
        .filter(|bytes| (1..60).contains(&bytes.len()))
        .filter_map(|bytes| std::str::from_utf8(bytes).ok())
        .filter(|text| {
            let name = text.trim_start_matches('-');
            name.starts_with(|first: char| first.is_ascii_alphabetic() || "()".contains(first))
                && name.chars().skip(1).all(|c| c.is_ascii_alphanumeric() || "-_=".contains(c))
        })
        .collect();
    if strings.contains(&"--no-gc-sections") {
        return strings.into_iter().filter(|s| s.starts_with('-')).map(str::to_owned).collect();
    }
    let names = strings.into_iter().map(|text| text.trim_start_matches('-'));
    // One string may serve for two: the end of `no-relax` is `relax`.
    names
        .flat_map(|name| [name, name.strip_prefix("no-").unwrap_or(name)])
        .map(|name| format!("--{name}"))
        .collect()
}

/// The words that lld says are no options.
fn refused(lld: &Path, words: &[String]) -> BTreeSet<String> {
    let output = Command::new(lld).arg0("ld.lld").args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.split("unknown argument '")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('\'')?.0.to_owned()))
        .collect()
}

/// For each word whether it takes the next one for its value.
fn separate(lld: &Path, words: &[String]) -> Vec<bool> {
    let next = |at: usize| format!("---next-{at}");
    let all: Vec<String> =
        words.iter().enumerate().flat_map(|(at, word)| [word.clone(), next(at)]).collect();
    let refused = refused(lld, &all);
    (0..words.len()).map(|at| !refused.contains(&next(at))).collect()
}

/// Whether the table has an option that `--help` prints as `word`: `--Map=<value>`, `-z`,
/// `--icf=all`, `--export-dynamic-symbol=glob`; `spaced` where a value follows after a space.
fn known(word: &str, spaced: bool) -> bool {
    let dashes = if word.starts_with("--") { 2 } else { 1 };
    let name = &word[dashes..];
    let row = |name: &str| ROWS.iter().find(|row| row.name == name);
    let allowed = |row: &&Row| match row.dashes {
        Dashes::One => dashes == 1,
        Dashes::Two | Dashes::Either => dashes == 2,
    };
    let value = name.find(['<', '[']).or_else(|| name.find('=').map(|at| at + 1));
    let found = match (row(name), value) {
        (Some(row), None) => Some(row)
            .filter(|row| if spaced { row.form.takes_value() } else { row.form == Form::Flag }),
        (Some(row), Some(_)) => Some(row).filter(|row| row.form == Form::Flag),
        (None, Some(at)) => row(&name[..at])
            .filter(|row| row.form == Form::Joined)
            .or_else(|| row(name[..at].strip_suffix('=')?).filter(|row| row.form == Form::Eq)),
        (None, None) => None,
    };
    found.is_some_and(|row| allowed(&row))
}

#[test]
fn the_longest_name_wins_with_the_dashes_it_has() {
    fn name(word: &str) -> Option<(&str, Option<&str>)> {
        find(word.as_bytes()).map(|(row, at)| (row.name, at.map(|at| &word[at..])))
    }
    assert_eq!(name("-omagic"), Some(("o", Some("magic"))));
    assert_eq!(name("--omagic"), Some(("omagic", None)));
    assert_eq!(name("-output=x"), Some(("o", Some("utput=x"))));
    assert_eq!(name("--output=x"), Some(("output", Some("x"))));
    assert_eq!(name("-Ttext=0"), Some(("Ttext", Some("0"))));
    assert_eq!(name("-Text"), Some(("T", Some("ext"))));
    assert_eq!(name("-mllvm"), Some(("mllvm", None)));
    assert_eq!(name("-mllvmx"), Some(("m", Some("llvmx"))));
    assert_eq!(name("-mllvm=-x"), Some(("mllvm", Some("-x"))));
    assert_eq!(name("-entry"), Some(("entry", None)));
    assert_eq!(name("-entries"), Some(("e", Some("ntries"))));
    assert_eq!(
        name("-plugin-opt=thinlto-index-only"),
        Some(("plugin-opt=thinlto-index-only", None))
    );
    assert_eq!(name("-plugin-opt=thinlto-x"), Some(("plugin-opt=thinlto", Some("-x"))));
    assert_eq!(name("-plugin-opt=-x=1"), Some(("plugin-opt=-", Some("x=1"))));
    assert_eq!(name("-plugin-opt=-fresolution=x"), Some(("plugin-opt=-fresolution=", Some("x"))));
    assert_eq!(name("-thinlto-jobs=1"), None);
    assert_eq!(name("--lto-O2"), Some(("lto-O", Some("2"))));
    assert_eq!(name("--shared=no"), None);
    assert_eq!(name("---shared"), None);
    assert_eq!(name("--"), None);
    assert_eq!(name("-x1"), None);
    assert_eq!(name("-("), Some(("(", None)));
}
