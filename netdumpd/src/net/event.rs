//! What happens, for those who watch: one JSON object each.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use crate::core::{End, Reason, Record, SessionId, Verdict};
use crate::store::{Ranges, end_name, verdict_name};

/// Something that happened.
///
/// As JSON, `event` is the variant's name in snake case and the fields are
/// beside it. Byte counts are of payload; paths are absolute if the dump
/// directory was given so.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The server has given up what it does not need any more.
    Sandbox {
        /// What became of landlock.
        landlock: String,
        /// What became of seccomp.
        seccomp: String,
    },
    /// Heralds are taken at this address; one event for each.
    Listening {
        /// Address and port, also where port 0 was asked for.
        address: SocketAddr,
    },
    /// A new session's herald came, and it has a socket.
    Herald {
        /// Its number.
        session: SessionId,
        /// Where the client is.
        peer: SocketAddr,
        /// The session's own address.
        address: SocketAddr,
        /// Whether another dump of this client is about.
        provisional: bool,
    },
    /// A dump has begun: it has files.
    Session {
        /// Its number.
        session: SessionId,
        /// Where the client is.
        peer: SocketAddr,
        /// The host's name in file names.
        host: String,
        /// The image.
        vmcore: PathBuf,
        /// The info file.
        info: PathBuf,
    },
    /// A dump whose server died was found at the start, and marked.
    Interrupted {
        /// Where the client was.
        peer: SocketAddr,
        /// The host's name in file names.
        host: String,
        /// Its image.
        vmcore: PathBuf,
        /// Its info file.
        info: PathBuf,
        /// Its JSON record.
        record: PathBuf,
        /// `interrupted`, or what its record said already.
        reason: Reason,
        /// Distinct bytes of the image received, if the record was written now.
        bytes: Option<u64>,
    },
    /// How far a dump is; at most two a second for each.
    Progress {
        /// Its number.
        session: SessionId,
        /// Where the client is.
        peer: SocketAddr,
        /// Distinct bytes of the image received.
        bytes: u64,
        /// One past the highest of them.
        received_end: u64,
        /// Messages that came.
        messages: u64,
    },
    /// A dump has ended.
    Finished(Box<Outcome>),
    /// The handler script has ended, or was ended.
    Script {
        /// The dump it ran for.
        session: SessionId,
        /// Its first argument.
        reason: Reason,
        /// Its exit status, or what became of it.
        status: String,
    },
    /// Something went wrong.
    Error {
        /// The session it concerns.
        session: Option<SessionId>,
        /// The client it concerns.
        peer: Option<SocketAddr>,
        /// What.
        message: String,
    },
}

/// How a dump ended.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Its number.
    pub session: SessionId,
    /// Where the client is.
    pub peer: SocketAddr,
    /// `complete`, `incomplete` or `failed`.
    pub result: &'static str,
    /// `finished`, `timed_out`, `superseded`, `stopped` or `store_failed`.
    pub end: &'static str,
    /// What the system said, if it could not be stored.
    pub error: Option<String>,
    /// The image, by its final name.
    pub vmcore: Option<PathBuf>,
    /// The info file.
    pub info: Option<PathBuf>,
    /// The JSON record.
    pub record: Option<PathBuf>,
    /// The key blob, if one came.
    pub key: Option<PathBuf>,
    /// Distinct bytes of the image received.
    pub bytes: u64,
    /// Length of the image by a sound kernel dump header.
    pub dump_length: Option<u64>,
    /// Messages that never came.
    pub missing_seqnos: u64,
    /// Messages that came again.
    pub duplicates: u64,
    /// Bytes that were sent and never came.
    pub holes: Ranges,
    /// Bytes that were never sent.
    pub not_sent: Ranges,
    /// From the herald to the end.
    pub seconds: f64,
    /// Between the first and the last payload.
    pub bytes_per_s: Option<u64>,
    /// The same as `result`, for code.
    #[serde(skip)]
    pub verdict: Verdict,
}

impl Outcome {
    pub(super) fn new(session: SessionId, record: &Record) -> Self {
        let error = match &record.end {
            End::StoreFailed { message, .. } => Some(message.clone()),
            _ => None,
        };
        Self {
            session,
            peer: record.peer,
            result: verdict_name(record.verdict),
            end: end_name(&record.end),
            error,
            vmcore: None,
            info: None,
            record: None,
            key: None,
            bytes: record.stats.covered_bytes,
            dump_length: record.header.as_ref().and_then(|header| header.sound_length()),
            missing_seqnos: record.missing_seqnos,
            duplicates: record.stats.duplicates,
            holes: (&record.holes).into(),
            not_sent: (&record.not_sent).into(),
            seconds: record.ended.since_us(record.started) as f64 / 1e6,
            bytes_per_s: record.bytes_per_s(),
            verdict: record.verdict,
        }
    }
}

/// Watches a server.
pub trait Observer {
    /// Something happened. Must not wait: the loop stands still meanwhile.
    fn event(&mut self, event: &Event);
}

impl<F: FnMut(&Event)> Observer for F {
    fn event(&mut self, event: &Event) {
        self(event);
    }
}
