//! Runs of consecutive numbers: which sequence numbers came, which bytes are there.
//!
//! A dump that arrives in order is one run however long it is. Memory grows
//! only with the number of gaps, and that is bounded: a sender of every second
//! number must not fill the server's memory.

use std::collections::BTreeMap;
use std::ops::Range;

/// The limit on runs is reached: the new range was not recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

#[derive(Clone, Copy, Debug)]
struct Run<E> {
    end: u64,
    first: E,
    last: E,
}

/// Disjoint runs that never touch, each with a mark on its first and its last element.
///
/// Marks survive joining: the joined run keeps the first mark of its lowest
/// part and the last mark of its highest.
#[derive(Clone, Debug)]
pub struct RunMap<E> {
    runs: BTreeMap<u64, Run<E>>,
    limit: usize,
    total: u64,
}

/// Runs without marks.
pub type RunSet = RunMap<()>;

impl RunSet {
    /// Records `range`; see [`RunMap::insert_marked`].
    ///
    /// # Errors
    /// [`Full`] if it would be one run too many.
    pub fn insert(&mut self, range: Range<u64>) -> Result<u64, Full> {
        self.insert_marked(range, (), ())
    }
}

impl<E: Copy> RunMap<E> {
    /// No runs yet, and never more than `limit`.
    pub fn new(limit: usize) -> Self {
        Self { runs: BTreeMap::new(), limit, total: 0 }
    }

    /// Records `range` with the marks of its two ends. Returns how many of its
    /// elements are new; an empty range changes nothing.
    ///
    /// # Errors
    /// [`Full`] if it would be one run too many; nothing is recorded then.
    pub fn insert_marked(&mut self, range: Range<u64>, first: E, last: E) -> Result<u64, Full> {
        if range.is_empty() {
            return Ok(0);
        }
        let mut start = range.start;
        let mut joined = Run { end: range.end, first, last };
        let mut fresh = range.end - range.start;

        let before = self.runs.range(..=start).next_back();
        if let Some((&low, run)) = before.filter(|(_, run)| run.end >= start) {
            fresh -= run.end.min(range.end) - range.start;
            if run.end >= range.end {
                return Ok(0);
            }
            (start, joined.first) = (low, run.first);
        }
        while let Some((&low, &run)) = self.runs.range(range.start + 1..=range.end).next() {
            self.runs.remove(&low);
            fresh -= run.end.min(range.end) - low;
            if run.end >= joined.end {
                (joined.end, joined.last) = (run.end, run.last);
            }
        }
        if self.runs.len() >= self.limit && !self.runs.contains_key(&start) {
            return Err(Full);
        }
        self.runs.insert(start, joined);
        self.total += fresh;
        Ok(fresh)
    }

    /// Elements recorded.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Runs there are.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// One past the highest element, 0 if there is none.
    pub fn end(&self) -> u64 {
        self.runs.values().next_back().map_or(0, |run| run.end)
    }

    /// The lowest element.
    pub fn start(&self) -> Option<u64> {
        self.runs.keys().next().copied()
    }

