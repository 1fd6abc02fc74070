//! [`Walk`]: RAM inside some windows, less what earlier windows had.

use super::regions::{Region, first_behind};
use crate::addr::{PhysAddr, PhysRange};

/// A walk through the parts of the regions that lie in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    at: PhysAddr,
    end: PhysAddr,
    /// Index of the first region that ends behind `at`, once it is known.
    index: Option<usize>,
}

/// A part of a region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) range: PhysRange,
    pub(super) region: Region,
}

impl Part {
    /// Where it lies among the RAM of the image.
    pub(super) fn position(&self) -> u64 {
        let inside = self.range.start().0.saturating_sub(self.region.range.start().0);
        self.region.position.saturating_add(inside)
    }
}

impl Walk {
    pub(super) const EVERYTHING: Self =
        Self { at: PhysAddr(0), end: PhysAddr(u64::MAX), index: None };

    pub(super) fn of(window: PhysRange) -> Self {
        Self { at: window.start(), end: window.end(), index: None }
    }

    /// The next part that is in none of `holes`, which need no order.
    ///
    /// Each turn of the loop leaves a region or a hole behind.
    pub(super) fn next<H>(&mut self, regions: &[Region], holes: H) -> Option<Part>
    where
        H: Iterator<Item = PhysRange> + Clone,
    {
        let mut index = self.index.unwrap_or_else(|| first_behind(regions, self.at));
        loop {
            self.index = Some(index);
            let region = regions.get(index)?;
            let at = self.at.max(region.range.start());
            if at >= self.end {
                return None;
            }
            if at >= region.range.end() {
                index = index.saturating_add(1);
                continue;
            }
            let one = PhysRange::new(at, 1)?;
            if let Some(hole) = holes.clone().find(|hole| hole.contains(one)) {
                self.at = hole.end();
                continue;
            }
            let end = holes
                .clone()
                .filter(|hole| hole.start() > at && !hole.is_empty())
                .fold(region.range.end().min(self.end), |end, hole| end.min(hole.start()));
            self.at = end;
            let range = PhysRange::new(at, end.0.saturating_sub(at.0))?;
            return Some(Part { range, region: *region });
        }
    }
}
