//! QEMU runs: boot the guest, let it die, take its dump with the real server
//! over a link of our making, and compare the file with QEMU's own copy of the
//! guest's RAM.
//!
//! ```text
//!   run  --starts-->  server (netdumpd)   <--UDP--   gateway   <--frames--   qemu (guest)
//!    |                                               link, far_end, traffic    | serial, qmp
//!    +--  compare(vmcore, truth)  <----------------------- pmemsave ------------+
//! ```
//!
//! [`run::run`] is the whole job; `cargo xtask qemu-dump` and the matrix call it.
//! Nothing here uses our own encoders: frames are read and written by
//! `smoltcp::wire`, the truth is QEMU's.

pub mod attack;
pub mod board;
pub mod capture;
pub mod compare;
pub mod contents;
pub mod core_file;
pub mod defmt_log;
pub mod far_end;
pub mod fault_log;
pub mod frame;
pub mod gateway;
pub mod hostile;
pub mod live;
pub mod matrix;
pub mod process;
pub mod qemu;
pub mod qmp;
pub mod reach;
mod rows;
pub mod run;
pub mod serial;
pub mod server;
pub mod tap;
pub mod traffic;
pub mod unpack;
