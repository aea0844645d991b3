//! Archives: members lie inside, one behind the other, and the list is no longer than its input allows.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use thinshim::object::archive::{self, Place};

fuzz_target!(|data: &[u8]| {
    let Ok(members) = archive::members(Path::new("dir/a.a"), data) else { return };
    // A member's header has 60 bytes.
    assert!(members.len() <= data.len() / 60);
    let mut end = 0;
    for member in &members {
        // The bound that keeps the names' memory in proportion.
        assert!(member.name.as_os_str().len() <= 4096);
        if let Place::Inside(range) = &member.place {
            assert!(end <= range.start && range.start <= range.end && range.end <= data.len());
            end = range.end;
        }
    }
});
