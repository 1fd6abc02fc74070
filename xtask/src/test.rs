//! `cargo xtask test`: everything that runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use qemu_tests::board::Guest;
use qemu_tests::matrix::{Case, cases};
use qemu_tests::qemu::devices;
use qemu_tests::run::{RunConfig, RunReport, run as run_guest};
use qemu_tests::tap;

use crate::tally::Tally;
use crate::{cargo, debuggers, layouts, miri, tools, tshark};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Every combination of the QEMU matrix, and the long tests
    #[arg(long)]
    full: bool,
    /// Only the QEMU runs whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(only) = &args.only {
        let cases: Vec<Case> =
            cases(args.full).into_iter().filter(|case| case.name.contains(only)).collect();
        ensure!(!cases.is_empty(), "no QEMU run has `{only}` in its name");
        return matrix(cases).close();
    }
    all(args.full)?.close()
}

/// Runs all tests and counts them.
pub(crate) fn all(full: bool) -> Result<Tally> {
    let mut tally = host_tests(full)?;
    tally.add(layouts::all());
    tally.add(matrix(cases(full)));
    if full {
        tally.add(miri::all());
    }
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
    let mut reader = Libtest::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("reading the output of cargo test")?;
        println!("{line}");
        reader.read(&line);
    }
    let status = child.wait().context("waiting for cargo test")?;
    // Of a program that died before its summary.
    reader.program_ends(0);
    if !status.success() && reader.failed == 0 {
        // Not a test: something does not build, or a test program died.
        reader.tally.fail(format!("cargo test: {status}"), "");
    }
    Ok(reader.tally)
}

/// Reads what test programs print, one after another.
#[derive(Default)]
struct Libtest {
    tally: Tally,
    failed: u64,
    /// Tests of this program that failed, with their output.
    outputs: Vec<(String, String)>,
    /// Whether a line belongs to the last of them.
    is_open: bool,
}

impl Libtest {
    fn read(&mut self, line: &str) {
        match Line::parse(line) {
            Some(Line::Failed(name)) => self.outputs.push((name.to_owned(), String::new())),
            Some(Line::Output(name)) => {
                // Its output comes last. Another line may have come between a name and its result.
                let at = self.outputs.iter().position(|(failed, _)| failed == name);
                let output = at.map(|at| self.outputs.remove(at));
                self.outputs.push(output.unwrap_or_else(|| (name.to_owned(), String::new())));
                self.is_open = true;
            }
            Some(Line::Failures) => self.is_open = false,
            Some(Line::Ignored { name, reason }) => self.tally.skip(name, reason),
            Some(Line::Summary { passed, failed }) => {
                self.tally.passed += passed;
                self.program_ends(failed);
            }
            None => {
                if let Some((_, output)) = self.outputs.last_mut().filter(|_| self.is_open) {
                    *output += line;
                    output.push('\n');
                }
            }
        }
    }

    /// `failed` tests of a program failed, if it said so.
    fn program_ends(&mut self, failed: u64) {
        self.is_open = false;
        let named = self.outputs.len() as u64;
        for (name, output) in self.outputs.drain(..) {
            self.tally.fail(name, output);
        }
        for _ in named..failed {
            self.tally.fail("a test without a line of its own: see above", "");
        }
        self.failed += failed.max(named);
    }
}

