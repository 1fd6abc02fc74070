//! `netdumpd inspect`: what a vmcore, an info file or a record tells.

pub(crate) mod image;
pub(crate) mod info;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::store::harmless;

/// Largest info file or record that is read.
const MAX_TEXT_LEN: u64 = 16 << 20;

/// What was found; text from the network is escaped.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    file: PathBuf,
    /// `elf`, `minidump`, `kernel_dump_header`, `raw`, `empty`, `info` or `record`.
    pub(crate) kind: &'static str,
    /// `gzip` or `zstd`.
    pub(crate) compression: Option<&'static str>,
    file_len: u64,
    /// `complete`, `incomplete`, `failed`, `receiving` or `unknown`.
    pub(crate) result: String,
    end: Option<String>,
    holes: Option<u64>,
    hole_bytes: Option<u64>,
    missing_seqnos: Option<u64>,
    received_bytes: Option<u64>,
    dump_length: Option<u64>,
    sha256: Option<String>,
    architecture: Option<String>,
    panic: Option<String>,
    build_id: Option<String>,
    kernel_version: Option<String>,
    hostname: Option<String>,
    /// Seconds since 1970.
    time_s: Option<u64>,
    pub(crate) cpus: Option<u64>,
    /// The record from which the result comes.
    record: Option<PathBuf>,
    pub(crate) problems: Vec<String>,
}

/// Prints what is known of `file`.
///
/// # Errors
/// If it cannot be read.
pub fn run(file: &Path, json: bool) -> Result<ExitCode> {
    let report = inspect(file)?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(match report.result.as_str() {
        "complete" => 0,
        "failed" => 4,
        "incomplete" | "receiving" | "interrupted" => 3,
        _ => 5,
    }
    .into())
}

fn inspect(file: &Path) -> Result<Report> {
    let shown = file.display();
    // The `.last` links lead to names that say which record belongs to them.
    let path = file.canonicalize().with_context(|| format!("cannot read {shown}"))?;
    ensure!(path.is_file(), "{shown} is no file");
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut report = Report { file: path.clone(), result: "unknown".into(), ..Report::default() };
    report.file_len = path.metadata()?.len();
    let record = if name.starts_with("info.") && name.ends_with(".json") {
        report.kind = "record";
        Some(path)
    } else if name.starts_with("info.") {
        report.kind = "info";
        info::read(&read_text(&path)?, &mut report);
        Some(path.with_file_name(format!("{name}.json")))
    } else {
        File::open(&path)
            .and_then(|file| image::read(file, &mut report))
            .with_context(|| format!("cannot read {shown}"))?;
        record_of(&name).map(|record| path.with_file_name(record))
    };
    let needed = report.kind == "record";
    if let Some(record) = record.filter(|record| needed || record.is_file()) {
        take_record(&read_text(&record)?, &mut report)
            .with_context(|| format!("{} is no record of netdumpd", record.display()))?;
        report.record = Some(record);
    }
    Ok(report)
}

fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_TEXT_LEN).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The record's name for a vmcore's.
fn record_of(name: &str) -> Option<String> {
    let rest = ["vmcore.", "vmcore_encrypted."].iter().find_map(|stem| name.strip_prefix(stem))?;
    let rest = [".gz", ".zst"].iter().find_map(|end| rest.strip_suffix(end)).unwrap_or(rest);
    Some(format!("info.{rest}.json"))
}

/// Takes what a record says of a dump.
///
/// # Errors
/// If it is none.
pub(crate) fn take_record(text: &str, report: &mut Report) -> Result<()> {
    let record: Value = serde_json::from_str(text)?;
    // Escaped by the server that wrote it, if it was one.
    let text = |value: &Value| value.as_str().map(harmless);
    report.result = text(&record["result"]).context("it has no result")?;
    report.end = text(&record["end"]);
    report.holes = record["holes"]["count"].as_u64();
    report.hole_bytes = record["holes"]["bytes"].as_u64();
    report.missing_seqnos = record["missing_seqnos"].as_u64();
    report.received_bytes = record["received_bytes"].as_u64();
    report.sha256 = text(&record["sha256"]);
    let header = &record["header"];
    report.dump_length = header["dump_length"].as_u64();
    for (place, key) in [
        (&mut report.architecture, "architecture"),
        (&mut report.panic, "panic_string"),
        (&mut report.kernel_version, "version_string"),
        (&mut report.hostname, "hostname"),
    ] {
        // What the image says of itself comes first.
        *place = place.take().or_else(|| text(&header[key]));
    }
    report.time_s = report.time_s.or_else(|| header["dump_time"].as_u64());
    Ok(())
}

/// One fact a line.
fn print(report: &Report) {
    let Ok(Value::Object(facts)) = serde_json::to_value(report) else { return };
    for (name, value) in facts {
        match value {
            Value::Null => {}
            Value::Array(lines) => lines.iter().for_each(|line| println!("{name}: {line}")),
            Value::String(text) => println!("{name}: {text}"),
            other => println!("{name}: {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_by_name() {
        assert_eq!(record_of("vmcore.a.b.7").as_deref(), Some("info.a.b.7.json"));
        assert_eq!(record_of("vmcore_encrypted.h.0.gz").as_deref(), Some("info.h.0.json"));
        assert_eq!(record_of("core.1"), None);
    }
}
