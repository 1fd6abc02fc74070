//! Files that a server reads back: the first byte says which, the others are its content.
//!
//! Whatever is in them: what is told of them is printable, bounded, the same from a compressed
//! copy; a damaged journal loses nothing that its sound entries tell, and tells of no byte that
//! is not in the dump's file. Not looked at: the file system.

use std::io::{Cursor, Read as _};
use std::ops::Range;

use serde_json::Value;

use crate::core::{DumpFile, DumpHeader, Herald, Identity, Limits, Note, Salvage, Verdict};
use crate::inspect::{Report, image, info, take_record};
use crate::store::journal::{Stored, head_stands, take_entries};

/// The most that is compressed to look at it again.
const COMPRESSED_MAX: usize = 16 << 10;

/// Feeds `data`.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    let Some((what, content)) = data.split_first() else { return };
    match what % 5 {
        0 => look_at_image(content),
        1 => look_at_text(content, info::read),
        2 => look_at_text(content, |text, report| {
            if take_record(text, report).is_err() {
                assert_eq!(*report, Report::default(), "half a record");
            }
        }),
        3 => assert!(head_stands(content), "the head of a journal"),
        _ => journal(content),
    }
}

fn look_at_text(content: &[u8], read: impl Fn(&str, &mut Report)) {
    let text = String::from_utf8_lossy(content);
    let mut report = Report::default();
    read(&text, &mut report);
    assert_printable(&report);
}

fn look_at_image(content: &[u8]) {
    let mut report = Report::default();
    if image::read(Cursor::new(content), &mut report).is_err() {
        assert_eq!(content.get(..4), Some(&[0x28, 0xb5, 0x2f, 0xfd][..]), "only zstd's head");
        return;
    }
    assert_printable(&report);
    assert!(!report.kind.is_empty() && report.problems.len() <= 16, "{report:?}");
    if report.compression.is_some() {
        return;
    }
    // The smallest note of a CPU has a head of 12 bytes, and a name of 8.
    let cpus = report.cpus.unwrap_or_default();
    assert!(cpus * 20 <= content.len() as u64, "{cpus} CPUs in {} bytes", content.len());
    if content.len() > COMPRESSED_MAX {
        return;
    }
    let mut compressed = Vec::new();
    flate2::read::GzEncoder::new(content, flate2::Compression::fast())
        .read_to_end(&mut compressed)
        .expect("memory");
    let mut again = Report::default();
    image::read(Cursor::new(&compressed), &mut again).expect("a sound stream");
    assert_eq!(again.compression.take(), Some("gzip"));
    assert_eq!(again, report, "the same, compressed");
    let mut cut = Report::default();
    image::read(Cursor::new(&compressed[..compressed.len() - 1]), &mut cut).expect("its begin");
    assert!(cut.problems.iter().any(|problem| problem.contains("decompressed")), "{cut:?}");
}

fn assert_printable(report: &Report) {
    fn check(value: &Value) {
        match value {
            Value::String(text) => {
                assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
            }
            Value::Array(values) => values.iter().for_each(check),
            Value::Object(values) => values.values().for_each(check),
            _ => {}
        }
    }
    check(&serde_json::to_value(report).expect("plain values"));
}

/// Lengths of the two files (3 and 2 bytes), whether a header came (1 byte, then 512 bytes of
/// it), and entries.
fn journal(content: &[u8]) {
    let Some((&[a, b, c, d, e, has_header], mut rest)) = content.split_first_chunk() else {
        return;
    };
    let vmcore_len = u32::from_le_bytes([a, b, c, 0]).into();
    let key_len = u16::from_le_bytes([d, e]).into();
    let limits = Limits::default();
    let mut salvage = Salvage::new(Herald { seqno: 1, identity: Identity::Stock }, &limits);
    let mut header = None;
    if has_header & 1 != 0
        && let Some((bytes, after)) = rest.split_at_checked(512)
    {
        rest = after;
        header = Some(DumpHeader::parse(bytes).expect("512 bytes"));
    }
    let stored = Stored::new(vmcore_len, key_len, header.as_ref());
    take_entries(rest, stored, &mut salvage).expect("memory can be read");
    if let Some(header) = header {
        salvage.set_header(header);
    }

    for (kind, file, len) in
        [(1, DumpFile::Vmcore, stored.vmcore_len), (2, DumpFile::Key, stored.key_len)]
    {
        let mut told: Vec<_> = ranges(rest, kind)
            .map(|range| range.start.min(len)..range.end.min(len))
            .filter(|range| !range.is_empty())
            .collect();
        let covered = salvage.covered(file);
        assert!(told.iter().all(|range| covered.contains(range)), "{covered:?} of {told:?}");
        assert!(covered.end() <= len, "{covered:?}");
        told.sort_by_key(|range| range.start);
        let mut end = 0;
        let total: u64 = told
            .iter()
            .map(|range| {
                let fresh = range.end.saturating_sub(range.start.max(end));
                end = end.max(range.end);
                fresh
            })
            .sum();
        assert_eq!(covered.total(), total, "{covered:?} of {told:?}");
    }
    let (covered, end) = {
        let covered = salvage.covered(DumpFile::Vmcore);
        (covered.clone(), covered.end())
    };
    let record = salvage.record("192.0.2.1:20024".parse().expect("an address"), 1);
    assert_eq!(record.verdict, Verdict::Incomplete);
    assert_eq!((record.received_end, record.stats.covered_bytes), (end, covered.total()));
    assert!(record.final_len.is_none_or(|len| len < end), "it grows: {record:?}");
    let length = record.header.as_ref().and_then(|header| header.sound_length());
    let length = length.unwrap_or(end);
    let below: u64 =
        covered.split(0..length).filter(|part| part.1).map(|(part, _)| part.end - part.start).sum();
    assert_eq!(below + record.holes.bytes + record.not_sent.bytes, length, "{record:?}");
    let header = record.header.as_ref().filter(|header| header.is_compressed());
    let is_cut = header.is_some_and(|header| header.dump_length == stored.vmcore_len);
    let (entries, cut) = rest.as_chunks::<32>();
    let is_sound = |entry: &[u8; 32]| {
        let (start, len) = (word(entry, 16), word(entry, 24));
        let is_within = |file_len| start.checked_add(len).is_some_and(|end| end <= file_len);
        match entry[0] {
            1 => len == 0 || is_within(if is_cut { u64::MAX } else { stored.vmcore_len }),
            2 => len == 0 || is_within(stored.key_len),
            kind => kind == 3,
        }
    };
    let is_damaged = !cut.is_empty() || !entries.iter().all(is_sound);
    assert_eq!(record.notes.contains(&Note::JournalDamaged), is_damaged, "{record:?}");
}

/// A number of an entry.
fn word(entry: &[u8; 32], at: usize) -> u64 {
    u64::from_le_bytes(*entry[at..].first_chunk().expect("8 of 32 bytes"))
}

/// What the entries of a kind tell, read by the format's description.
fn ranges(entries: &[u8], kind: u8) -> impl Iterator<Item = Range<u64>> + '_ {
    let (entries, _) = entries.as_chunks::<32>();
    let of_kind = entries.iter().filter(move |entry| entry[0] == kind);
    of_kind.map(move |entry| {
        let start = word(entry, 16);
        start..start.saturating_add(word(entry, 24))
    })
}
