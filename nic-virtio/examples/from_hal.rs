//! The dump of a kernel that has a `virtio_drivers::Hal`: rings, cells and registers out of it.
//! The dead driver's memory is left alone; the device is reset and gets this.
//!
//! `main` does it on the host, with a `Hal` over plain memory and a device that is there and no more.

#![allow(unsafe_code, reason = "memory and registers are the kernel's word")]
#![allow(unreachable_pub, reason = "to be copied into a kernel")]

use core::ptr::NonNull;

use debugnet_core::Cells;
use debugnet_core::addr::{DeviceAddr, PhysAddr, PhysRange};
use nic_hal::{DmaMap, DmaRegion, Mmio};
use nic_virtio::transport::mmio::WINDOW_LEN;
use nic_virtio::{MEMORY_NEEDED, VirtioMmio, VirtioNet};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE};

/// Memory that the `Hal` allocated for the device, at boot and for ever.
pub struct DmaPages {
    base: NonNull<u8>,
    len: usize,
    device: u64,
}

impl DmaPages {
    /// `len` bytes, in whole pages. `None` if there are none.
    pub fn alloc<H: Hal>(len: usize) -> Option<Self> {
        let pages = len.div_ceil(PAGE_SIZE);
        let (device, base) = H::dma_alloc(pages, BufferDirection::Both);
        // A `Hal` that has no memory says so with address 0.
        (device != 0).then_some(Self { base, len: pages * PAGE_SIZE, device })
    }

    /// As the memory of a driver's rings.
    pub fn into_region(self) -> Option<DmaRegion> {
        // SAFETY: `dma_alloc` gave it to us alone, contiguous, coherent, at this address of the
        // device's; it is never given back, so that it may be used for ever.
        unsafe { DmaRegion::new(self.base, self.len, DeviceAddr(self.device)) }
    }

    /// As cells, and the addresses in which the driver will be told of them.
    pub fn into_cells(self) -> Option<(Cells<'static>, PhysRange)> {
        let range = PhysRange::new(PhysAddr(self.device), self.len as u64)?;
        // SAFETY: ours alone, for ever (as above), and zeroed by `dma_alloc`; the device only
        // reads cells, and the core does not write to one that the device may be reading.
        let bytes = unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) };
        Some((Cells { bytes, phys: Some(range.start()) }, range))
    }
}

/// Where the device finds what is sent.
///
/// What `Hal::share` does is not known here: it may copy, or program an IOMMU, and it wants a
/// reference to memory that belongs to a dead kernel. So it is not called at a crash. Either the
/// kernel vouches that a device's addresses are physical ones; or the device reaches the cells
/// alone, and the core copies every payload into one.
pub struct HalMap {
    /// The device addresses of the cells.
    pub cells: PhysRange,
    /// Device addresses are physical addresses.
    pub is_direct: bool,
}

impl DmaMap for HalMap {
    fn map(&self, range: PhysRange) -> Option<DeviceAddr> {
        (self.is_direct || self.cells.contains(range)).then_some(DeviceAddr(range.start().0))
    }

    /// An IOMMU that the `Hal` has programmed for its own memory, for as long as the machine is on.
    fn is_platform(&self) -> bool {
        !self.is_direct
    }
}

/// A virtio-net device over MMIO, to be taken over at the crash. Touches it no further than to see
/// what it is.
///
/// # Safety
/// As for [`Hal::mmio_phys_to_virt`], and from the crash on nobody else uses the device.
pub unsafe fn nic<H: Hal>(
    registers: u64,
    map: HalMap,
) -> Option<VirtioNet<VirtioMmio<Mmio>, HalMap>> {
    // SAFETY: the caller's word that these are the registers of a device.
    let window = unsafe { H::mmio_phys_to_virt(registers, WINDOW_LEN) };
    // SAFETY: mapped by the `Hal`, for ever; ours from the crash on.
    let transport = VirtioMmio::probe(unsafe { Mmio::new(window, WINDOW_LEN) }?).ok()?;
    VirtioNet::new(transport, DmaPages::alloc::<H>(MEMORY_NEEDED)?.into_region()?, map).ok()
}

/// A `Hal` over the memory of this process; a device finds it 4 GiB further up.
pub struct HostHal;

const OFFSET: u64 = 1 << 32;

// SAFETY: fresh memory of the allocator's, aligned to pages and zeroed.
unsafe impl Hal for HostHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (u64, NonNull<u8>) {
        let layout = std::alloc::Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE);
        // SAFETY: not of length zero; never freed.
        let memory = layout.ok().map(|layout| unsafe { std::alloc::alloc_zeroed(layout) });
        match memory.and_then(NonNull::new) {
            Some(base) => (base.as_ptr().expose_provenance() as u64 + OFFSET, base),
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_: u64, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(at: u64, _: usize) -> NonNull<u8> {
        let pointer = core::ptr::with_exposed_provenance_mut(at as usize);
        NonNull::new(pointer).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(_: NonNull<[u8]>, _: BufferDirection) -> u64 {
        unreachable!("not at a crash")
    }

    unsafe fn unshare(_: u64, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// The registers of a virtio-net device over MMIO, as far as looking at it goes (virtio 1.3, 4.2.2).
pub fn still_device() -> u64 {
    let (_, base) = HostHal::dma_alloc(1, BufferDirection::Both);
    for (offset, value) in [(0, 0x7472_6976_u32), (4, 2), (8, 1)] {
        // SAFETY: in the page just allocated.
        unsafe { base.as_ptr().wrapping_byte_add(offset).cast::<u32>().write_volatile(value) };
    }
    base.as_ptr().expose_provenance() as u64
}

fn main() {
    let (cells, range) = DmaPages::alloc::<HostHal>(64 << 10)
        .and_then(DmaPages::into_cells)
        .expect("memory for the cells");
    println!("cells: {} bytes, for the device at {}", cells.bytes.len(), range.start());
    // SAFETY: memory of our own that looks like a device.
    let nic = unsafe { nic::<HostHal>(still_device(), HalMap { cells: range, is_direct: false }) };
    println!("a virtio-net device: {}", nic.is_some());
}