/// What libtest prints.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Summary {
        passed: u64,
        failed: u64,
    },
    Failed(&'a str),
    /// The output of a test that failed follows.
    Output(&'a str),
    /// Stands before the output of those that failed, and again before their names.
    Failures,
    Ignored {
        name: &'a str,
        reason: &'a str,
    },
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
        // A test that found out by itself that it cannot run on this machine.
        if let Some((name, reason)) =
            line.strip_prefix("skipped: ").and_then(|rest| rest.split_once(": "))
        {
            return Some(Self::Ignored { name, reason });
        }
        if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            return Some(Self::Output(name));
        }
        if line == "failures:" {
            return Some(Self::Failures);
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

/// The guests, crashed in many ways.
fn matrix(cases: Vec<Case>) -> Tally {
    let mut tally = Tally::default();
    println!("==> {} QEMU runs", cases.len());
    let judges = Judges::find(&mut tally);
    let mut programs = BTreeMap::new();
    for case in cases {
        let name = format!("qemu {}", case.name);
        let Some((guest, emulator)) = case.needs() else {
            tally.fail(name, "no such machine");
            continue;
        };
        let (mapping, client) = (case.machine.mapping.clone(), case.machine.client.clone());
        let needs = (guest, emulator, mapping, client);
        let programs = match programs.entry(needs.clone()).or_insert_with(|| programs_for(&needs)) {
            Ok(programs) => programs,
            Err(Missing::Outside(why)) => {
                tally.skip(name, why.as_str());
                continue;
            }
            Err(Missing::Build(why)) => {
                println!("{name}: {why}");
                tally.fail(name, format!("it does not build: {why}"));
                continue;
            }
        };
        if let Err(why) = programs.can_run(&case) {
            tally.skip(name, why);
            continue;
        }
        let begin = Instant::now();
        match twice(&mut || programs.run(&case, &judges)) {
            Ok(Some(excuse)) => tally.skip(name, format!("twice in a row {excuse}")),
            Ok(None) => tally.record(&name, begin.elapsed(), Ok(())),
            Err(error) => tally.record(&name, begin.elapsed(), Err(error)),
        }
    }
    tally
}

/// Runs something, and once more if it shows nothing, which it says why.
fn twice(run: &mut dyn FnMut() -> Result<Option<String>>) -> Result<Option<String>> {
    let Some(excuse) = run()? else { return Ok(None) };
    println!("    {excuse}; once more");
    run()
}

/// Programs that look at what came out, as far as they are there.
struct Judges {
    tshark: bool,
    gdb: bool,
    gdb_multiarch: bool,
    lldb: bool,
    readelf: bool,
}

impl Judges {
    fn find(tally: &mut Tally) -> Self {
        let mut find = |program: &str, what: &str, is_there: bool| {
            if !is_there {
                tally.skip(format!("{what} of the QEMU runs in {program}"), "it is missing");
            }
            is_there
        };
        let [gdb, gdb_multiarch, lldb, readelf] =
            debuggers::ALL.map(|program| find(program, "dumps", debuggers::is_there(program)));
        let tshark = find("tshark", "frames", tshark::is_there());
        Self { tshark, gdb, gdb_multiarch, lldb, readelf }
    }

    /// A dump in the debuggers.
    fn dump(&self, case: &Case, guest: &Path, report: &RunReport) -> Result<()> {
        let machine = &case.machine;
        let Some(vmcore) = report.image().filter(|_| case.is_for_debuggers()) else {
            return Ok(());
        };
        if self.readelf {
            debuggers::readelf(vmcore, machine)?;
        }
        let is_pc = debuggers::is_pc(machine);
        if if is_pc { self.gdb } else { self.gdb_multiarch } {
            debuggers::gdb(guest, vmcore, machine)?;
        }
        if is_pc && self.lldb && ["null", "panic"].contains(&machine.crash.as_str()) {
            debuggers::lldb(guest, vmcore, machine)?;
        }
        if let Some(log) = &report.files.fault_log {
            let vector = report.crash["vector"].as_u64().context("a crash without a vector")?;
            debuggers::registers(log, vmcore, vector)?;
        }
        Ok(())
    }
}

struct Programs {
    qemu: PathBuf,
    guest: PathBuf,
    netdumpd: PathBuf,
    out: PathBuf,
    /// NICs that this QEMU has.
    devices: Vec<&'static str>,
}

enum Missing {
    /// Something that the machine does not have.
    Outside(String),
    Build(String),
}

fn programs_for(
    (guest, emulator, mapping, client): &(Guest, &'static str, String, String),
) -> Result<Programs, Missing> {
    let outside = |error: anyhow::Error| Missing::Outside(format!("{error:#}"));
    if let Some(target) = guest.target() {
        tools::target(target).map_err(outside)?;
    }
    let qemu = tools::qemu(emulator).map_err(outside)?;
    let rest = || -> Result<Programs> {
        let out = cargo::target_dir()?.join("qemu-matrix");
        let guest = cargo::build_guest(*guest, mapping, client)?;
        let netdumpd = cargo::build_netdumpd()?;
        let devices = devices(&qemu).context("asking QEMU for its devices")?;
        Ok(Programs { qemu, guest, netdumpd, out, devices })
    };
    rest().map_err(|error| Missing::Build(format!("{error:#}")))
}

impl Programs {
    /// Whether this machine has what a case needs; if not, what is missing.
    fn can_run(&self, case: &Case) -> Result<(), String> {
        if !self.devices.contains(&case.machine.nic.as_str()) {
            return Err(format!("this QEMU has no {}", case.machine.nic));
        }
        if case.tap {
            tap::probe().map_err(|error| format!("no tap: {error}"))?;
        }
        Ok(())
    }

    /// Runs a case and judges it; `Some` with the reason if it shows nothing.
    fn run(&self, case: &Case, judges: &Judges) -> Result<Option<String>> {
        let out = self.out.join(&case.name);
        // Left from a run that failed.
        let _ = fs::remove_dir_all(&out);
        let Self { guest, qemu, netdumpd, .. } = self;
        let mut config = RunConfig::new(guest.clone(), qemu.clone(), netdumpd.clone(), out.clone());
        case.configure(&mut config);
        let result = run_guest(&config, &mut |_| {});
        if let Some(excuse) = case.excuse(&result) {
            return Ok(Some(excuse));
        }
        case.judge(&result)
            .map_err(|complaint| anyhow!("{complaint}\nits files are in {}", out.display()))?;
        let Ok(report) = &result else {
            fs::remove_dir_all(&out).context("removing the files of a refused boot")?;
            return Ok(None);
        };
        judges.dump(case, guest, report)?;
        if let Some(capture) = case.capture(report).filter(|_| judges.tshark) {
            tshark::judge(capture, report.outcome.acked_bytes)?;
        }
        fs::remove_dir_all(&out).context("removing the files of a run that passed")?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_shows_nothing_is_run_again_and_only_once() {
        fn bail() -> Result<Option<String>> {
            Err(anyhow!("it failed"))
        }
        let excuse = || Ok(Some("QEMU died".to_owned()));
        let count = |results: Vec<Result<Option<String>>>| {
            let mut left = results.into_iter();
            let result = twice(&mut || left.next().unwrap());
            (result.map_err(|error| error.to_string()), left.count())
        };
        assert_eq!(count(vec![Ok(None), bail()]), (Ok(None), 1));
        assert_eq!(count(vec![bail(), Ok(None)]), (Err("it failed".into()), 1));
        assert_eq!(count(vec![excuse(), Ok(None), bail()]), (Ok(None), 1));
        assert_eq!(count(vec![excuse(), bail(), Ok(None)]), (Err("it failed".into()), 1));
        let twice = Ok(Some("QEMU died".to_owned()));
        assert_eq!(count(vec![excuse(), excuse(), Ok(None)]), (twice, 1));
    }

    #[test]
    fn a_failed_test_is_told_with_its_output() {
        let mut reader = Libtest::default();
        for line in [
            "test a::b ... FAILED",
            "test silent ... FAILED",
            "failures:",
            "",
            "---- a::b stdout ----",
            "panicked at a.rs:1",
            "---- src/a.rs - c (line 3) stdout ----",
            "left: 1",
            "",
            "failures:",
            "    a::b",
            "test result: FAILED. 12 passed; 4 failed; 1 ignored; finished in 0.4s",
            "test result: ok. 5 passed; 0 failed; 1 ignored; finished in 0.4s",
            "test of_a_program_that_dies ... FAILED",
        ] {
            reader.read(line);
        }
        reader.program_ends(0);
        assert_eq!(reader.failed, 5);
        let summary = reader.tally.summary();
        assert_eq!(
            summary,
            "failed: silent\nfailed: a::b\n    panicked at a.rs:1\n\
             failed: src/a.rs - c (line 3)\n    left: 1\n\
             failed: a test without a line of its own: see above\n\
             failed: of_a_program_that_dies\n17 passed, 5 failed, 0 skipped\n"
        );
    }

    #[test]
    fn libtest_is_understood() {
        assert_eq!(
            Line::parse(
                "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.4s"
            ),
            Some(Line::Summary { passed: 12, failed: 3 })
        );
        assert_eq!(Line::parse("test a::b ... FAILED"), Some(Line::Failed("a::b")));
        assert_eq!(Line::parse("---- a::b stdout ----"), Some(Line::Output("a::b")));
        assert_eq!(Line::parse("failures:"), Some(Line::Failures));
        assert_eq!(
            Line::parse("test a::b ... ignored, takes an hour"),
            Some(Line::Ignored { name: "a::b", reason: "takes an hour" })
        );
        assert_eq!(
            Line::parse("test src/a.rs - b (line 3) ... ignored"),
            Some(Line::Ignored { name: "src/a.rs - b (line 3)", reason: "marked as ignored" })
        );
        assert_eq!(
            Line::parse("skipped: a::b: no mounts: refused"),
            Some(Line::Ignored { name: "a::b", reason: "no mounts: refused" })
        );
        assert_eq!(Line::parse("test a::b ... ok"), None);
        assert_eq!(Line::parse("running 3 tests"), None);
    }
}
