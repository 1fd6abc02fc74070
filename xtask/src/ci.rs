//! `cargo xtask ci`: everything that a change must pass.

use anyhow::{Context as _, Result};

use qemu_tests::board::{Arch, Guest};

use crate::cargo::{cargo, metadata};
use crate::probe::BARE;
use crate::tally::Tally;
use crate::{cargo, fuzz, guides, ledger, miri, panic_free, size, test, tools};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out `cargo xtask test`
    #[arg(long)]
    skip_test: bool,
}

/// Crates of the crash path: `no_std`, without `alloc`.
const NO_STD: &[&str] = &[
    "debugnet-core",
    "debugnet-gzip",
    "nic-hal",
    "nic-virtio",
    "nic-e1000",
    "nic-w5500",
    "nic-probe",
    "nic-smoltcp",
    "nic-embassy",
    "debugnet-capi",
];

/// The firmware's manifest, from the root of the workspace.
const FIRMWARE: &str = "qemu-tests/firmware/Cargo.toml";

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut tally = if args.skip_test { Tally::default() } else { test::all(false)? };
    tally.check("fmt", || run_cargo(&["fmt", "--all", "--check"]));
    tally.check("ledger of unsafe", ledger::check);
    clippy(&mut tally);
    tally.check("rustdoc", || {
        let arguments = ["doc", "--workspace", "--no-deps", "--document-private-items"];
        cargo::run(cargo().args(arguments).env("RUSTDOCFLAGS", "-Dwarnings"))
    });
    features(&mut tally)?;
    tally.check("the observer for `log`", || {
        run_cargo(&["test", "-p", "debugnet-core", "--lib", "--features", "log", "observer"])
    });
    let plain = ["test", "-q", "-p", "netdumpd", "--no-default-features"];
    tally.check("netdumpd without its features", || run_cargo(&plain));
    bare_targets(&mut tally);
    println!("==> panic-free");
    tally.add(panic_free::all()?);
    guides::all(&mut tally);
    tally.check("size", || size::run(&size::Args { write: false }));
    println!("==> fuzz, a few seconds each");
    tally.add(fuzz::smoke()?);
    tally.add(miri::smoke());
    tally.close()
}

fn run_cargo(arguments: &[&str]) -> Result<()> {
    cargo::run(cargo().args(arguments))
}

fn clippy(tally: &mut Tally) {
    let deny = ["--", "-Dwarnings"];
    let workspace = ["clippy", "--workspace", "--all-targets"];
    tally.check("clippy", || run_cargo(&[&workspace[..], &deny].concat()));
    let all = ["clippy", "--workspace", "--all-targets", "--all-features"];
    // Check only: `defmt` has no place in a program that runs on a host.
    tally.check("clippy, all features", || run_cargo(&[&all[..], &deny].concat()));
    for arch in [Arch::X86_64, Arch::Aarch64, Arch::Riscv64] {
        kernel(tally, arch, &deny);
    }
    firmware(tally, &deny);
}

/// The kernel, for each machine that it boots on.
fn kernel(tally: &mut Tally, arch: Arch, deny: &[&str]) {
    let name = format!("clippy, guest kernel {arch:?}");
    let target = Guest::Kernel(arch).target();
    if let Some(Err(error)) = target.map(tools::target) {
        tally.skip(name, format!("{error:#}"));
        return;
    }
    let what = ["clippy", "-p", "guest", "--profile", "guest", "--features", "kernel"];
    let place = target.map(|target| ["--target", target]);
    let place = place.as_ref().map_or(&[][..], |place| &place[..]);
    tally.check(&name, || run_cargo(&[&what[..], place, deny].concat()));
}

/// The firmware is a workspace of its own.
fn firmware(tally: &mut Tally, deny: &[&str]) {
    let manifest = ["--manifest-path", FIRMWARE];
    tally.check("fmt, firmware", || run_cargo(&[&["fmt"][..], &manifest, &["--check"]].concat()));
    let name = "clippy, firmware";
    let target = Guest::Firmware.target().unwrap_or_default();
    if let Err(error) = tools::target(target) {
        tally.skip(name, format!("{error:#}"));
        return;
    }
    for (name, features) in
        [(name, &[][..]), ("clippy, firmware with defmt", &["--features", "defmt"])]
    {
        tally.check(name, || {
            let dir = cargo::target_dir()?.join("firmware");
            let dir = dir.to_string_lossy();
            let place = ["--release", "--target", target, "--target-dir", &dir];
            run_cargo(&[&["clippy"][..], &manifest, &place, features, deny].concat())
        });
    }
}

/// Each crate of the crash path without features, and with each one alone.
fn features(tally: &mut Tally) -> Result<()> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo names no packages")?;
    for name in NO_STD {
        let package = packages
            .iter()
            .find(|package| package["name"] == *name)
            .with_context(|| format!("{name} is not in the workspace"))?;
        let none = ["check", "-p", name, "--no-default-features"];
        tally.check(&format!("features {name}: none"), || run_cargo(&none));
        let features = package["features"].as_object().into_iter().flat_map(|map| map.keys());
        for feature in features.filter(|feature| *feature != "default") {
            tally.check(&format!("features {name}: {feature}"), || {
                run_cargo(&[&none[..], &["--features", feature]].concat())
            });
        }
    }
    Ok(())
}

/// The crash path on machines without an operating system.
fn bare_targets(tally: &mut Tally) {
    for target in BARE {
        let name = format!("bare target {target}");
        if let Err(error) = tools::target(target) {
            println!("    {name}: skipped: {error:#}");
            tally.skip(name, format!("{error:#}"));
            continue;
        }
        tally.check(&name, || {
            let mut command = cargo();
            command.args(["check", "--target", target]);
            for package in NO_STD {
                command.args(["-p", package]);
            }
            cargo::run(&mut command)
        });
    }
}
