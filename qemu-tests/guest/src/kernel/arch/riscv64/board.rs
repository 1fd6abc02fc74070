//! Where QEMU's `virt` has its devices (`hw/riscv/virt.c`).

use core::ptr;

/// Slots of virtio-mmio: first address, bytes between two, how many.
pub(in crate::kernel::arch) const MMIO_SLOTS: (u64, u64, u64) = (0x1000_1000, 0x1000, 8);
/// Configuration space of the PCI Express bus.
pub(in crate::kernel::arch) const ECAM: u64 = 0x3000_0000;
/// Where PCI devices may have registers: 1 GiB.
pub(in crate::kernel::arch) const PCI_WINDOW: u32 = 0x4000_0000;
/// Where the bus has its I/O ports.
pub(in crate::kernel::arch) const PCI_PORTS: usize = 0x0300_0000;

/// Seconds since 1970: a Goldfish clock, in nanoseconds. Its low half latches the high one.
pub(in crate::kernel::arch) fn unix_seconds() -> u64 {
    let low = ptr::with_exposed_provenance::<u32>(0x10_1000);
    // SAFETY: a register of the clock; reading it only latches the other.
    let low_half = unsafe { low.read_volatile() };
    // SAFETY: the next register of the clock.
    let high_half = unsafe { low.wrapping_add(1).read_volatile() };
    (u64::from(high_half) << 32 | u64::from(low_half)) / 1_000_000_000
}
