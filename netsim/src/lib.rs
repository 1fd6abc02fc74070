//! A network in a test: seeded links, and captures of what passed over them.
//!
//! - [`link`]: one direction of an Ethernet link with rate, delay, loss,
//!   duplication, reordering and corruption, in virtual or real time;
//! - [`rng`]: the random numbers behind it, the same for a seed for ever;
//! - [`pcap`]: captures that Wireshark and tshark open.

pub mod link;
pub mod pcap;
pub mod rng;
