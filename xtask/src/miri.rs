//! `cargo xtask miri`: the core, the drivers against their fake devices, and what they stand
//! on, under Miri: no access outside their memory, no undefined behaviour.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::tally::Tally;
use crate::{cargo, tools};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// One of the packages alone
    package: Option<String>,
}

/// Packages whose unit tests run. A test that takes an interpreter too long is cut, or
/// ignored with the reason, where it stands. Those that take longest first.
const PACKAGES: &[&str] = &["nic-virtio", "nic-e1000", "debugnet-core", "nic-w5500", UNSAFE];
/// All `unsafe` of core and drivers is in this one, and it takes seconds.
const UNSAFE: &str = "nic-hal";

pub(crate) fn run(args: &Args) -> Result<()> {
    let Some(wanted) = &args.package else { return all().close() };
    let found = PACKAGES.iter().filter(|package| *package == wanted);
    let packages: Vec<&str> = found.copied().collect();
    if packages.is_empty() {
        bail!("no tests of `{wanted}` run under Miri: those of {} do", PACKAGES.join(", "));
    }
    these(&packages).close()
}

/// All packages, minutes each.
pub(crate) fn all() -> Tally {
    these(PACKAGES)
}

/// What `cargo xtask ci` has time for.
pub(crate) fn smoke() -> Tally {
    these(&[UNSAFE])
}

/// As many packages at a time as there are processors: a run has but one thread.
fn these(packages: &[&str]) -> Tally {
    let mut tally = Tally::default();
    if let Err(error) = tools::miri() {
        for package in packages {
            println!("    miri {package}: skipped: {error:#}");
            tally.skip(format!("miri {package}"), format!("{error:#}"));
        }
        return tally;
    }
    let waiting = Mutex::new(packages.iter().copied().collect::<VecDeque<_>>());
    let tally = Mutex::new(tally);
    let lanes = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..lanes.min(packages.len()) {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(package) = next else { break };
                    let begin = Instant::now();
                    let result = package_under_miri(package);
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    tally.record(&format!("miri {package}"), begin.elapsed(), result);
                }
            });
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the unit tests of `package`, and shows what they print when they are over.
fn package_under_miri(package: &str) -> Result<()> {
    let mut command = tools::nightly_cargo();
    command.args(["miri", "test", "-p", package, "--lib"]);
    command.env("CARGO_TARGET_DIR", cargo::target_dir()?.join("miri"));
    // Fake devices have memory that is never freed; proptest asks for its folder.
    command.env("MIRIFLAGS", "-Zmiri-ignore-leaks -Zmiri-disable-isolation");
    command.env("PROPTEST_CASES", "1");
    let shown = cargo::show(&command);
    println!("==> {shown}");
    let output = command.output().with_context(|| format!("running {shown}"))?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    ensure!(
        output.status.success(),
        "`{shown}` failed: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
