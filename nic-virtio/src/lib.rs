//! A virtio-net driver for a kernel that has just died (virtio 1.2 and 1.3,
//! section 5.1).
//!
//! [`VirtioNet`] takes the device away from the dead kernel by reset, with
//! rings in memory of its own, and then sends and receives frames by polling.
//! It needs no interrupt, no heap and no lock, never waits without a bound,
//! and believes nothing the device says: an index out of range is an error,
//! not an access.
//!
//! At boot, find the function, map its registers and reserve
//! [`MEMORY_NEEDED`] bytes; nothing is written to the device:
//!
//! ```no_run
//! use debugnet_core::addr::DeviceAddr;
//! use nic_hal::pci_types::{ConfigRegionAccess, PciAddress};
//! use nic_hal::{DmaRegion, Identity, Mmio, PciFunction, Reserved};
//! use nic_virtio::{MEMORY_NEEDED, PciModern, VirtioNet};
//!
//! #[repr(align(4096))]
//! struct Pages([u8; MEMORY_NEEDED]);
//! static MEMORY: Reserved<Pages> = Reserved::new(Pages([0; MEMORY_NEEDED]));
//!
//! # fn virt_to_phys(_: *const u8) -> u64 { 0 }
//! # fn example(config: impl ConfigRegionAccess) -> Result<(), debugnet_core::nic::NicError> {
//! // SAFETY: 00:03.0 exists, and from the crash on no other driver runs on it.
//! let function = unsafe { PciFunction::new(config, PciAddress::new(0, 0, 3, 0)) };
//! let transport = PciModern::probe(function, |phys, len| {
//!     // SAFETY: BARs are mapped one to one, uncached, since early boot.
//!     unsafe { Mmio::at(phys.0 as usize, len) }
//! })?;
//! // SAFETY: boot code runs once, on one CPU.
//! let pages = unsafe { MEMORY.take() }.expect("taken once");
//! let address = DeviceAddr(virt_to_phys(pages.0.as_ptr()));
//! // SAFETY: the driver's for ever; contiguous, and there is no IOMMU.
//! let memory = unsafe { DmaRegion::from_static(&mut pages.0, address) }.expect("does not wrap");
//! let nic = VirtioNet::new(transport, memory, Identity::new())?;
//! # let _ = nic; Ok(())
//! # }
//! ```
//!
//! At the crash, hand it to the dump as a [`Nic`](debugnet_core::nic::Nic).
//!
//! [`PciModern`] is one of the transports; [`PciLegacy`] and [`VirtioMmio`] are
//! the others, and [`AnyTransport`] is whichever the machine has. Where it may
//! turn out to be a legacy one, set [`MEMORY_NEEDED_ANY`] bytes aside and give
//! [`Sizes::ANY`] to [`VirtioNet::with_sizes`].
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

mod bits;
mod bringup;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod features;
mod format;
mod header;
mod net;
mod queue;
mod rx;
mod sizes;
pub mod transport;
mod tx;

#[cfg(test)]
mod tests;

pub use net::{Counters, VirtioNet};
pub use sizes::{MEMORY_NEEDED, MEMORY_NEEDED_ANY, Sizes};
pub use transport::any::AnyTransport;
pub use transport::mmio::VirtioMmio;
pub use transport::pci_legacy::PciLegacy;
pub use transport::pci_modern::PciModern;
