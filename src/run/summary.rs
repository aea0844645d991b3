//! What a run comes to, in a few lines: from the links' reports to text.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use crate::report::BACK_END;

/// What a run knows besides the reports.
#[derive(Debug, Default)]
pub(super) struct Circumstances<'a> {
    /// The command.
    pub command: &'a [OsString],
    /// The jobserver that the links should have taken part in.
    pub jobserver: Option<String>,
    /// Jobs at once, where this run says it.
    pub jobs: Option<usize>,
    /// Tokens that have not come back.
    pub missing: usize,
    /// PATH has a clang.
    pub clang_on_path: bool,
    /// The environment's LLVM.
    pub llvm: Option<OsString>,
    /// Clang was called by way of thinshim.
    pub clang_called: bool,
    /// ld.lld was called by way of thinshim.
    pub lld_called: bool,
    /// There was a ThinLTO compile.
    pub compiled: bool,
    /// A ninja was called that takes no part in the jobserver.
    pub older_ninja: bool,
    /// The command did not end well.
    pub failed: bool,
    /// This run's front ends.
    pub front_ends: FrontEnds,
    /// Why there were no warm compilers, though there should have been.
    pub cold: Option<String>,
}

/// Calls of clang that a warm compiler might serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FrontEnds {
    /// Those that one did.
    pub warm: u64,
    /// Those that ran on their own.
    pub plain: u64,
}

impl FrontEnds {
    /// A line for the reports of the run above.
    pub(super) fn to_report(self) -> String {
        format!(
            "{}\n",
            serde_json::json!({ "front_ends": { "warm": self.warm, "plain": self.plain } })
        )
    }

    fn and(self, other: FrontEnds) -> FrontEnds {
        FrontEnds { warm: self.warm + other.warm, plain: self.plain + other.plain }
    }
}

/// The sums of many reports.
#[derive(Debug, Default)]
struct Sums {
    distributed: usize,
    small: usize,
    fallbacks: BTreeMap<String, usize>,
    /// Links whose output came out of the cache.
    link_hits: usize,
    modules: u64,
    back_ends: u64,
    from_cache: u64,
    thin_link_s: f64,
    back_ends_s: f64,
    native_link_s: f64,
    tokens_max: u64,
    /// Shares of use, each as heavy as its back ends took.
    busy_s: f64,
    /// Front ends of runs within this one.
    front_ends: FrontEnds,
    /// Links that took part in another jobserver than this run's.
    elsewhere: usize,
    /// Links that took part in none.
    nowhere: usize,
    /// Back ends that the build called by itself.
    called: CalledBackEnds,
}

/// Back ends that a build system called by itself, in links that are its own.
#[derive(Debug, Default)]
struct CalledBackEnds {
    all: usize,
    run: u64,
    from_cache: u64,
}

impl Sums {
    fn of(reports: &[u8], jobserver: Option<&str>) -> Sums {
        let mut sums = Sums::default();
        for line in reports.split(|&byte| byte == b'\n') {
            // Half a line is one of a link that was killed as it wrote.
            if let Ok(report) = serde_json::from_slice(line) {
                sums.add(&report, jobserver);
            }
        }
        sums
    }

