//! Parse, print, parse; and bytes of any kind.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

use super::super::*;
use super::print;

fn option() -> impl Strategy<Value = Vec<OsString>> {
    let value = proptest::collection::vec(1_u8..=255, 0..8);
    (0..ROWS.len(), any::<bool>(), any::<bool>(), value).prop_map(|(row, long, joined, value)| {
        let row = &ROWS[row];
        let dashes = match row.dashes {
            Dashes::One => "-",
            Dashes::Two => "--",
            Dashes::Either => {
                if long {
                    "--"
                } else {
                    "-"
                }
            }
        };
        let value = OsString::from_vec(value);
        let mut word = OsString::from(format!("{dashes}{}", row.name));
        match row.form {
            Form::Flag => vec![word],
            Form::Joined => {
                word.push(value);
                vec![word]
            }
            Form::Eq if joined => {
                word.push("=");
                word.push(value);
                vec![word]
            }
            Form::JoinedOrSeparate if joined => {
                word.push(value);
                word.push(".");
                vec![word]
            }
            Form::Eq | Form::Separate | Form::JoinedOrSeparate => vec![word, value],
        }
    })
}

fn arbitrary_word() -> impl Strategy<Value = OsString> {
    prop_oneof![
        "-{0,3}[a-zA-Z=-]{0,12}".prop_map(OsString::from),
        proptest::collection::vec(any::<u8>(), 0..12).prop_map(OsString::from_vec),
        (0..ROWS.len(), "-{1,2}", "[=a-z0-9]{0,3}").prop_map(|(row, dashes, tail)| OsString::from(
            format!("{dashes}{}{tail}", ROWS[row].name)
        )),
    ]
}

proptest! {
    #[test]
    fn parse_and_print_are_inverse(options in proptest::collection::vec(option(), 0..6)) {
        let mut words: Vec<OsString> = vec!["x.o".into()];
        words.extend(options.into_iter().flatten());
        if let Ok(link) = parse(words.clone()) {
            prop_assert_eq!(&print(link.elements()), &words);
            prop_assert_eq!(link.words(), &words);
            prop_assert_eq!(parse(print(link.elements())).unwrap(), link);
        }
    }

    #[test]
    fn one_option_is_found_under_its_own_name(words in option()) {
        let word = words[0].as_encoded_bytes();
        let (row, at) = find(word).unwrap();
        let name = word.iter().position(|&byte| byte != b'-').unwrap();
        prop_assert!(word[name..].starts_with(row.name.as_bytes()));
        prop_assert_eq!(at.is_none() && row.form.takes_value(), words.len() == 2);
    }

    #[test]
    fn no_word_makes_the_parser_panic(words in proptest::collection::vec(arbitrary_word(), 0..20)) {
        if let Ok(link) = parse(words.clone()) {
            prop_assert_eq!(print(link.elements()), words);
        }
    }

    #[test]
    fn the_search_finds_what_a_walk_through_the_table_finds(word in arbitrary_word()) {
        let word = word.as_encoded_bytes();
        prop_assert_eq!(find(word), walk(word));
    }
}

/// [`find`], the slow way.
fn walk(word: &[u8]) -> Option<(&'static Row, Option<usize>)> {
    let dashes = match word {
        [b'-', b'-', ..] => 2,
        [b'-', ..] => 1,
        _ => return None,
    };
    let name = &word[dashes..];
    ROWS.iter()
        .filter(|row| match row.dashes {
            Dashes::One => dashes == 1,
            Dashes::Two => dashes == 2,
            Dashes::Either => true,
        })
        .filter_map(|row| {
            let rest = name.strip_prefix(row.name.as_bytes())?;
            let length = dashes + row.name.len();
            match (row.form, rest) {
                (Form::Joined, _) => Some((row, Some(length))),
                (_, []) => Some((row, None)),
                (Form::Eq, [b'=', ..]) => Some((row, Some(length + 1))),
                (Form::JoinedOrSeparate, _) => Some((row, Some(length))),
                _ => None,
            }
        })
        .max_by_key(|(row, _)| row.name.len())
}
