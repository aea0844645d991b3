//! Finds an option in the table as LLVM's `OptTable` does: the longest name wins that accepts the
//! word.

use super::row::{Dashes, Form, Row};
use super::table::ROWS;

/// The row that `word` is an option of, and where the joined value begins, if it has one.
///
/// The word must not be an input (see [`is_input`]). `None` is lld's "unknown argument".
pub fn find(word: &[u8]) -> Option<(&'static Row, Option<usize>)> {
    let (dashes, name) = match word {
        [b'-', b'-', name @ ..] => (2, name),
        [b'-', name @ ..] => (1, name),
        _ => return None,
    };
    // Every row whose name begins `name` also begins all rows sorted between the two, so that the
    // nearest row from below tells how much of `name` is worth a further look.
    let mut key = name;
    while !key.is_empty() {
        let below = ROWS.partition_point(|row| row.name.as_bytes() <= key).checked_sub(1)?;
        let row = &ROWS[below];
        let common = common_prefix(row.name.as_bytes(), key);
        if common < row.name.len() {
            key = &key[..common];
        } else if let Some(value) = accepts(row, dashes, name) {
            return Some((row, value.map(|at| at + dashes)));
        } else {
            key = &key[..common - 1];
        }
    }
    None
}

/// Whether lld takes `word` for an input file. A lone dash is one.
pub(super) fn is_input(word: &[u8]) -> bool {
    word == b"-" || word.first() != Some(&b'-')
}

/// Whether `row`, whose name begins `name`, takes it; and where a joined value begins in `name`.
#[expect(clippy::option_option, reason = "accepted or not, and then with a value or without")]
fn accepts(row: &Row, dashes: usize, name: &[u8]) -> Option<Option<usize>> {
    let allowed = match row.dashes {
        Dashes::One => dashes == 1,
        Dashes::Two => dashes == 2,
        Dashes::Either => true,
    };
    if !allowed {
        return None;
    }
    let length = row.name.len();
    let whole = name.len() == length;
    match row.form {
        Form::Joined => Some(Some(length)),
        Form::JoinedOrSeparate if !whole => Some(Some(length)),
        Form::Eq if !whole => (name[length] == b'=').then_some(Some(length + 1)),
        _ => whole.then_some(None),
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}
