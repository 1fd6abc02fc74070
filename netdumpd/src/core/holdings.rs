//! What of a dump is here: messages by number, bytes by offset, and what its
//! client said of it.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use debugnet_core::time::Instant;

use super::action::DumpFile;
use super::header::{DumpHeader, HEADER_LEN, KeyInfo};
use super::herald::{Herald, Identity};
use super::limits::Limits;
use super::record::{End, Note, RangeList, Record, Stats, Verdict};
use super::runs::RunSet;
use super::seqnos::{Place, Seqnos};
use super::verdict::{self, Evidence};

/// Ranges marked as suspect, at most.
const MAX_SUSPECT_RUNS: usize = 4096;

#[derive(Debug)]
pub(super) struct Holdings {
    pub(super) identity: Identity,
    /// The lowest number of a herald.
    pub(super) herald: Place,
    pub(super) seqnos: Seqnos,
    pub(super) vmcore: RunSet,
    pub(super) key: RunSet,
    /// Bytes acked although what came with them may be wrong or missing.
    pub(super) suspect: RunSet,
    pub(super) header: Option<Arc<DumpHeader>>,
    pub(super) key_info: Option<KeyInfo>,
    pub(super) stats: Stats,
    overflowed: bool,
    notes: Vec<Note>,
}

/// What the record says beside [`Holdings`].
pub(super) struct Ending {
    pub(super) peer: SocketAddr,
    pub(super) end: End,
    /// FINISHED's number, if it came.
    pub(super) finished: Option<Place>,
    pub(super) started: Instant,
    pub(super) first_data: Option<Instant>,
    pub(super) last_data: Option<Instant>,
    pub(super) ended: Instant,
    pub(super) max_dump_len: u64,
}

impl Holdings {
    /// Nothing but a herald, which is not yet recorded.
    pub(super) fn new(herald: Herald, limits: &Limits) -> Self {
        let seqnos = Seqnos::new(herald.seqno, limits.max_seqno_runs);
        Self {
            identity: herald.identity,
            herald: seqnos.place(herald.seqno),
            seqnos,
            vmcore: RunSet::new(limits.max_byte_runs),
            key: RunSet::new(limits.max_byte_runs),
            suspect: RunSet::new(MAX_SUSPECT_RUNS),
            header: None,
            key_info: None,
            stats: Stats::default(),
            overflowed: false,
            notes: Vec::new(),
        }
    }

    /// A herald, of the lowest number so far or not.
    pub(super) fn herald(&mut self, seqno: u32) {
        self.herald = self.herald.min(self.seqnos.place(seqno));
        self.seqnos.record(seqno, None);
    }

    /// `count` messages in sequence whose payloads lie one behind the other in `range` are stored.
    pub(super) fn payload(&mut self, file: DumpFile, seqno: u32, count: u32, range: &Range<u64>) {
        let len = range.end.saturating_sub(range.start);
        let (covered, bytes, in_vmcore) = match file {
            DumpFile::Vmcore => {
                (&mut self.vmcore, &mut self.stats.vmcore_bytes, Some(range.clone()))
            }
            DumpFile::Key => (&mut self.key, &mut self.stats.key_bytes, None),
        };
        *bytes = bytes.saturating_add(len);
        self.overflowed |= covered.insert(range.clone()).is_err();
        self.stats.covered_bytes = self.vmcore.total();
        self.seqnos.record_run(seqno, count, in_vmcore);
    }

    pub(super) fn covered(&self, file: DumpFile) -> &RunSet {
        match file {
            DumpFile::Vmcore => &self.vmcore,
            DumpFile::Key => &self.key,
        }
    }

    /// FreeBSD 12 sends the last piece of the image with the kernel dump header
    /// in place of its first bytes: what was there is lost.
    pub(super) fn look_for_header(&mut self, offset: u64, payload: &[u8]) {
        let Some(header) = &self.header else { return };
        if payload.get(..HEADER_LEN) == Some(&header.raw[..]) {
            self.suspect(offset..offset.saturating_add(HEADER_LEN as u64));
            self.note(Note::HeaderInImage);
        }
    }

    pub(super) fn suspect(&mut self, range: Range<u64>) {
        self.overflowed |= self.suspect.insert(range).is_err();
    }

    /// Length of the image in bytes, once a sound header has told it.
    pub(super) fn length(&self) -> Option<u64> {
        self.header.as_ref()?.sound_length()
    }

    pub(super) fn note(&mut self, note: Note) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn record(&mut self, ending: Ending) -> Record {
        let length = self.length();
        let finding = verdict::judge(&Evidence {
            seqnos: &self.seqnos,
            coverage: &self.vmcore,
            coverage_overflowed: self.overflowed,
            herald: self.herald,
            finished: ending.finished,
            promised: self.identity.numbers_contiguously(),
            length,
        });
        let key_len = self.header.as_ref().filter(|header| header.is_encrypted());
        let key_is_whole =
            key_len.is_none_or(|header| self.key.contains(&(0..u64::from(header.key_size))));
        let is_compressed = self.header.as_ref().is_some_and(|header| header.is_compressed());
        let received_end = self.vmcore.end();
        for (is_so, note) in [
            (self.header.is_none(), Note::NoHeader),
            (!key_is_whole, Note::KeyIncomplete),
            (
                !is_compressed && length.is_some_and(|length| received_end > length),
                Note::BeyondLength,
            ),
            (self.overflowed || self.seqnos.overflowed(), Note::TrackingOverflowed),
        ] {
            if is_so {
                self.note(note);
            }
        }
        let verdict = match ending.end {
            End::StoreFailed { .. } => Verdict::Failed,
            End::Finished if finding.complete && key_is_whole => Verdict::Complete,
            _ => Verdict::Incomplete,
        };
        // A header may claim any length: only a complete dump has a tail that
        // was not sent, and none may grow beyond the limit.
        let final_len = length.filter(|length| match is_compressed {
            true => *length < received_end,
            false => {
                verdict == Verdict::Complete
                    && *length > received_end
                    && *length <= ending.max_dump_len
            }
        });
        let mut suspect = RangeList::default();
        self.suspect.iter().for_each(|range| suspect.push(range));
        Record {
            peer: ending.peer,
            verdict,
            end: ending.end,
            basis: finding.basis,
            missing_seqnos: finding.missing_seqnos,
            holes: finding.holes,
            not_sent: finding.not_sent,
            suspect,
            received_end,
            final_len,
            header: self.header.clone(),
            key: self.key_info,
            notes: self.notes.clone(),
            stats: self.stats,
            started: ending.started,
            first_data: ending.first_data,
            last_data: ending.last_data,
            ended: ending.ended,
        }
    }
}
