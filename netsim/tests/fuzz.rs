//! The fuzz targets of the protocol, without a fuzzer: the corpus again, and bytes of any kind.

use std::fs;
use std::path::Path;

use netsim::fuzz::{client, session};
use proptest::prelude::*;

/// The inputs that are kept for a target.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let files = fs::read_dir(&dir).expect("the target's corpus").map(|entry| entry.unwrap().path());
    let inputs: Vec<_> = files.map(|file| fs::read(file).unwrap()).collect();
    assert!(!inputs.is_empty(), "{} is empty", dir.display());
    inputs
}

#[test]
fn the_corpora_run() {
    corpus("session").iter().for_each(|input| session::run(input));
    corpus("client_frames").iter().for_each(|input| client::run(input));
}

proptest! {
    #[test]
    fn any_operations_on_a_session(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        session::run(&bytes);
    }

    #[test]
    fn any_frames_into_a_client(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        client::run(&bytes);
    }
}
