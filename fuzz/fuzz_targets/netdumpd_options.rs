#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netdumpd::fuzz::options::run(data));
