//! [`RamImage`]: the order in which RAM is sent, whatever the file looks like.

use heapless::Vec;

use super::regions::{Region, RegionError, Regions, Treatment};
use super::walk::Walk;
use crate::addr::PhysRange;
use crate::dump::{Extent, ReadRam, Stability};

/// Ranges that can be sent before others.
pub(super) const FIRST_MAX: usize = 16;

/// RAM, by range that comes first and then the rest, behind a generated head.
pub(super) struct RamImage<'a> {
    pub(super) ram: &'a mut dyn ReadRam,
    pub(super) regions: &'a [Region],
    /// Bytes at offset 0 that are generated.
    pub(super) head_len: u64,
    /// Offset of position 0 of the regions.
    pub(super) ram_offset: u64,
    first: Vec<PhysRange, FIRST_MAX>,
    cursor: Cursor,
}

#[derive(Clone, Copy)]
struct Cursor {
    head_given: bool,
    in_order: bool,
    /// Index in `first`; its length stands for the rest.
    group: usize,
    walk: Option<Walk>,
}

impl Cursor {
    const START: Self = Self { head_given: false, in_order: false, group: 0, walk: None };
}

impl<'a> RamImage<'a> {
    /// `place` says where the RAM of a region goes, given where that of the
    /// region before it ended.
    pub(super) fn new(
        ram: &'a mut dyn ReadRam,
        regions: &'a mut Regions<'_>,
        place: fn(end: u64, region: &Region) -> u64,
    ) -> Self {
        let mut end = 0;
        for region in regions.as_mut_slice() {
            if region.treatment != Treatment::Excluded {
                region.position = place(end, region);
                end = region.position.saturating_add(region.range.len());
            }
        }
        Self {
            ram,
            regions: regions.as_slice(),
            head_len: 0,
            ram_offset: 0,
            first: Vec::new(),
            cursor: Cursor::START,
        }
    }

    /// First offset behind all RAM that has a place.
    pub(super) fn end(&self) -> Option<u64> {
        let placed = self.regions.iter().rfind(|r| r.treatment != Treatment::Excluded);
        let Some(last) = placed else { return Some(self.ram_offset) };
        self.ram_offset.checked_add(last.position)?.checked_add(last.range.len())
    }

    pub(super) fn send_first(&mut self, range: PhysRange) -> Result<(), RegionError> {
        self.rewind(false);
        self.first.push(range).map_err(|_| RegionError::Full { capacity: FIRST_MAX })
    }

    pub(super) fn rewind(&mut self, in_order: bool) {
        self.cursor = Cursor { in_order, ..Cursor::START };
    }

    pub(super) fn next(&mut self) -> Option<Extent> {
        if !self.cursor.head_given {
            self.cursor.head_given = true;
            let range = PhysRange::new(Default::default(), self.head_len)?;
            if !range.is_empty() {
                return Some(Extent { offset: 0, range, stability: Stability::Generated });
            }
        }
        // Each turn leaves a region or a group behind.
        loop {
            let first: &[PhysRange] = if self.cursor.in_order { &[] } else { &self.first };
            let group = self.cursor.group;
            let window = first.get(group).copied();
            let start = || window.map_or(Walk::EVERYTHING, Walk::of);
            let walk = self.cursor.walk.get_or_insert_with(start);
            let before = first.iter().take(group).copied();
            match walk.next(self.regions, before) {
                Some(part) if part.region.treatment == Treatment::Excluded => {}
                Some(part) => {
                    return Some(Extent {
                        offset: self.ram_offset.saturating_add(part.position()),
                        range: part.range,
                        stability: part.region.treatment.stability(),
                    });
                }
                None => {
                    window?;
                    self.cursor.group = group.saturating_add(1);
                    self.cursor.walk = None;
                }
            }
        }
    }
}
