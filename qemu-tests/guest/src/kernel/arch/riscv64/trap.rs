//! The trap vector: save the registers, hand them to the kernel.

use core::arch::global_asm;
use core::fmt;

use debugnet_core::addr::PhysRange;
use debugnet_core::dump::layout;

use crate::kernel::arch::stack::SMALL_LEN;
use crate::kernel::arch::virt::{self, NESTED_STACK};

global_asm!(
    r#"
    .section .text.trap, "ax"
    .balign 4
    .globl trap_vector
trap_vector:
    # `sscratch` has the stack for the next fault: nothing is pushed onto this one.
    csrrw sp, sscratch, sp
    addi sp, sp, -{frame_len}
    sd x1, 0(sp)
    sd x3, 16(sp)
    sd x4, 24(sp)
    sd x5, 32(sp)
    sd x6, 40(sp)
    sd x7, 48(sp)
    sd x8, 56(sp)
    sd x9, 64(sp)
    sd x10, 72(sp)
    sd x11, 80(sp)
    sd x12, 88(sp)
    sd x13, 96(sp)
    sd x14, 104(sp)
    sd x15, 112(sp)
    sd x16, 120(sp)
    sd x17, 128(sp)
    sd x18, 136(sp)
    sd x19, 144(sp)
    sd x20, 152(sp)
    sd x21, 160(sp)
    sd x22, 168(sp)
    sd x23, 176(sp)
    sd x24, 184(sp)
    sd x25, 192(sp)
    sd x26, 200(sp)
    sd x27, 208(sp)
    sd x28, 216(sp)
    sd x29, 224(sp)
    sd x30, 232(sp)
    sd x31, 240(sp)
    la t1, {nested_stack}
    li t2, {nested_len}
    add t1, t1, t2
    csrrw t0, sscratch, t1
    sd t0, 8(sp)
    csrr t0, sepc
    sd t0, 248(sp)
    csrr t0, scause
    sd t0, 256(sp)
    csrr t0, stval
    sd t0, 264(sp)
    mv a0, sp
    li fp, 0
    call {entry}
    unimp
    .text
"#,
    nested_stack = sym NESTED_STACK,
    nested_len = const SMALL_LEN,
    frame_len = const size_of::<Registers>(),
    entry = sym trap_entry,
);

/// The registers of the code that died, as the vector stores them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(crate) struct Registers {
    /// `x1` to `x31`.
    x: [u64; 31],
    /// `sepc`.
    pc: u64,
    /// `scause`.
    cause: u64,
    /// `stval`.
    address: u64,
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, x) in (1..).zip(self.x) {
            f.write_str(if at == 1 {
                "guest:"
            } else if at % 4 == 1 {
                "\nguest:"
            } else {
                ""
            })?;
            write!(f, " x{at:<2} {x:016x}")?;
        }
        write!(f, "\nguest: pc  {:016x} cause {:x} value {:x}", self.pc, self.cause, self.address)
    }
}

impl Registers {
    /// As a core file has them.
    pub(crate) fn in_core(&self) -> layout::Riscv64 {
        layout::Riscv64 { pc: self.pc, x: self.x }
    }

    /// Where the code was.
    pub(crate) const fn pc(&self) -> u64 {
        self.pc
    }

    /// Stack pointer there.
    pub(crate) const fn sp(&self) -> u64 {
        self.x[1]
    }

    /// The address that faulted; meaningful for access and page faults.
    pub(crate) const fn address(&self) -> u64 {
        self.address
    }

    /// The cause; there is no more to it.
    pub(crate) const fn cause(&self) -> (u64, u64) {
        (self.cause, 0)
    }

    /// The signal that a process would have died of: what a debugger shows.
    pub(crate) fn signal(&self) -> u16 {
        const ABORT: u16 = 6;
        const BUS: u16 = 7;
        const SEGMENT: u16 = 11;
        match self.cause {
            0 | 4 | 6 => BUS,
            1 | 5 | 7 | 12 | 13 | 15 => SEGMENT,
            _ => ABORT,
        }
    }

    /// The part of a living CPU's stack that is in use.
    pub(crate) fn stack(&self) -> Option<PhysRange> {
        virt::in_use(self.sp())
    }

    /// What the cause means (privileged architecture, `scause`).
    pub(crate) fn vector_name(&self) -> &'static str {
        match self.cause {
            0 => "misaligned instruction",
            1 => "instruction access fault",
            2 => "illegal instruction",
            3 => "breakpoint",
            4 => "misaligned load",
            5 => "load access fault",
            6 => "misaligned store",
            7 => "store access fault",
            9 => "environment call",
            12 => "instruction page fault",
            13 => "load page fault",
            15 => "store page fault",
            _ => "unexpected trap",
        }
    }
}

/// First Rust code of a fault, on a death stack.
extern "C" fn trap_entry(registers: &Registers) -> ! {
    crate::kernel::crash::on_fault(registers)
}
