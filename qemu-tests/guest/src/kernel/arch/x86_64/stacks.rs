//! The stacks: the one the kernel lives on, and those it dies on.
//!
//! Below each lies a page that is not mapped, so that an overflow is a page
//! fault and not a silent write into a neighbour. The boot stack is ordinary
//! memory: it is the dying stack, and the dump has to hold it as it was. The
//! others are written by the crash path and lie in the volatile section.

use core::cell::UnsafeCell;

use super::paging::PAGE_LEN;

/// Length of the boot stack with its guard page, in bytes.
pub(super) const BOOT_STACK_LEN: usize = 0x1_0000 + PAGE_LEN;
/// Length of a stack that a dump runs on, with its guard page, in bytes.
const DUMP_STACK_LEN: usize = 0x8000 + PAGE_LEN;
/// Length of a stack that only prints, with its guard page, in bytes.
const SMALL_STACK_LEN: usize = 0x4000 + PAGE_LEN;

/// A stack with its guard page at the low end.
#[repr(C, align(4096))]
pub(super) struct Stack<const LEN: usize>(UnsafeCell<[u8; LEN]>);

// SAFETY: no code reaches into a stack through this type; the CPU that runs on
// it is the only one there is (the guest starts no second one).
unsafe impl<const LEN: usize> Sync for Stack<LEN> {}

impl<const LEN: usize> Stack<LEN> {
    const fn new() -> Self {
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

/// The first fault: the dump runs here.
#[unsafe(link_section = ".volatile")]
pub(super) static FAULT_STACK: Stack<DUMP_STACK_LEN> = Stack::new();

/// A double fault, which may be the first death too: the dump can run here.
#[unsafe(link_section = ".volatile")]
pub(super) static DOUBLE_FAULT_STACK: Stack<DUMP_STACK_LEN> = Stack::new();

/// NMI and machine check, likewise.
#[unsafe(link_section = ".volatile")]
pub(super) static NMI_STACK: Stack<DUMP_STACK_LEN> = Stack::new();

/// A fault inside the dump: leaves the dump's own stack as it was.
#[unsafe(link_section = ".volatile")]
pub(super) static NESTED_STACK: Stack<SMALL_STACK_LEN> = Stack::new();

/// Every guard page.
pub(super) fn guards() -> [u64; 5] {
    [
        BOOT_STACK.guard(),
        FAULT_STACK.guard(),
        DOUBLE_FAULT_STACK.guard(),
        NMI_STACK.guard(),
        NESTED_STACK.guard(),
    ]
}
