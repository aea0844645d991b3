//! What `thinshim cache` does and says.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::bound::{self, Item};
use super::files;
use super::history::{Fate, History, Line};
use super::link_record::{Fate::Hit, Record};
use super::store::{self, Shelf, Store};

/// How much there is, and how old.
pub fn stats(store: &Store, directory: &Path, limit: u64) -> String {
    let items = bound::items(store);
    let [objects, links] = Shelf::ALL.map(|shelf| {
        let shelf = store.shelf(shelf);
        items.iter().filter(|item| item.path.starts_with(&shelf)).collect::<Vec<&Item>>()
    });
    let bytes: u64 = items.iter().map(|item| item.size).sum();
    let outputs = items.iter().filter(|item| item.path.extension().is_some_and(|e| e == "history"));
    let age = |used: Option<SystemTime>| {
        used.and_then(|used| used.elapsed().ok()).map_or("-".into(), |age| ago(age.as_secs()))
    };
    format!(
        "directory    {}\nobjects      {}\noutputs      {}\nlinks        {}\nsize         {} of {}\n\
         last used    {} ago\nlongest ago  {} ago\n",
        directory.display(),
        objects.len(),
        links.len(),
        outputs.count(),
        human(bytes),
        human(limit),
        age(objects.iter().chain(&links).map(|item| item.used).max()),
        age(objects.iter().chain(&links).map(|item| item.used).min()),
    )
}

/// Removes every entry; says how much that was. Links that run go on, and store anew.
///
/// # Errors
/// The operating system's.
pub fn clean(store: &Store) -> io::Result<String> {
    let items = bound::items(store);
    let bytes: u64 = items.iter().map(|item| item.size).sum();
    for item in &items {
        match fs::remove_file(&item.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    store.sweep();
    bound::recount(store)?;
    Ok(format!("removed {} files, {}\n", items.len(), human(bytes)))
}

/// Looks at every entry, and removes those that are not what was stored; says how many there
/// were of each.
pub fn verify(store: &Store) -> (usize, usize) {
    let (mut whole, mut damaged) = (0, 0);
    for item in bound::items(store) {
        if !Shelf::ALL.iter().any(|&shelf| item.path.starts_with(store.shelf(shelf))) {
            continue;
        }
        match store::is_whole(&item.path) {
            Ok(true) => whole += 1,
            // Evicted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(false) | Err(_) => {
                damaged += 1;
                let _ = fs::remove_file(&item.path);
            }
        }
    }
    (whole, damaged)
}

/// Why the back ends of the last link of `object`, or the one of `object` itself, ran; `None`
/// where no link of it is known.
pub fn why(store: &Store, object: &Path) -> Option<String> {
    let own = files::output_file(store.root(), object, "history");
    let history = fs::read(own).ok().and_then(|bytes| History::from_bytes(&bytes));
    let whole = Record::load(store.root(), object);
    let told = whole.as_ref().map(|record| format!("{}: {}\n", object.display(), record.tell()));
    match (told, history) {
        (None, None) => {}
        // Its back ends are those of an earlier link.
        (Some(told), Some(_)) if whole.is_some_and(|record| record.fate == Hit) => {
            return Some(told);
        }
        (told, history) => {
            let back_ends = history.map(|history| of_link(&history));
            return Some(told.into_iter().chain(back_ends).collect());
        }
    }
    let object = std::path::absolute(object).ok()?;
    let mut found = Vec::new();
    for entry in fs::read_dir(store.root().join("outputs")).ok()?.filter_map(Result::ok) {
        if entry.path().extension().is_some_and(|end| end == "history")
            && let Some(history) =
                fs::read(entry.path()).ok().and_then(|bytes| History::from_bytes(&bytes))
            && history.has_module(&object)
        {
            found.push(history);
        }
    }
    found.sort_by(|one, other| one.output.cmp(&other.output));
    let mut text = String::new();
    for history in &found {
        let _ = writeln!(text, "in the link of {}:", history.output.display());
        let lines = history.lines.iter();
        for line in lines.filter(|line| history.directory.join(&line.module) == object) {
            of_module(line, &mut text);
        }
    }
    (!text.is_empty()).then_some(text)
}

fn of_link(history: &History) -> String {
    let count = |fate: Fate| history.lines.iter().filter(|line| line.fate == fate).count();
    let mut text = format!(
        "{}: {} modules, {} from cache, {} compiled\n",
        history.output.display(),
        history.lines.len(),
        count(Fate::Hit),
        count(Fate::Compiled) + count(Fate::NotKeyed),
    );
    for line in history.lines.iter().filter(|line| line.fate != Fate::Hit) {
        of_module(line, &mut text);
    }
    text
}

fn of_module(line: &Line, text: &mut String) {
    let module = Path::new(&line.module).display();
    let _ = match (line.fate, line.changed.as_deref()) {
        (Fate::NotKeyed, reason) => {
            writeln!(text, "  {module}: compiled, never cached: {}", reason.unwrap_or_default())
        }
        (Fate::Hit, None) => writeln!(text, "  {module}: from cache"),
        (Fate::Hit, Some("")) => writeln!(text, "  {module}: from cache; nothing changed"),
        (Fate::Hit, Some(parts)) => {
            writeln!(text, "  {module}: from cache, known from before; changed: {parts}")
        }
        (Fate::Compiled, None) => {
            writeln!(text, "  {module}: compiled; no earlier link of this output had it")
        }
        (Fate::Compiled, Some("")) => {
            writeln!(text, "  {module}: compiled; nothing changed, but there was no entry for it")
        }
        (Fate::Compiled, Some(parts)) => writeln!(text, "  {module}: compiled; changed: {parts}"),
    };
}

fn human(bytes: u64) -> String {
    let units = [(30, "G"), (20, "M"), (10, "K")];
    match units.iter().find(|(shift, _)| bytes >= 1 << shift) {
        Some((shift, unit)) => format!("{:.1}{unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes}"),
    }
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
