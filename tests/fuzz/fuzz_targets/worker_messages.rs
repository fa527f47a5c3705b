#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portreeve_fuzz::worker_messages(data));
