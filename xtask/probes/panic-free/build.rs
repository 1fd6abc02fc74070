//! Links without an operating system, as the guest is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        // The linker is called directly.
        for argument in ["--gc-sections", "--entry=_start"] {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
        return;
    }
    for argument in [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
        "-Wl,--no-dynamic-linker",
        "-Wl,--gc-sections",
        // The precompiled core refers to it; nothing here unwinds.
        "-Wl,--defsym=rust_eh_personality=0",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
