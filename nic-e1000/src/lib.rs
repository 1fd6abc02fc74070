//! A driver for Intel's gigabit Ethernet controllers, for a kernel that has
//! just died: 8254x (`e1000`), 8257x (`e1000e`), and 82575 to I211 (`igb`).
//!
//! [`E1000`] takes the device away from the dead kernel by reset, with rings in
//! memory of its own, and then sends and receives frames by polling. It needs
//! no interrupt, no heap and no lock, never waits without a bound, and
//! believes nothing the device says. [`ids`] lists the parts.
//!
//! At boot, find the function, map its registers and reserve
//! [`MEMORY_NEEDED`] bytes; nothing is written to the device:
//!
//! ```no_run
//! use debugnet_core::addr::DeviceAddr;
//! use nic_e1000::{E1000, MEMORY_NEEDED, PciDevice};
//! use nic_hal::pci_types::{ConfigRegionAccess, PciAddress};
//! use nic_hal::{DmaRegion, Identity, Mmio, PciFunction, Reserved};
//!
//! #[repr(align(4096))]
//! struct Pages([u8; MEMORY_NEEDED]);
//! static MEMORY: Reserved<Pages> = Reserved::new(Pages([0; MEMORY_NEEDED]));
//!
//! # fn virt_to_phys(_: *const u8) -> u64 { 0 }
//! # fn example(config: impl ConfigRegionAccess) -> Result<(), debugnet_core::nic::NicError> {
//! // SAFETY: 00:03.0 exists, and from the crash on no other driver runs on it.
//! let function = unsafe { PciFunction::new(config, PciAddress::new(0, 0, 3, 0)) };
//! let device = PciDevice::probe(function, |phys, len| {
//!     // SAFETY: BARs are mapped one to one, uncached, since early boot.
//!     unsafe { Mmio::at(phys.0 as usize, len) }
//! })?;
//! // SAFETY: boot code runs once, on one CPU.
//! let pages = unsafe { MEMORY.take() }.expect("taken once");
//! let address = DeviceAddr(virt_to_phys(pages.0.as_ptr()));
//! // SAFETY: the driver's for ever; contiguous, and there is no IOMMU.
//! let memory = unsafe { DmaRegion::from_static(&mut pages.0, address) }.expect("does not wrap");
//! let nic = E1000::new(device, memory, Identity::new())?;
//! # let _ = nic; Ok(())
//! # }
//! ```
//!
//! At the crash, hand it to the dump as a [`Nic`](debugnet_core::nic::Nic).
//! What it does to the device then, and in which order, is in the README.
#![cfg_attr(not(any(test, feature = "fake")), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::arithmetic_side_effects
    )
)]

mod bringup;
mod configure;
mod descriptor;
mod device;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod ids;
mod net;
mod quiesce;
mod registers;
mod rx;
mod sizes;
mod station;
mod tx;

#[cfg(test)]
mod tests;

pub use device::PciDevice;
pub use ids::is_e1000;
pub use net::{Counters, E1000};
pub use sizes::MEMORY_NEEDED;
