//! AArch64: QEMU's `virt` machine with a Cortex-A57, entered in EL1.

pub(super) mod board;
mod boot;
pub(super) mod mmu;
mod trap;
pub(super) mod uart;

use core::arch::asm;
use core::num::NonZeroU64;

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0, DAIF, Readable};

pub(crate) use debugnet_core::dump::layout::Aarch64 as CoreRegisters;
pub(crate) use trap::Registers;

/// The machine's name in the kernel dump header, and the version that goes with it.
pub(crate) const ARCHITECTURE: (&str, u32) = ("aarch64", 1);

/// The counter.
pub(crate) fn counter() -> u64 {
    CNTVCT_EL0.get()
}

/// Counter ticks a second, as the CPU says it.
pub(super) fn counter_hz(_: Option<u32>) -> Option<NonZeroU64> {
    NonZeroU64::new(CNTFRQ_EL0.get())
}

/// Whether this CPU takes no interrupts.
pub(crate) fn interrupts_are_off() -> bool {
    DAIF.is_set(DAIF::I) && DAIF.is_set(DAIF::F)
}

/// Halts until something happens. Interrupts are off.
pub(crate) fn wait() {
    aarch64_cpu::asm::wfi();
}

/// Stops the CPU and leaves the machine as it is.
pub(crate) fn stop() -> ! {
    loop {
        wait();
    }
}

/// Executes the undefined instruction: the way a panic reaches the fault handler.
pub(crate) fn undefined_instruction() -> ! {
    // SAFETY: raises an exception whose handler never returns.
    unsafe { asm!("udf #0", options(noreturn)) }
}
