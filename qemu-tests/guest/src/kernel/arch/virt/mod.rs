//! QEMU's `virt` machines, which AArch64 and RISC-V share: a device tree, RAM
//! above all devices, virtio-mmio, a PCI Express bus that nobody has set up, one
//! CPU. Page tables have the same shape on both.
//!
//! What differs is in the directory of the architecture: `board` (addresses), `uart`,
//! `mmu` (the bits of a page table's entry), `boot`, `trap`, `counter`.

mod one_cpu;
mod paging;
mod pci;
mod stacks;
mod tree;

use core::num::NonZeroU64;

use debugnet_core::addr::{PhysAddr, PhysRange};
use guest::memory::Ranges;
use heapless::String;
use nic_hal::Mmio;

pub(crate) use nic_hal::Mmio as Ports;
pub(crate) use one_cpu::{CPUS_MAX, cpu, park, park_others, parked, start_second};
pub(super) use paging::Memory;
pub(crate) use paging::{MAPPINGS_MAX, MapError, direct, mappings, page_tables};
pub(crate) use pci::{PciAccess, has_pci, pci_access};
pub(super) use stacks::{BOOT_STACK, FAULT_STACK, NESTED_STACK, in_use};
pub(crate) use stacks::{death_guards, death_stack};

use super::{board, uart};
use crate::kernel::{fatal, say};

/// What the boot code found out about the machine.
pub(crate) struct Machine {
    /// The command line.
    pub(crate) cmdline: String<{ tree::CMDLINE_MAX }>,
    /// RAM.
    pub(crate) ram: Ranges,
    /// Counter ticks a second.
    pub(crate) counter_hz: NonZeroU64,
    /// Seconds since 1970 at boot.
    pub(crate) boot_time_s: u64,
    space: paging::AddressSpace,
}

impl Machine {
    /// Makes the registers of a device reachable at their physical address.
    ///
    /// # Errors
    /// [`MapError`] if they lie too far up.
    pub(crate) fn map_device(&mut self, window: PhysRange) -> Result<(), MapError> {
        self.space.map_device(window)
    }
}

/// First Rust code, on the boot stack, translation off: addresses are physical.
pub(super) extern "C" fn start(tree: usize) -> ! {
    uart::init();
    // SAFETY: where the loader puts the tree; nobody writes to it before RAM is filled.
    let found = match unsafe { tree::read(tree) } {
        Ok(found) => found,
        Err(what) => fatal(format_args!("device tree at {tree:#x}: {what}")),
    };
    for run in &found.ram {
        say!("guest: RAM {} {}", run.start(), run.end());
    }
    let mut space = match paging::AddressSpace::new(&found.ram, stacks::guards()) {
        Ok(space) => space,
        Err(error) => fatal(format_args!("page tables: {error:?}")),
    };
    space.activate();
    if let Err(error) = pci::set_up(&mut space) {
        fatal(format_args!("PCI: {error:?}"));
    }
    crate::kernel::main(Machine {
        cmdline: found.cmdline,
        ram: found.ram,
        counter_hz: found.counter_hz,
        boot_time_s: board::unix_seconds(),
        space,
    })
}

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    static __volatile_start: u8;
    static __volatile_end: u8;
    static __build_id: u8;
    static __build_id_end: u8;
}

/// Memory that the kernel's image takes, zeroed parts included.
pub(crate) fn image() -> PhysRange {
    between(&raw const __image_start, &raw const __image_end)
}

/// The part of the image that the crash path writes.
pub(crate) fn volatile_section() -> PhysRange {
    between(&raw const __volatile_start, &raw const __volatile_end)
}

/// The build id of this kernel, as the linker made it.
pub(crate) fn build_id() -> &'static [u8] {
    /// Three words of lengths and type, and the name `GNU`.
    const HEADER_LEN: usize = 16;
    let first = (&raw const __build_id).wrapping_add(HEADER_LEN);
    let len = (&raw const __build_id_end).addr().saturating_sub(first.addr());
    // SAFETY: read-only data of the image between two symbols of the linker.
    unsafe { core::slice::from_raw_parts(first, len) }
}

/// Where in RAM something of the kernel's image is: it runs where it was loaded.
pub(crate) fn physical<T: ?Sized>(what: *const T) -> PhysAddr {
    PhysAddr(what.addr() as u64)
}

fn between(start: *const u8, end: *const u8) -> PhysRange {
    let len = end.addr().saturating_sub(start.addr()) as u64;
    PhysRange::new(physical(start), len).unwrap_or(PhysRange::EMPTY)
}

/// Slots of virtio-mmio: first address, bytes between two, how many.
pub(crate) fn mmio_slots() -> (u64, u64, u64) {
    board::MMIO_SLOTS
}

/// I/O ports of a device, which the bridge has in memory. `None` if they run past the last one.
pub(crate) fn ports(first: u16, len: u16) -> Option<Ports> {
    first.checked_add(len)?;
    // SAFETY: below the devices' RAM and mapped with all of them. The ports are those of a
    // device that two drivers know, one after the other: the live one until the crash, the
    // dump's from then on.
    unsafe { Mmio::at(board::PCI_PORTS + usize::from(first), len.into()) }
}

/// Copies mapped memory, live or not.
///
/// # Safety
/// As many bytes as `into` has are mapped at `from`.
pub(crate) unsafe fn copy(from: *const u8, into: &mut [u8]) {
    for (at, byte) in into.iter_mut().enumerate() {
        // SAFETY: mapped by the caller's word; whoever owns it is dead, or is this dump.
        *byte = unsafe { from.wrapping_add(at).read_volatile() };
    }
}

/// Ends QEMU through semihosting: status 33 for success, 3 for failure. Without
/// semihosting the CPU stops.
pub(crate) fn exit(success: bool) -> ! {
    semihosting::process::exit(if success { 33 } else { 3 })
}
