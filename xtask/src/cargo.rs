//! Calls of cargo and where its results are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};
use qemu_tests::board::{Arch, Guest};
use qemu_tests::qemu::DEFMT;
use serde_json::Value;

/// The workspace's directory.
pub(crate) fn root() -> &'static Path {
    // xtask lies directly below it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A cargo command in the workspace.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(root());
    // Set for this process by `cargo run`; it is not meant for others.
    command.env_remove("CARGO_MANIFEST_DIR");
    command
}

/// The target directory, wherever the user has put it.
pub(crate) fn target_dir() -> Result<&'static Path> {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    if let Some(dir) = DIR.get() {
        return Ok(dir);
    }
    let metadata = metadata()?;
    let dir = metadata["target_directory"].as_str().context("cargo names no target directory")?;
    Ok(DIR.get_or_init(|| PathBuf::from(dir)))
}

/// `cargo metadata` of the workspace, without dependencies.
pub(crate) fn metadata() -> Result<Value> {
    let output = cargo()
        .args(["metadata", "--format-version=1", "--no-deps"])
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs `command` with its output shown; an error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("running {shown}"))?;
    ensure!(status.success(), "`{shown}` failed: {status}");
    Ok(())
}

/// A command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Builds with `arguments` and gives the one executable that comes out.
pub(crate) fn build(arguments: &[&str]) -> Result<PathBuf> {
    build_with(cargo(), arguments)
}

fn build_with(mut command: Command, arguments: &[&str]) -> Result<PathBuf> {
    command.args(["build", "--message-format=json-render-diagnostics"]).args(arguments);
    let output = command.stderr(Stdio::inherit()).output().context("running cargo build")?;
    ensure!(output.status.success(), "`cargo build {}` failed", arguments.join(" "));
    let mut executables = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect::<Vec<_>>();
    match (executables.pop(), executables.is_empty()) {
        (Some(executable), true) => Ok(executable),
        (found, _) => bail!(
            "`cargo build {}` made {} executables instead of one",
            arguments.join(" "),
            executables.len() + usize::from(found.is_some())
        ),
    }
}

/// Builds the program that boots on this machine. Its target is there: see [`tools::target`](crate::tools::target).
pub(crate) fn build_guest(guest: Guest, mapping: &str, client: &str) -> Result<PathBuf> {
    match guest {
        Guest::Kernel(arch) => {
            let (features, name) = match (arch, mapping, client) {
                (Arch::X86_64, _, "c") => ("kernel,c", "guest-c"),
                (Arch::X86_64, "higher-half", _) => ("kernel", "guest-higher-half"),
                _ => ("kernel", "guest"),
            };
            let place = guest.target().map(|target| ["--target", target]);
            let what = ["-p", "guest", "--profile", "guest", "--features", features, "--bin", name];
            build(&[&what[..], place.as_ref().map_or(&[], |place| &place[..])].concat())
        }
        Guest::Firmware if client == DEFMT => build_firmware(Build::Defmt),
        Guest::Firmware => build_firmware(Build::Plain),
    }
}

/// How the firmware is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Build {
    /// As it is.
    Plain,
    /// With its log.
    Defmt,
    /// Without the harness, and so that it tells the stack frame of each function.
    Smallest,
}

/// Builds the firmware, a workspace of its own.
pub(crate) fn build_firmware(how: Build) -> Result<PathBuf> {
    let manifest = root().join("qemu-tests/firmware/Cargo.toml");
    let dir = target_dir()?.join(match how {
        Build::Plain => "firmware",
        Build::Defmt => "firmware-defmt",
        Build::Smallest => "stack-sizes",
    });
    let (manifest, dir) = (manifest.to_string_lossy(), dir.to_string_lossy());
    let target = Guest::Firmware.target().context("the firmware has no target")?;
    let mut command = cargo();
    let mut features: &[&str] = &[];
    if how == Build::Defmt {
        features = &["--features", "defmt"];
        // Chosen when it is compiled; without it, errors only.
        command.env("DEFMT_LOG", "debug");
    }
    if how == Build::Smallest {
        features = &["--no-default-features"];
        // Unstable, and works on the stable compiler that builds the rest.
        command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zemit-stack-sizes");
    }
    let place = ["--manifest-path", &manifest, "--target-dir", &dir];
    build_with(command, &[&place[..], &["--release", "--target", target], features].concat())
}

/// Builds the server.
pub(crate) fn build_netdumpd() -> Result<PathBuf> {
    build(&["-p", "netdumpd", "--release", "--bin", "netdumpd"])
}
