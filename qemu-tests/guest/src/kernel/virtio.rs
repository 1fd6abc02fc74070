//! The virtio network devices of the machine, and the way to their registers.

use core::fmt::{self, Write};

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::nic::NicError;
use guest::cmdline::NicChoice;
use heapless::String;
use nic_hal::pci_types::PciAddress;
use nic_hal::{Mmio, PciFunction};
use nic_probe::{Driver, identify};
use nic_virtio::transport::mmio::WINDOW_LEN;
use nic_virtio::transport::pci_modern::has_modern_interface;
use nic_virtio::{AnyTransport, PciLegacy, VirtioMmio};

use super::arch::{self, Machine, PciAccess, Ports};
use super::driver::NAME_MAX;
use super::pci;

/// The way to a device's registers.
pub(super) type Transport = AnyTransport<PciAccess, Mmio, Ports>;

/// Device id of what never had the legacy interface.
const NON_TRANSITIONAL: u16 = 0x1041;

/// A virtio network device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Device {
    /// A PCI function.
    Pci {
        address: PciAddress,
        vendor: u16,
        device: u16,
        /// Drive it through the legacy interface, whether there is another or not.
        legacy: bool,
    },
    /// A slot of virtio-mmio.
    Mmio { registers: PhysAddr, version: u32 },
}

/// The first device that the options allow.
pub(super) fn find(choice: NicChoice) -> Option<Device> {
    if choice == NicChoice::None {
        return None;
    }
    find_on_pci(choice).or_else(|| find_in_slots(choice))
}

fn find_on_pci(choice: NicChoice) -> Option<Device> {
    if !arch::has_pci() {
        return None;
    }
    let mut found = None;
    let function = pci::find(arch::pci_access, |function| {
        let Some((vendor, device)) = function.id() else { return false };
        if !identify(vendor, device).is_ok_and(|entry| entry.driver == Driver::VirtioNet) {
            return false;
        }
        let modern = has_modern_interface(function);
        let legacy = match choice {
            NicChoice::Auto => Some(!modern),
            NicChoice::VirtioNetPci => modern.then_some(false),
            NicChoice::VirtioNetPciNonTransitional => {
                (modern && device == NON_TRANSITIONAL).then_some(false)
            }
            NicChoice::VirtioNetPciLegacy => (device != NON_TRANSITIONAL).then_some(true),
            _ => None,
        };
        found = legacy.map(|legacy| (vendor, device, legacy));
        found.is_some()
    })?;
    let (vendor, device, legacy) = found?;
    Some(Device::Pci { address: function.address(), vendor, device, legacy })
}

fn find_in_slots(choice: NicChoice) -> Option<Device> {
    let (first, step, count) = arch::mmio_slots();
    let slots = (0..count).map(|slot| PhysAddr(first + slot * step));
    slots.into_iter().find_map(|registers| {
        let version = VirtioMmio::probe(mmio(registers, WINDOW_LEN)?).ok()?.version();
        let wanted = match choice {
            NicChoice::Auto => true,
            NicChoice::VirtioNetDevice => version == 2,
            NicChoice::VirtioNetDeviceLegacy => version == 1,
            _ => false,
        };
        wanted.then_some(Device::Mmio { registers, version })
    })
}

/// Registers below 4 GiB, or such that [`Machine::map_device`] mapped.
fn mmio(start: PhysAddr, len: usize) -> Option<Mmio> {
    // SAFETY: registers of a device, mapped onto themselves, uncached, for ever. Two
    // drivers use them, one after the other: the live one until the crash, the dump's
    // from then on; a look at boot reads what has no effect.
    unsafe { Mmio::at(usize::try_from(start.0).ok()?, len) }
}

impl Device {
    /// A way to its registers. Writes nothing to the device.
    pub(super) fn transport(self, machine: &mut Machine) -> Result<Transport, NicError> {
        match self {
            Self::Pci { address, legacy, .. } => {
                // SAFETY: the function exists. Two drivers know it, one after the other: the
                // live one until the crash, the dump's from then on.
                let function = unsafe { PciFunction::new(arch::pci_access(), address) };
                if legacy {
                    return PciLegacy::probe(function, arch::ports).map(Transport::PciLegacy);
                }
                let map = |start, len| {
                    machine.map_device(PhysRange::new(start, len as u64)?).ok()?;
                    mmio(start, len)
                };
                Transport::probe_pci(function, map, arch::ports)
            }
            Self::Mmio { registers, .. } => {
                let window = mmio(registers, WINDOW_LEN).ok_or(NicError::NotReachable)?;
                VirtioMmio::probe(window).map(Transport::Mmio)
            }
        }
    }

    /// Whether it is driven through the legacy interface.
    pub(super) fn is_legacy(self) -> bool {
        matches!(self, Self::Pci { legacy: true, .. } | Self::Mmio { version: 1, .. })
    }

    /// Where on the PCI bus it is, if it is there.
    pub(super) fn pci_address(self) -> Option<PciAddress> {
        match self {
            Self::Pci { address, .. } => Some(address),
            Self::Mmio { .. } => None,
        }
    }

    /// Vendor and device id, or the version of virtio-mmio.
    pub(super) fn name(self) -> String<NAME_MAX> {
        let mut name = String::new();
        // At most 13 bytes: it fits.
        let _ = match self {
            Self::Pci { vendor, device, .. } => write!(name, "{vendor:04x}:{device:04x}"),
            Self::Mmio { version, .. } => write!(name, "virtio-mmio:{version}"),
        };
        name
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci { address, legacy: false, .. } => write!(f, "{address}"),
            Self::Pci { address, legacy: true, .. } => write!(f, "{address} (legacy)"),
            Self::Mmio { registers, .. } => write!(f, "{registers}"),
        }
    }
}
