//! Memory that a driver under test and a fake device share.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::ptr::NonNull;

use debugnet_core::addr::DeviceAddr;

use crate::dma::DmaRegion;
use crate::registers::{BadAccess, check_bounds};

/// A block of zeroed heap memory with a device address of the test's choice.
///
/// The driver gets it as a [`DmaRegion`]; the fake device reads and writes the
/// same bytes as a bus master would. The driver's accesses are volatile, the
/// device's are whole copies; both go through one raw pointer. The block is never
/// freed, so that a region cannot outlive it; a fuzz target keeps one and
/// [zeroes](Self::zero) it.
///
/// For one thread: a driver and its fake device race if they are on two.
#[derive(Debug)]
pub struct HostMemory {
    base: NonNull<u8>,
    len: usize,
    device: DeviceAddr,
}

impl HostMemory {
    /// `len` zeroed bytes that devices find at `device`, a multiple of 16.
    ///
    /// # Panics
    /// If the heap has no such block, or `device` is no such address.
    #[allow(unsafe_code)]
    pub fn leak(len: usize, device: DeviceAddr) -> &'static Self {
        let layout = Layout::from_size_align(len.max(1), 4096).expect("a sane length");
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout));
        let memory = Self { base, len, device };
        assert_eq!(memory.view().len(), len);
        Box::leak(Box::new(memory))
    }

    /// Length in bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no byte.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device's address of the first byte.
    pub const fn device_addr(&self) -> DeviceAddr {
        self.device
    }

    /// A handle on all of the memory, for the driver under test.
    pub fn region(&'static self) -> DmaRegion {
        self.view()
    }

    /// Zeroes all of it, at once: not by the volatile bytes of a device or a driver.
    #[allow(unsafe_code)]
    pub fn zero(&self) {
        // SAFETY: the block is `len` bytes long and never freed; everybody who
        // touches it does so on this thread, between two calls.
        unsafe { self.base.write_bytes(0, self.len) };
    }

    /// Copies bytes out, as a device would that finds them at `address`.
    ///
    /// # Errors
    /// [`BadAccess`] if they do not all lie inside; its offset is the distance from the start.
    #[allow(unsafe_code)]
    pub fn device_read(&self, address: u64, into: &mut [u8]) -> Result<(), BadAccess> {
        let from = self.run(address, into.len())?;
        // SAFETY: the run was checked to lie inside the block, which nobody touches
        // meanwhile: all who do are on this thread. No borrow of it is ever given
        // out, so `into` lies elsewhere.
        unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies bytes in, as a device would that finds the block at `address`.
    ///
    /// # Errors
    /// [`BadAccess`] if they would not all lie inside; its offset is the distance from the start.
    #[allow(unsafe_code)]
    pub fn device_write(&self, address: u64, bytes: &[u8]) -> Result<(), BadAccess> {
        let to = self.run(address, bytes.len())?;
        // SAFETY: as for `device_read`, the other way.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Another handle: CPU and device alias on purpose.
    #[allow(unsafe_code)]
    fn view(&self) -> DmaRegion {
        // SAFETY: the block is never freed, and nothing touches it but regions like
        // this one and the copies above, through the same pointer and on one
        // thread. Its device address leads nowhere but to fakes.
        unsafe { DmaRegion::new(self.base, self.len, self.device) }.expect("a possible address")
    }

    /// Where `len` bytes lie that a device finds at `address`.
    fn run(&self, address: u64, len: usize) -> Result<*mut u8, BadAccess> {
        let offset = usize::try_from(address.wrapping_sub(self.device.0)).unwrap_or(usize::MAX);
        check_bounds(offset, len, self.len)?;
        Ok(self.base.as_ptr().wrapping_add(offset))
    }
}
