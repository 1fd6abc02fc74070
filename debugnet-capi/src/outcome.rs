//! What became of a dump, for C.

use debugnet_core::dump;

/// How a dump ended.
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every message, FINISHED included, was acknowledged.
    Confirmed = 0,
    /// All of the image was acknowledged; only the ack of FINISHED is missing.
    Unconfirmed = 1,
    /// It was given up.
    Failed = 2,
}

/// What became of a dump.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// Bytes of the image.
    pub dump_bytes: u64,
    /// Of these, acknowledged.
    pub acked_bytes: u64,
    /// Of these, sent, each counted once.
    pub sent_bytes: u64,
    /// Of these, zeros that were left out.
    pub zero_bytes: u64,
    /// Of these, lost: given up before they were acknowledged.
    pub hole_bytes: u64,
    /// Of these, not sent: unreadable, or kept out.
    pub not_sent_bytes: u64,
    /// Messages sent, those sent again included.
    pub transmissions: u32,
    /// Of these, sent again.
    pub retransmits: u32,
    /// Time from the first step to the last, in microseconds.
    pub elapsed_us: u64,
    /// Of that, from the first data sent to the last acknowledged.
    pub data_us: u64,
    /// The device confirmed that it does no DMA any more. Not 0: yes.
    pub nic_stopped: u8,
}

impl Outcome {
    pub(crate) fn of(outcome: &dump::Outcome) -> Self {
        Self {
            verdict: match outcome.verdict {
                dump::Verdict::Confirmed => Verdict::Confirmed,
                dump::Verdict::Unconfirmed => Verdict::Unconfirmed,
                _ => Verdict::Failed,
            },
            dump_bytes: outcome.dump_bytes,
            acked_bytes: outcome.acked_bytes,
            sent_bytes: outcome.sent_bytes,
            zero_bytes: outcome.zero_bytes,
            hole_bytes: outcome.holes.bytes(),
            not_sent_bytes: outcome.not_sent.bytes(),
            transmissions: outcome.transmissions,
            retransmits: outcome.retransmits,
            elapsed_us: outcome.elapsed_us,
            data_us: outcome.data_us,
            nic_stopped: outcome.nic_stopped.into(),
        }
    }
}
