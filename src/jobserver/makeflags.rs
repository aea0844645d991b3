//! What `MAKEFLAGS` says about a jobserver: text to meaning, no effects.
//!
//! GNU make's manual, "Sharing Job Slots with GNU make" and its source: the words before a lone
//! `--` are options, the first may be a cluster of letters without its dash, blanks and
//! backslashes in them are quoted by a backslash, and the last `--jobserver-auth=` counts.
//! `--jobserver-fds=` is its name before make 4.2.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// One usable `--jobserver-auth=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Auth {
    /// `fifo:PATH`: anybody who can open it may take part.
    Fifo(PathBuf),
    /// `R,W`: descriptors that make passes on, to recipes marked `+` alone.
    Pipe {
        /// Where tokens are read.
        read: RawFd,
        /// Where they go back.
        write: RawFd,
    },
}

/// The job options of one MAKEFLAGS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct JobFlags {
    /// The jobservers named, those switched off by negative numbers left out; the last counts.
    pub(super) auths: Vec<Auth>,
    /// A jobserver was named, though perhaps only to switch it off or in words unknown to us.
    pub(super) mentioned: bool,
    /// The number of the last `-jN`; none for a bare `-j`.
    pub(super) jobs: Option<usize>,
}

impl JobFlags {
    /// Reads a `MAKEFLAGS` or `CARGO_MAKEFLAGS`.
    pub(super) fn parse(text: &OsStr) -> JobFlags {
        let mut flags = JobFlags::default();
        for word in words(text.as_bytes()) {
            if word == b"--" {
                break;
            }
            let auth = word
                .strip_prefix(b"--jobserver-auth=")
                .or_else(|| word.strip_prefix(b"--jobserver-fds="));
            if let Some(auth) = auth {
                flags.mentioned = true;
                flags.auths.extend(parse_auth(auth));
            } else if let Some(jobs) =
                word.strip_prefix(b"--jobs=").or_else(|| word.strip_prefix(b"-j"))
            {
                flags.jobs = number(jobs);
            }
        }
        flags
    }
}

/// `makeflags` with the options `jobserver` in the place of all that it has on jobs.
pub(super) fn with_jobserver(makeflags: &OsStr, jobserver: &OsStr) -> OsString {
    replace(makeflags, &["-j", "--jobs", "--jobserver-auth=", "--jobserver-fds="], jobserver)
}

/// As [`with_jobserver`], but the number of jobs stays what it is.
pub fn with_auth(makeflags: &OsStr, auth: &OsStr) -> OsString {
    replace(makeflags, &["--jobserver-auth=", "--jobserver-fds="], auth)
}

fn replace(makeflags: &OsStr, options: &[&str], by: &OsStr) -> OsString {
    let words = raw_words(makeflags.as_bytes());
    let end = words.iter().take_while(|word| **word != b"--").count();
    let replaced = |word: &[u8]| options.iter().any(|name| word.starts_with(name.as_bytes()));
    let mut text = Vec::new();
    // Make reads a first word without a dash as letters: an option must not come to stand there.
    let is_letters = |word: &[u8]| !word.starts_with(b"-") && !word.contains(&b'=');
    if !words.first().is_some_and(|word| is_letters(word)) {
        text.push(b' ');
    }
    for word in words[..end].iter().filter(|word| !replaced(word)) {
        text.extend_from_slice(word);
        text.push(b' ');
    }
    text.extend_from_slice(by.as_bytes().trim_ascii());
    for word in &words[end..] {
        text.push(b' ');
        text.extend_from_slice(word);
    }
    OsString::from_vec(text)
}

/// The number of the last `-jN` of `makeflags`, where no jobserver says more.
pub fn jobs(makeflags: &OsStr) -> Option<NonZeroUsize> {
    let flags = JobFlags::parse(makeflags);
    flags.jobs.filter(|_| !flags.mentioned).and_then(NonZeroUsize::new)
}

