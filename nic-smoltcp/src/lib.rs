//! Both ways between [smoltcp](https://docs.rs/smoltcp)'s devices and
//! [`Nic`](debugnet_core::nic::Nic)s.
//!
//! - [`PhyNic`]: whatever implements [`smoltcp::phy::Device`] is a `Nic`. That is
//!   *warm* use: the driver goes on where the dead kernel left it, and works only
//!   if it was sound. Firmware that has a smoltcp driver and nothing else dumps through it.
//! - [`NicDevice`]: a driver of this project is a `phy::Device`, under a whole IP
//!   stack: in a boot loader, or in a test.
//!
//! The adapters themselves cannot panic, wait, or allocate, but what they call is
//! not theirs: a device's tokens are its own code, and smoltcp's parsers keep
//! panic sites. The link-time proof of `cargo xtask panic-free` does not cover them. smoltcp
//! wants a newer compiler than the drivers, which is why this is a crate of its own.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::arithmetic_side_effects
)]

mod as_device;
mod as_nic;

pub use as_device::{NicDevice, NicRxToken, NicTxToken, TxMemory};
pub use as_nic::PhyNic;

/// An Ethernet header, without tags.
const ETHERNET_HEADER_LEN: u16 = 14;
