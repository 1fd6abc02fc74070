//! Take-over driver for Intel's gigabit Ethernet controllers (8254x, 8257x,
//! 82576/I350). Not written yet.
#![no_std]
#![forbid(unsafe_code)]
