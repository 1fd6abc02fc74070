//! Which messages came, by sequence number, and where their payload belonged.

use super::runs::RunMap;

/// Where in the vmcore the message next to a gap ends or begins; `None` if it was no VMCORE message.
type Edge = Option<u64>;

/// A sequence number that does not wrap: the first one heard of a session is near 2^32.
pub(super) type Place = u64;

/// The sequence numbers of one session, at most `limit` runs of them.
#[derive(Debug)]
pub(super) struct Seqnos {
    runs: RunMap<Edge>,
    highest: Place,
    overflowed: bool,
}

impl Seqnos {
    /// Starts at `first`, which is not yet recorded.
    pub(super) fn new(first: u32, limit: usize) -> Self {
        let highest = (1 << 32) + u64::from(first);
        Self { runs: RunMap::new(limit), highest, overflowed: false }
    }

    /// The place of a number on the wire: the one nearest to the highest so far.
    pub(super) fn place(&self, seqno: u32) -> Place {
        let delta = seqno.wrapping_sub(self.highest as u32) as i32;
        self.highest.saturating_add_signed(i64::from(delta))
    }

    /// Records a message. `bytes` are its place in the vmcore, if it was one of its messages.
    pub(super) fn record(&mut self, seqno: u32, bytes: Option<std::ops::Range<u64>>) {
        self.record_run(seqno, 1, bytes);
    }

    /// Records `count` messages in sequence whose payloads lie one behind the other.
    pub(super) fn record_run(
        &mut self,
        seqno: u32,
        count: u32,
        bytes: Option<std::ops::Range<u64>>,
    ) {
        let place = self.place(seqno);
        let (first, last) = match bytes {
            Some(range) => (Some(range.start), Some(range.end)),
            None => (None, None),
        };
        let end = place.saturating_add(u64::from(count));
        match self.runs.insert_marked(place..end, first, last) {
            Ok(_) => self.highest = self.highest.max(end.saturating_sub(1)),
            Err(_) => self.overflowed = true,
        }
    }

    pub(super) fn contains(&self, seqno: u32) -> bool {
        let place = self.place(seqno);
        self.runs.contains(&(place..place.saturating_add(1)))
    }

    /// The highest recorded.
    pub(super) fn highest(&self) -> Place {
        self.highest
    }

    /// Whether some numbers could not be recorded because there were too many gaps.
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }

    pub(super) fn runs(&self) -> &RunMap<Edge> {
        &self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap() {
        let mut seqnos = Seqnos::new(u32::MAX - 1, 16);
        for seqno in [u32::MAX - 1, u32::MAX, 0, 1] {
            seqnos.record(seqno, None);
        }
        assert_eq!(seqnos.runs().len(), 1);
        assert_eq!(seqnos.runs().total(), 4);
        assert!(seqnos.contains(0) && !seqnos.contains(2));
    }

    #[test]
    fn numbers_below_the_first_have_a_place() {
        let mut seqnos = Seqnos::new(0, 16);
        seqnos.record(u32::MAX, None);
        seqnos.record(0, None);
        assert_eq!(seqnos.runs().len(), 1);
    }

    #[test]
    fn too_many_gaps_are_told() {
        let mut seqnos = Seqnos::new(0, 2);
        for seqno in [0, 2, 4] {
            seqnos.record(seqno, None);
        }
        assert!(seqnos.overflowed());
    }
}
