//! The options record: what was read is read again after it was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinshim::object::record::Record;

fuzz_target!(|data: &[u8]| {
    let mut tail = b"THINSHIM".to_vec();
    tail.extend_from_slice(data);
    if let Ok(Some(record)) = Record::from_tail(&tail) {
        assert_eq!(Record::from_tail(&record.to_bytes()), Ok(Some(record)));
    }
});
