//! Two regions of the memory protection unit (ARMv7-M ARM, B3.5) that turn
//! common mistakes into faults: a store to the code, which begins at address
//! 0, and a stack that has grown too long.

use cortex_m::peripheral::MPU;
use cortex_m::peripheral::mpu::RegisterBlock;

use crate::ram::{APP_STACK_LEN, RAM};

/// Bytes of the guard below the application's stack: more than one frame of a fault.
const GUARD_LEN: u32 = 1024;

/// Access, read-only for everybody, and code may run.
const READ_ONLY: u32 = 0b110 << 24;
/// No access at all, no code.
const NONE: u32 = 1 << 28;
/// Internal SRAM: shareable, write-through.
const MEMORY: u32 = 0b110 << 16;

/// Protects both for good.
pub(crate) fn guard() {
    // SAFETY: boot code; nothing else uses the MPU.
    let mpu = unsafe { &*MPU::PTR };
    region(mpu, 0, 0, 4 << 20, READ_ONLY);
    region(mpu, 1, RAM.1 as u32 - APP_STACK_LEN as u32, GUARD_LEN, NONE);
    /// On but in fault handlers, with the default map for the rest.
    const ON: u32 = 0b101;
    // SAFETY: the two regions above leave everything that this program does allowed.
    unsafe { mpu.ctrl.write(ON) };
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
}

/// A region of a power of two `len`, aligned to it.
fn region(mpu: &RegisterBlock, number: u32, base: u32, len: u32, access: u32) {
    // SAFETY: the MPU is off until `guard` is done.
    unsafe { mpu.rnr.write(number) };
    // SAFETY: likewise.
    unsafe { mpu.rbar.write(base) };
    let size = len.trailing_zeros() - 1;
    // SAFETY: likewise.
    unsafe { mpu.rasr.write(access | MEMORY | size << 1 | 1) };
}
