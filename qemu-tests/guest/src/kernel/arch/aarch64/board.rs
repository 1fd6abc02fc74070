//! Where QEMU's `virt` has its devices (`hw/arm/virt.c`).

use core::ptr;

/// Slots of virtio-mmio: first address, bytes between two, how many.
pub(in crate::kernel::arch) const MMIO_SLOTS: (u64, u64, u64) = (0x0a00_0000, 0x200, 32);
/// Configuration space of the PCI Express bus.
pub(in crate::kernel::arch) const ECAM: u64 = 0x40_1000_0000;
/// Where PCI devices may have registers: 750 MiB.
pub(in crate::kernel::arch) const PCI_WINDOW: u32 = 0x1000_0000;
/// Where the bus has its I/O ports.
pub(in crate::kernel::arch) const PCI_PORTS: usize = 0x3eff_0000;

/// Seconds since 1970: a PL031.
pub(in crate::kernel::arch) fn unix_seconds() -> u64 {
    let data = ptr::with_exposed_provenance::<u32>(0x0901_0000);
    // SAFETY: the clock's data register; reading it has no effect.
    unsafe { data.read_volatile() }.into()
}
