//! The image: all RAM of the memory map, at its physical address.

use debugnet_core::DumpSource;
use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::{Extent, ReadFault, ReadRam, Stability};
use guest::memory::{self, Piece, RANGES_MAX, Ranges, TooManyRanges};
use heapless::Vec;

use super::arch;

/// RAM as the dump sees it. It keeps its own list: the kernel's may be
/// damaged when it is needed.
pub(super) struct RamSource {
    pieces: Vec<Piece, RANGES_MAX>,
    next: usize,
}

impl RamSource {
    /// The image of this RAM; `volatile` is the part that the dump writes to.
    pub(super) fn new(ram: &Ranges, volatile: PhysRange) -> Result<Self, TooManyRanges> {
        Ok(Self { pieces: memory::pieces(ram, volatile)?, next: 0 })
    }

    /// The range itself, if all of it is RAM.
    fn check(&self, start: PhysAddr, len: u64) -> Result<PhysRange, ReadFault> {
        PhysRange::new(start, len)
            .filter(|range| self.pieces.iter().any(|piece| piece.range.contains(*range)))
            .ok_or(ReadFault { at: start })
    }
}

impl DumpSource for RamSource {
    fn next(&mut self) -> Option<Extent> {
        let piece = self.pieces.get(self.next)?;
        self.next += 1;
        let stability = if piece.volatile { Stability::Volatile } else { Stability::Frozen };
        Some(Extent { offset: piece.range.start().0, range: piece.range, stability })
    }

    fn rewind(&mut self) {
        self.next = 0;
    }
}

impl ReadRam for RamSource {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        self.check(at, into.len() as u64)?;
        // SAFETY: RAM, all of it, mapped since boot. It may be the very cell that is
        // written: then the copy is of changing bytes, which is what volatile means.
        unsafe { arch::read(at, into) };
        Ok(())
    }

    fn sum(&mut self, range: PhysRange) -> Result<u16, ReadFault> {
        let range = self.check(range.start(), range.len())?;
        // SAFETY: inside one run of the memory map, in the direct map for good.
        Ok(unsafe { arch::sum(range) })
    }

    fn zero_prefix(&mut self, range: PhysRange) -> Result<u64, ReadFault> {
        let range = self.check(range.start(), range.len())?;
        // SAFETY: only looks, at memory that `check` found in the memory map.
        Ok(unsafe { arch::zero_prefix(range) })
    }
}
