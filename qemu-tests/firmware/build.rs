//! Hands the linker scripts to the linker: `link.x` of `cortex-m-rt`, which
//! takes `memory.x` from this directory, and `defmt.x` of `defmt` if that is in.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-search={here}");
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    if std::env::var_os("CARGO_FEATURE_DEFMT").is_some() {
        // The table of the log's texts, which stays in the ELF file.
        println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    }
    // Functions that were left out: not at address 0 for the debugger, where the code begins.
    println!("cargo:rustc-link-arg-bins=-zdead-reloc-in-nonalloc=.debug_*=0xffffffff");
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rerun-if-changed=build.rs");
}
