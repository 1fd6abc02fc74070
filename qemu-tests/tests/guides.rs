//! The snippets of the guides are in the code, word for word.

use std::fs;
use std::path::{Path, PathBuf};

/// Code without its layout.
fn words(code: &str) -> String {
    code.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The fenced blocks of a page that begin with `// FILE`, and that file.
fn snippets(page: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for block in page.split("```rust\n").skip(1) {
        let (code, _) = block.split_once("```").expect("a block ends");
        let Some((first, rest)) = code.trim_start().split_once('\n') else { continue };
        if let Some(file) = first.strip_prefix("// ") {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware/src").join(file.trim());
            found.push((from, words(rest)));
        }
    }
    found
}

#[test]
fn snippets_are_what_is_compiled() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/write-a-nic.md");
    let snippets = snippets(&fs::read_to_string(page).unwrap());
    assert!(snippets.len() >= 3, "{} snippets", snippets.len());
    for (file, snippet) in snippets {
        let code = words(&fs::read_to_string(&file).unwrap());
        assert!(code.contains(&snippet), "{} does not have: {snippet}", file.display());
    }
}

#[test]
fn what_the_firmware_guide_copies_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../docs/firmware.md")).unwrap();
    let files: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("cp "))
        .flat_map(|line| line.split_whitespace())
        .filter_map(|word| word.strip_prefix("$F/"))
        .collect();
    assert!(files.len() >= 9, "{files:?}");
    for file in files {
        assert!(root.join("firmware").join(file).exists(), "{file} is not there");
    }
}
