//! Links the kernel, and leaves every other build of this package alone.

use std::env;
use std::path::{Component, Path};

fn main() {
    println!("cargo:rerun-if-changed=link");
    println!("cargo:rerun-if-changed=build.rs");

    // CARGO_CFG_PANIC does not follow the profile, and PROFILE says only
    // "release" for any profile that inherits from it: the directory knows.
    let out_dir = env::var("OUT_DIR").unwrap_or_default();
    if profile_of(Path::new(&out_dir)) != Some("guest") {
        return;
    }
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    #[cfg(feature = "c")]
    compile_c(&root);
    // Where RAM begins, and on AArch64 the device tree, for which 2 MiB are plenty.
    let load_address = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("aarch64") => Some("0x40200000"),
        Ok("riscv64") => Some("0x80000000"),
        _ => None,
    };
    if let Some(load_address) = load_address {
        println!("cargo:rustc-link-arg-bins=--defsym=__load_address={load_address}");
        println!("cargo:rustc-link-arg-bins=-T{root}/link/virt.ld");
        println!("cargo:rustc-link-arg-bins=--no-pie");
        println!("cargo:rustc-link-arg-bins=--build-id=sha1");
        return;
    }
    let script = format!("{root}/link/x86_64.ld");
    // The same objects at two places: virtual addresses equal to physical
    // ones, and in the top 2 GiB, which PIC code can be linked for as well.
    let kernels = [("guest", "0"), ("guest-c", "0"), ("guest-higher-half", "0xffffffff80000000")];
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        // Here rustc calls the linker itself, without a C compiler between.
        for (kernel, virt_offset) in kernels {
            println!("cargo:rustc-link-arg-bin={kernel}=--defsym=__virt_offset={virt_offset}");
        }
        println!("cargo:rustc-link-arg-bins=-T{script}");
        println!("cargo:rustc-link-arg-bins=--no-pie");
        println!("cargo:rustc-link-arg-bins=--build-id=sha1");
        return;
    }
    for (kernel, virt_offset) in kernels {
        println!("cargo:rustc-link-arg-bin={kernel}=-Wl,--defsym=__virt_offset={virt_offset}");
    }
    for argument in [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--build-id=sha1",
        "-Wl,-z,norelro",
        "-Wl,--no-dynamic-linker",
        "-Wl,-T",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,{script}");
}

/// The crash path in C, an example of `debugnet-capi`.
#[cfg(feature = "c")]
fn compile_c(root: &str) {
    let capi = format!("{root}/../../debugnet-capi");
    let mut build = cc::Build::new();
    for name in ["virtio_mmio.c", "crash.c"] {
        let file = format!("{capi}/examples/{name}");
        println!("cargo:rerun-if-changed={file}");
        build.file(file);
    }
    build.include(format!("{capi}/include")).std("c99").pic(false);
    // As freestanding code: no libc, no guard words, no landing pads.
    for flag in ["-ffreestanding", "-fno-stack-protector", "-fcf-protection=none"] {
        build.flag(flag);
    }
    build.compile("crash_c");
}

/// The profile's directory in `TARGET_DIR/[TRIPLE/]PROFILE/build/PACKAGE-HASH/out`.
fn profile_of(out_dir: &Path) -> Option<&str> {
    let names: Vec<&str> = out_dir
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let build = names.iter().rposition(|name| *name == "build")?;
    names.get(build.checked_sub(1)?).copied()
}
