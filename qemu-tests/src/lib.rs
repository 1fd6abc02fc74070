//! The harness of the QEMU runs.
pub mod far_end;
pub mod frame;
pub mod gateway;
pub mod traffic;
