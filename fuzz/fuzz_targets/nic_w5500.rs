#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nic_w5500::fake::fuzz::run(data));
