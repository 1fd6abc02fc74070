//! Whether a dump is complete, and what is missing.
//!
//! Complete means by sequence number: every number from HERALD's to FINISHED's
//! was received. Then bytes that never came were never sent. A client that
//! does not number its messages contiguously is judged by its offsets instead.

use super::record::{Basis, RangeList};
use super::runs::RunSet;
use super::seqnos::{Place, Seqnos};

/// What is known when a dump ends.
pub(super) struct Evidence<'a> {
    pub(super) seqnos: &'a Seqnos,
    pub(super) coverage: &'a RunSet,
    /// Coverage could not record everything.
    pub(super) coverage_overflowed: bool,
    /// The lowest number of a herald.
    pub(super) herald: Place,
    /// FINISHED's, if it came.
    pub(super) finished: Option<Place>,
    /// Whether the client promises contiguous numbers.
    pub(super) promised: bool,
    /// Length of the image by a sound header.
    pub(super) length: Option<u64>,
}

/// The finding.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) complete: bool,
    pub(super) basis: Basis,
    pub(super) missing_seqnos: u64,
    pub(super) holes: RangeList,
    pub(super) not_sent: RangeList,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    let end = evidence.length.unwrap_or_else(|| evidence.coverage.end());
    let expected = evidence.herald..last_place(evidence).saturating_add(1);
    let span = expected.end.saturating_sub(expected.start);
    if !numbers_are_trusted(evidence, &expected, span) {
        let mut holes = RangeList::default();
        evidence.coverage.gaps(0..end).for_each(|gap| holes.push(gap));
        let complete = evidence.finished.is_some()
            && evidence.coverage.contains(&(0..end))
            && !evidence.coverage_overflowed;
        let not_sent = RangeList::default();
        return Finding { complete, basis: Basis::Offsets, missing_seqnos: 0, holes, not_sent };
    }
    let missing_seqnos = span.saturating_sub(evidence.seqnos.runs().total());
    let (holes, not_sent) = split_missing(evidence, end);
    let complete = evidence.finished.is_some() && missing_seqnos == 0;
    Finding { complete, basis: Basis::Sequence, missing_seqnos, holes, not_sent }
}

fn last_place(evidence: &Evidence<'_>) -> Place {
    let highest = evidence.seqnos.runs().end().saturating_sub(1);
    evidence.finished.unwrap_or(highest)
}

/// A client is taken at its numbers if all of them lie between HERALD's and
/// FINISHED's, and it either promised to leave none out or more than half came.
fn numbers_are_trusted(
    evidence: &Evidence<'_>,
    expected: &std::ops::Range<Place>,
    span: u64,
) -> bool {
    let runs = evidence.seqnos.runs();
    let inside = runs.start().is_some_and(|start| start >= expected.start)
        && runs.end() <= expected.end
        && evidence.finished.is_none_or(|finished| finished > evidence.herald);
    let dense = evidence.promised || runs.total().saturating_mul(2) > span;
    inside && dense && !evidence.seqnos.overflowed()
}

