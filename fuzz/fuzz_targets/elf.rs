//! Native objects: what is told of one lies inside it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinshim::object::{elf, kind};

fuzz_target!(|data: &[u8]| {
    if let Ok(native) = elf::read(data) {
        assert_eq!(kind::of(data), kind::Kind::Elf);
        // A section's header has 40 bytes, or 64.
        assert!(native.patchable_sections <= data.len() / 40);
    }
    let _ = elf::named_sections(data, 32, |section| assert!(section.name.len() <= 32));
});
