//! What became of a dump. Partial truth beats confident silence.

use heapless::Vec;

use crate::addr::PhysAddr;
use crate::count::add_to;
use crate::dump::{ReadFault, TransformError};
use crate::nic::{NicError, TxError};
use crate::progress::Stage;

/// How a dump ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Verdict {
    /// Every message, FINISHED included, was acknowledged.
    Confirmed,
    /// All of the image and its header were acknowledged; only the ack of FINISHED is missing.
    Unconfirmed,
    /// It was given up; [`Outcome::failure`] says why and [`Outcome::holes`] what is missing.
    Failed,
}

/// Why bytes of the image were not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Reason {
    /// The dump ended before they were acknowledged.
    Unacknowledged,
    /// They could not be read.
    Unreadable,
    /// The policy keeps them out.
    Redacted,
}

/// A run of the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Gap {
    /// Offset in the image.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Why.
    pub reason: Reason,
}

/// A bounded list of gaps with the true total.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    list: Vec<Gap, { Self::KEPT }>,
    bytes: u64,
    omitted: u32,
}

impl Gaps {
    /// None.
    pub(crate) const fn new() -> Self {
        Self { list: Vec::new(), bytes: 0, omitted: 0 }
    }

    /// Gaps kept by name.
    pub const KEPT: usize = 8;

    /// The first gaps, in the order found.
    pub fn list(&self) -> &[Gap] {
        &self.list
    }

    /// Bytes of all gaps, listed or not.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gaps that did not fit the list.
    pub fn omitted(&self) -> u32 {
        self.omitted
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Back to none.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.bytes = 0;
        self.omitted = 0;
    }

    /// Adds the gaps of another list.
    pub(crate) fn join(&mut self, other: &Self) {
        let listed = other.list.iter().fold(0u64, |sum, gap| sum.saturating_add(gap.len));
        for gap in &other.list {
            self.add(*gap);
        }
        add_to(&mut self.bytes, other.bytes.saturating_sub(listed));
        self.omitted = self.omitted.saturating_add(other.omitted);
    }

    /// Adds a gap, joined to the last one where they touch.
    pub(crate) fn add(&mut self, gap: Gap) {
        if gap.len == 0 {
            return;
        }
        add_to(&mut self.bytes, gap.len);
        match self.list.last_mut() {
            Some(last)
                if last.reason == gap.reason
                    && last.offset.checked_add(last.len) == Some(gap.offset)
                    && self.omitted == 0 =>
            {
                last.len = last.len.saturating_add(gap.len);
            }
            _ => {
                if self.list.push(gap).is_err() {
                    self.omitted = self.omitted.saturating_add(1);
                }
            }
        }
    }
}

/// What went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FailureKind {
    /// The target names a NIC that was not given.
    NoNic {
        /// Its index.
        index: usize,
    },
    /// The NIC failed.
    Nic(NicError),
    /// The NIC refused a frame for good.
    Transmit(TxError),
    /// The NIC's MTU leaves too little room for a message.
    Mtu {
        /// Bytes of payload there would be.
        payload: u16,
    },
    /// The NIC fetches payloads by DMA and the cells have no physical address it reaches.
    CellsNotReachable,
    /// No address of our own for this target.
    NoAddress,
    /// The link did not come up.
    NoLink,
    /// Neither server nor gateway answered ARP.
    NoNextHop,
    /// The server did not answer the herald.
    NoHerald,
    /// Nothing was acknowledged any more.
    Silence,
    /// The deadline of the whole dump passed.
    Deadline,
    /// More frames than allowed were sent.
    TooManyTransmissions,
    /// The clock does not move, however long it is waited on.
    ClockStopped,
    /// Memory could not be read.
    Read(ReadFault),
    /// The transform cannot go on.
    Transform(TransformError),
    /// All cells were lost to a NIC that did not stop.
    NoCells,
}

