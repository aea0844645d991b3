//! Response files: the words that were read are read again after they were quoted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinshim::invocation::response;

fuzz_target!(|data: &[u8]| {
    let Some(words) = response::tokenize(data) else { return };
    assert!(words.iter().map(|word| word.len()).sum::<usize>() <= data.len());
    let text = response::quote(words.iter().map(std::ffi::OsString::as_os_str));
    // What begins with a mark of UTF-8 or UTF-16 is not read as it stands.
    assert!(!text.first().is_some_and(|&byte| byte >= 0x80));
    assert_eq!(response::tokenize(&text), Some(words));
});
