//! The header is what the sources say, and C compilers take it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new()
        .with_crate(root())
        .with_config(config)
        .generate()
        .expect("the sources can be read");
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).unwrap()
}

/// `BLESS=1 cargo test -p debugnet-capi --test header` writes it anew.
#[test]
fn the_header_is_what_the_sources_say() {
    let path = root().join("include/debugnet.h");
    let fresh = generated();
    if env::var_os("BLESS").is_some() {
        fs::write(&path, &fresh).unwrap();
    }
    let same = fs::read_to_string(path).unwrap() == fresh;
    assert!(same, "the header is out of date; BLESS=1 writes it anew");
}

/// Compiles `text` with all warnings as errors.
fn compile(name: &str, standard: &str, text: &str) {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let source = dir.join(name);
    fs::write(&source, text).unwrap();
    // What links Rust programs here compiles C as well.
    let output = Command::new("cc")
        .args(["-ffreestanding", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c"])
        .arg(format!("-std={standard}"))
        .arg("-I")
        .arg(root().join("include"))
        .arg(&source)
        .arg("-o")
        .arg(source.with_extension("o"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn c_compilers_take_it() {
    for standard in ["c99", "c11", "c17"] {
        compile("alone.c", standard, "#include <debugnet.h>\nint nothing;\n");
    }
}

#[test]
fn c_compilers_take_the_examples() {
    for name in ["virtio_mmio.c", "crash.c"] {
        let path = root().join("examples").join(name);
        compile(name, "c99", &format!("#include \"{}\"\n", path.display()));
    }
}
