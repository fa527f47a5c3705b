#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portreeve_fuzz::pam_messages(data));
