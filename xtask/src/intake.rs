//! The rows of `cargo xtask bench` on the server: CPU time and packets a second
//! beside a plain server.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cargo;

/// Runs both servers in turn; a row for each number of clients.
pub(crate) fn rows() -> Result<Vec<Value>> {
    let netdumpd = cargo::build_netdumpd()?;
    let program = cargo::build(&["-p", "netsim", "--release", "--bin", "intake"])?;
    let mut child = Command::new(program)
        .arg(netdumpd)
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the clients")?;
    let output = child.stdout.take().context("no output of the clients")?;
    eprintln!(
        "{:<24} {:>9} {:>9} {:>6} {:>6} {:>10} {:>10}",
        "CPU s/GiB", "ours", "plain", "less", "gate", "packets/s", "plain"
    );
    let mut rows = Vec::new();
    for line in BufReader::new(output).lines() {
        let row: Value = serde_json::from_str(&line?).context("a row of the clients")?;
        let number = |key: &str| row[key].as_f64().unwrap_or(0.0);
        eprintln!(
            "{:<24} {:>9.2} {:>9.2} {:>5.2}x {:>6} {:>10.0} {:>10.0}{}",
            row["scenario"].as_str().unwrap_or("?"),
            number("ours_cpu_s_per_gib"),
            number("plain_cpu_s_per_gib"),
            number("ratio"),
            row["gate"].as_f64().map_or(String::new(), |gate| format!("{gate:.1}x")),
            number("ours_packets_per_s"),
            number("plain_packets_per_s"),
            if row["ok"] == json!(false) { "  below the gate" } else { "" },
        );
        rows.push(row);
    }
    ensure!(child.wait()?.success(), "the clients failed");
    Ok(rows)
}

/// The rows for docs/performance.md.
pub(crate) fn table(rows: &[Value]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = String::from(
        "\n| server, CPU seconds a GiB | ours | plain | less | gate | ours packets/s | plain packets/s |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let number = |key: &str| row[key].as_f64().unwrap_or(0.0);
        let gate = row["gate"].as_f64().map_or(String::new(), |gate| format!("{gate:.1}"));
        table += &format!(
            "| `{}` | {:.2} | {:.2} | {:.2} | {gate} | {:.0} | {:.0} |\n",
            row["scenario"].as_str().unwrap_or("?"),
            number("ours_cpu_s_per_gib"),
            number("plain_cpu_s_per_gib"),
            number("ratio"),
            number("ours_packets_per_s"),
            number("plain_packets_per_s"),
        );
    }
    table
}