/// The variables of a make's command line that `makeflags` carries: `NAME=value`.
pub fn variables(makeflags: &OsStr) -> Vec<OsString> {
    let words = raw_words(makeflags.as_bytes());
    let options = words.iter().take_while(|word| **word != b"--").count();
    words[options..].iter().skip(1).map(|word| OsString::from_vec(unquoted(word))).collect()
}

/// `None` for what is switched off or not understood.
fn parse_auth(text: &[u8]) -> Option<Auth> {
    if let Some(path) = text.strip_prefix(b"fifo:") {
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        return (!path.as_os_str().is_empty()).then_some(Auth::Fifo(path));
    }
    let comma = text.iter().position(|&byte| byte == b',')?;
    let (read, write) = (number(&text[..comma])?, number(&text[comma + 1..])?);
    Some(Auth::Pipe { read, write })
}

/// A decimal number and nothing else; negative ones are none.
fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all_digits)?.parse().ok()
}

/// The words of make's quoting.
fn words(text: &[u8]) -> Vec<Vec<u8>> {
    raw_words(text).into_iter().map(unquoted).collect()
}

/// As they stand: blanks separate, but for those behind a backslash.
fn raw_words(text: &[u8]) -> Vec<&[u8]> {
    let mut words = Vec::new();
    let mut start = None;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b' ' | b'\t' | b'\n' => words.extend(start.take().map(|start| &text[start..at])),
            byte => {
                start.get_or_insert(at);
                at += usize::from(byte == b'\\');
            }
        }
        at += 1;
    }
    words.extend(start.map(|start| &text[start..]));
    words
}

