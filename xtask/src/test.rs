//! `cargo xtask test`: everything that runs.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use qemu_tests::matrix::{Case, cases};
use qemu_tests::qemu::MAPPINGS;
use qemu_tests::run::{RunConfig, run as run_guest};

use crate::tally::Tally;
use crate::{cargo, tools, tshark};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Every combination of the QEMU matrix, and the long tests
    #[arg(long)]
    full: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    all(args.full)?.close()
}

/// Runs all tests and counts them.
pub(crate) fn all(full: bool) -> Result<Tally> {
    let mut tally = host_tests(full)?;
    tally.add(matrix(full));
    Ok(tally)
}

/// `cargo test` of the workspace: unit, simulator, integration and doc tests.
fn host_tests(full: bool) -> Result<Tally> {
    let mut command = cargo::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    if full {
        command.args(["--", "--include-ignored"]);
    }
    println!("==> {}", cargo::show(&command));
    let mut child = command.stdout(Stdio::piped()).spawn().context("running cargo test")?;
    let stdout = child.stdout.take().context("no pipe")?;
    let mut tally = Tally::default();
    let mut failed = 0;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("reading the output of cargo test")?;
        println!("{line}");
        match Line::parse(&line) {
            Some(Line::Summary { passed, failed: more }) => {
                tally.passed += passed;
                failed += more;
            }
            Some(Line::Failed(name)) => tally.fail(name),
            Some(Line::Ignored { name, reason }) => tally.skip(name, reason),
            None => {}
        }
    }
    let status = child.wait().context("waiting for cargo test")?;
    if !status.success() && failed == 0 {
        // Not a test: something does not build, or a test program died.
        tally.fail(format!("cargo test: {status}"));
    }
    Ok(tally)
}

/// What libtest prints.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Summary { passed: u64, failed: u64 },
    Failed(&'a str),
    Ignored { name: &'a str, reason: &'a str },
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        if let Some(counts) = line.strip_prefix("test result: ") {
            // "ok. 3 passed; 0 failed; 1 ignored; ..."
            let count = |word: &str| -> Option<u64> {
                counts
                    .split(['.', ';'])
                    .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
            };
            return Some(Self::Summary { passed: count("passed")?, failed: count("failed")? });
        }
        let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        if result == "FAILED" {
            return Some(Self::Failed(name));
        }
        let reason = result.strip_prefix("ignored")?.trim_start_matches(", ");
        let reason = if reason.is_empty() { "marked as ignored" } else { reason };
        Some(Self::Ignored { name, reason })
    }
}

/// The guest, crashed in many ways.
fn matrix(full: bool) -> Tally {
    let mut tally = Tally::default();
    let cases = cases(full);
    println!("==> {} QEMU runs", cases.len());
    let programs = match programs() {
        Ok(programs) => programs,
        Err(Missing::Qemu(error)) => {
            for case in cases {
                tally.skip(format!("qemu {}", case.name), format!("{error:#}"));
            }
            return tally;
        }
        Err(Missing::Build(error)) => {
            println!("{error:#}");
            tally.fail("qemu: building guest and server");
            return tally;
        }
    };
    if !programs.tshark {
        tally.skip("frames of the QEMU runs in tshark", "tshark is missing");
    }
    for case in cases {
        let begin = Instant::now();
        let result = programs.run(&case);
        tally.record(&format!("qemu {}", case.name), begin.elapsed(), result);
    }
    tally
}

struct Programs {
    qemu: PathBuf,
    /// By their mapping.
    guests: Vec<(&'static str, PathBuf)>,
    netdumpd: PathBuf,
    out: PathBuf,
    /// Whether it is there to judge the frames.
    tshark: bool,
}

enum Missing {
    Qemu(anyhow::Error),
    Build(anyhow::Error),
}

fn programs() -> Result<Programs, Missing> {
    let qemu = tools::qemu().map_err(Missing::Qemu)?;
    let rest = || -> Result<Programs> {
        let out = cargo::target_dir()?.join("qemu-matrix");
        let guests = MAPPINGS
            .iter()
            .map(|mapping| Ok((*mapping, cargo::build_guest(mapping)?)))
            .collect::<Result<_>>()?;
        let netdumpd = cargo::build_netdumpd()?;
        Ok(Programs { qemu, guests, netdumpd, out, tshark: tshark::is_there() })
    };
    rest().map_err(Missing::Build)
}

impl Programs {
    fn run(&self, case: &Case) -> Result<()> {
        let out = self.out.join(&case.name);
        // Left from a run that failed.
        let _ = fs::remove_dir_all(&out);
        let guest = self.guests.iter().find(|(mapping, _)| *mapping == case.machine.mapping);
        let (_, guest) = guest.with_context(|| format!("no guest of {}", case.machine.mapping))?;
        let mut config = RunConfig::new(guest.clone(), self.netdumpd.clone(), out.clone());
        config.qemu.clone_from(&self.qemu);
        case.configure(&mut config);
        let report = run_guest(&config, &mut |_| {})?;
        case.judge(&report)
            .map_err(|complaint| anyhow!("{complaint}\nits files are in {}", out.display()))?;
        if let Some(capture) = report.files.pcap.as_ref().filter(|_| self.tshark) {
            tshark::judge(capture, report.outcome.acked_bytes)?;
        }
        fs::remove_dir_all(&out).context("removing the files of a run that passed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_is_understood() {
        assert_eq!(
            Line::parse(
                "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.4s"
            ),
            Some(Line::Summary { passed: 12, failed: 3 })
        );
        assert_eq!(Line::parse("test a::b ... FAILED"), Some(Line::Failed("a::b")));
        assert_eq!(
            Line::parse("test a::b ... ignored, takes an hour"),
            Some(Line::Ignored { name: "a::b", reason: "takes an hour" })
        );
        assert_eq!(
            Line::parse("test src/a.rs - b (line 3) ... ignored"),
            Some(Line::Ignored { name: "src/a.rs - b (line 3)", reason: "marked as ignored" })
        );
        assert_eq!(Line::parse("test a::b ... ok"), None);
        assert_eq!(Line::parse("running 3 tests"), None);
    }
}
