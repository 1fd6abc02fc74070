//! The PCI Express bus: configuration space in memory (ECAM), and addresses for
//! the devices, which firmware would have given them.

use core::ptr;

use debugnet_core::addr::{PhysAddr, PhysRange};
use nic_hal::PciFunction;
use nic_hal::pci_types::{ConfigRegionAccess, PciAddress};

use super::board::{ECAM, PCI_WINDOW};
use super::paging::{AddressSpace, MapError};

/// Configuration space of one bus in bytes; the kernel uses the first bus alone.
const BUS_LEN: u64 = 1 << 20;
/// Ports below are left to devices with fixed ones.
const FIRST_PORT: u32 = 0x1000;

/// Configuration access to the first bus.
#[derive(Debug)]
pub(crate) struct PciAccess(());

/// PCI configuration space, which [`set_up`] has mapped.
pub(crate) fn pci_access() -> PciAccess {
    PciAccess(())
}

/// Whether there is a PCI bus: always.
pub(crate) fn has_pci() -> bool {
    true
}

/// The word at `offset` of a function, if there can be such a function.
fn word(address: PciAddress, offset: u16) -> Option<*mut u32> {
    if address.segment() != 0 || address.bus() != 0 || offset >= 0x1000 {
        return None;
    }
    let function = u64::from(address.device()) << 15 | u64::from(address.function()) << 12;
    let at = ECAM + function + u64::from(offset & !3);
    Some(ptr::with_exposed_provenance_mut(at as usize))
}

impl ConfigRegionAccess for PciAccess {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        // SAFETY: a register in the window that `set_up` has mapped; reading changes nothing.
        word(address, offset).map_or(u32::MAX, |word| unsafe { word.read_volatile() })
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        if let Some(word) = word(address, offset) {
            // SAFETY: likewise; what the function does then is the caller's promise.
            unsafe { word.write_volatile(value) };
        }
    }
}

/// Maps configuration space, and places the registers of every function.
pub(super) fn set_up(space: &mut AddressSpace) -> Result<(), MapError> {
    let window = PhysRange::new(PhysAddr(ECAM), BUS_LEN).unwrap_or_default();
    space.map_device(window)?;
    let mut free = Free { memory: PCI_WINDOW, port: FIRST_PORT };
    for device in 0..32 {
        let address = PciAddress::new(0, 0, device, 0);
        // SAFETY: configuration space is mapped, and no driver has seen the function yet.
        let function = unsafe { PciFunction::new(pci_access(), address) };
        // Header type 0 has six registers; a bridge has others there.
        if function.id().is_some() && function.read32(0x0c) >> 16 & 0x7f == 0 {
            place(address, &mut free);
        }
    }
    Ok(())
}

/// The next addresses that no device has.
struct Free {
    memory: u32,
    port: u32,
}

/// Gives a function's base address registers addresses (PCI Local Bus 3.0, section 6.2.5.1).
/// It decodes none of them yet.
fn place(address: PciAddress, free: &mut Free) {
    const PORTS: u32 = 1;
    const TYPE_64: u32 = 4;
    let access = pci_access();
    let mut bar = 0x10;
    while bar < 0x28 {
        // SAFETY: a base address register of a function that decodes nothing: all ones
        // make it tell which bits it has.
        unsafe { access.write(address, bar, u32::MAX) };
        // SAFETY: the same register.
        let bits = unsafe { access.read(address, bar) };
        let (next, flags) =
            if bits & PORTS == 0 { (&mut free.memory, 0xf) } else { (&mut free.port, 3) };
        let is_wide = bits & (PORTS | TYPE_64) == TYPE_64;
        // Its lowest address bit is its length; a register without any is not there.
        let address_bits = bits & !flags;
        if address_bits != 0 {
            let len = 1 << address_bits.trailing_zeros();
            let start = next.next_multiple_of(len);
            *next = start + len;
            // SAFETY: likewise, with an address that nothing else has.
            unsafe { access.write(address, bar, start) };
            if is_wide {
                // SAFETY: the upper half of the same register.
                unsafe { access.write(address, bar + 4, 0) };
            }
        }
        bar += if is_wide { 8 } else { 4 };
    }
}
