//! What can be said of a dump whose server died: the same as of any other, from
//! what was noted as its messages were stored.

use std::net::SocketAddr;
use std::sync::Arc;

use debugnet_core::time::Instant;

use super::action::DumpFile;
use super::header::{DumpHeader, KeyInfo};
use super::herald::Herald;
use super::holdings::{Ending, Holdings};
use super::limits::Limits;
use super::record::{End, Note, Record};

/// Puts together the record of an interrupted dump.
#[derive(Debug)]
pub struct Salvage {
    holdings: Holdings,
    max_dump_len: u64,
}

impl Salvage {
    /// Of a dump of which only the herald is known.
    pub fn new(herald: Herald, limits: &Limits) -> Self {
        let mut holdings = Holdings::new(herald, limits);
        holdings.herald(herald.seqno);
        holdings.stats.messages = 1;
        Self { holdings, max_dump_len: limits.max_dump_len }
    }

    /// `count` messages, numbered from `seqno`, are stored: `len` bytes of
    /// payload from `offset`, one behind the other.
    pub fn payload(&mut self, file: DumpFile, seqno: u32, count: u32, offset: u64, len: u64) {
        self.holdings.stats.messages += u64::from(count);
        self.holdings.payload(file, seqno, count, &(offset..offset.saturating_add(len)));
    }

    /// The message `seqno`, which had a kernel dump header, was noted.
    pub fn header(&mut self, seqno: u32) {
        self.holdings.stats.messages += 1;
        self.holdings.seqnos.record(seqno, None);
    }

    /// The first sound kernel dump header, or the last one if there is none.
    pub fn set_header(&mut self, header: DumpHeader) {
        self.holdings.header = Some(Arc::new(header));
    }

    /// The head of the key blob.
    pub fn set_key(&mut self, key: KeyInfo) {
        self.holdings.key_info = Some(key);
    }

    /// The machine went down with the server: some of it may never have reached the disk.
    pub fn machine_restarted(&mut self) {
        self.holdings.note(Note::MachineRestarted);
    }

    /// What was noted is damaged: it tells of what cannot be.
    pub fn journal_damaged(&mut self) {
        self.holdings.note(Note::JournalDamaged);
    }

    /// The bytes that are known of.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn covered(&self, file: DumpFile) -> &super::runs::RunSet {
        self.holdings.covered(file)
    }

    /// The record; what was acked is in it, and perhaps something that was not.
    /// It lasted for `lasted_us` microseconds, as far as is known.
    pub fn record(mut self, peer: SocketAddr, lasted_us: u64) -> Record {
        self.holdings.record(Ending {
            peer,
            end: End::Interrupted,
            finished: None,
            started: Instant::ZERO,
            first_data: None,
            last_data: None,
            ended: Instant::from_micros(lasted_us),
            max_dump_len: self.max_dump_len,
        })
    }
}
