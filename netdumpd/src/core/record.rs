//! What is known of a dump: the record that goes into its files, the log and the script.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use debugnet_core::time::Instant;
use serde::Serialize;

use super::header::{DumpHeader, KeyInfo};

/// Numbers of one session. Bytes are of payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Stats {
    /// Well-formed messages from the client, heralds and duplicates included.
    pub messages: u64,
    /// VMCORE bytes written, duplicates not counted.
    pub vmcore_bytes: u64,
    /// Distinct bytes of the vmcore received.
    pub covered_bytes: u64,
    /// Key bytes written.
    pub key_bytes: u64,
    /// Messages that came again after they had been acked, or while they were being written.
    pub duplicates: u64,
    /// Acks given to the socket, duplicates included.
    pub acks: u64,
    /// Messages whose ack was withheld at first, to shield a stock client from itself.
    pub withheld: u64,
    /// Datagrams shorter than a header or with a wrong length field: no ack.
    pub malformed: u64,
    /// Messages of an unknown type: no ack.
    pub unknown: u64,
    /// Messages for offsets beyond the limit, or too late for an ended dump: no ack.
    pub refused: u64,
}

/// Disjoint byte ranges: the first [`RangeList::MAX_LISTED`] of them, and totals over all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeList {
    /// The lowest ranges, ascending.
    pub listed: Vec<Range<u64>>,
    /// How many there are.
    pub count: u64,
    /// Bytes in all of them.
    pub bytes: u64,
}

impl RangeList {
    /// Ranges kept by value.
    pub const MAX_LISTED: usize = 256;

    /// Adds a range above all others; one that touches the last is joined with it.
    pub fn push(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.bytes += range.end - range.start;
        let all_listed = self.count == self.listed.len() as u64;
        match self.listed.last_mut() {
            Some(last) if all_listed && last.end == range.start => {
                last.end = range.end;
            }
            _ => {
                self.count += 1;
                if self.listed.len() < Self::MAX_LISTED {
                    self.listed.push(range);
                }
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// How completeness was judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// By sequence numbers: the client numbers contiguously.
    Sequence,
    /// By offsets: it does not.
    Offsets,
}

/// The outcome of a dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything the client sent is here.
    Complete,
    /// Something is missing, or FINISHED never came.
    Incomplete,
    /// This server could not store it.
    Failed,
}

/// What ended a dump.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// FINISHED came.
    Finished,
    /// The client was silent for too long.
    TimedOut,
    /// The same client began a new dump.
    Superseded,
    /// This server was told to stop.
    Stopped,
    /// This server died; the next one found the dump.
    Interrupted,
    /// A file could not be opened, written or made durable.
    StoreFailed {
        /// What the system said.
        message: String,
        /// Where in the file, if it was a write.
        offset: Option<u64>,
    },
}

/// Something about a dump that its reader should know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// No kernel dump header came.
    NoHeader,
    /// One came that is shorter than 512 bytes.
    ShortHeader,
    /// A second, different one came; the first sound one counts.
    ConflictingHeader,
    /// Parts of the key blob never came.
    KeyIncomplete,
    /// Payload lies beyond the dump length of the header.
    BeyondLength,
    /// The client sent its kernel dump header once more, in place of the first
    /// 512 bytes of the last piece of the image (FreeBSD 12): see `suspect`.
    HeaderInImage,
    /// The machine of the server went down in the middle of the dump: bytes
    /// listed as received may never have reached the disk.
    MachineRestarted,
    /// What the server that died had noted of the dump is damaged: something that came may
    /// not be listed as received.
    JournalDamaged,
    /// Too many gaps to keep track of; `holes` and `not_sent` are not exact.
    TrackingOverflowed,
}

/// Everything known of one dump.
#[derive(Clone, Debug)]
pub struct Record {
    /// The client's address and port.
    pub peer: SocketAddr,
    /// Complete, incomplete or failed.
    pub verdict: Verdict,
    /// What ended it.
    pub end: End,
    /// How completeness was judged.
    pub basis: Basis,
    /// Sequence numbers between HERALD and the last message that never came.
    pub missing_seqnos: u64,
    /// Parts of the vmcore that were sent, as far as can be told, and never came.
    pub holes: RangeList,
    /// Parts that were never sent: zero, redacted or unreadable in the client.
    pub not_sent: RangeList,
    /// Parts that came and may be wrong, or next to which something may be
    /// missing that the client takes for received.
    pub suspect: RangeList,
    /// One past the highest byte received.
    pub received_end: u64,
    /// The length the vmcore file is to be given, if it should change: a
    /// compressed image loses the padding of its last block, a complete
    /// uncompressed one gains the tail that was not sent.
    pub final_len: Option<u64>,
    /// The kernel dump header, if one came.
    pub header: Option<Arc<DumpHeader>>,
    /// The head of the key blob, if one came.
    pub key: Option<KeyInfo>,
    /// What else there is to say.
    pub notes: Vec<Note>,
    /// Numbers.
    pub stats: Stats,
    /// When the herald came.
    pub started: Instant,
    /// When the first payload came.
    pub first_data: Option<Instant>,
    /// When the last payload came.
    pub last_data: Option<Instant>,
    /// When the dump ended.
    pub ended: Instant,
}

impl Record {
    /// Payload bytes per second between the first and the last of them.
    pub fn bytes_per_s(&self) -> Option<u64> {
        let (first, last) = (self.first_data?, self.last_data?);
        let micros = last.since_us(first);
        (micros > 0)
            .then(|| (u128::from(self.stats.covered_bytes) * 1_000_000 / u128::from(micros)) as u64)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of one range are meant")]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded_and_totals_are_not() {
        let mut list = RangeList::default();
        list.push(0..2);
        list.push(2..3);
        list.push(3..3);
        assert_eq!((list.listed.clone(), list.count, list.bytes), (vec![0..3], 1, 3));
        for n in 1..1000 {
            list.push(n * 10..n * 10 + 1);
        }
        assert_eq!(list.listed.len(), RangeList::MAX_LISTED);
        assert_eq!((list.count, list.bytes), (1000, 1002));
    }
}
