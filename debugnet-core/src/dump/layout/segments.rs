//! [`Segments`]: the program headers of a core, one after the other.

use super::PAGE_LEN;
use super::header::{Segment, SegmentKind};
use super::regions::Region;
use super::walk::{Part, Walk};
use crate::addr::PhysRange;

/// A run of the kernel's address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Mapping {
    /// Virtual address of its first byte.
    pub virt: u64,
    /// What is mapped there. What of it is no RAM, or is not sent, is passed over.
    pub range: PhysRange,
}

/// What the loadable segments are made of.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) regions: &'a [Region],
    /// Offset of position 0 of the regions.
    pub(super) ram_offset: u64,
    pub(super) mappings: &'a [Mapping],
    /// `p_flags`.
    pub(super) flags: u32,
}

/// A walk through the loadable segments: for each mapping its RAM, then the
/// RAM that no mapping has, at its physical address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segments {
    /// Index of the mapping; their number stands for the rest.
    group: usize,
    walk: Option<Walk>,
    /// Found, but not part of the segment before it.
    found: Option<Part>,
}

impl Segments {
    pub(super) const START: Self = Self { group: 0, walk: None, found: None };

    pub(super) fn next(&mut self, parts: &Parts<'_>) -> Option<Segment> {
        // Each turn leaves a group behind.
        loop {
            let mapping = parts.mappings.get(self.group);
            if let Some(run) = self.run(parts, mapping) {
                return Some(parts.segment(&run, mapping));
            }
            mapping?;
            self.group = self.group.saturating_add(1);
            self.walk = None;
        }
    }

    /// The next contiguous run of RAM of this group.
    fn run(&mut self, parts: &Parts<'_>, mapping: Option<&Mapping>) -> Option<Part> {
        let mut run: Option<Part> = None;
        loop {
            let Some(part) = self.found.take().or_else(|| self.part(parts, mapping)) else {
                return run;
            };
            let Some(so_far) = &mut run else {
                run = Some(part);
                continue;
            };
            let joined = so_far.range.len().saturating_add(part.range.len());
            let is_next = so_far.range.end() == part.range.start();
            match PhysRange::new(so_far.range.start(), joined) {
                Some(range) if is_next => so_far.range = range,
                _ => {
                    self.found = Some(part);
                    return run;
                }
            }
        }
    }

    fn part(&mut self, parts: &Parts<'_>, mapping: Option<&Mapping>) -> Option<Part> {
        let start = || mapping.map_or(Walk::EVERYTHING, |mapping| Walk::of(mapping.range));
        let walk = self.walk.get_or_insert_with(start);
        let mapped = if mapping.is_none() { parts.mappings } else { &[] };
        // Each turn leaves a region behind.
        loop {
            let part = walk.next(parts.regions, mapped.iter().map(|mapping| mapping.range))?;
            if part.region.treatment.is_sent() {
                return Some(part);
            }
        }
    }
}

impl Parts<'_> {
    fn segment(&self, run: &Part, mapping: Option<&Mapping>) -> Segment {
        let phys = run.range.start().0;
        let virt = mapping.map_or(phys, |mapping| {
            mapping.virt.wrapping_add(phys.wrapping_sub(mapping.range.start().0))
        });
        let len = run.range.len();
        let is_aligned = virt.wrapping_sub(phys) & (PAGE_LEN - 1) == 0;
        Segment {
            kind: SegmentKind::Load { flags: self.flags },
            offset: self.ram_offset.saturating_add(run.position()),
            virt,
            phys,
            len,
            align: if is_aligned { PAGE_LEN } else { 1 },
        }
    }
}
