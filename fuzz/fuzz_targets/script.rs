//! Linker scripts: what they bring in and choose by is part of them, and names are matched whatever they are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinshim::thinlto::{script, section_order};

fuzz_target!(|data: &[u8]| {
    if let Some(names) = script::inputs(data) {
        // An unclosed list holds the later ones, too.
        assert!(names.iter().all(|name| !name.is_empty() && name.len() <= data.len()));
    }
    for pattern in script::file_patterns(data) {
        assert!(pattern.text() != "*" && pattern.text().len() <= data.len());
        let _ = pattern.matches(data);
        let _ = pattern.matches(b"lib/two.a:native.o");
    }
    let _ = section_order::parse(data);
});
