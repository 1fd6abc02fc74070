//! The stacks: the one the kernel lives on, and those it dies on.
//!
//! The boot stack is ordinary memory: it is the dying stack, and the dump has
//! to hold it as it was. The others are written by the crash path and lie in the
//! volatile section. Each CPU has its own.

use debugnet_core::addr::PhysRange;

use super::smp::{CPUS_MAX, SECOND_STACK};
use crate::kernel::arch::stack::{DUMP_LEN, LIVING_LEN, SMALL_LEN, Stack};
use crate::kernel::volatile;

/// Where the kernel lives until it dies.
pub(super) static BOOT_STACK: Stack<LIVING_LEN> = Stack::new();

/// What a CPU dies on.
pub(super) struct DeathStacks {
    /// The first fault: the dump runs here.
    pub(super) fault: Stack<DUMP_LEN>,
    /// A double fault, which may be the first death too: the dump can run here.
    pub(super) double_fault: Stack<DUMP_LEN>,
    /// NMI and machine check, likewise.
    pub(super) nmi: Stack<DUMP_LEN>,
    /// A fault inside the dump: leaves the dump's own stack as it was.
    pub(super) nested: Stack<SMALL_LEN>,
}

impl DeathStacks {
    const fn new() -> Self {
        Self {
            fault: Stack::new(),
            double_fault: Stack::new(),
            nmi: Stack::new(),
            nested: Stack::new(),
        }
    }
}

#[unsafe(link_section = ".volatile")]
pub(super) static DEATH_STACKS: [DeathStacks; CPUS_MAX] = [const { DeathStacks::new() }; CPUS_MAX];

/// What is in use of the living stack that `rsp` is in, or just below.
pub(super) fn in_use(rsp: u64) -> Option<PhysRange> {
    [&BOOT_STACK, &SECOND_STACK].into_iter().find_map(|stack| stack.in_use(rsp))
}

/// Every guard page, by its virtual address.
pub(super) fn guards() -> impl Iterator<Item = u64> {
    let living = [BOOT_STACK.guard(), SECOND_STACK.guard()];
    living.into_iter().chain(death_guards()).chain(volatile::guards())
}

/// The guard pages of the stacks that a fault comes in on.
pub(crate) fn death_guards() -> impl Iterator<Item = u64> {
    DEATH_STACKS.iter().flat_map(|stacks| {
        [
            stacks.fault.guard(),
            stacks.double_fault.guard(),
            stacks.nmi.guard(),
            stacks.nested.guard(),
        ]
    })
}

/// The ends of the stack that a dump runs on, which `sp` is in; `(0, 0)` if that is none.
pub(crate) fn death_stack(sp: u64) -> (usize, usize) {
    let stacks = DEATH_STACKS.iter();
    let dump = stacks.flat_map(|stacks| [&stacks.fault, &stacks.double_fault, &stacks.nmi]);
    dump.into_iter().find_map(|stack| stack.ends(sp)).unwrap_or_default()
}
