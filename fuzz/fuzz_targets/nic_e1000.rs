#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nic_e1000::fake::fuzz::run(data));
