//! Which physical memory is RAM, and what of it is free.

use debugnet_core::addr::{PhysAddr, PhysRange};
use heapless::Vec;

/// Most separate runs of RAM. QEMU's PC machines have at most four.
pub const RANGES_MAX: usize = 32;

/// Runs of memory in rising order, none empty, none touching another.
pub type Ranges = Vec<PhysRange, RANGES_MAX>;

/// More than [`RANGES_MAX`] runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyRanges;

/// Sorts runs and joins those that touch or overlap.
///
/// # Errors
/// [`TooManyRanges`] if more than [`RANGES_MAX`] are given, empty ones not counted.
pub fn normalise(runs: impl IntoIterator<Item = PhysRange>) -> Result<Ranges, TooManyRanges> {
    let mut sorted = Ranges::new();
    for run in runs.into_iter().filter(|run| !run.is_empty()) {
        sorted.push(run).map_err(|_| TooManyRanges)?;
    }
    sorted.sort_unstable_by_key(|run| run.start());

    let mut joined = Ranges::new();
    for run in sorted {
        match joined.last_mut() {
            Some(last) if run.start() <= last.end() => {
                *last = between(last.start(), last.end().max(run.end()));
            }
            _ => joined.push(run).map_err(|_| TooManyRanges)?,
        }
    }
    Ok(joined)
}

/// What is left of `ranges` without `hole`.
///
/// # Errors
/// [`TooManyRanges`] if the hole splits the last run that there is room for.
pub fn without(ranges: &Ranges, hole: PhysRange) -> Result<Ranges, TooManyRanges> {
    let mut left = Ranges::new();
    for run in ranges {
        let below = between(run.start(), run.end().min(hole.start()));
        let above = between(run.start().max(hole.end()), run.end());
        if hole.is_empty() || !run.overlaps(hole) {
            left.push(*run).map_err(|_| TooManyRanges)?;
            continue;
        }
        for part in [below, above] {
            if !part.is_empty() {
                left.push(part).map_err(|_| TooManyRanges)?;
            }
        }
    }
    Ok(left)
}

/// The run from `start` to `end`, empty if that is not above it.
fn between(start: PhysAddr, end: PhysAddr) -> PhysRange {
    PhysRange::new(start, end.0.saturating_sub(start.0)).unwrap_or(PhysRange::EMPTY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(start: u64, end: u64) -> PhysRange {
        PhysRange::new(PhysAddr(start), end - start).unwrap()
    }

    fn ends(ranges: &Ranges) -> std::vec::Vec<(u64, u64)> {
        ranges.iter().map(|run| (run.start().0, run.end().0)).collect()
    }

    #[test]
    fn runs_are_sorted_and_joined() {
        let ranges = normalise([
            run(0x100000, 0x4000000),
            run(0, 0x9fc00),
            run(0x4000000, 0x5000000),
            run(7, 7),
            run(0x80000, 0x90000),
        ])
        .unwrap();
        assert_eq!(ends(&ranges), [(0, 0x9fc00), (0x100000, 0x5000000)]);
    }

    #[test]
    fn a_hole_cuts_trims_and_removes() {
        let ranges = normalise([run(0, 10), run(20, 30)]).unwrap();
        assert_eq!(ends(&without(&ranges, run(4, 6)).unwrap()), [(0, 4), (6, 10), (20, 30)]);
        assert_eq!(ends(&without(&ranges, run(5, 25)).unwrap()), [(0, 5), (25, 30)]);
        assert_eq!(ends(&without(&ranges, run(0, 10)).unwrap()), [(20, 30)]);
        assert_eq!(ends(&without(&ranges, run(10, 20)).unwrap()), [(0, 10), (20, 30)]);
        assert_eq!(ends(&without(&ranges, run(5, 5)).unwrap()), [(0, 10), (20, 30)]);
        assert_eq!(ends(&without(&ranges, run(0, 99)).unwrap()), []);
    }

    proptest! {
        /// Byte by byte, against the obvious model.
        #[test]
        fn what_is_left_is_ram_and_no_hole(
            runs in prop::collection::vec((0_u64..200, 0_u64..40), 0..10),
            hole in (0_u64..220, 0_u64..60),
        ) {
            let is_ram = |at: u64| runs.iter().any(|(s, len)| (*s..s + len).contains(&at));
            let ram = normalise(runs.iter().map(|(s, len)| run(*s, s + len))).unwrap();
            let left = without(&ram, run(hole.0, hole.0 + hole.1)).unwrap();
            for at in 0..300 {
                let owners = left.iter().filter(|r| (r.start().0..r.end().0).contains(&at)).count();
                let is_hole = (hole.0..hole.0 + hole.1).contains(&at);
                prop_assert_eq!(owners, usize::from(is_ram(at) && !is_hole));
            }
            prop_assert!(left.windows(2).all(|w| w[0].end() <= w[1].start()));
            prop_assert!(left.iter().all(|r| !r.is_empty()));
        }
    }
}