/// A backslash takes the next byte as it is.
fn unquoted(word: &[u8]) -> Vec<u8> {
    let mut bytes = word.iter().copied();
    let mut plain = Vec::with_capacity(word.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => plain.extend(bytes.next()),
            _ => plain.push(byte),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write;

    fn parse(text: &str) -> JobFlags {
        JobFlags::parse(OsStr::new(text))
    }

    fn pipe(read: RawFd, write: RawFd) -> Auth {
        Auth::Pipe { read, write }
    }

    /// As the makes themselves wrote them (4.3 and 4.4.1).
    #[test]
    fn what_real_makes_say() {
        assert_eq!(parse(""), JobFlags::default());
        assert_eq!(parse(" -j1").jobs, Some(1));
        assert_eq!(parse(" -j"), JobFlags::default());
        let flags = parse("ks -j3 --jobserver-auth=3,4 -- V=1");
        assert_eq!(flags, JobFlags { auths: vec![pipe(3, 4)], mentioned: true, jobs: Some(3) });
        let flags = parse(" -j3 --jobserver-auth=fifo:/tmp/GMfifo11876");
        assert_eq!(flags.auths, [Auth::Fifo("/tmp/GMfifo11876".into())]);
        assert_eq!(parse("w -j3 --jobserver-auth=100,101").auths, [pipe(100, 101)]);
        let flags = parse(r" -j2 --jobserver-auth=fifo:/tmp/a\ b$c/GMfifo11897");
        assert_eq!(flags.auths, [Auth::Fifo("/tmp/a b$c/GMfifo11897".into())]);
    }

    #[test]
    fn cargo_and_old_makes() {
        assert_eq!(
            parse("-j --jobserver-fds=8,9 --jobserver-auth=8,9").auths.last(),
            Some(&pipe(8, 9))
        );
        assert_eq!(parse("--jobserver-fds=5,6 -j").auths, [pipe(5, 6)]);
    }

    #[test]
    fn negative_is_off_and_the_one_before_counts() {
        let flags = parse(" -j3 --jobserver-auth=3,4 --jobserver-auth=-2,-2");
        assert_eq!(flags.auths, [pipe(3, 4)]);
        let flags = parse(" -j3 --jobserver-auth=-2,-2");
        assert!(flags.auths.is_empty() && flags.mentioned);
        assert!(parse("--jobserver-auth=3,-1").auths.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_no_jobserver() {
        for odd in ["", "3", "3,", ",4", "+3,4", "3,4,5", "0x3,4", "fifo:", "3, 4", "99999999999,4"]
        {
            let flags = parse(&format!("--jobserver-auth={odd}"));
            assert!(flags.auths.is_empty() && flags.mentioned, "{odd}: {flags:?}");
        }
        assert!(!parse("-- --jobserver-auth=3,4").mentioned);
        assert!(!parse("k -- CFLAGS=x\\ --jobserver-auth=3,4").mentioned);
        assert!(!parse("--jobserver-style=pipe").mentioned);
    }

    #[test]
    fn another_jobserver_and_all_else_stays() {
        let ours = " -j4 --jobserver-auth=fifo:/t/j";
        for (before, after) in [
            ("", " -j4 --jobserver-auth=fifo:/t/j"),
            ("ks", "ks -j4 --jobserver-auth=fifo:/t/j"),
            ("-j8", " -j4 --jobserver-auth=fifo:/t/j"),
            ("k -j8 --jobserver-auth=3,4 -Otarget", "k -Otarget -j4 --jobserver-auth=fifo:/t/j"),
            (
                r"s --jobserver-fds=3,4 -I/a\ b -- A=-j9 B=x\ y",
                r"s -I/a\ b -j4 --jobserver-auth=fifo:/t/j -- A=-j9 B=x\ y",
            ),
            ("-- V=1", " -j4 --jobserver-auth=fifo:/t/j -- V=1"),
        ] {
            assert_eq!(with_jobserver(OsStr::new(before), OsStr::new(ours)), after, "{before}");
        }
    }

    #[test]
    fn variables_of_the_command_line() {
        let text = OsStr::new(r"ks -j4 LLVM=9 -- LLVM=/l/bin/ CC=thinshim\ clang");
        assert_eq!(variables(text), ["LLVM=/l/bin/", "CC=thinshim clang"]);
        assert!(variables(OsStr::new("ks -j4")).is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            JobFlags::parse(OsStr::from_bytes(&bytes));
            variables(OsStr::from_bytes(&bytes));
            with_jobserver(OsStr::from_bytes(&bytes), OsStr::new("-j2"));
        }

        #[test]
        fn the_last_jobserver_is_the_new_one(letters in "[a-z]{0,5}", rest in "( -[a-z]{1,4}| --jobserver-auth=9,8){0,4}") {
            let before = format!("{letters}{rest}");
            let after = with_jobserver(OsStr::new(&before), OsStr::new("-j4 --jobserver-auth=5,6"));
            let flags = JobFlags::parse(&after);
            prop_assert_eq!(flags.auths, [pipe(5, 6)]);
        }

        #[test]
        fn quoting_is_undone(parts in prop::collection::vec("[^\0]{1,12}", 0..6)) {
            let quoted = parts.iter().map(|part| {
                part.chars().flat_map(|c| {
                    let quote = matches!(c, ' ' | '\t' | '\n' | '\\').then_some('\\');
                    quote.into_iter().chain([c])
                }).collect::<String>()
            }).collect::<Vec<_>>().join(" ");
            let plain: Vec<_> = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
            prop_assert_eq!(words(quoted.as_bytes()), plain);
        }

        #[test]
        fn the_order_is_kept(
            fds in prop::collection::vec((-3..1000i32, -3..1000i32), 0..6),
            letters in "[a-z]{0,5}",
            after in ".*",
        ) {
            let mut auths = String::new();
            for (r, w) in &fds {
                write!(auths, " --jobserver-auth={r},{w}").expect("a string");
            }
            let flags = parse(&format!("{letters} -j7{auths} -- {after}"));
            let usable: Vec<_> =
                fds.iter().filter(|(r, w)| *r >= 0 && *w >= 0).map(|&(r, w)| pipe(r, w)).collect();
            prop_assert_eq!(flags.auths, usable);
            prop_assert_eq!(flags.mentioned, !fds.is_empty());
            prop_assert_eq!(flags.jobs, Some(7));
        }
    }
}
