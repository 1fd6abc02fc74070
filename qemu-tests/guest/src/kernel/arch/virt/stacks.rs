//! The stacks: the one the kernel lives on, which is ordinary memory that the
//! dump has to hold as it was, and those it dies on, in the volatile section.

use debugnet_core::addr::PhysRange;

use crate::kernel::arch::stack::{DUMP_LEN, LIVING_LEN, SMALL_LEN, Stack};
use crate::kernel::volatile;

/// Where the kernel lives until it dies.
pub(in crate::kernel::arch) static BOOT_STACK: Stack<LIVING_LEN> = Stack::new();

/// The first fault: the dump runs here.
#[unsafe(link_section = ".volatile")]
pub(in crate::kernel::arch) static FAULT_STACK: Stack<DUMP_LEN> = Stack::new();

/// A fault inside the dump: leaves the dump's own stack as it was.
#[unsafe(link_section = ".volatile")]
pub(in crate::kernel::arch) static NESTED_STACK: Stack<SMALL_LEN> = Stack::new();

/// What is in use of the living stack, if `sp` is in it or just below.
pub(in crate::kernel::arch) fn in_use(sp: u64) -> Option<PhysRange> {
    BOOT_STACK.in_use(sp)
}

/// Every guard page.
pub(super) fn guards() -> impl Iterator<Item = u64> {
    [BOOT_STACK.guard()].into_iter().chain(death_guards()).chain(volatile::guards())
}

/// The guard pages of the stacks that a fault comes in on.
pub(crate) fn death_guards() -> impl Iterator<Item = u64> {
    [FAULT_STACK.guard(), NESTED_STACK.guard()].into_iter()
}

/// The ends of the stack that the dump runs on, if `sp` is in it; else `(0, 0)`.
pub(crate) fn death_stack(sp: u64) -> (usize, usize) {
    FAULT_STACK.ends(sp).unwrap_or_default()
}
