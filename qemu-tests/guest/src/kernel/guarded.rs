//! Memory between pages that are not mapped where the kernel runs, so that a write beyond
//! its end is a fault and not a silent write into a neighbour.

use core::cell::UnsafeCell;

/// Length of a page in bytes.
pub(super) const PAGE_LEN: usize = 4096;

/// A page that must not be mapped.
#[repr(C, align(4096))]
pub(super) struct Guard(UnsafeCell<[u8; PAGE_LEN]>);

// SAFETY: nobody reaches into it by this name: it is an address, and bytes of the direct map.
unsafe impl Sync for Guard {}

impl Guard {
    pub(super) const fn new() -> Self {
        Self(UnsafeCell::new([0; PAGE_LEN]))
    }

    /// Where it is.
    pub(super) fn address(&self) -> u64 {
        self.0.get().addr() as u64
    }
}

/// Memory that is lent once, as a whole.
pub(super) struct Lent<T>(UnsafeCell<T>);

// SAFETY: reached only through `lend`, whose caller sees to it that it happens once; the
// borrower may be another context than the one that made the static: `T: Send`.
unsafe impl<T: Send> Sync for Lent<T> {}

impl<T> Lent<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Lends it.
    ///
    /// # Safety
    /// Called once in the machine's life.
    #[expect(clippy::mut_from_ref, reason = "once, by the caller's word")]
    pub(super) unsafe fn lend(&'static self) -> &'static mut T {
        // SAFETY: the only reference that there ever is, by the caller's word.
        unsafe { &mut *self.0.get() }
    }
}

/// Bytes that a `T` leaves free of the pages that it takes.
pub(super) const fn front<T>() -> usize {
    size_of::<T>().next_multiple_of(PAGE_LEN) - size_of::<T>()
}

/// A piece whose last byte is the last one of a page, and the guard page behind it. `FRONT`
/// is [`front`] of `T`: a parameter, as its own type cannot compute it.
#[repr(C)]
pub(super) struct Guarded<T, const FRONT: usize> {
    front: Front<FRONT>,
    value: T,
    behind: Guard,
}

/// What is free in front of a piece.
struct Front<const LEN: usize>(UnsafeCell<[u8; LEN]>);

// SAFETY: nobody reaches into it by this name.
unsafe impl<const LEN: usize> Sync for Front<LEN> {}

impl<T, const FRONT: usize> Guarded<T, FRONT> {
    pub(super) const fn new(value: T) -> Self {
        assert!(FRONT == front::<T>());
        Self { front: Front(UnsafeCell::new([0; FRONT])), value, behind: Guard::new() }
    }

    pub(super) const fn value(&self) -> &T {
        &self.value
    }

    /// The guard page behind it.
    pub(super) const fn behind(&self) -> &Guard {
        &self.behind
    }

    /// Address of the first byte of its pages.
    pub(super) fn first(&self) -> usize {
        self.front.0.get().addr()
    }
}
