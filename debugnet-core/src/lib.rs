//! Crash dumps over the network, for machines that have just died.
//!
//! A kernel, unikernel or firmware image hands control to this library with
//! interrupts off, on one thread, without a heap, and with no trust in what it
//! was doing. The library takes over a NIC, finds a server, and sends the
//! machine's RAM there over FreeBSD's *debugnet* protocol (`netdump`, UDP).
#![cfg_attr(not(test), no_std)]
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

pub mod addr;
pub mod nic;
pub mod progress;
pub mod time;
pub mod wire;
