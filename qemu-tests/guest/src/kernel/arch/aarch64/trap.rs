//! The vectors: save the registers, hand them to the kernel.

use core::arch::global_asm;
use core::fmt;

use debugnet_core::addr::PhysRange;
use debugnet_core::dump::layout;

use crate::kernel::arch::stack::SMALL_LEN;
use crate::kernel::arch::virt::{self, NESTED_STACK};

global_asm!(
    r#"
    .section .text.trap, "ax"
    .balign 0x800
    .globl trap_vectors
trap_vectors:
    // From the kernel, which lives on SP_EL0: this is the fault stack already.
    .rept 4
    .balign 0x80
    msr tpidr_el1, x0
    mrs x0, sp_el0
    b trap_common
    .endr
    // From the dump, on the fault stack, which stays as it is.
    .rept 4
    .balign 0x80
    msr tpidr_el1, x0
    mov x0, sp
    msr tpidr_el0, x0
    ldr x0, ={nested_stack} + {nested_len}
    mov sp, x0
    mrs x0, tpidr_el0
    b trap_common
    .endr
    // From a lower exception level, which is never entered.
    .rept 8
    .balign 0x80
    b .
    .endr

    // x0: the stack pointer of the code that died; tpidr_el1: its x0.
trap_common:
    sub sp, sp, #{frame_len}
    stp x1, x2, [sp, #8]
    stp x3, x4, [sp, #24]
    stp x5, x6, [sp, #40]
    stp x7, x8, [sp, #56]
    stp x9, x10, [sp, #72]
    stp x11, x12, [sp, #88]
    stp x13, x14, [sp, #104]
    stp x15, x16, [sp, #120]
    stp x17, x18, [sp, #136]
    stp x19, x20, [sp, #152]
    stp x21, x22, [sp, #168]
    stp x23, x24, [sp, #184]
    stp x25, x26, [sp, #200]
    stp x27, x28, [sp, #216]
    stp x29, x30, [sp, #232]
    mrs x1, tpidr_el1
    str x1, [sp]
    mrs x1, elr_el1
    stp x0, x1, [sp, #248]
    mrs x1, spsr_el1
    mrs x2, esr_el1
    stp x1, x2, [sp, #264]
    mrs x1, far_el1
    str x1, [sp, #280]
    mov x0, sp
    mov x29, xzr
    bl {entry}
    udf #0
    .ltorg
    .text
"#,
    nested_stack = sym NESTED_STACK,
    nested_len = const SMALL_LEN,
    frame_len = const size_of::<Registers>(),
    entry = sym trap_entry,
);

/// The registers of the code that died, as the vectors store them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(crate) struct Registers {
    x: [u64; 31],
    sp: u64,
    /// `ELR_EL1`.
    pc: u64,
    /// `SPSR_EL1`.
    pstate: u64,
    /// `ESR_EL1`: why.
    syndrome: u64,
    /// `FAR_EL1`.
    address: u64,
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, x) in self.x.iter().enumerate() {
            f.write_str(if at == 0 {
                "guest:"
            } else if at % 4 == 0 {
                "\nguest:"
            } else {
                ""
            })?;
            write!(f, " x{at:<2} {x:016x}")?;
        }
        write!(f, " sp  {:016x}\nguest: pc  {:016x} psr {:016x}", self.sp, self.pc, self.pstate)?;
        write!(f, " esr {:016x} far {:016x}", self.syndrome, self.address)
    }
}

impl Registers {
    /// As a core file has them.
    pub(crate) fn in_core(&self) -> layout::Aarch64 {
        layout::Aarch64 { x: self.x, sp: self.sp, pc: self.pc, pstate: self.pstate }
    }

    /// Where the code was.
    pub(crate) const fn pc(&self) -> u64 {
        self.pc
    }

    /// Stack pointer there.
    pub(crate) const fn sp(&self) -> u64 {
        self.sp
    }

    /// The address that faulted; meaningful for aborts.
    pub(crate) const fn address(&self) -> u64 {
        self.address
    }

    /// The exception class, and what else the syndrome says.
    pub(crate) const fn cause(&self) -> (u64, u64) {
        (self.syndrome >> 26 & 0x3f, self.syndrome & 0x1ff_ffff)
    }

    /// The signal that a process would have died of: what a debugger shows.
    pub(crate) fn signal(&self) -> u16 {
        const ABORT: u16 = 6;
        const BUS: u16 = 7;
        const SEGMENT: u16 = 11;
        match self.cause().0 {
            0x20 | 0x21 | 0x24 | 0x25 => SEGMENT,
            0x22 | 0x26 | 0x2f => BUS,
            _ => ABORT,
        }
    }

    /// The part of a living CPU's stack that is in use.
    pub(crate) fn stack(&self) -> Option<PhysRange> {
        virt::in_use(self.sp)
    }

    /// What the exception class means (Arm ARM, `ESR_EL1`).
    pub(crate) fn vector_name(&self) -> &'static str {
        match self.cause().0 {
            0x00 => "undefined instruction",
            0x07 => "floating point disabled",
            0x0e => "illegal execution state",
            0x15 => "supervisor call",
            0x20 | 0x21 => "instruction abort",
            0x22 => "misaligned pc",
            0x24 | 0x25 => "data abort",
            0x26 => "misaligned stack pointer",
            0x2f => "system error",
            0x3c => "breakpoint",
            _ => "unexpected exception",
        }
    }
}

/// First Rust code of a fault, on a death stack.
extern "C" fn trap_entry(registers: &Registers) -> ! {
    crate::kernel::crash::on_fault(registers)
}
