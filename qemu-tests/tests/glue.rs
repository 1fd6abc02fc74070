//! "A NIC is under 100 lines": counted where it is claimed.

use std::fs;
use std::path::Path;

/// Lines that are neither blank nor only a comment.
fn code_lines(text: &str) -> usize {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn the_lan9118_is_under_a_hundred_lines() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware/src/lan9118");
    let driver = fs::read_to_string(dir.join("mod.rs")).unwrap();
    // The struct, its constructor, and its `impl Nic`: all that follows the constants.
    let start = driver.find("pub(crate) struct Lan9118").expect("the struct is in this file");
    let glue = &driver[start..];
    assert!(glue.contains("impl Nic for Lan9118"), "the implementation is in the same file");
    let lines = code_lines(glue);
    let registers = code_lines(&fs::read_to_string(dir.join("registers.rs")).unwrap());
    println!("struct and impl Nic: {lines} lines; the register module beside it: {registers}");
    assert!(lines < 100, "the struct and its impl Nic have {lines} lines");
    assert!(lines > 50, "{lines} lines: is this the driver?");
}
