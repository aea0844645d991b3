//! What `MAKEFLAGS` says about a jobserver: text to meaning, no effects.
//!
//! GNU make's manual, "Sharing Job Slots with GNU make" and its source: the words before a lone
//! `--` are options, the first may be a cluster of letters without its dash, blanks and
//! backslashes in them are quoted by a backslash, and the last `--jobserver-auth=` counts.
//! `--jobserver-fds=` is its name before make 4.2.

use std::ffi::{OsStr, OsString};
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

/// The words of make's quoting: blanks separate, a backslash takes the next byte as it is.
fn words(text: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' => words.extend(word.take()),
            b'\\' => word.get_or_insert_default().extend(bytes.next()),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
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

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            JobFlags::parse(OsStr::from_bytes(&bytes));
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
