//! The lines of the info file, as the stock server writes them.

use std::fmt::Write;
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{escape, escape_keeping_newline};
use crate::core::{DumpHeader, End, HeaderProblem, Record, Verdict};

/// Holes listed in the info file; the JSON record has more.
const MAX_HOLE_LINES: usize = 16;

/// The first line.
pub(super) fn opening(host: &str, ip: IpAddr) -> String {
    format!("Dump from {host} [{ip}]\n")
}

/// The lines of a kernel dump header; `None` is one that was too short.
pub(super) fn header(header: Option<&DumpHeader>, zone: &TimeZone) -> String {
    let Some(header) = header else { return "  Bad KDH: packet too small\n".into() };
    let mut text = String::new();
    let length = header.dump_length;
    let mut line = |name: &str, value: &str| {
        // Only a version string ends with a newline of its own, or does not.
        let end = if name == "Version String" { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = write!(text, "  {name}: {value}{end}");
    };
    line("Architecture", &escape(&header.architecture));
    line("Architecture Version", &header.architecture_version.to_string());
    line("Dump Length", &format!("{length}B ({} MB)", length >> 20));
    line("Blocksize", &header.block_size.to_string());
    if let Some(compression) = header.compression {
        line("Compression", compression.name());
    }
    line("Dumptime", &dump_time(header.dump_time, zone));
    line("Hostname", &escape(&header.hostname));
    line("Version String", &escape_keeping_newline(&header.version_string));
    line("Panic String", &escape(&header.panic_string));
    let parity_fails = header.problems.contains(&HeaderProblem::Parity);
    line("Header Parity Check", if parity_fails { "Fail" } else { "Pass" });
    if header.problems.contains(&HeaderProblem::Magic) {
        line("Header Problem", "not a kernel dump header");
    }
    if header.problems.contains(&HeaderProblem::Version) {
        line("Header Problem", &format!("unknown version {}", header.version));
    }
    text
}

/// The last line, and the holes before it.
pub(super) fn ending(record: &Record) -> String {
    let mut text = String::new();
    let holes = &record.holes;
    if record.verdict != Verdict::Complete {
        for hole in holes.listed.iter().take(MAX_HOLE_LINES) {
            let _ = writeln!(text, "  Hole: {} bytes at {}", hole.end - hole.start, hole.start);
        }
        if holes.count > MAX_HOLE_LINES as u64 {
            let more = holes.count - MAX_HOLE_LINES as u64;
            let _ = writeln!(text, "  Hole: {more} more, {} bytes in all", holes.bytes);
        }
    }
    let last = match (&record.end, record.verdict) {
        (End::Finished, Verdict::Complete) => "Dump complete".into(),
        (End::Finished, _) => format!(
            "Dump incomplete: {} messages missing, {} bytes in {} holes",
            record.missing_seqnos, holes.bytes, holes.count
        ),
        (End::TimedOut, _) => "Dump incomplete: client timed out".into(),
        (End::Superseded, _) => "Dump incomplete: client began a new dump".into(),
        (End::Interrupted, _) => "Dump incomplete: server was interrupted".into(),
        (End::Stopped, _) => "Dump incomplete: client timed out (server stopped)".into(),
        (End::StoreFailed { message, offset: Some(offset) }, _) => {
            format!("Dump unsuccessful: write error @ offset {offset:#x}: {message}")
        }
        (End::StoreFailed { message, offset: None }, _) => {
            format!("Dump unsuccessful: {message}")
        }
    };
    text + &last + "\n"
}

/// As `ctime` writes it; a time beyond any calendar as a number.
fn dump_time(seconds: u64, zone: &TimeZone) -> String {
    let timestamp = i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok());
    match timestamp {
        Some(at) => at.to_zoned_datetime(zone.clone()).strftime("%a %b %e %H:%M:%S %Y").to_string(),
        None => format!("{seconds} seconds after 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use debugnet_core::wire::kdh::{KernelDumpHeader, copy_str};
    use zerocopy::IntoBytes;
    use zerocopy::network_endian::{U32, U64};

    #[test]
    fn lines_of_a_header() {
        let mut wire = KernelDumpHeader::new();
        copy_str(&mut wire.architecture, b"amd64");
        copy_str(&mut wire.hostname, b"victim\x1b[0m");
        copy_str(&mut wire.version_string, b"FreeBSD 14.0\n");
        copy_str(&mut wire.panic_string, b"oh\nDump complete");
        wire.architecture_version = U32::new(2);
        wire.dump_length = U64::new(3 << 20);
        wire.dump_time = U64::new(1_700_000_000);
        wire.seal();
        let parsed = DumpHeader::parse(wire.as_bytes()).unwrap();
        assert_eq!(
            header(Some(&parsed), &TimeZone::UTC),
            "  Architecture: amd64\n  Architecture Version: 2\n  Dump Length: 3145728B (3 MB)\n  \
             Blocksize: 4096\n  Compression: none\n  Dumptime: Tue Nov 14 22:13:20 2023\n  \
             Hostname: victim\\x1b[0m\n  Version String: FreeBSD 14.0\n  \
             Panic String: oh\\nDump complete\n  Header Parity Check: Pass\n"
        );
    }

    #[test]
    fn days_of_one_digit_are_padded_and_far_times_do_not_fail() {
        assert_eq!(dump_time(86_400, &TimeZone::UTC), "Fri Jan  2 00:00:00 1970");
        assert_eq!(dump_time(u64::MAX, &TimeZone::UTC), format!("{} seconds after 1970", u64::MAX));
    }

    #[test]
    fn garbage_is_told_as_such() {
        let parsed = DumpHeader::parse(&[0xff; 512]).unwrap();
        let text = header(Some(&parsed), &TimeZone::UTC);
        assert!(text.ends_with(
            "  Header Problem: not a kernel dump header\n  Header Problem: unknown version 4294967295\n"
        ));
        assert!(text.is_ascii());
        assert_eq!(header(None, &TimeZone::UTC), "  Bad KDH: packet too small\n");
    }
}
