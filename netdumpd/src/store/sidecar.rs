//! The record of a dump as JSON, beside its info file.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::escape;
use super::names::Names;
use crate::core::{
    Basis, Compression, DumpHeader, End, HeaderProblem, KeyInfo, Note, RangeList, Record, Stats,
    Verdict,
};

/// Number of the format; it changes when a field changes its meaning.
const FORMAT: u32 = 1;

/// Names and times the core does not know.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) names: Names,
    pub(super) peer: SocketAddr,
    pub(super) has_key: bool,
    pub(super) started: Timestamp,
    pub(super) ended: Option<Timestamp>,
    /// Of the image, in hexadecimal.
    pub(super) sha256: Option<String>,
}

#[derive(Serialize)]
struct Sidecar<'a> {
    format: u32,
    /// `receiving`, `complete`, `incomplete`, `failed`.
    result: &'a str,
    /// `finished`, `timed_out`, `superseded`, `stopped`, `interrupted`, `store_failed`; absent while receiving.
    end: Option<&'static str>,
    error: Option<StoreError<'a>>,
    host: &'a str,
    ip: std::net::IpAddr,
    port: u16,
    vmcore: &'a str,
    info: String,
    key: Option<String>,
    started: String,
    #[serde(flatten)]
    outcome: Option<Outcome<'a>>,
}

#[derive(Serialize)]
struct StoreError<'a> {
    message: &'a str,
    offset: Option<u64>,
}

#[derive(Serialize)]
struct Outcome<'a> {
    ended: Option<String>,
    /// Of the image; absent until it is computed, some time after the end.
    sha256: Option<&'a str>,
    seconds: f64,
    bytes_per_s: Option<u64>,
    basis: Basis,
    missing_seqnos: u64,
    received_bytes: u64,
    received_end: u64,
    holes: Ranges,
    not_sent: Ranges,
    suspect: Ranges,
    notes: &'a [Note],
    header: Option<Header>,
    encryption: Option<KeyInfo>,
    stats: &'a Stats,
}

/// A [`RangeList`] as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Ranges {
    /// How many there are.
    pub count: u64,
    /// Bytes in all of them.
    pub bytes: u64,
    /// The lowest of them, at most [`RangeList::MAX_LISTED`].
    pub ranges: Vec<Span>,
}

/// A range of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Span {
    /// Its first byte.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl From<&RangeList> for Ranges {
    fn from(list: &RangeList) -> Self {
        let span = |range: &std::ops::Range<u64>| Span {
            offset: range.start,
            len: range.end - range.start,
        };
        Self {
            count: list.count,
            bytes: list.bytes,
            ranges: list.listed.iter().map(span).collect(),
        }
    }
}

#[derive(Serialize)]
struct Header {
    problems: Vec<HeaderProblem>,
    version: u32,
    architecture: String,
    architecture_version: u32,
    dump_length: u64,
    dump_extent: Option<u64>,
    dump_time: u64,
    key_size: u32,
    block_size: u32,
    compression: Option<Compression>,
    hostname: String,
    version_string: String,
    panic_string: String,
}

impl From<&DumpHeader> for Header {
    fn from(header: &DumpHeader) -> Self {
        Self {
            problems: header.problems.clone(),
            version: header.version,
            architecture: escape(&header.architecture),
            architecture_version: header.architecture_version,
            dump_length: header.dump_length,
            dump_extent: header.dump_extent,
            dump_time: header.dump_time,
            key_size: header.key_size,
            block_size: header.block_size,
            compression: header.compression,
            hostname: escape(&header.hostname),
            version_string: escape(&header.version_string),
            panic_string: escape(&header.panic_string),
        }
    }
}

/// The word for a verdict.
pub(crate) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Complete => "complete",
        Verdict::Incomplete => "incomplete",
        Verdict::Failed => "failed",
    }
}

/// The word for what ended a dump.
pub(crate) fn end_name(end: &End) -> &'static str {
    match end {
        End::Finished => "finished",
        End::TimedOut => "timed_out",
        End::Superseded => "superseded",
        End::Stopped => "stopped",
        End::Interrupted => "interrupted",
        End::StoreFailed { .. } => "store_failed",
    }
}

/// The file's content, indented or not; `record` is absent as long as the dump runs.
pub(super) fn render(frame: &Frame, record: Option<&Record>, indented: bool) -> Vec<u8> {
    let error = record.and_then(|record| match &record.end {
        End::StoreFailed { message, offset } => Some(StoreError { message, offset: *offset }),
        _ => None,
    });
    let sidecar = Sidecar {
        format: FORMAT,
        result: record.map_or("receiving", |record| verdict_name(record.verdict)),
        end: record.map(|record| end_name(&record.end)),
        error,
        host: &frame.names.host,
        ip: frame.peer.ip(),
        port: frame.peer.port(),
        vmcore: &frame.names.vmcore,
        info: frame.names.info(),
        key: frame.has_key.then(|| frame.names.key()),
        started: frame.started.to_string(),
        outcome: record.map(|record| outcome(frame, record)),
    };
    // Maps with string keys and plain values: serialising them cannot fail.
    let json = match indented {
        true => serde_json::to_vec_pretty(&sidecar),
        false => serde_json::to_vec(&sidecar),
    };
    let mut json = json.unwrap_or_default();
    json.push(b'\n');
    json
}

fn outcome<'a>(frame: &'a Frame, record: &'a Record) -> Outcome<'a> {
    Outcome {
        ended: frame.ended.map(|ended| ended.to_string()),
        sha256: frame.sha256.as_deref(),
        seconds: record.ended.since_us(record.started) as f64 / 1e6,
        bytes_per_s: record.bytes_per_s(),
        basis: record.basis,
        missing_seqnos: record.missing_seqnos,
        received_bytes: record.stats.covered_bytes,
        received_end: record.received_end,
        holes: (&record.holes).into(),
        not_sent: (&record.not_sent).into(),
        suspect: (&record.suspect).into(),
        notes: &record.notes,
        header: record.header.as_deref().map(Header::from),
        encryption: record.key,
        stats: &record.stats,
    }
}
