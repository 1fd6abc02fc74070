//! Crash dumps over the network, for machines that have just died.
//!
//! A kernel, unikernel or firmware image hands control to this library with
//! interrupts off, on one thread, without a heap, and with no trust in what it
//! was doing. The library takes over a NIC, finds a server, and sends the
//! machine's RAM there over FreeBSD's *debugnet* protocol (`netdump`, UDP).
//!
//! # Words
//!
//! - **herald**: the first message; its ack brings the port of the dump.
//! - **message**: up to [`Config::payload_len`] bytes with a sequence number, acknowledged by itself.
//! - **extent**: a run of RAM and its place in the image.
//! - **frozen**, **volatile**: whether the dump itself writes to an extent.
//! - **slot**: room for one unacknowledged message.
//! - **cell**: memory for payload that cannot be sent from where it is.
//! - **ticket**: the number of a frame that was given to the NIC.
//! - **vmcore**: the image, as a file on the server. **Kernel dump header** (KDH): what
//!   it is an image of, in 512 bytes.
//!
//! # Layers
//!
//! Each knows those above it in this list, and nothing of those below.
//!
//! | module | knows |
//! |---|---|
//! | [`addr`], [`time`], [`wire`] | layouts and units; no state |
//! | [`nic`], [`pool`] | frames and who owns their memory; no protocol |
//! | [`session`] | messages, acks, loss, the window; no IP, no NIC, no clock |
//! | [`dump`] | the image and the order of messages; no header but the KDH |
//! | [`Armed`], [`Dump`] | all of it: the only loop, the only wait |
//!
//! # Bounds
//!
//! Memory is the caller's, checked once by [`arm`]. A dump ends by itself when
//! the server is silent for [`Config::no_progress_us`], at
//! [`Config::deadline_us`], or after [`Config::max_transmissions`] frames.
//! [`Outcome`] then says what is missing.
//!
//! # Example
//!
//! Arm at boot, dump in the panic handler. The last part stands in for what a
//! kernel has.
//!
//! ```no_run
#![doc = include_str!("../examples/take_over.rs")]
//! ```
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
// A compiler that saves bytes keeps the assertion of `clamp`: a panic path.
#![allow(clippy::manual_clamp)]

pub mod addr;
mod client;
pub mod config;
mod count;
mod decimal;
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
pub use dump::{DumpInfo, DumpSource, Outcome, ReadRam, Verdict};
pub use memory::{Limits, Memory, Needs, arm, memory_needed};
pub use observer::Observer;
pub use pool::Cells;
pub use progress::Progress;
pub use runner::{Armed, Dump, Io, Step};
pub use session::Slot;
