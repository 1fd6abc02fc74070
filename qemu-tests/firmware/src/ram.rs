//! The image: all of RAM, a file offset is a physical address.

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::{DumpSource, Extent, ReadFault, ReadRam, Stability};

use crate::volatile;

/// The board's data RAM.
pub(crate) const RAM: (u64, u64) = (0x2000_0000, 0x2040_0000);

/// RAM as the dump sees it.
pub(crate) struct Ram {
    next: u8,
}

impl Ram {
    pub(crate) const fn new() -> Self {
        Self { next: 0 }
    }
}

impl DumpSource for Ram {
    fn next(&mut self) -> Option<Extent> {
        let (start, end) = volatile::section();
        let (from, to, stability) = match self.next {
            0 => (RAM.0, start, Stability::Frozen),
            1 => (start, end, Stability::Volatile),
            2 => (end, RAM.1, Stability::Frozen),
            _ => return None,
        };
        self.next += 1;
        let range = PhysRange::new(PhysAddr(from), to - from)?;
        Some(Extent { offset: from, range, stability })
    }

    fn rewind(&mut self) {
        self.next = 0;
    }
}

impl ReadRam for Ram {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        let start = check(at, into.len() as u64)?;
        for (offset, byte) in into.iter_mut().enumerate() {
            // SAFETY: RAM (just checked), looked at with a volatile load and never
            // borrowed: whoever owns it is dead, or is this dump.
            *byte = unsafe { start.wrapping_add(offset).read_volatile() };
        }
        Ok(())
    }

    fn zero_prefix(&mut self, range: PhysRange) -> Result<u64, ReadFault> {
        let start = check(range.start(), range.len())?;
        let mut zeros = 0;
        while zeros < range.len() as usize {
            // SAFETY: in the range that was checked.
            if unsafe { start.wrapping_add(zeros).read_volatile() } != 0 {
                break;
            }
            zeros += 1;
        }
        Ok(zeros as u64)
    }
}

/// The pointer to `len` bytes of RAM at `at`.
fn check(at: PhysAddr, len: u64) -> Result<*const u8, ReadFault> {
    let end = at.0.checked_add(len).filter(|end| at.0 >= RAM.0 && *end <= RAM.1);
    end.map(|_| core::ptr::with_exposed_provenance(at.0 as usize)).ok_or(ReadFault { at })
}

unsafe extern "C" {
    static mut __volatile_end: u32;
    static __app_stack_top: u32;
}

/// Bytes below the top of RAM that belong to the application's stack.
pub(crate) const APP_STACK_LEN: usize = 16 * 1024;

/// Fills what nobody uses, so that the dump has something to show: words that
/// depend on their address and the seed.
pub(crate) fn fill(seed: u32) {
    let mut at = &raw mut __volatile_end;
    let end = (&raw const __app_stack_top).wrapping_byte_sub(APP_STACK_LEN);
    while at.cast_const() < end {
        let mixed = (at.addr() as u32 ^ seed).wrapping_mul(0x9e37_79b1);
        // A quarter of it stays zero, in runs: pages that were never used.
        let value = if at.addr() >> 12 & 3 == 3 { 0 } else { mixed ^ mixed >> 15 };
        // SAFETY: RAM between the statics and the stack: nobody's.
        unsafe { at.write_volatile(value) };
        at = at.wrapping_add(1);
    }
}

/// Whether a word at this address is in RAM.
pub(crate) fn contains(address: usize) -> bool {
    (RAM.0..RAM.1 - 3).contains(&(address as u64))
}
