//! lld's request for back ends: read, or refused in words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thinshim::thinlto::dtlto::Request;

fuzz_target!(|data: &[u8]| match Request::read(data) {
    Ok(request) => {
        assert!(request.explicit().len() <= request.common.len());
        assert!(request.jobs.iter().all(|job| job.module.len() <= data.len()));
    }
    Err(why) => assert!(!why.is_empty()),
});
