//! From a PCI function to the driver that drives it.
//!
//! A kernel that does not know its NIC beforehand walks its PCI bus at boot,
//! asks [`identify`] of each function, and takes the first that is driven:
//!
//! ```no_run
//! use debugnet_core::addr::PhysAddr;
//! use debugnet_core::nic::{Nic, NicError};
//! use nic_hal::pci_types::ConfigRegionAccess;
//! use nic_hal::{DmaRegion, Identity, Mmio, PciFunction};
//! use nic_probe::{AnyNic, Device, MEMORY_NEEDED};
//!
//! fn nic<A: ConfigRegionAccess>(
//!     function: PciFunction<A>,
//!     reserve: impl FnOnce(usize) -> Option<DmaRegion>,
//! ) -> Result<AnyNic<A, Identity>, NicError> {
//!     // SAFETY: BARs are mapped one to one, uncached, since early boot.
//!     let map = |phys: PhysAddr, len| unsafe { Mmio::at(phys.0 as usize, len) };
//!     // No machine with I/O ports: a legacy virtio device is refused.
//!     let device = Device::probe(function, map, |_, _| None)?;
//!     // What this device needs; `MEMORY_NEEDED` is enough for any, in a static.
//!     assert!(device.memory_needed() <= MEMORY_NEEDED);
//!     let memory = reserve(device.memory_needed()).ok_or(NicError::NotReachable)?;
//!     device.driver(memory, Identity::new())
//! }
//! ```
//!
//! A kernel that knows its NIC uses the driver's crate alone: what it does not
//! link, it need not trust. Devices that are not on PCI are not found here:
//! [`Device`] can be made of what the drivers' own probes give.
#![no_std]
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

#[cfg(test)]
extern crate std;

mod any;
mod table;

pub use any::{AnyNic, Device, MEMORY_NEEDED};
pub use table::{Driver, Entry, Tested, entries, identify};

#[cfg(test)]
mod tests;
