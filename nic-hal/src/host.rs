//! Heap memory that a driver under test and a fake device share. Not for the crash path.

#![allow(clippy::expect_used)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use debugnet_core::addr::DeviceAddr;

use crate::dma::DmaRegion;
use crate::registers::BadAccess;

/// A block of zeroed heap memory with a device address of the test's choice.
///
/// The driver gets it as a [`DmaRegion`]; the fake device keeps a
/// [`DmaRegion`] of its own over the same bytes and so sees what the driver
/// writes, as a bus master would. All accesses on both sides are volatile and
/// go through raw pointers.
#[derive(Debug)]
pub struct HostMemory {
    base: NonNull<u8>,
    layout: Layout,
    device: DeviceAddr,
}

impl HostMemory {
    /// `len` zeroed bytes (at least one) that devices find at `device`.
    ///
    /// # Panics
    /// If the heap has no such block.
    #[allow(unsafe_code)]
    pub fn new(len: usize, device: DeviceAddr) -> Self {
        let layout = Layout::from_size_align(len.max(1), 4096).expect("a sane length");
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout));
        Self { base, layout, device }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Never: a block has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The device's address of the first byte.
    pub fn device_addr(&self) -> DeviceAddr {
        self.device
    }

    /// Another handle on all of the memory, for a driver or for a fake device.
    ///
    /// # Safety
    /// The block outlives the region. Regions of one block are used by one
    /// thread only (here two of them alias on purpose: a CPU and its device).
    #[allow(unsafe_code)]
    pub unsafe fn region(&self) -> DmaRegion {
        // SAFETY: the block is ours until it drops, which the caller keeps off;
        // every access to it is volatile through the same raw pointer.
        unsafe { DmaRegion::new(self.base, self.len(), self.device) }.expect("does not wrap")
    }

    /// Copies bytes out, as a device would that finds them at `address`.
    ///
    /// # Errors
    /// [`BadAccess`] if they do not all lie inside; its offset is the distance from the start.
    pub fn device_read(&self, address: u64, into: &mut [u8]) -> Result<(), BadAccess> {
        self.view().read_bytes(self.offset_of(address), into)
    }

    /// Copies bytes in, as a device would that finds the block at `address`.
    ///
    /// # Errors
    /// [`BadAccess`] if they would not all lie inside; its offset is the distance from the start.
    pub fn device_write(&self, address: u64, bytes: &[u8]) -> Result<(), BadAccess> {
        self.view().write_bytes(self.offset_of(address), bytes)
    }

    /// A region for the length of one access.
    #[allow(unsafe_code)]
    fn view(&self) -> DmaRegion {
        // SAFETY: used and dropped within one method of `self`, which keeps the block alive.
        unsafe { self.region() }
    }

    fn offset_of(&self, address: u64) -> usize {
        let distance = address.wrapping_sub(self.device.0);
        usize::try_from(distance).unwrap_or(usize::MAX)
    }
}

impl Drop for HostMemory {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; regions over it are gone (the
        // promise of `region`).
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}
