//! clang's options: what is recorded of a command line is what a link takes, whatever follows it.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;
use thinshim::invocation::clang::{self, Invocation, Refused};
use thinshim::object::record::Record;

/// A word that no option's value should be.
const STRANGER: &str = "--no-such-option";

fn check(options: &[OsString]) {
    assert_eq!(clang::check(options), Ok(()), "{options:?}");
    let mut more = options.to_vec();
    more.push(STRANGER.into());
    assert_eq!(clang::check(&more), Err(Refused(STRANGER.into())), "{more:?}");
}

fuzz_target!(|data: &[u8]| {
    let words: Vec<OsString> =
        data.split(|&byte| byte == b'\n').map(|word| OsString::from_vec(word.to_vec())).collect();
    match clang::parse(&words) {
        Invocation::Compile(compile) => {
            let record = Record {
                options: compile.options,
                search_paths: compile.search_paths,
                doubt: compile.doubt,
            };
            let read = Record::from_tail(&record.to_bytes());
            assert_eq!(read.as_ref(), Ok(&Some(record)));
        }
        Invocation::BackEnd(call) => {
            let mut index = OsString::from("-fthinlto-index=");
            index.push(&call.index);
            let mut again = call.options.clone();
            again.extend([call.module.clone(), index, "-o".into(), call.output.clone().into()]);
            assert_eq!(clang::parse(&again), Invocation::BackEnd(call), "{words:?}");
        }
        Invocation::Link(_) | Invocation::PassThrough(_) => {}
    }
    if let Ok(options) = clang::back_end_options(&words) {
        check(&options);
        assert_eq!(clang::check(&clang::known_to_linker(&options, true)), Ok(()));
        assert_eq!(clang::check(&clang::without_loop_alignment(&options)), Ok(()));
    }
});
