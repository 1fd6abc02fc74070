//! Intel's gigabit controllers, and the way to their registers.

use core::fmt::{self, Write};

use debugnet_core::addr::PhysRange;
use debugnet_core::nic::NicError;
use guest::cmdline::NicChoice;
use heapless::String;
use nic_e1000::PciDevice;
use nic_hal::pci_types::PciAddress;
use nic_hal::{Mmio, PciFunction};
use nic_probe::{Driver, identify};

use super::arch::{self, Machine, PciAccess};
use super::driver::NAME_MAX;
use super::pci;

/// A controller on the PCI bus.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    address: PciAddress,
    vendor: u16,
    device: u16,
}

/// The first controller that the options allow.
pub(super) fn find(choice: NicChoice) -> Option<Device> {
    if !arch::has_pci() {
        return None;
    }
    let wanted = |id: &(u16, u16)| {
        let driven = identify(id.0, id.1).is_ok_and(|entry| entry.driver == Driver::E1000);
        match choice {
            NicChoice::Auto => driven,
            NicChoice::Intel(device) => driven && id.1 == device,
            _ => false,
        }
    };
    let function = pci::find(arch::pci_access, |found| found.id().is_some_and(|id| wanted(&id)))?;
    let (vendor, device) = function.id()?;
    Some(Device { address: function.address(), vendor, device })
}

impl Device {
    /// A way to its registers. Writes nothing to the device.
    pub(super) fn registers(self, machine: &mut Machine) -> Result<PciDevice<PciAccess>, NicError> {
        // SAFETY: the function exists. Two drivers know it, one after the other: the
        // live one until the crash, the dump's from then on.
        let function = unsafe { PciFunction::new(arch::pci_access(), self.address) };
        PciDevice::probe(function, |start, len| {
            machine.map_device(PhysRange::new(start, len as u64)?).ok()?;
            // SAFETY: registers of the device, mapped uncached just now and for ever.
            unsafe { Mmio::at(usize::try_from(start.0).ok()?, len) }
        })
    }

    /// Where on the PCI bus it is.
    pub(super) fn pci_address(self) -> PciAddress {
        self.address
    }

    /// Vendor and device id.
    pub(super) fn name(self) -> String<NAME_MAX> {
        let mut name = String::new();
        // Nine bytes: it fits.
        let _ = write!(name, "{:04x}:{:04x}", self.vendor, self.device);
        name
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}
