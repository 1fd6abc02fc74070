//! Memory for a library that asks for it in C's way: handed out once, never taken back.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

/// The rest of a workspace.
pub(crate) struct Arena {
    next: NonNull<u8>,
    left: usize,
    used: usize,
}

impl Arena {
    /// All of a workspace, which is the arena's for as long as what it hands out is used.
    pub(crate) fn new(workspace: &mut [u8]) -> Self {
        let left = workspace.len();
        Self { next: NonNull::from(workspace).cast(), left, used: 0 }
    }

    /// Memory that nobody else has. `align` is a power of two.
    pub(crate) fn take(&mut self, len: usize, align: usize) -> Option<NonNull<u8>> {
        let padding = self.next.as_ptr().align_offset(align);
        let whole = padding.checked_add(len)?;
        let left = self.left.checked_sub(whole)?;
        // SAFETY: `whole`, and so `padding`, is at most what is left behind `next`.
        let start = unsafe { self.next.add(padding) };
        // SAFETY: at most just behind the workspace.
        let next = unsafe { self.next.add(whole) };
        self.next = next;
        self.left = left;
        self.used = self.used.saturating_add(whole);
        Some(start)
    }

    pub(crate) fn used_len(&self) -> usize {
        self.used
    }
}

/// `zalloc`: as C's `calloc`, without the zeros, from the arena that `opaque` is.
///
/// # Safety
/// `opaque` points to an [`Arena`] that nobody uses during the call.
pub(crate) unsafe extern "C" fn allocate(
    opaque: *mut c_void,
    items: u32,
    size: u32,
) -> *mut c_void {
    /// Cache lines, which is what the library aligns to.
    const ALIGN: usize = 64;
    let len = (items as usize).checked_mul(size as usize);
    // SAFETY: the caller's promise; the library calls this in `deflateInit2_` alone.
    let arena = unsafe { &mut *opaque.cast::<Arena>() };
    match len.and_then(|len| arena.take(len, ALIGN)) {
        Some(memory) => memory.as_ptr().cast(),
        None => ptr::null_mut(),
    }
}

/// `zfree`: the memory stays where it is until the workspace is the caller's again.
///
/// # Safety
/// None needed.
pub(crate) unsafe extern "C" fn free(_opaque: *mut c_void, _memory: *mut c_void) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_handed_out_twice_and_no_more_than_there_is() {
        let mut bytes = [0u8; 1000];
        let range = bytes.as_ptr_range();
        let mut arena = Arena::new(&mut bytes);
        let mut end = range.start.addr();
        while let Some(memory) = arena.take(100, 64) {
            let start = memory.as_ptr().addr();
            assert!(start >= end && start.is_multiple_of(64));
            end = start + 100;
            assert!(end <= range.end.addr());
        }
        assert!(arena.used_len() <= 1000 && arena.used_len() > 700);
        assert_eq!(arena.take(usize::MAX, 1), None);
    }
}