    /// Whether all of `range` is recorded; true for an empty one.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        range.is_empty()
            || self
                .runs
                .range(..=range.start)
                .next_back()
                .is_some_and(|(_, run)| run.end >= range.end)
    }

    /// The runs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs.iter().map(|(&start, run)| start..run.end)
    }

    /// The parts of `within` that are not recorded, ascending.
    pub fn gaps(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        self.split(within).filter(|(_, recorded)| !recorded).map(|(range, _)| range)
    }

    /// `within` cut into recorded (`true`) and missing (`false`) parts, ascending.
    pub fn split(&self, within: Range<u64>) -> impl Iterator<Item = (Range<u64>, bool)> + '_ {
        let mut at = within.start;
        let from = self
            .runs
            .range(..=at)
            .next_back()
            .filter(|(_, run)| run.end > at)
            .map_or(at, |(&start, _)| start);
        let mut runs = self.runs.range(from..within.end.max(from)).peekable();
        std::iter::from_fn(move || {
            if at >= within.end {
                return None;
            }
            let start = at;
            let recorded = match runs.peek() {
                Some(&(&low, run)) if low <= at => {
                    at = run.end.min(within.end);
                    runs.next();
                    true
                }
                Some(&(&low, _)) => {
                    at = low.min(within.end);
                    false
                }
                None => {
                    at = within.end;
                    false
                }
            };
            Some((start..at, recorded))
        })
    }

    /// The gaps between neighbouring runs: last mark of the run before, the
    /// missing elements, first mark of the run after.
    pub fn gaps_between(&self) -> impl Iterator<Item = (E, Range<u64>, E)> + '_ {
        self.runs
            .values()
            .zip(self.runs.iter().skip(1))
            .map(|(before, (&start, after))| (before.last, before.end..start, after.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn marks_follow_the_ends() {
        let mut map = RunMap::new(8);
        map.insert_marked(1..2, 'a', 'a').unwrap();
        map.insert_marked(4..5, 'd', 'd').unwrap();
        assert_eq!(map.gaps_between().collect::<Vec<_>>(), [('a', 2..4, 'd')]);
        map.insert_marked(2..3, 'b', 'b').unwrap();
        assert_eq!(map.gaps_between().collect::<Vec<_>>(), [('b', 3..4, 'd')]);
        map.insert_marked(6..7, 'f', 'f').unwrap();
        map.insert_marked(3..4, 'c', 'c').unwrap();
        assert_eq!(map.gaps_between().collect::<Vec<_>>(), [('d', 5..6, 'f')]);
    }

    /// What came first keeps its mark.
    #[test]
    fn marks_of_the_same_end_stay() {
        let mut map = RunMap::new(8);
        map.insert_marked(1..3, 'a', 'b').unwrap();
        map.insert_marked(6..9, 'g', 'h').unwrap();
        map.insert_marked(2..3, 'x', 'y').unwrap();
        assert_eq!(map.gaps_between().collect::<Vec<_>>(), [('b', 3..6, 'g')]);
        map.insert_marked(12..13, 'm', 'm').unwrap();
        map.insert_marked(5..9, 'f', 'z').unwrap();
        assert_eq!(map.gaps_between().last(), Some(('h', 9..12, 'm')));
    }

    #[test]
    fn a_run_contains_what_begins_where_it_begins() {
        let mut set = RunSet::new(8);
        set.insert(10..20).unwrap();
        set.insert(30..40).unwrap();
        assert!(set.contains(&(10..20)) && set.contains(&(10..11)) && set.contains(&(30..40)));
        assert!(!set.contains(&(9..11)) && !set.contains(&(10..21)) && !set.contains(&(20..21)));
    }

    #[test]
    fn the_limit_refuses_new_runs_but_not_growth() {
        let mut set = RunSet::new(2);
        set.insert(0..1).unwrap();
        set.insert(10..11).unwrap();
        assert_eq!(set.insert(20..21), Err(Full));
        assert_eq!(set.insert(1..2), Ok(1));
        assert_eq!(set.insert(9..10), Ok(1));
        assert_eq!(set.insert(0..30), Ok(26));
        assert_eq!((set.len(), set.total(), set.end()), (1, 30, 30));
        assert_eq!(set.insert(40..41), Ok(1), "joining made room");
    }

    #[test]
    fn the_top_of_the_range_is_reachable() {
        let mut set = RunSet::new(2);
        assert_eq!(set.insert(u64::MAX - 2..u64::MAX), Ok(2));
        assert!(set.contains(&(u64::MAX - 1..u64::MAX)));
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(ranges in prop::collection::vec((0u64..80, 0u64..12), 0..60), window in (0u64..90, 0u64..90)) {
            let mut runs = RunSet::new(usize::MAX);
            let mut plain = BTreeSet::new();
            for (start, len) in ranges {
                let before = plain.len();
                plain.extend(start..start + len);
                prop_assert_eq!(runs.insert(start..start + len), Ok((plain.len() - before) as u64));
            }
            prop_assert_eq!(runs.total(), plain.len() as u64);
            prop_assert_eq!(runs.iter().flatten().collect::<Vec<_>>(), plain.iter().copied().collect::<Vec<_>>());
            prop_assert!(runs.iter().zip(runs.iter().skip(1)).all(|(a, b)| a.end < b.start), "runs never touch");
            let within = window.0.min(window.1)..window.0.max(window.1);
            let missing: Vec<_> = within.clone().filter(|n| !plain.contains(n)).collect();
            prop_assert_eq!(runs.gaps(within.clone()).flatten().collect::<Vec<_>>(), missing.clone());
            prop_assert_eq!(runs.contains(&within), missing.is_empty());
            prop_assert!(runs.split(within.clone()).all(|(part, _)| !part.is_empty()));
            prop_assert_eq!(runs.split(within.clone()).flat_map(|(part, _)| part).collect::<Vec<_>>(), within.collect::<Vec<_>>());
        }
    }
}
