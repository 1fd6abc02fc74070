#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nic_virtio::fake::fuzz::run(data));
