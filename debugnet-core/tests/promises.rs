//! What README.md and ARCHITECTURE.md say of the source itself, held against it.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Source files below a folder that are not tests or fake devices, with their text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !matches!(name, "tests" | "fake" | "host") {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") && name != "tests.rs" && name != "fake.rs" {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("\n#[cfg(test)]\n").next().unwrap().to_string();
                found.push((path.display().to_string(), code));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no source");
    found
}

/// Lines that are neither comment nor documentation.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with("//"))
}

/// The paths below `prefix` that a file names outside of comments, as far as `known` tells them apart.
fn strangers(text: &str, prefix: &str, known: &[&str]) -> Vec<String> {
    code(text)
        .flat_map(|line| line.match_indices(prefix).map(move |(at, _)| &line[at + prefix.len()..]))
        .filter(|path| !known.iter().any(|known| path.starts_with(known)))
        .map(str::to_string)
        .collect()
}

fn knows_only(folder: &str, prefix: &str, known: &[&str]) {
    for (file, text) in sources(folder) {
        let strangers = strangers(&text, prefix, known);
        assert!(strangers.is_empty(), "{file} knows {strangers:?}");
    }
}

#[test]
fn strangers_are_seen() {
    let text = "use crate::addr::MacAddr;\n// crate::nic\nuse crate::runner::Armed;\n";
    assert_eq!(strangers(text, "crate::", &["addr::"]), ["runner::Armed;"]);
}

#[test]
fn wire_knows_no_state() {
    knows_only("debugnet-core/src/wire", "crate::", &["addr::", "wire::"]);
}

/// Of the NIC it knows the number of a frame, of the wire the ack.
#[test]
fn session_knows_no_ip_no_nic_no_clock_and_no_netdump() {
    let known = [
        "addr::PhysRange",
        "nic::TxTicket",
        "pool::CellId",
        "session::",
        "time::Instant",
        "wire::debugnet::Ack",
    ];
    knows_only("debugnet-core/src/session", "crate::", &known);
}

/// Of the protocol it knows type codes, the herald's word and the kernel dump header.
#[test]
fn dump_knows_no_header_but_the_kernel_dump_header() {
    for (file, text) in sources("debugnet-core/src/dump") {
        let known = ["checksum::Sum", "debugnet::{self, herald_word}", "kdh::"];
        let strangers = strangers(&text, "wire::", &known);
        assert!(strangers.is_empty(), "{file} knows {strangers:?}");
        assert!(!code(&text).any(|line| line.contains("debugnet::MessageHeader")), "{file}");
        for layer in ["client::", "runner::", "transmit::"] {
            assert!(!code(&text).any(|line| line.contains(layer)), "{file} knows {layer}");
        }
    }
}

#[test]
fn drivers_know_no_protocol() {
    let known = ["addr::", "nic::", "progress::", "time::"];
    for folder in ["nic-hal/src", "nic-virtio/src", "nic-e1000/src"] {
        knows_only(folder, "debugnet_core::", &known);
    }
}

/// `time` holds the one bounded delay that is offered to drivers.
#[test]
fn only_the_runner_waits() {
    for (file, text) in sources("debugnet-core/src") {
        let waits = code(&text).any(|line| line.contains(".relax()"));
        let may = file.ends_with("runner/mod.rs") || file.ends_with("time.rs");
        assert!(!waits || may, "{file} waits");
    }
}

#[test]
fn the_crash_path_owns_no_static() {
    for folder in ["debugnet-core/src", "nic-virtio/src", "nic-e1000/src"] {
        for (file, text) in sources(folder) {
            let found = code(&text).find(|line| {
                let line = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
                line.starts_with("static ")
            });
            assert_eq!(found, None, "{file}");
        }
    }
}

/// README shows the example as it is, down to the stand-ins.
#[test]
fn readme_shows_the_example() {
    let example = read("debugnet-core/examples/take_over.rs");
    let (_, shown) = example.split_once("\nuse ").expect("it begins with imports");
    let (shown, _) = shown.split_once("\n/// Stand-ins").expect("it ends with stand-ins");
    let shown = format!("use {}", shown.trim_end());
    let readme = read("README.md");
    let blocks: Vec<&str> = readme
        .split("```rust\n")
        .skip(1)
        .map(|rest| rest.split_once("\n```").expect("a block ends").0)
        .collect();
    assert_eq!(blocks, [shown], "README.md differs from debugnet-core/examples/take_over.rs");
}

/// docs/reliability.md lists every loop without a length of its own, with its bound: a new one is
/// added there, or it is none.
#[test]
fn every_loop_of_the_crash_path_is_listed() {
    let mut counted = Vec::new();
    for folder in ["debugnet-core", "nic-hal", "nic-virtio", "nic-e1000", "nic-w5500", "nic-probe"]
    {
        for (path, text) in sources(&format!("{folder}/src")) {
            let is_loop = |line: &&str| line.contains("loop {") || line.contains("while ");
            let loops = code(&text).filter(is_loop).count();
            let (_, name) = path.rsplit_once(folder).unwrap();
            if loops > 0 {
                counted.push(format!("`{folder}{name}` | {loops}"));
            }
        }
    }
    counted.sort();
    let docs = read("docs/reliability.md");
    let mut listed: Vec<_> = docs
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let (file, loops) = (cells.next()?, cells.next()?);
            file.contains("/src/").then(|| format!("{file} | {loops}"))
        })
        .collect();
    listed.sort();
    assert_eq!(counted, listed);
}
