//! The stacks: the one the kernel lives on, and those it dies on.
//!
//! Below each lies a page that is not mapped, so that an overflow is a page
//! fault and not a silent write into a neighbour. The boot stack is ordinary
//! memory: it is the dying stack, and the dump has to hold it as it was. The
//! others are written by the crash path and lie in the volatile section. Each
//! CPU has its own.

use core::cell::UnsafeCell;
use core::ptr;

use debugnet_core::addr::PhysRange;

use super::paging::PAGE_LEN;
use super::smp::{CPUS_MAX, SECOND_STACK};

/// Length of the boot stack with its guard page, in bytes.
pub(super) const BOOT_STACK_LEN: usize = 0x1_0000 + PAGE_LEN;
/// Length of a stack that a dump runs on, with its guard page, in bytes.
const DUMP_STACK_LEN: usize = 0x8000 + PAGE_LEN;
/// Length of a stack that only prints, with its guard page, in bytes.
const SMALL_STACK_LEN: usize = 0x4000 + PAGE_LEN;

/// A stack with its guard page at the low end.
#[repr(C, align(4096))]
pub(super) struct Stack<const LEN: usize>(UnsafeCell<[u8; LEN]>);

// SAFETY: no code reaches into a stack through this type, and each belongs to one CPU.
unsafe impl<const LEN: usize> Sync for Stack<LEN> {}

impl<const LEN: usize> Stack<LEN> {
    pub(super) const fn new() -> Self {
        Self(UnsafeCell::new([0; LEN]))
    }

    /// The page that must not be mapped.
    pub(super) fn guard(&self) -> u64 {
        self.0.get().addr() as u64
    }

    /// One past the highest byte: where the stack begins.
    pub(super) fn top(&self) -> u64 {
        (self.0.get().addr() + LEN) as u64
    }
}

/// Where the kernel lives until it dies.
pub(super) static BOOT_STACK: Stack<BOOT_STACK_LEN> = Stack::new();

/// What a CPU dies on.
pub(super) struct DeathStacks {
    /// The first fault: the dump runs here.
    pub(super) fault: Stack<DUMP_STACK_LEN>,
    /// A double fault, which may be the first death too: the dump can run here.
    pub(super) double_fault: Stack<DUMP_STACK_LEN>,
    /// NMI and machine check, likewise.
    pub(super) nmi: Stack<DUMP_STACK_LEN>,
    /// A fault inside the dump: leaves the dump's own stack as it was.
    pub(super) nested: Stack<SMALL_STACK_LEN>,
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
    [&BOOT_STACK, &SECOND_STACK].into_iter().find_map(|stack| {
        let lowest = stack.guard() + PAGE_LEN as u64;
        let is_here = (stack.guard()..stack.top()).contains(&rsp);
        let start = rsp.max(lowest) & !(PAGE_LEN as u64 - 1);
        let start_phys = super::physical(ptr::without_provenance::<u8>(start as usize));
        is_here.then(|| PhysRange::new(start_phys, stack.top() - start))?
    })
}

/// Every guard page, by its virtual address.
pub(super) fn guards() -> impl Iterator<Item = u64> {
    let living = [BOOT_STACK.guard(), SECOND_STACK.guard()];
    let dying = DEATH_STACKS.iter().flat_map(|stacks| {
        [
            stacks.fault.guard(),
            stacks.double_fault.guard(),
            stacks.nmi.guard(),
            stacks.nested.guard(),
        ]
    });
    living.into_iter().chain(dying)
}
