//! Programs and targets from outside: found, installed where that is allowed,
//! or asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::cargo;

/// A package manager: its program, the words that install, and what it calls
/// QEMU for x86-64, for Arm, and for RISC-V.
const MANAGERS: &[(&str, &[&str], [&str; 3])] = &[
    (
        "apt-get",
        &["install", "-y", "--no-install-recommends"],
        ["qemu-system-x86", "qemu-system-arm", "qemu-system-misc"],
    ),
    (
        "dnf",
        &["install", "-y"],
        ["qemu-system-x86-core", "qemu-system-arm-core", "qemu-system-riscv-core"],
    ),
    ("zypper", &["--non-interactive", "install"], ["qemu-x86", "qemu-arm", "qemu-extra"]),
    ("pacman", &["-S", "--noconfirm"], ["qemu-system-x86", "qemu-system-arm", "qemu-system-riscv"]),
    ("apk", &["add"], ["qemu-system-x86_64", "qemu-system-arm", "qemu-system-riscv64"]),
];

/// QEMU's `program`, installed first if it is missing and that is possible.
/// What could not be had once is not tried again.
pub(crate) fn qemu(program: &'static str) -> Result<PathBuf> {
    type Found = BTreeMap<&'static str, Result<PathBuf, String>>;
    static FOUND: Mutex<Found> = Mutex::new(Found::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found
        .entry(program)
        .or_insert_with(|| find_or_install(program).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

fn find_or_install(program: &str) -> Result<PathBuf> {
    if let Some(program) = find(program) {
        return Ok(program);
    }
    let kind = if program.contains("x86") {
        0
    } else if program.contains("riscv") {
        2
    } else {
        1
    };
    let Some((manager, verb, packages)) =
        MANAGERS.iter().find(|(manager, ..)| find(manager).is_some())
    else {
        return Err(anyhow!("{program} is missing; install that part of QEMU"));
    };
    let arguments = [verb, &packages[kind..=kind]].concat();
    let by_hand = format!("{manager} {}", arguments.join(" "));
    let Some(prefix) = become_root() else {
        return Err(anyhow!("{program} is missing; install it with: sudo {by_hand}"));
    };
    eprintln!("{program} is missing; installing it: {by_hand}");
    let run = |words: &[&str]| -> Result<()> {
        let mut words = prefix.iter().chain(words);
        let mut command = Command::new(words.next().context("no command")?);
        // The last line of our output may be for a program.
        command.args(words).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command.stdout(std::io::stderr());
        cargo::run(&mut command)
    };
    let install: Vec<&str> = std::iter::once(*manager).chain(arguments).collect();
    if *manager == "apt-get" {
        // A new machine has no lists, or lists of packages that are gone.
        run(&["apt-get", "update"])?;
    }
    run(&install)?;
    find(program).with_context(|| format!("`{by_hand}` brought no {program}"))
}

/// How to run a command as root: as we are, through sudo, or not at all.
fn become_root() -> Option<Vec<&'static str>> {
    if rustix::process::geteuid().is_root() {
        return Some(vec![]);
    }
    let sudo = Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    sudo.is_ok_and(|status| status.success()).then(|| vec!["sudo", "-n"])
}

/// A program in PATH.
fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// The compiler's own triple.
pub(crate) fn host() -> Result<String> {
    let output = rustc().arg("-vV").output().context("running rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// Whether code can be built for `target`; adds it through rustup if need be.
/// The error says why not.
pub(crate) fn target(target: &str) -> Result<()> {
    if has_target(target)? {
        return Ok(());
    }
    eprintln!("the target {target} is missing; adding it: rustup target add {target}");
    rustup(&["target", "add", target])?;
    if has_target(target)? { Ok(()) } else { Err(anyhow!("rustup brought no {target}")) }
}

/// Cargo of the nightly toolchain, in the workspace.
pub(crate) fn nightly_cargo() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).current_dir(cargo::root());
    // Those of the toolchain that runs us are not meant for another one.
    for name in ["CARGO", "CARGO_MANIFEST_DIR", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}

/// The nightly toolchain, installed first if it is missing and that is possible.
/// The error says why not.
pub(crate) fn nightly() -> Result<()> {
    let installed = || {
        let output = Command::new("rustup").args(["run", "nightly", "rustc", "-V"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    if installed() {
        return Ok(());
    }
    let install = ["toolchain", "install", "nightly", "--profile", "minimal", "--no-self-update"];
    eprintln!("the nightly toolchain is missing; installing it: rustup {}", install.join(" "));
    rustup(&install)?;
    if installed() { Ok(()) } else { Err(anyhow!("rustup brought no nightly toolchain")) }
}

/// Miri, its standard library, and the nightly toolchain that has it, installed first if they
/// are missing and that is possible. The error says why not.
pub(crate) fn miri() -> Result<()> {
    nightly()?;
    let miri = |what| nightly_cargo().args(["miri", what]).stdin(Stdio::null()).output();
    let installed = || miri("--version").is_ok_and(|output| output.status.success());
    if !installed() {
        let add = ["component", "add", "--toolchain", "nightly", "miri", "rust-src"];
        eprintln!("Miri is missing; installing it: rustup {}", add.join(" "));
        rustup(&add)?;
        ensure!(installed(), "this nightly toolchain has no Miri");
    }
    // Built on first use, from crates that may have to be fetched.
    let setup = miri("setup").context("running cargo miri setup")?;
    let message = String::from_utf8_lossy(&setup.stderr);
    ensure!(setup.status.success(), "Miri has no standard library: {}", message.trim());
    Ok(())
}

/// cargo-fuzz and the nightly toolchain that it needs, installed first if they
/// are missing and that is possible. The error says why not.
pub(crate) fn cargo_fuzz() -> Result<()> {
    let compiler = Command::new("c++").arg("--version").stdin(Stdio::null()).output();
    ensure!(
        compiler.is_ok_and(|output| output.status.success()),
        "the fuzzer's library wants a C++ compiler, and there is no `c++`"
    );
    nightly()?;
    let installed = || {
        let output = nightly_cargo().args(["fuzz", "--version"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    if installed() {
        return Ok(());
    }
    eprintln!("cargo-fuzz is missing; installing it: cargo install cargo-fuzz --locked");
    let mut command = cargo::cargo();
    command.args(["install", "cargo-fuzz", "--locked"]).stdout(std::io::stderr());
    cargo::run(&mut command)?;
    if installed() { Ok(()) } else { Err(anyhow!("cargo install brought no cargo-fuzz")) }
}

/// Runs rustup quietly; the error has its own words.
fn rustup(arguments: &[&str]) -> Result<()> {
    let output = Command::new("rustup")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("running rustup")?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let reason = message.lines().find(|line| line.starts_with("error")).unwrap_or("it refused");
    Err(anyhow!("`rustup {}`: {reason}", arguments.join(" ")))
}

fn has_target(target: &str) -> Result<bool> {
    let output = rustc().args(["--print", "sysroot"]).output().context("running rustc")?;
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(Path::new(&sysroot).join("lib/rustlib").join(target).join("lib").is_dir())
}

fn rustc() -> Command {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(program);
    command.current_dir(cargo::root());
    command
}
