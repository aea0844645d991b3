//! The table against the real lld, and the search in it.

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
