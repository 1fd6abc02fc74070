//! What fake devices are made of, on a host, for tests and fuzz targets. Not for the crash path.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod config;
mod corpus;
mod memory;

pub use config::HostConfig;
pub use corpus::corpus;
pub use memory::HostMemory;
