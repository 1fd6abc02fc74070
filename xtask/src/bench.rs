//! `cargo xtask bench`: the performance table, as ratios measured side by side
//! in one run.
//!
//! The simulated rows are in virtual time: they do not depend on the machine.
//! The QEMU rows are real time and are only compared with each other. What a
//! packet costs is counted in instructions, what a server pays for it in CPU time.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use netsim::link::LinkConfig;
use qemu_tests::board::board;
use qemu_tests::qemu::Machine;
use qemu_tests::run::{RunConfig, run as run_guest, time_limit};
use serde_json::{Value, json};

use crate::{bench_nics, cargo, intake, plot, tools};

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
    /// Only the rows of the NICs in QEMU, and nothing else
    #[arg(long, conflicts_with = "only")]
    nics: bool,
    /// Only the rows of the server, and nothing else
    #[arg(long, conflicts_with_all = ["only", "nics"])]
    server: bool,
}

const REPORTED_MIB: u32 = 256;
/// Runs of each QEMU row, taken in turn.
const QEMU_RUNS: usize = 3;
/// Most instructions a data packet may cost.
const INSTRUCTIONS_MAX: f64 = 1000.0;

pub(crate) fn run(args: &Args) -> Result<()> {
    let rows = if args.nics || args.server { Vec::new() } else { simulated(args)? };
    let (mut qemu, mut nics, mut cost) = (Vec::new(), Vec::new(), Vec::new());
    let (mut copies, mut server) = (Vec::new(), Vec::new());
    let mut missing = Vec::new();
    if args.only.is_none() {
        let mut measured = |what, rows: Result<Vec<Value>>| {
            rows.unwrap_or_else(|error| {
                eprintln!("skipped: {what}: {error:#}");
                missing.push(what);
                Vec::new()
            })
        };
        if !args.server {
            nics = measured("rows of the NICs", bench_nics::rows());
        }
        if !args.nics {
            server = measured("server rows", intake::rows());
        }
        if !args.nics && !args.server {
            qemu = measured("QEMU rows", in_qemu());
            copies = measured("copies", bytes_touched());
            cost = measured("instructions", instructions());
        }
    }
    let below: Vec<&str> = (rows.iter().chain(&qemu).chain(&nics).chain(&cost).chain(&server))
        .filter(|row| row["ok"] == json!(false))
        .map(|row| row["scenario"].as_str().unwrap_or("?"))
        .collect();
    if args.only.is_none() && !args.nics && !args.server && args.mib >= REPORTED_MIB {
        report(&rows, &qemu, &nics, &cost, &copies, &server)?;
    }
    if args.json {
        let all = json!({
            "rows": rows, "qemu": qemu, "nics": nics, "cost": cost, "copies": copies, "server": server,
        });
        println!("{all}");
    }
    if args.check && !missing.is_empty() {
        bail!("not measured, so not checked: {}", missing.join(", "));
    }
    if args.check && !below.is_empty() {
        bail!("below the gate: {}", below.join(", "));
    }
    Ok(())
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
    let guest = cargo::build_guest(board.guest, "identity", "rust")?;
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

/// The measuring program, built as a kernel is, in one unit, but without
/// inlining across crates: the names of the core's functions are what is counted by.
fn cost_program() -> Result<PathBuf> {
    let mut build = cargo::cargo();
    let dir = cargo::target_dir()?.join("cost");
    build.args(["build", "-p", "netsim", "--release", "--bin", "cost", "--target-dir"]).arg(&dir);
    build.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    cargo::run(&mut build)?;
    Ok(dir.join("release/cost"))
}

/// Payload bytes that the CPU reads and copies for each MiB of frozen memory, for each kind of NIC.
fn bytes_touched() -> Result<Vec<Value>> {
    let program = cost_program()?;
    let mut rows = Vec::new();
    for (nic, what) in [
        ("sums", "fetches payloads and sums"),
        ("fetches", "fetches payloads and does not sum"),
        ("bytes", "takes bytes"),
    ] {
        let output = Command::new(&program).args(["1024", "1", nic]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let counts: Value = serde_json::from_slice(&output.stdout)?;
        let mib = number(&counts, "dump_bytes") / f64::from(1 << 20);
        rows.push(json!({
            "nic": what,
            "read_per_mib": (number(&counts, "bytes_read") / mib).round(),
            "copied_per_mib": (number(&counts, "bytes_copied") / mib).round(),
            "slot_bytes": counts["slot_bytes"],
        }));
    }
    Ok(rows)
}

/// Instructions in the core for each data packet: all that `Dump::advance` runs,
/// less what the NIC, the clock and the source of the measuring program run.
fn instructions() -> Result<Vec<Value>> {
    ensure!(
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok(),
        "valgrind is missing"
    );
    let program = cost_program()?;
    let mut rows = Vec::new();
    for slots in [64, 1024, 4096] {
        for loss in [0, 1] {
            let each = count(&program, slots, loss, "sums")?;
            eprintln!("{each:.0} instructions a packet, {slots} slots, {loss} % loss");
            rows.push(json!({
                "scenario": format!("cost-{slots}-loss{loss}"),
                "instructions": each.round(),
                "gate": INSTRUCTIONS_MAX,
                "ok": each <= INSTRUCTIONS_MAX,
            }));
        }
    }
    let each = count(&program, 1024, 0, "fetches")?;
    eprintln!("{each:.0} instructions a packet where the CPU sums");
    rows.push(json!({"scenario": "cost-1024-loss0-software-sum", "instructions": each.round()}));
    Ok(rows)
}

fn count(program: &Path, slots: u32, loss: u32, nic: &str) -> Result<f64> {
    let out = program.with_extension("callgrind");
    let mut callgrind = Command::new("valgrind");
    callgrind.arg("--tool=callgrind").arg("--toggle-collect=*Dump*advance*");
    callgrind.arg(format!("--callgrind-out-file={}", out.display()));
    callgrind.arg(program).args([&slots.to_string(), &loss.to_string(), nic]);
    let output = callgrind.output().context("running valgrind")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counts: Value = serde_json::from_slice(&output.stdout).context("no count")?;
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
    ensure!(total > 0.0 && foreign > 0.0, "the profiler saw nothing of Dump::advance");
    Ok((total - foreign) / number(&counts, "messages"))
}

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// Replaces the generated part of docs/performance.md, and the plots beside it.
fn report(
    rows: &[Value],
    qemu: &[Value],
    nics: &[Value],
    cost: &[Value],
    copies: &[Value],
    server: &[Value],
) -> Result<()> {
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
            "| `{}` | {:.1} | {:.1} | {:.1} % | {gate} | {:.2} | {} | {} | {:.2} % |\n",
            row["scenario"].as_str().unwrap_or("?"),
            number(row, "limit_mb_s"),
            number(row, "ours_mb_s"),
            100.0 * number(row, "share"),
            number(row, "burst_mb_s"),
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
    table += &bench_nics::table(nics);
    table += &intake::table(server);
    if !cost.is_empty() {
        table += "\n| cost | instructions a data packet |\n|---|---|\n";
        for row in cost {
            let name = row["scenario"].as_str().unwrap_or("?");
            table += &format!("| `{name}` | {:.0} |\n", number(row, "instructions"));
        }
    }
    if !copies.is_empty() {
        table += "\n| a NIC that | bytes read a MiB | bytes copied a MiB |\n|---|---|---|\n";
        for row in copies {
            table += &format!(
                "| {} | {} | {} |\n",
                row["nic"].as_str().unwrap_or("?"),
                number(row, "read_per_mib"),
                number(row, "copied_per_mib"),
            );
        }
    }
    fs::write(&path, format!("{head}{BEGIN}\n{table}\n{END}{tail}"))?;
    plot::against_loss(rows, &docs.join("goodput-loss.svg"))?;
    plot::against_rtt(rows, &docs.join("goodput-rtt.svg"))
}