/// Bytes that never came, told apart: those that a missing message may have
/// carried (it lies between its neighbours), and those between whose
/// neighbours no number is missing.
fn split_missing(evidence: &Evidence<'_>, end: u64) -> (RangeList, RangeList) {
    let mut suspect = RunSet::new(usize::MAX);
    for (before, _, after) in evidence.seqnos.runs().gaps_between() {
        let from = before.unwrap_or(0);
        let to = after.unwrap_or(end);
        // A client that jumps back between the two could have been anywhere.
        let range = if from < to { from..to } else { 0..end };
        // Without a limit an insertion cannot fail.
        let _ = suspect.insert(range);
    }
    let (mut holes, mut not_sent) = (RangeList::default(), RangeList::default());
    for gap in evidence.coverage.gaps(0..end) {
        for (part, is_suspect) in suspect.split(gap) {
            if is_suspect { holes.push(part) } else { not_sent.push(part) }
        }
    }
    (holes, not_sent)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of one range are meant")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Dump {
        seqnos: Seqnos,
        coverage: RunSet,
    }

    impl Dump {
        fn new(herald: u32) -> Self {
            let mut seqnos = Seqnos::new(herald, usize::MAX);
            seqnos.record(herald, None);
            Self { seqnos, coverage: RunSet::new(usize::MAX) }
        }

        fn data(&mut self, seqno: u32, range: std::ops::Range<u64>) {
            self.seqnos.record(seqno, Some(range.clone()));
            self.coverage.insert(range).unwrap();
        }

        fn judge(&mut self, herald: u32, finished: u32, length: Option<u64>) -> Finding {
            self.seqnos.record(finished, None);
            judge(&Evidence {
                seqnos: &self.seqnos,
                coverage: &self.coverage,
                coverage_overflowed: false,
                herald: self.seqnos.place(herald),
                finished: Some(self.seqnos.place(finished)),
                promised: false,
                length,
            })
        }
    }

    #[test]
    fn bytes_between_consecutive_numbers_were_not_sent() {
        let mut dump = Dump::new(1);
        dump.data(2, 0..10);
        dump.data(3, 50..60);
        let finding = dump.judge(1, 4, Some(100));
        assert!(finding.complete && finding.holes.is_empty());
        assert_eq!(finding.not_sent.listed, [10..50, 60..100]);
    }

    #[test]
    fn a_hole_is_told_from_what_was_not_sent() {
        let mut dump = Dump::new(1);
        dump.data(2, 0..10);
        dump.data(4, 20..30);
        dump.data(5, 70..80);
        let finding = dump.judge(1, 6, Some(80));
        assert!(!finding.complete);
        assert_eq!((finding.basis, finding.missing_seqnos), (Basis::Sequence, 1));
        assert_eq!(finding.holes.listed, [10..20]);
        assert_eq!(finding.not_sent.listed, [30..70]);
    }

    #[test]
    fn a_gap_around_a_jump_back_suspects_everything() {
        let mut dump = Dump::new(1);
        dump.data(2, 60..70);
        dump.data(4, 10..20);
        let finding = dump.judge(1, 5, Some(100));
        assert_eq!(finding.holes.bytes, 80);
    }

    #[test]
    fn losses_at_either_end_are_holes() {
        let mut dump = Dump::new(1);
        dump.data(3, 10..20);
        let finding = dump.judge(1, 5, Some(30));
        assert_eq!(finding.holes.listed, [0..10, 20..30]);
    }

    #[test]
    fn a_client_without_numbers_is_judged_by_offsets() {
        let mut dump = Dump::new(0);
        dump.data(7, 0..10);
        dump.data(8, 10..20);
        let finding = dump.judge(0, 0, Some(20));
        assert_eq!((finding.complete, finding.basis), (true, Basis::Offsets));
        let mut dump = Dump::new(0);
        dump.data(900, 0..10);
        dump.data(40, 15..20);
        let finding = dump.judge(0, 5000, Some(20));
        assert_eq!((finding.complete, finding.basis), (false, Basis::Offsets));
        assert_eq!(finding.holes.listed, [10..15]);
    }

    proptest! {
        /// A numbered dump with some messages lost: complete exactly if none
        /// is, and every byte of a lost message is listed as a hole.
        #[test]
        fn every_lost_byte_is_a_hole(
            first in any::<u32>(),
            messages in prop::collection::vec((0u64..40, 1u64..20, prop::bool::weighted(0.85)), 1..60),
        ) {
            let mut dump = Dump::new(first);
            let (mut at, mut seqno) = (0, first);
            let mut lost = Vec::new();
            for (skip, len, arrives) in &messages {
                at += skip;
                seqno = seqno.wrapping_add(1);
                if *arrives { dump.data(seqno, at..at + len) } else { lost.push(at..at + len) }
                at += len;
            }
            let finding = dump.judge(first, seqno.wrapping_add(1), Some(at));
            prop_assume!(lost.len() * 2 < messages.len());
            prop_assert_eq!(finding.complete, lost.is_empty());
            prop_assert_eq!(finding.missing_seqnos, lost.len() as u64);
            for range in lost {
                for byte in range {
                    prop_assert!(finding.holes.listed.iter().any(|hole| hole.contains(&byte)));
                }
            }
            let missing = at - dump.coverage.total();
            prop_assert_eq!(finding.holes.bytes + finding.not_sent.bytes, missing);
        }
    }
}
