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
mod client;
pub mod config;
pub mod dump;
mod memory;
pub mod nic;
pub mod observer;
mod peer;
pub mod pool;
pub mod progress;
mod runner;
pub mod session;
pub mod time;
mod transmit;
pub mod wire;

pub use config::{Config, ConfigError, Target};
pub use dump::{DumpInfo, DumpSource, Outcome, Verdict};
pub use memory::{Limits, Memory, Needs, arm, memory_needed};
pub use observer::Observer;
pub use pool::Cells;
pub use progress::Progress;
pub use runner::{Armed, Dump, Io, Step};
pub use session::Slot;