/// The first thing that went wrong, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Failure {
    /// What.
    pub kind: FailureKind,
    /// During what.
    pub stage: Stage,
    /// Address of the memory concerned, where there is one.
    pub address: Option<PhysAddr>,
    /// Offset in the image of the message concerned.
    pub offset: Option<u64>,
    /// Its sequence number.
    pub seqno: Option<u32>,
    /// How often it was sent.
    pub tries: u16,
}

/// The truth about one attempt to dump to one target.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// Why, if anything went wrong; a dump that ended well may have met an unreadable page.
    pub failure: Option<Failure>,
    /// The target.
    pub target: usize,
    /// Targets tried in all, this one included.
    pub targets_tried: usize,
    /// How far it came.
    pub stage: Stage,
    /// Bytes of the image, from offset 0 to its end.
    pub image_len: u64,
    /// Bytes of RAM in the image.
    pub dump_bytes: u64,
    /// Bytes of the image sent, first transmissions only.
    pub sent_bytes: u64,
    /// Bytes of the image acknowledged.
    pub acked_bytes: u64,
    /// Bytes of zeros left out.
    pub zero_bytes: u64,
    /// What of the image is missing at the server, as far as we know.
    pub holes: Gaps,
    /// What was left out on purpose, zeros excepted.
    pub not_sent: Gaps,
    /// Messages queued, HERALD to FINISHED.
    pub messages: u32,
    /// Frames that carried a message.
    pub transmissions: u32,
    /// Of these, not the first of their message.
    pub retransmits: u32,
    /// Datagrams from the server whose UDP checksum did not hold.
    pub bad_checksums: u32,
    /// Acks of nothing alive: late, repeated or forged.
    pub stale_acks: u32,
    /// Payload bytes the CPU read: checksums, copies, and the zeros it passed
    /// over (not the look that ends a run of them).
    pub bytes_read: u64,
    /// Payload bytes the CPU copied into cells.
    pub bytes_copied: u64,
    /// Most cells in use at once.
    pub cells_high_water: usize,
    /// Microseconds from take-over to the end.
    pub elapsed_us: u64,
    /// Microseconds from the first data message to the last ack of one.
    pub data_us: u64,
    /// The NIC confirmed that it is quiet.
    pub nic_stopped: bool,
}

impl Outcome {
    /// Of a dump that has not begun. Not a constant: that would be 600 bytes of flash.
    #[inline(never)]
    pub(crate) fn new() -> Self {
        Self {
            verdict: Verdict::Failed,
            failure: None,
            target: 0,
            targets_tried: 0,
            stage: Stage::Idle,
            image_len: 0,
            dump_bytes: 0,
            sent_bytes: 0,
            acked_bytes: 0,
            zero_bytes: 0,
            holes: Gaps::new(),
            not_sent: Gaps::new(),
            messages: 0,
            transmissions: 0,
            retransmits: 0,
            bad_checksums: 0,
            stale_acks: 0,
            bytes_read: 0,
            bytes_copied: 0,
            cells_high_water: 0,
            elapsed_us: 0,
            data_us: 0,
            nic_stopped: false,
        }
    }

    /// Whether the server has all of the image but what [`Outcome::not_sent`] lists.
    pub fn is_complete(&self) -> bool {
        matches!(self.verdict, Verdict::Confirmed | Verdict::Unconfirmed) && self.holes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(offset: u64, len: u64) -> Gap {
        Gap { offset, len, reason: Reason::Unreadable }
    }

    #[test]
    fn touching_gaps_join_and_the_total_is_true() {
        let mut gaps = Gaps::default();
        gaps.add(gap(0, 10));
        gaps.add(gap(10, 5));
        gaps.add(gap(20, 1));
        gaps.add(gap(30, 0));
        assert_eq!(gaps.list(), [gap(0, 15), gap(20, 1)]);
        for i in 0..100 {
            gaps.add(gap(1000 + i * 10, 2));
        }
        assert_eq!(gaps.list().len(), Gaps::KEPT);
        assert_eq!((gaps.bytes(), gaps.omitted()), (216, 94));
    }
}
