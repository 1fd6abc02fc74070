//! A stack above a page that is not mapped, so that an overflow is a fault and
//! not a silent write into a neighbour.

use core::cell::UnsafeCell;
use core::ptr;

use debugnet_core::addr::PhysRange;

/// Length of a small page in bytes.
pub(super) const PAGE_LEN: usize = 0x1000;
/// Length of a stack that the kernel lives on, with its guard page, in bytes.
pub(super) const LIVING_LEN: usize = 0x1_0000 + PAGE_LEN;
/// Length of a stack that a dump runs on, with its guard page, in bytes.
pub(super) const DUMP_LEN: usize = 0x6000 + PAGE_LEN;
/// Length of a stack that only prints, with its guard page, in bytes.
pub(super) const SMALL_LEN: usize = 0x4000 + PAGE_LEN;

/// A stack with its guard page at the low end.
#[repr(C, align(4096))]
pub(super) struct Stack<const LEN: usize>(UnsafeCell<[u8; LEN]>);

// SAFETY: no code reaches into a stack through this type, and each belongs to one CPU.
unsafe impl<const LEN: usize> Sync for Stack<LEN> {}

impl<const LEN: usize> Stack<LEN> {
    pub(super) const fn new() -> Self {
        Self(UnsafeCell::new([0; LEN]))
    }

    /// The page that must not be mapped.
    pub(super) fn guard(&self) -> u64 {
        self.0.get().addr() as u64
    }

    /// One past the highest byte: where the stack begins.
    pub(super) fn top(&self) -> u64 {
        (self.0.get().addr() + LEN) as u64
    }

    /// Its lowest byte and one past the highest, if `sp` is in it.
    pub(super) fn ends(&self, sp: u64) -> Option<(usize, usize)> {
        let (lowest, top) = (self.guard() as usize + PAGE_LEN, self.top() as usize);
        (lowest..top).contains(&(sp as usize)).then_some((lowest, top))
    }

    /// What is in use of it, in whole pages, if `sp` is in it or in its guard page.
    pub(super) fn in_use(&self, sp: u64) -> Option<PhysRange> {
        let lowest = self.guard() + PAGE_LEN as u64;
        let is_here = (self.guard()..self.top()).contains(&sp);
        let start = sp.max(lowest) & !(PAGE_LEN as u64 - 1);
        let start_phys = super::physical(ptr::without_provenance::<u8>(start as usize));
        is_here.then(|| PhysRange::new(start_phys, self.top() - start))?
    }
}