    fn add(&mut self, report: &Value, jobserver: Option<&str>) {
        if let Some(front_ends) = report.get("front_ends") {
            let count = |name: &str| front_ends[name].as_u64().unwrap_or(0);
            let inner = FrontEnds { warm: count("warm"), plain: count("plain") };
            self.front_ends = self.front_ends.and(inner);
            return;
        }
        let count = |name: &str| report[name].as_u64().unwrap_or(0);
        let seconds = |name: &str| report[name].as_f64().unwrap_or(0.0);
        if report["step"] == BACK_END {
            self.called.all += 1;
            self.called.run += count("backends_run");
            self.called.from_cache += count("cache_hits");
            return;
        }
        if report["link_hit"] == true {
            self.link_hits += 1;
            return;
        }
        if report["small"] == true {
            self.small += 1;
            return;
        }
        match report["jobserver"].as_str() {
            Some(other) if Some(other) != jobserver => self.elsewhere += 1,
            Some(_) => {}
            None => self.nowhere += 1,
        }
        if let Some(reason) = report["fallback"].as_str() {
            *self.fallbacks.entry(reason.to_owned()).or_default() += 1;
            return;
        }
        self.distributed += 1;
        self.modules += count("modules");
        self.back_ends += count("backends_run");
        self.from_cache += count("cache_hits");
        self.thin_link_s += seconds("thin_link_s");
        self.back_ends_s += seconds("backends_s");
        self.native_link_s += seconds("native_link_s");
        self.tokens_max = self.tokens_max.max(count("tokens_max"));
        self.busy_s += seconds("tokens_busy") * seconds("backends_s");
    }

    fn fallen(&self) -> usize {
        self.fallbacks.values().sum()
    }
}

/// The summary, in whole lines.
pub(super) fn tell(reports: &[u8], circumstances: &Circumstances<'_>) -> String {
    let sums = Sums::of(reports, circumstances.jobserver.as_deref());
    let mut lines = Vec::new();
    let fallen = sums.fallen();
    let links = sums.distributed + sums.small + fallen + sums.link_hits;
    if links == 0 && sums.called.all == 0 {
        lines.push(nothing(circumstances));
    } else if links > 0 {
        let mut line = format!(
            "{}: {} distributed, {} small (left to lld), {}",
            counted(links, "ThinLTO link"),
            sums.distributed,
            sums.small,
            counted(fallen, "fallback"),
        );
        if sums.link_hits > 0 {
            let _ = write!(line, ", {} from the cache", sums.link_hits);
        }
        lines.push(line);
    }
    if sums.distributed > 0 {
        let mut line =
            format!("{}, {}", counted(sums.modules, "module"), counted(sums.back_ends, "back end"));
        if sums.from_cache > 0 {
            let _ = write!(line, ", {} from the cache", sums.from_cache);
        }
        let _ = write!(
            line,
            "; thin links {:.1} s, back ends {:.1} s, native links {:.1} s",
            sums.thin_link_s, sums.back_ends_s, sums.native_link_s
        );
        lines.push(line);
        let mut line = match circumstances.jobs {
            Some(jobs) => format!("jobserver of {}", counted(jobs, "job")),
            None => "jobserver of the make above".to_owned(),
        };
        let most = counted(sums.tokens_max, "back end");
        let _ = write!(line, "; at most {most} at once in one link");
        if sums.back_ends_s > 0.0 {
            let share = 100.0 * sums.busy_s / sums.back_ends_s;
            let _ = write!(line, ", tokens in hand busy {share:.0} % of the time");
        }
        lines.push(line);
    }
    if sums.called.all > 0 {
        let CalledBackEnds { all, run, from_cache } = sums.called;
        let all = counted(all, "back end");
        lines.push(format!("{all} called by the build: {run} run, {from_cache} from the cache"));
    }
    let FrontEnds { warm, plain } = circumstances.front_ends.and(sums.front_ends);
    if warm + plain > 0 {
        let all = counted(warm + plain, "front end");
        lines.push(format!("{warm} of {all} in a warm compiler"));
    }
    if let Some(reason) = &circumstances.cold {
        lines.push(format!("no warm compilers: {reason}"));
    }
    for (reason, count) in &sums.fallbacks {
        let times = counted(*count, "time");
        lines.push(format!("fallback to in-process ThinLTO, {times}: {reason}"));
    }
    if sums.elsewhere > 0 {
        lines.push(format!(
            "{} took part in another jobserver: a `make -jN` in the command starts its own; \
             without its -j it would share this one",
            counted(sums.elsewhere, "link")
        ));
    }
    if sums.nowhere > 0 {
        lines.push(format!(
            "{} found no jobserver: something in the command clears MAKEFLAGS, or closes what it \
             names",
            counted(sums.nowhere, "link")
        ));
    }
    if circumstances.older_ninja {
        lines.push(
            "a ninja older than 1.13 was called: it takes no part in the jobserver, and its jobs \
             came on top of the run's"
                .to_owned(),
        );
    }
    if circumstances.missing > 0 {
        lines.push(format!(
            "{} not come back: something that the command has started still runs, or was killed",
            if circumstances.missing == 1 {
                "1 token has".to_owned()
            } else {
                format!("{} tokens have", circumstances.missing)
            }
        ));
    }
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "thinshim: {line}");
        text
    })
}

