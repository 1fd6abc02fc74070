//! What the guest kernel decides without touching the machine: its command
//! line, its map of memory, the pattern it fills RAM with, the lines it prints.
//!
//! The kernel itself is the binary of this package (`src/main.rs`). It is split
//! this way so that a host can test everything that needs no ring 0.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod calendar;
pub mod cmdline;
pub mod live_frame;
pub mod memory;
pub mod overrun;
pub mod pattern;
pub mod pvh;
pub mod report;
pub mod sum;
