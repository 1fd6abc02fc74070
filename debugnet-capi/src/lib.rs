#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), no_std)]
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

mod arm;
mod dump;
mod image;
mod machine;
mod nic;
mod outcome;
#[cfg(test)]
mod tests;

pub use arm::{Debugnet, Limits, Status, debugnet_arm, debugnet_memory_needed};
pub use dump::{Facts, Job, debugnet_begin, debugnet_dump, debugnet_poll, debugnet_progress};
pub use image::{Extent, Image};
pub use machine::Machine;
pub use nic::*;
pub use outcome::{Outcome, Verdict};

#[cfg(all(feature = "staticlib", panic = "abort", not(test)))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Not reached. A dump that stands still is reset by the watchdog.
    loop {
        core::hint::spin_loop();
    }
}