/// What is told where no link came to its end.
fn nothing(circumstances: &Circumstances<'_>) -> String {
    if circumstances.failed {
        return "no ThinLTO link came to its end: the command failed, or was interrupted"
            .to_owned();
    }
    format!("no ThinLTO link was seen: {}", why_nothing(circumstances))
}

/// The likely reason why no link was seen.
fn why_nothing(circumstances: &Circumstances<'_>) -> String {
    let named = |word: &&OsString| names_by_path(word);
    let by_path = circumstances.command.iter().find(named);
    let llvm = circumstances.llvm.as_deref().filter(|llvm| llvm.as_bytes().ends_with(b"/"));
    if circumstances.compiled {
        return "objects were compiled for ThinLTO, but ld.lld was not called by way of PATH (is \
                LD a path? is the linker another one?)"
            .to_owned();
    }
    if let (false, Some(word)) = (circumstances.clang_called, by_path) {
        return format!("`{}` goes round PATH; give the tool's bare name", word.display());
    }
    if let (false, Some(llvm)) = (circumstances.clang_called, llvm) {
        return format!(
            "LLVM={} in the environment goes round PATH, and no makefile of the kernel's kind was \
             seen to heed it; give it to make as an argument, or put it first on PATH with LLVM=1",
            llvm.display()
        );
    }
    if circumstances.clang_called {
        return "clang was called, but never with -flto=thin (a kernel wants \
                CONFIG_LTO_CLANG_THIN=y)"
            .to_owned();
    }
    if circumstances.lld_called {
        return "ld.lld was called, but not with ThinLTO bitcode".to_owned();
    }
    if !circumstances.clang_on_path {
        return "there is no clang on PATH".to_owned();
    }
    "neither clang nor ld.lld was called by way of PATH (is everything up to date? is the \
     compiler named by a path, or is it another one? a kernel wants LLVM=1)"
        .to_owned()
}

/// `CC=/usr/bin/clang`, `LD=/opt/bin/ld.lld`.
fn names_by_path(word: &OsStr) -> bool {
    let bytes = word.as_bytes();
    let Some(equals) = bytes.iter().position(|&byte| byte == b'=') else { return false };
    let (name, value) = (&bytes[..equals], &bytes[equals + 1..]);
    matches!(name, b"CC" | b"CXX" | b"LD") && value.contains(&b'/')
}

fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISTRIBUTED: &str = r#"{"output":"a","modules":3,"backends_run":3,"cache_hits":0,"thin_link_s":0.5,"backends_s":2.0,"native_link_s":0.25,"tokens_max":2,"tokens_busy":0.9,"jobserver":"1:2","small":false,"fallback":null}"#;
    const SMALL: &str = r#"{"small":true,"jobserver":null,"fallback":null}"#;
    const FALLBACK: &str = r#"{"small":false,"jobserver":"1:2","fallback":"because"}"#;

    fn ours() -> Circumstances<'static> {
        Circumstances {
            jobserver: Some("1:2".to_owned()),
            jobs: Some(4),
            clang_on_path: true,
            ..Circumstances::default()
        }
    }

    #[test]
    fn all_kinds_of_links() {
        let reports = [DISTRIBUTED, SMALL, FALLBACK, DISTRIBUTED, SMALL, r#"{"half"#].join("\n");
        assert_eq!(
            tell(reports.as_bytes(), &ours()),
            "thinshim: 5 ThinLTO links: 2 distributed, 2 small (left to lld), 1 fallback\n\
             thinshim: 6 modules, 6 back ends; thin links 1.0 s, back ends 4.0 s, native links \
             0.5 s\n\
             thinshim: jobserver of 4 jobs; at most 2 back ends at once in one link, tokens in \
             hand busy 90 % of the time\n\
             thinshim: fallback to in-process ThinLTO, 1 time: because\n"
        );
    }

    #[test]
    fn links_from_the_cache_are_told_of() {
        let hit = SMALL.replace('{', r#"{"link_hit":true,"#);
        assert_eq!(
            tell([&hit[..], SMALL].join("\n").as_bytes(), &ours()),
            "thinshim: 2 ThinLTO links: 0 distributed, 1 small (left to lld), 0 fallbacks, 1 from \
             the cache\n"
        );
    }

    #[test]
    fn back_ends_of_the_build_are_no_links() {
        let back_end = r#"{"step":"back-end","modules":1,"backends_run":1,"jobserver":null}"#;
        let unchanged = back_end.replace("_run\":1", "_run\":0");
        let text = tell([back_end, &unchanged].join("\n").as_bytes(), &ours());
        assert_eq!(text, "thinshim: 2 back ends called by the build: 1 run, 0 from the cache\n");
        let text = tell([DISTRIBUTED, back_end].join("\n").as_bytes(), &ours());
        assert!(text.starts_with("thinshim: 1 ThinLTO link: 1 distributed, "), "{text}");
        assert!(
            text.ends_with("thinshim: 1 back end called by the build: 1 run, 0 from the cache\n")
        );
        assert!(!text.contains("no jobserver"), "{text}");
    }

    #[test]
    fn front_ends_are_told_of() {
        let inner = FrontEnds { warm: 2, plain: 1 };
        let ours = Circumstances { front_ends: FrontEnds { warm: 5, plain: 0 }, ..ours() };
        let text = tell([SMALL, &inner.to_report()].join("\n").as_bytes(), &ours);
        assert!(text.starts_with("thinshim: 1 ThinLTO link: "), "{text}");
        assert!(text.ends_with("thinshim: 7 of 8 front ends in a warm compiler\n"), "{text}");
    }

    #[test]
    fn other_jobservers_are_told_of() {
        let other = DISTRIBUTED.replace("1:2", "3:4");
        let none = DISTRIBUTED.replace("\"1:2\"", "null");
        let text = tell([&other[..], &none].join("\n").as_bytes(), &ours());
        assert!(text.contains("1 link took part in another jobserver"), "{text}");
        assert!(text.contains("1 link found no jobserver"), "{text}");
        let text = tell(b"", &Circumstances { missing: 2, ..ours() });
        assert!(text.contains("2 tokens have not come back"), "{text}");
    }

    #[test]
    fn nothing_has_a_likely_reason() {
        let command = ["make", "CC=/usr/bin/clang-22"].map(OsString::from);
        for (circumstances, reason) in [
            (ours(), "up to date"),
            (Circumstances { clang_on_path: false, ..ours() }, "no clang on PATH"),
            (Circumstances { clang_called: true, ..ours() }, "-flto=thin"),
            (Circumstances { clang_called: true, compiled: true, ..ours() }, "LD"),
            (Circumstances { lld_called: true, ..ours() }, "bitcode"),
            (Circumstances { command: &command, ..ours() }, "`CC=/usr/bin/clang-22`"),
            (Circumstances { llvm: Some("/l/".into()), ..ours() }, "LLVM=/l/"),
        ] {
            let text = tell(b"", &circumstances);
            assert!(text.starts_with("thinshim: no ThinLTO link was seen: "), "{text}");
            assert!(text.contains(reason), "{reason}: {text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        let failed = Circumstances { compiled: true, failed: true, ..ours() };
        let text = tell(b"", &failed);
        assert!(text.starts_with("thinshim: no ThinLTO link came to its end: "), "{text}");
    }
}
