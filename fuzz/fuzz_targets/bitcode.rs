//! Bitcode: the wrapper, the bitstream, what a module or an index says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinshim::object::{module, wrapper};

fuzz_target!(|data: &[u8]| {
    let end = wrapper::end(data);
    let Some(parts) = wrapper::split(data) else { return };
    assert!(parts.bitcode.len() + parts.tail.len() <= data.len());
    if let Some(end) = end {
        assert_eq!(end, (data.len() - parts.tail.len()) as u64);
    }
    let quick = module::facts(parts.bitcode, false);
    let whole = module::facts(parts.bitcode, true);
    if let (Ok(quick), Ok(whole)) = (&quick, &whole) {
        assert_eq!(
            (quick.thin, quick.regular, &quick.triple),
            (whole.thin, whole.regular, &whole.triple)
        );
    }
    if let Ok(names) = module::modules_of_index(parts.bitcode) {
        let bytes: usize = names.iter().map(Vec::len).sum();
        assert!(bytes <= 2 * parts.bitcode.len());
    }
});
