//! The unsafe primitives that the take-over drivers stand on, in one place.
//!
//! Everything a driver does to a device goes through a type of this crate:
//! registers through [`Registers`] ([`Mmio`], [`PortIo`](port::PortIo), or a
//! fake device in a test), memory shared with the device through [`DmaRegion`],
//! order through [`fence`], PCI configuration through [`PciFunction`]. The
//! offsets are checked, so a wrong one is an error and never a stray access or
//! a panic. The `unsafe` that remains for the caller is the constructor, where
//! ownership is promised once.
//!
//! [`CrashCell`] and [`Reserved`] hold what a crash handler needs without a
//! `static mut`.
//!
//! Nothing here knows a device, and nothing here waits.
#![cfg_attr(not(any(test, feature = "host")), no_std)]
#![deny(unsafe_code)]
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

pub mod cell;
pub mod dma;
pub mod fence;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod map;
pub mod mmio;
pub mod pci;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub mod port;
pub mod registers;

pub use cell::{CrashCell, Entry, Reserved};
pub use dma::DmaRegion;
pub use map::{DmaMap, Identity, Limited};
pub use mmio::Mmio;
pub use pci::{Bar, Capability, PciFunction};
pub use pci_types;
pub use registers::{BadAccess, Registers};
