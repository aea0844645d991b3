//! lld's options: parse, print, parse.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;
use thinshim::invocation::lld::{self, Element};

fuzz_target!(|data: &[u8]| {
    let words: Vec<OsString> =
        data.split(|&byte| byte == b'\n').map(|word| OsString::from_vec(word.to_vec())).collect();
    let Ok(link) = lld::parse(words.clone()) else { return };
    let mut printed = Vec::new();
    for element in link.elements() {
        match element {
            Element::Input { path, .. } => printed.push(path.to_owned()),
            Element::Library { words, .. } | Element::Option { words, .. } => {
                printed.extend_from_slice(words);
            }
        }
    }
    assert_eq!(printed, words);
    for major in [14, 22] {
        let overlay = link.lto.overlay_args(major);
        assert!(link.lto.clang_args(link.kind, major).ends_with(&overlay));
    }
    assert_eq!(lld::parse(printed).as_ref(), Ok(&link));
});
