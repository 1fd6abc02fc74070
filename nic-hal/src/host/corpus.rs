//! Inputs that a fuzzer found worth keeping.

use std::fs;
use std::path::Path;

/// The inputs of fuzz target `name` that are kept with the source, in the order of their names,
/// so that a test replays them without a fuzzer.
///
/// # Panics
/// If there are none, or one cannot be read.
pub fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let entries = fs::read_dir(&dir).expect("the folder of the target's corpus");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    files.iter().map(|file| fs::read(file).expect("a readable input")).collect()
}
