//! A network in a test: seeded links, a NIC, a host, a server, and virtual time.
//!
//! - [`link`]: one direction of an Ethernet link with rate, delay, loss,
//!   duplication, reordering and corruption, in virtual or real time;
//! - [`rng`]: the random numbers behind it, the same for a seed for ever;
//! - [`pcap`]: captures that Wireshark and tshark open;
//! - [`ram`], [`nic`]: the machine that dies: its memory and a DMA engine;
//! - [`host`], [`server`]: the far end, with smoltcp as the judge of frames;
//! - [`models`]: the stock server's limits and the stock client;
//! - [`fuzz`]: what the fuzz targets of the protocol run;
//! - [`witness`]: what happened, for comparison with what is said;
//! - [`world`]: all of it in virtual time, under the real dump loop.

pub mod fuzz;
pub mod host;
pub mod link;
pub mod models;
pub mod nic;
pub mod pcap;
pub mod ram;
pub mod rng;
pub mod server;
pub mod witness;
pub mod world;
