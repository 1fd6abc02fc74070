//! What the kernel asks about CPUs, where it uses one.

use debugnet_core::time::Clock;

use super::Machine;
use crate::kernel::arch::{Registers, stop};

/// Most CPUs that this kernel uses.
pub(crate) const CPUS_MAX: usize = 1;

/// Which CPU this is.
pub(crate) fn cpu() -> usize {
    0
}

/// Starts a second CPU.
///
/// # Errors
/// Always.
pub(crate) fn start_second(_: &Machine) -> Result<(), &'static str> {
    Err("this kernel uses one CPU of this machine")
}

/// Stops every other CPU: there is none.
pub(crate) fn park_others(_: &mut dyn Clock) -> bool {
    true
}

/// The registers of a CPU that was stopped.
pub(crate) fn parked(_: usize) -> Option<Registers> {
    None
}

/// Stops this CPU for good.
pub(crate) fn park(_: &Registers) -> ! {
    stop()
}
