#![doc = include_str!("../README.md")]
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

mod chip;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod net;
mod queue;
mod start;

#[cfg(test)]
mod tests;

pub use chip::{BusError, Lost};
pub use net::{Counters, W5500};
