//! What one server puts up with.

const SECOND_US: u64 = 1_000_000;

/// Limits and times of a [`Core`](super::Core).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Largest vmcore in bytes: payload beyond is refused. Default 1 TiB.
    pub max_dump_len: u64,
    /// Largest key blob in bytes. Default 64 KiB.
    pub max_key_len: u64,
    /// Sessions at a time, lingering ones included. Default 4096.
    pub max_sessions: usize,
    /// Sessions at a time with one address. Default 64.
    pub max_sessions_per_source: usize,
    /// Heralds of new sessions answered in one second; one address gets at most
    /// a quarter of them. Others go unanswered: a client tries again. Default 400.
    pub max_heralds_per_s: u32,
    /// Whether acks are withheld from stock clients where they would make a
    /// packet that is missing look received (see PROMISES.md). Default true.
    pub shield: bool,
    /// Silence after which a dump is given up, in microseconds. Default 600 s.
    pub idle_us: u64,
    /// Silence after which a provisional session is given up, in microseconds. Default 30 s.
    pub provisional_us: u64,
    /// How long an ended session answers late retransmits, in microseconds. Default 30 s.
    pub linger_us: u64,
    /// Runs of sequence numbers kept for one session. Default 65,536.
    pub max_seqno_runs: usize,
    /// Runs of bytes kept for one session. Default 1,048,576 (about 40 MB).
    pub max_byte_runs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_dump_len: 1 << 40,
            max_key_len: 64 << 10,
            max_sessions: 4096,
            max_sessions_per_source: 64,
            max_heralds_per_s: 400,
            shield: true,
            idle_us: 600 * SECOND_US,
            provisional_us: 30 * SECOND_US,
            linger_us: 30 * SECOND_US,
            max_seqno_runs: 1 << 16,
            max_byte_runs: 1 << 20,
        }
    }
}
