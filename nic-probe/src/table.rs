//! Which ids there are.

use debugnet_core::nic::NicError;
use nic_e1000::ids;
use nic_virtio::transport::pci_modern::IDS;

pub use nic_e1000::ids::Tested;

/// A driver of this project.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Driver {
    /// `nic-virtio`.
    VirtioNet,
    /// `nic-e1000`.
    E1000,
}

impl Driver {
    /// The crate it is in.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtioNet => "nic-virtio",
            Self::E1000 => "nic-e1000",
        }
    }
}

/// A line of the table: a part, and what drives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
    /// What its maker calls it.
    pub name: &'static str,
    /// What drives it.
    pub driver: Driver,
    /// How it is known to work.
    pub tested: Tested,
}

/// The whole table. Each pair of ids stands once.
pub fn entries() -> impl Iterator<Item = Entry> {
    let virtio = IDS.iter().map(|(vendor, device, name)| Entry {
        vendor: *vendor,
        device: *device,
        name,
        driver: Driver::VirtioNet,
        tested: Tested::Qemu,
    });
    let intel = ids::PARTS.iter().map(|part| Entry {
        vendor: ids::VENDOR,
        device: part.device,
        name: part.name,
        driver: Driver::E1000,
        tested: part.tested,
    });
    virtio.chain(intel)
}

/// The line for these PCI ids.
///
/// # Errors
/// [`NicError::Unsupported`] with the reason for a relative that a driver
/// refuses, [`NicError::Unknown`] for anything else.
pub fn identify(vendor: u16, device: u16) -> Result<Entry, NicError> {
    let found = entries().find(|entry| (entry.vendor, entry.device) == (vendor, device));
    // Intel's refusals have reasons.
    found.map_or_else(
        || {
            let unknown = NicError::Unknown { id: u32::from(vendor) << 16 | u32::from(device) };
            Err(ids::identify(vendor, device).err().unwrap_or(unknown))
        },
        Ok,
    )
}
