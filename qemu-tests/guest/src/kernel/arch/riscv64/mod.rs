//! RISC-V with 64-bit registers: QEMU's `virt` machine without firmware.

pub(super) mod board;
mod boot;
pub(super) mod mmu;
mod trap;
pub(super) mod uart;

use core::arch::asm;
use core::num::NonZeroU64;

pub(crate) use debugnet_core::dump::layout::Riscv64 as CoreRegisters;
pub(crate) use trap::Registers;

/// The machine's name in the kernel dump header, and the version that goes with it.
pub(crate) const ARCHITECTURE: (&str, u32) = ("riscv64", 1);

/// The counter.
pub(crate) fn counter() -> u64 {
    riscv::register::time::read64()
}

/// Counter ticks a second, as the device tree says it.
pub(super) fn counter_hz(timebase_hz: Option<u32>) -> Option<NonZeroU64> {
    NonZeroU64::new(timebase_hz?.into())
}

/// Whether this CPU takes no interrupts.
pub(crate) fn interrupts_are_off() -> bool {
    !riscv::register::sstatus::read().sie()
}

/// Halts until something happens. Interrupts are off.
pub(crate) fn wait() {
    riscv::asm::wfi();
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
    unsafe { asm!("unimp", options(noreturn)) }
}
