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
            let here = Path::new(env!("CARGO_MANIFEST_DIR"));
            let firmware = here.join("firmware/src").join(file.trim());
            let from = if firmware.exists() { firmware } else { here.join("..").join(file.trim()) };
            found.push((from, words(rest)));
        }
    }
    found
}

#[test]
fn snippets_are_what_is_compiled() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for (page, least) in [("write-a-nic.md", 3), ("kernel.md", 2)] {
        let snippets = snippets(&fs::read_to_string(docs.join(page)).unwrap());
        assert!(snippets.len() >= least, "{page}: {} snippets", snippets.len());
        for (file, snippet) in snippets {
            let code = fs::read_to_string(&file);
            let code = words(&code.unwrap_or_else(|error| panic!("{}: {error}", file.display())));
            assert!(code.contains(&snippet), "{} does not have: {snippet}", file.display());
        }
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
