//! What each NIC carries in QEMU: a dump beside the same guest's echo rate.
//!
//! One guest measures all of it: frames like those of a dump, answered each by a
//! small one with 64 of them unanswered at most; the same without answers; then it dies and
//! dumps, zero pages too. All three by its own clock, in one QEMU process.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use qemu_tests::board::{BOARDS, Guest};
use qemu_tests::qemu::{Machine, devices};
use qemu_tests::run::{RunConfig, run as run_guest, time_limit};
use serde_json::{Value, json};

use crate::{cargo, tools};

/// Runs of each NIC, taken in turn.
const RUNS: usize = 3;
/// RAM of the guest, and how much each of its own measurements moves.
const MEMORY_MIB: u64 = 128;
const BENCH_MIB: u64 = 64;
/// Least share of the echo rate that a dump has to reach.
const GATE: f64 = 0.8;
const MIB: f64 = (1 << 20) as f64;

/// One run's figures.
#[derive(Clone, Copy)]
struct Sample {
    dump_mb_s: f64,
    echo_mb_s: f64,
    send_mb_s: f64,
    doorbells_per_mib: f64,
    copied_per_mib: f64,
    read_per_mib: f64,
}

/// A row for each NIC that the installed QEMU has.
pub(crate) fn rows() -> Result<Vec<Value>> {
    let guest = cargo::build_guest(Guest::PC, "identity", "rust")?;
    let netdumpd = cargo::build_netdumpd()?;
    // Each NIC on the first board that has a place for it.
    let mut nics: Vec<(&str, &str, PathBuf)> = Vec::new();
    for board in BOARDS.iter().filter(|board| board.guest == Guest::PC) {
        let qemu = tools::qemu(board.program)?;
        let there = devices(&qemu).context("asking QEMU for its devices")?;
        for nic in board.nics {
            if !there.contains(nic) {
                eprintln!("skipped: {nic} on {}: this QEMU has none", board.name);
            } else if nics.iter().all(|(other, ..)| other != nic) {
                nics.push((nic, board.name, qemu.clone()));
            }
        }
    }
    let mut samples = vec![Vec::new(); nics.len()];
    for _ in 0..RUNS {
        for ((nic, machine, qemu), samples) in nics.iter().zip(&mut samples) {
            let sample = run(nic, machine, qemu, &guest, &netdumpd);
            samples.push(sample.with_context(|| (*nic).to_owned())?);
        }
    }
    let rows: Vec<Value> =
        nics.iter().zip(&samples).map(|((nic, ..), samples)| row(nic, samples)).collect();
    eprintln!("{:<36} {:>6} {:>6} {:>6} {:>6}", "MB/s in QEMU", "dump", "echo", "share", "send");
    for row in &rows {
        eprintln!(
            "{:<36} {:>6.1} {:>6.1} {:>5.0}% {:>6.1}{}",
            row["scenario"].as_str().unwrap_or("?"),
            number(row, "dump_mb_s"),
            number(row, "echo_mb_s"),
            100.0 * number(row, "share"),
            number(row, "send_mb_s"),
            if row["ok"] == json!(false) { "  below the gate" } else { "" },
        );
    }
    Ok(rows)
}

fn run(nic: &str, machine: &str, qemu: &Path, guest: &Path, netdumpd: &Path) -> Result<Sample> {
    let out = cargo::target_dir()?.join("bench").join(nic);
    let _ = fs::remove_dir_all(&out);
    let machine = Machine {
        machine: machine.into(),
        nic: nic.into(),
        memory_mib: MEMORY_MIB,
        append: format!("bench={BENCH_MIB} zeros=send"),
        ..Machine::default()
    };
    let config = RunConfig {
        noise_per_s: 0,
        pcap: false,
        time_limit: time_limit(&machine),
        machine,
        ..RunConfig::new(guest.into(), qemu.into(), netdumpd.into(), out)
    };
    let report = run_guest(&config, &mut |_| {})?;
    ensure!(report.is_identical(), "{}", report.complaint().unwrap_or_default());
    let bench = report.bench.context("the guest measured nothing")?;
    let outcome = &report.outcome;
    let data_us = outcome.more.get("data_us").and_then(Value::as_u64).context("no data_us")?;
    let mib = outcome.sent_bytes as f64 / MIB;
    let volatile = report.ready.volatile_range();
    // The dump's own memory cannot be fetched in place: see ARCHITECTURE.md.
    let copied = outcome.bytes_copied.saturating_sub(volatile.end - volatile.start);
    Ok(Sample {
        dump_mb_s: outcome.sent_bytes as f64 / data_us.max(1) as f64,
        echo_mb_s: bench.echo_mb_s(),
        send_mb_s: bench.send_mb_s(),
        doorbells_per_mib: outcome.doorbells as f64 / mib,
        copied_per_mib: copied as f64 / mib,
        read_per_mib: outcome.bytes_read as f64 / mib,
    })
}

fn row(nic: &str, samples: &[Sample]) -> Value {
    let middle = |value: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    let share = middle(|sample| sample.dump_mb_s / sample.echo_mb_s);
    json!({
        "scenario": format!("qemu-nic-{nic}"),
        "dump_mb_s": middle(|sample| sample.dump_mb_s),
        "echo_mb_s": middle(|sample| sample.echo_mb_s),
        "send_mb_s": middle(|sample| sample.send_mb_s),
        "share": share,
        "gate": GATE,
        "doorbells_per_mib": middle(|sample| sample.doorbells_per_mib),
        "bytes_copied_per_mib": middle(|sample| sample.copied_per_mib),
        "bytes_read_per_mib": middle(|sample| sample.read_per_mib),
        "identical": true,
        "ok": share >= GATE,
    })
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or(0.0)
}

/// The rows as a table for docs/performance.md; nothing without rows.
pub(crate) fn table(rows: &[Value]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = format!(
        "\n| in QEMU, {MEMORY_MIB} MiB, real time, by NIC | dump MB/s | echo MB/s | dump / echo | gate | sent only MB/s | doorbells a MiB | bytes copied a MiB | bytes read a MiB |\n|---|---|---|---|---|---|---|---|---|\n"
    );
    for row in rows {
        table += &format!(
            "| `{}` | {:.1} | {:.1} | {:.0} % | {:.0} % | {:.1} | {:.0} | {:.0} | {:.0} |\n",
            row["scenario"].as_str().unwrap_or("?").trim_start_matches("qemu-nic-"),
            number(row, "dump_mb_s"),
            number(row, "echo_mb_s"),
            100.0 * number(row, "share"),
            100.0 * number(row, "gate"),
            number(row, "send_mb_s"),
            number(row, "doorbells_per_mib"),
            number(row, "bytes_copied_per_mib"),
            number(row, "bytes_read_per_mib"),
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_middle_of_its_runs() {
        let sample = |dump_mb_s| Sample {
            dump_mb_s,
            echo_mb_s: 10.0,
            send_mb_s: 20.0,
            doorbells_per_mib: 8.0,
            copied_per_mib: 0.0,
            read_per_mib: MIB,
        };
        let fast = row("e1000", &[sample(1.0), sample(9.0), sample(30.0)]);
        assert_eq!((&fast["share"], &fast["ok"]), (&json!(0.9), &json!(true)));
        assert_eq!(row("e1000", &[sample(7.9)])["ok"], json!(false));
        let table = table(&[fast]);
        assert!(table.contains("| `e1000` | 9.0 | 10.0 | 90 % | 80 % | 20.0 | 8 | 0 | 1048576 |"));
        assert_eq!(super::table(&[]), "");
    }
}
