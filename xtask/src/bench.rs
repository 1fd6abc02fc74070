//! `cargo xtask bench`: the performance table, as ratios measured side by side
//! in one run.
//!
//! The simulated rows are in virtual time: they do not depend on the machine.
//! The QEMU rows are real time and are only compared with each other. What a
//! packet costs is counted in instructions, what a server pays for it in CPU time.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use netsim::link::LinkConfig;
use qemu_tests::board::board;
use qemu_tests::qemu::Machine;
use qemu_tests::run::{RunConfig, run as run_guest, time_limit};
use serde_json::{Value, json};

use crate::{cargo, intake, plot, tools};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
    /// Fail if a row is below its gate
    #[arg(long)]
    check: bool,
    /// MiB of each simulated dump; with less than 256 the report in docs/ is not written
    #[arg(long, value_name = "N", default_value_t = REPORTED_MIB)]
    mib: u32,
    /// Only simulated rows whose name contains this, and nothing else
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

const REPORTED_MIB: u32 = 256;
/// Runs of each QEMU row, taken in turn.
const QEMU_RUNS: usize = 3;
/// Most instructions a data packet may cost.
const INSTRUCTIONS_MAX: f64 = 1000.0;

pub(crate) fn run(args: &Args) -> Result<()> {
    let rows = simulated(args)?;
    let (mut qemu, mut cost, mut server) = (Vec::new(), Vec::new(), Vec::new());
    if args.only.is_none() {
        server = intake::rows().unwrap_or_else(|error| skipped("server rows", &error));
        qemu = in_qemu().unwrap_or_else(|error| skipped("QEMU rows", &error));
        cost = instructions().unwrap_or_else(|error| skipped("instructions", &error));
    }
    let mut below: Vec<&str> = Vec::new();
    for row in rows.iter().chain(&qemu).chain(&cost).chain(&server) {
        if row["ok"] == json!(false) {
            below.push(row["scenario"].as_str().unwrap_or("?"));
        }
    }
    if args.only.is_none() && args.mib >= REPORTED_MIB {
        report(&rows, &qemu, &cost)?;
    }
    if args.json {
        println!("{}", json!({ "rows": rows, "qemu": qemu, "cost": cost, "server": server }));
    }
    if args.check && !below.is_empty() {
        bail!("below the gate: {}", below.join(", "));
    }
    Ok(())
}

fn skipped(what: &str, error: &anyhow::Error) -> Vec<Value> {
    eprintln!("skipped: {what}: {error:#}");
    Vec::new()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or(0.0)
}

