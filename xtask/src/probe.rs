//! The program `probes/panic-free`: the crash path, linked for a target but never run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::{cargo, tools};

/// The target of the proof where it can be had.
pub(crate) const PREFERRED: &str = "x86_64-unknown-none";

/// Bare-metal targets on which the crash path must build.
pub(crate) const BARE: &[&str] = &[
    PREFERRED,
    "aarch64-unknown-none",
    "riscv64gc-unknown-none-elf",
    "thumbv6m-none-eabi",
    "thumbv7m-none-eabi",
    "thumbv7em-none-eabihf",
];

/// The symbol that only a panic refers to.
pub(crate) const SYMBOL: &str = "PANIC_PATH_REMAINS";

/// A way to build the probe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe<'a> {
    pub(crate) target: &'a str,
    /// `inject`, `defined`, `every-transport`, `e1000`, `probe`, `layouts`, `w5500`, some with commas between, or nothing.
    pub(crate) feature: Option<&'a str>,
    /// `opt-level` of its profile; `3`, as a kernel has it, if this is nothing.
    pub(crate) opt_level: Option<&'a str>,
    /// Whether the program tells the stack frame of each function.
    pub(crate) stack_sizes: bool,
}

/// What the linker made of it.
#[derive(Debug)]
pub(crate) enum Linked {
    /// A program.
    Program(PathBuf),
    /// Nothing: [`SYMBOL`] is needed, so that something can panic. What the linker said.
    PanicRemains(String),
}

impl Probe<'_> {
    /// Builds it.
    ///
    /// # Errors
    /// Anything that keeps it from being built but the missing symbol.
    pub(crate) fn link(self) -> Result<Linked> {
        let manifest = cargo::root().join("xtask/probes/panic-free/Cargo.toml");
        // The same versions of all dependencies as the workspace has.
        fs::copy(cargo::root().join("Cargo.lock"), manifest.with_file_name("Cargo.lock"))
            .context("copying Cargo.lock to the probe")?;
        let dir =
            cargo::target_dir()?.join(if self.stack_sizes { "stack-sizes" } else { "panic-free" });
        let mut command = cargo::cargo();
        command.args(["build", "--release", "--quiet", "--manifest-path"]).arg(&manifest);
        command.args(["--target", self.target]).arg("--target-dir").arg(&dir);
        if let Some(feature) = self.feature {
            command.args(["--features", feature]);
        }
        if let Some(level) = self.opt_level {
            command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", level);
        }
        if self.stack_sizes {
            // Unstable, and works on the stable compiler that builds the rest.
            command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zemit-stack-sizes");
        }
        let output = command.stdin(Stdio::null()).output().context("building the probe")?;
        if output.status.success() {
            let program = dir.join(self.target).join("release/panic-free-probe");
            ensure!(program.is_file(), "{} is missing", program.display());
            return Ok(Linked::Program(program));
        }
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        let symbol = message.contains("undefined") && message.contains(SYMBOL);
        ensure!(symbol, "the probe does not build for {}:\n{message}", self.target);
        Ok(Linked::PanicRemains(message))
    }
}

/// The target of the proof: the bare one, or the host's with the guest's link
/// arguments. It exists on every machine that can build this.
pub(crate) fn proof_target() -> Result<String> {
    match tools::target(PREFERRED) {
        Ok(()) => Ok(PREFERRED.to_owned()),
        Err(error) => {
            println!("    {PREFERRED} cannot be had ({error:#}); using the host's triple");
            tools::host()
        }
    }
}

/// Reads a program.
pub(crate) fn read(program: &Path) -> Result<Vec<u8>> {
    fs::read(program).with_context(|| format!("reading {}", program.display()))
}
