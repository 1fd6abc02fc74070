//! From the fault to the dump: saves the registers, leaves the stack that died
//! as it is, and goes on in thread mode on a stack of its own.
//!
//! Every fault of a Cortex-M3 ends in HardFault as long as the others are not
//! enabled. A second fault *inside* HardFault is a lock-up: no code runs any
//! more. So the handler does not dump; it returns from the exception, into
//! [`dump::on_fault`](crate::dump::on_fault), and a fault in there is a
//! HardFault again that can tell how far the dump got.

use core::arch::{asm, naked_asm};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::image::STACK_LEN;
use crate::volatile::STACK;

/// What the CPU held when it died, in the order in which the handler stores it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Registers {
    /// r4 to r11, which a fault leaves in place.
    pub(crate) r4_to_r11: [u32; 8],
    /// Stack pointer at the fault, after the CPU had pushed its frame.
    pub(crate) frame: u32,
    /// `EXC_RETURN`: which stack was in use.
    pub(crate) exc_return: u32,
    /// r0 to r3, r12, lr, pc, xPSR: the frame.
    pub(crate) pushed: [u32; 8],
}

impl Registers {
    /// Stack pointer before the fault.
    pub(crate) fn sp(&self) -> u32 {
        // Bit 9 of the pushed xPSR: the CPU aligned the frame by a word (B1.5.7).
        let [.., xpsr] = self.pushed;
        self.frame.wrapping_add(32 + if xpsr & 1 << 9 != 0 { 4 } else { 0 })
    }

    pub(crate) fn pc(&self) -> u32 {
        let [.., pc, _] = self.pushed;
        pc
    }

    pub(crate) fn lr(&self) -> u32 {
        let [.., lr, _, _] = self.pushed;
        lr
    }
}

/// One CPU that died. Written by the handler, before anything else runs.
#[unsafe(link_section = ".volatile")]
static mut SAVED: MaybeUninit<Registers> = MaybeUninit::zeroed();

/// Faults so far.
#[unsafe(link_section = ".volatile")]
static FAULTS: AtomicU32 = AtomicU32::new(0);

/// The fault handler; replaces the one of `cortex-m-rt`.
///
/// # Safety
/// Called by the CPU alone.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "its name in the vector table")]
unsafe extern "C" fn HardFault() -> ! {
    naked_asm!(
        "cpsid i",
        // The stack that died, with the CPU's frame on it.
        "tst lr, #4",
        "ite eq",
        "mrseq r1, msp",
        "mrsne r1, psp",
        "ldr r0, ={saved}",
        "stmia r0!, {{r4-r11}}",
        "stmia r0!, {{r1, lr}}",
        // From here on nothing of it is needed, and it may be full.
        "ldr r2, ={stack} + {len}",
        "msr msp, r2",
        "bl {enter}",
        saved = sym SAVED,
        stack = sym STACK,
        len = const STACK_LEN,
        enter = sym enter,
    )
}

/// In HardFault, on the dump's stack: copies the frame, and leaves the exception.
///
/// `frame` is in r1, the second argument.
extern "C" fn enter(_: u32, frame: *const u32) -> ! {
    mpu_off();
    // SAFETY: only the handler touches it, and there is one CPU.
    let saved = unsafe { &mut *(&raw mut SAVED).cast::<Registers>() };
    for (offset, word) in saved.pushed.iter_mut().enumerate() {
        let from = frame.wrapping_add(offset);
        // A stack pointer that left RAM has no frame to read (B1.5.8, STKERR).
        if crate::ram::contains(from.addr()) {
            // SAFETY: RAM, aligned to words by the CPU.
            *word = unsafe { from.read_volatile() };
        }
    }
    FAULTS.store(FAULTS.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    /// Configuration and control register; `NONBASETHRDENA`: thread mode may be
    /// entered with other exceptions active, as when an interrupt handler died.
    const CCR: *mut u32 = core::ptr::without_provenance_mut(0xe000_ed14);
    // SAFETY: the CPU's own register, and no interrupt is taken any more.
    unsafe { CCR.write_volatile(CCR.read_volatile() | 1) };
    /// A frame that the CPU pops on its way out: r0 to r3, r12, lr, pc, xPSR.
    const FRAME_LEN: usize = 32;
    const THUMB: u32 = 1 << 24;
    let frame =
        (&raw const STACK).wrapping_byte_add(STACK_LEN - FRAME_LEN).cast_mut().cast::<u32>();
    let pc = resume as extern "C" fn() -> ! as usize & !1;
    // SAFETY: the top of the dump's stack becomes such a frame, with nothing to return
    // to, and the exception ends into it: thread mode, main stack. What this function
    // has on that stack is not used any more, and `resume` never returns.
    unsafe {
        asm!(
            "msr msp, {frame}",
            "str {zero}, [{frame}, #20]",
            "str {pc}, [{frame}, #24]",
            "str {xpsr}, [{frame}, #28]",
            "mvn lr, #6", // EXC_RETURN 0xfffffff9
            "bx lr",
            frame = in(reg) frame,
            zero = in(reg) 0,
            pc = in(reg) pc,
            xpsr = in(reg) THUMB,
            options(noreturn)
        )
    }
}

/// Off: what it guards is RAM, and part of the image.
fn mpu_off() {
    // SAFETY: the control register alone; without the MPU the default map holds.
    unsafe { (*cortex_m::peripheral::MPU::PTR).ctrl.write(0) };
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
}

/// In thread mode, on the dump's stack.
extern "C" fn resume() -> ! {
    /// The death, a fault in the dump, and one in the report about that.
    const FAULTS_MAX: u32 = 2;
    if FAULTS.load(Ordering::Relaxed) > FAULTS_MAX {
        cortex_m::peripheral::SCB::sys_reset();
    }
    // SAFETY: written by the handler, which does not run again before the next fault,
    // and that does not return here.
    let registers = unsafe { (&raw const SAVED).cast::<Registers>().read_volatile() };
    crate::dump::on_fault(&registers)
}

/// The death of a panic: a UDF, with its line in r0 for whoever reads the registers.
pub(crate) fn undefined_instruction(line: u32) -> ! {
    // SAFETY: faults, and does not come back.
    unsafe { asm!("udf #0", in("r0") line, options(noreturn)) }
}

/// Why it faulted: configurable fault status, and the addresses that go with it (B3.2.15).
pub(crate) fn status() -> (u32, u32) {
    const CFSR: *const u32 = core::ptr::without_provenance(0xe000_ed28);
    const MMFAR: *const u32 = core::ptr::without_provenance(0xe000_ed34);
    const BFAR: *const u32 = core::ptr::without_provenance(0xe000_ed38);
    // SAFETY: the CPU's own register; reading changes nothing.
    let cfsr = unsafe { CFSR.read_volatile() };
    let address = if cfsr & 1 << 7 != 0 { MMFAR } else { BFAR };
    // SAFETY: likewise.
    (cfsr, unsafe { address.read_volatile() })
}