fn simulated(args: &Args) -> Result<Vec<Value>> {
    let program = cargo::build(&["-p", "netsim", "--release", "--bin", "bench"])?;
    let mut command = Command::new(program);
    command.args(["--mib", &args.mib.to_string()]);
    if let Some(text) = &args.only {
        command.args(["--only", text]);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("starting the simulation")?;
    let output = child.stdout.take().context("no output of the simulation")?;
    eprintln!("{:<18} {:>9} {:>9} {:>6} {:>9}", "MB/s", "limit", "ours", "share", "stock");
    let mut rows = Vec::new();
    for line in BufReader::new(output).lines() {
        let row: Value = serde_json::from_str(&line?).context("a row of the simulation")?;
        eprintln!(
            "{:<18} {:>9.1} {:>9.1} {:>5.1}% {:>9.2}{}",
            row["scenario"].as_str().unwrap_or("?"),
            number(&row, "limit_mb_s"),
            number(&row, "ours_mb_s"),
            100.0 * number(&row, "share"),
            number(&row, "burst_mb_s"),
            if row["ok"] == json!(false) { "  below the gate" } else { "" },
        );
        rows.push(row);
    }
    ensure!(child.wait()?.success(), "the simulation failed");
    Ok(rows)
}

/// The guest's dump with and without loss, in turn; the one must reach half the other.
fn in_qemu() -> Result<Vec<Value>> {
    let board = board(&Machine::default().machine).context("no such machine")?;
    let qemu = tools::qemu(board.program)?;
    let guest = cargo::build_guest(board.guest, "identity")?;
    let netdumpd = cargo::build_netdumpd()?;
    let losses = [0.0, 0.01];
    let mut goodput = [Vec::new(), Vec::new()];
    for round in 0..QEMU_RUNS {
        for (loss, values) in losses.iter().zip(&mut goodput) {
            let out = cargo::target_dir()?.join("bench").join(format!("loss{}", loss * 100.0));
            let _ = fs::remove_dir_all(&out);
            let machine = Machine { memory_mib: 64, ..Machine::default() };
            let config = RunConfig {
                link: LinkConfig { loss: *loss, ..LinkConfig::default() },
                seed: round as u64 + 1,
                pcap: false,
                time_limit: time_limit(&machine),
                machine,
                ..RunConfig::new(guest.clone(), qemu.clone(), netdumpd.clone(), out)
            };
            let report = run_guest(&config, &mut |_| {})?;
            ensure!(report.is_identical(), "{}", report.complaint().unwrap_or_default());
            values.push(report.stats.traffic.goodput_mb_s().context("no data passed")?);
        }
    }
    let [clean, lossy] = goodput.map(median);
    eprintln!("virtio-net-pci in QEMU: {clean:.1} MB/s, with 1 % loss {lossy:.1} MB/s");
    Ok(vec![
        json!({"scenario": "qemu-virtio-net-pci-loss0", "ours_mb_s": clean, "identical": true}),
        json!({
            "scenario": "qemu-virtio-net-pci-loss1",
            "ours_mb_s": lossy,
            "share": lossy / clean,
            "gate": 0.5,
            "identical": true,
            "ok": lossy >= clean / 2.0,
        }),
    ])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Instructions in the core for each data packet: all that `Dump::poll` runs,
/// less what the NIC and the clock of the measuring program run.
fn instructions() -> Result<Vec<Value>> {
    ensure!(
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok(),
        "valgrind is missing"
    );
    // One unit, as a kernel is built, but without inlining across crates: the
    // names of the core's functions are what is counted by.
    let mut build = cargo::cargo();
    let dir = cargo::target_dir()?.join("cost");
    build.args(["build", "-p", "netsim", "--release", "--bin", "cost", "--target-dir"]).arg(&dir);
    build.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    cargo::run(&mut build)?;
    let program = dir.join("release/cost");
    let mut rows = Vec::new();
    for (slots, loss) in [(64, 0), (64, 1), (1024, 0), (4096, 0), (4096, 1)] {
        let each = count(&program, &dir.join("callgrind.out"), slots, loss)?;
        eprintln!("{each:.0} instructions a packet, {slots} slots, {loss} % loss");
        rows.push(json!({
            "scenario": format!("cost-{slots}-loss{loss}"),
            "instructions": each,
            "gate": INSTRUCTIONS_MAX,
            "ok": each <= INSTRUCTIONS_MAX,
        }));
    }
    Ok(rows)
}

fn count(program: &Path, out: &Path, slots: u32, loss: u32) -> Result<f64> {
    let mut callgrind = Command::new("valgrind");
    callgrind.arg("--tool=callgrind").arg("--toggle-collect=*Dump*poll*");
    callgrind.arg(format!("--callgrind-out-file={}", out.display()));
    callgrind.arg(program).args([slots.to_string(), loss.to_string()]);
    let output = callgrind.output().context("running valgrind")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout);
    let messages: f64 =
        printed.split_whitespace().next().and_then(|text| text.parse().ok()).context("no count")?;
    let listing = Command::new("callgrind_annotate")
        .args(["--threshold=100", "--show-percs=no"])
        .arg(out)
        .output()
        .context("running callgrind_annotate")?;
    let (mut total, mut foreign) = (0.0, 0.0);
    for line in String::from_utf8_lossy(&listing.stdout).lines() {
        let mut words = line.split_whitespace();
        let Some(own) = words.next().and_then(|text| text.replace(',', "").parse::<f64>().ok())
        else {
            continue;
        };
        if line.contains("PROGRAM TOTALS") {
            total = own;
        } else if line.contains("cost::") {
            foreign += own;
        }
    }
    ensure!(total > 0.0, "the profiler saw nothing of Dump::poll");
    Ok((total - foreign) / messages)
}

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// Replaces the generated part of docs/performance.md, and the plots beside it.
fn report(rows: &[Value], qemu: &[Value], cost: &[Value]) -> Result<()> {
    let docs = cargo::root().join("docs");
    let path = docs.join("performance.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (head, rest) = text.split_once(BEGIN).context("no begin mark in docs/performance.md")?;
    let (_, tail) = rest.split_once(END).context("no end mark in docs/performance.md")?;
    let mut table = String::from(
        "\n| scenario | limit MB/s | ours MB/s | share | gate | stock pattern MB/s | slots | sent again | dropped |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let gate =
            row["gate"].as_f64().map_or(String::new(), |gate| format!("{:.0} %", gate * 100.0));
        table += &format!(
            "| `{}` | {:.1} | {:.1} | {:.1} % | {gate} | {} | {} | {} | {:.2} % |\n",
            row["scenario"].as_str().unwrap_or("?"),
            number(row, "limit_mb_s"),
            number(row, "ours_mb_s"),
            100.0 * number(row, "share"),
            if number(row, "burst_mb_s") > 0.0 {
                format!("{:.2}", number(row, "burst_mb_s"))
            } else {
                String::new()
            },
            row["slots"],
            row["retransmits"],
            100.0 * number(row, "drop_share"),
        );
    }
    if !qemu.is_empty() {
        table += "\n| in QEMU, 64 MiB, real time | MB/s |\n|---|---|\n";
        for row in qemu {
            let name = row["scenario"].as_str().unwrap_or("?");
            table += &format!("| `{name}` | {:.1} |\n", number(row, "ours_mb_s"));
        }
    }
    if !cost.is_empty() {
        table += "\n| cost | instructions a data packet |\n|---|---|\n";
        for row in cost {
            let name = row["scenario"].as_str().unwrap_or("?");
            table += &format!("| `{name}` | {:.0} |\n", number(row, "instructions"));
        }
    }
    fs::write(&path, format!("{head}{BEGIN}\n{table}\n{END}{tail}"))?;
    plot::against_loss(rows, &docs.join("goodput-loss.svg"))?;
    plot::against_rtt(rows, &docs.join("goodput-rtt.svg"))
}
