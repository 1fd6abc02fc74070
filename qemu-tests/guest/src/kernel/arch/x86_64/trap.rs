//! The common end of all 256 gates: save the registers, hand them to the kernel.

use core::arch::global_asm;
use core::fmt;

use debugnet_core::addr::PhysRange;
use debugnet_core::dump::layout;
use x86_64::instructions::segmentation::{DS, ES, FS, GS, Segment};
use x86_64::registers::control::{Cr2, Cr3};
use x86_64::registers::model_specific::{FsBase, GsBase};

use super::{smp, stacks, tables};

/// Vector of the non-maskable interrupt.
const NMI: u64 = 2;
/// Distance between the entry points of two vectors in bytes.
pub(super) const STUB_LEN: usize = 16;

global_asm!(
    r#"
    .section .text.trap, "ax"
    .balign 16
    .globl trap_stub_first
trap_stub_first:
    .set vector, 0
    .rept 256
    .balign {stub_len}
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    push 0                          # where the others have an error code
    .endif
    push vector
    jmp trap_common
    .set vector, vector + 1
    .endr

trap_common:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp                    # 22 quadwords below an aligned top: aligned for the call
    xor ebp, ebp
    call {entry}
    ud2
"#,
    stub_len = const STUB_LEN,
    entry = sym trap_entry,
);

unsafe extern "C" {
    /// The code of vector 0; the others follow at [`STUB_LEN`].
    static trap_stub_first: u8;
}

/// Address of the entry point of vector 0.
pub(super) fn trap_stubs() -> u64 {
    (&raw const trap_stub_first).addr() as u64
}

/// What the stub and the CPU pushed.
#[repr(C)]
struct TrapFrame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// The registers of the code that died.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are the CPU's")]
pub(crate) struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    pub cs: u64,
    pub ss: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub vector: u64,
    pub error_code: u64,
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            [("rax", self.rax), ("rbx", self.rbx), ("rcx", self.rcx), ("rdx", self.rdx)],
            [("rsi", self.rsi), ("rdi", self.rdi), ("rbp", self.rbp), ("rsp", self.rsp)],
            [("r8 ", self.r8), ("r9 ", self.r9), ("r10", self.r10), ("r11", self.r11)],
            [("r12", self.r12), ("r13", self.r13), ("r14", self.r14), ("r15", self.r15)],
            [("rip", self.rip), ("cs ", self.cs), ("flg", self.rflags), ("ss ", self.ss)],
            [("ds ", self.ds), ("es ", self.es), ("fs ", self.fs), ("gs ", self.gs)],
            [("fsb", self.fs_base), ("gsb", self.gs_base), ("cr2", self.cr2), ("cr3", self.cr3)],
        ];
        for (at, row) in rows.iter().enumerate() {
            f.write_str(if at == 0 { "guest:" } else { "\nguest:" })?;
            for (name, value) in row {
                write!(f, " {name} {value:016x}")?;
            }
        }
        write!(f, "\nguest: vector {} error code {:#x}", self.vector, self.error_code)
    }
}

impl Registers {
    /// None saved yet.
    pub(super) const ZERO: Self = Self {
        rax: 0,
        rbx: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
        rbp: 0,
        rsp: 0,
        r8: 0,
        r9: 0,
        r10: 0,
        r11: 0,
        r12: 0,
        r13: 0,
        r14: 0,
        r15: 0,
        rip: 0,
        rflags: 0,
        cs: 0,
        ss: 0,
        ds: 0,
        es: 0,
        fs: 0,
        gs: 0,
        fs_base: 0,
        gs_base: 0,
        cr2: 0,
        cr3: 0,
        vector: 0,
        error_code: 0,
    };

    /// As a core file has them.
    pub(crate) fn in_core(&self) -> layout::X86_64 {
        layout::X86_64 {
            rax: self.rax,
            rbx: self.rbx,
            rcx: self.rcx,
            rdx: self.rdx,
            rsi: self.rsi,
            rdi: self.rdi,
            rbp: self.rbp,
            rsp: self.rsp,
            r8: self.r8,
            r9: self.r9,
            r10: self.r10,
            r11: self.r11,
            r12: self.r12,
            r13: self.r13,
            r14: self.r14,
            r15: self.r15,
            rip: self.rip,
            rflags: self.rflags,
            cs: self.cs,
            ss: self.ss,
            ds: self.ds,
            es: self.es,
            fs: self.fs,
            gs: self.gs,
            fs_base: self.fs_base,
            gs_base: self.gs_base,
        }
    }

    /// Where the code was.
    pub(crate) const fn pc(&self) -> u64 {
        self.rip
    }

    /// Stack pointer there.
    pub(crate) const fn sp(&self) -> u64 {
        self.rsp
    }

    /// The address that faulted; meaningful for vector 14.
    pub(crate) const fn address(&self) -> u64 {
        self.cr2
    }

    /// The exception vector and its error code.
    pub(crate) const fn cause(&self) -> (u64, u64) {
        (self.vector, self.error_code)
    }

    /// The signal that a process would have died of: what a debugger shows.
    pub(crate) fn signal(&self) -> u16 {
        const ABORT: u16 = 6;
        const FLOATING_POINT: u16 = 8;
        const SEGMENT: u16 = 11;
        const BUS: u16 = 7;
        match self.vector {
            0 | 16 | 19 => FLOATING_POINT,
            10..=14 => SEGMENT,
            17 | 18 => BUS,
            _ => ABORT,
        }
    }

    /// The part of a living CPU's stack that is in use.
    pub(crate) fn stack(&self) -> Option<PhysRange> {
        stacks::in_use(self.rsp)
    }

    /// What the exception means, by Intel's name for it.
    pub(crate) fn vector_name(&self) -> &'static str {
        match self.vector {
            0 => "divide error",
            2 => "non-maskable interrupt",
            3 => "breakpoint",
            6 => "invalid opcode",
            7 => "device not available",
            8 => "double fault",
            10 => "invalid task state segment",
            11 => "segment not present",
            12 => "stack fault",
            13 => "general protection fault",
            14 => "page fault",
            16 => "x87 error",
            17 => "alignment check",
            18 => "machine check",
            19 => "SIMD error",
            _ => "unexpected interrupt",
        }
    }
}

/// First Rust code of a fault, on an interrupt stack.
extern "C" fn trap_entry(frame: &TrapFrame) -> ! {
    tables::divert_faults();
    let registers = Registers {
        rax: frame.rax,
        rbx: frame.rbx,
        rcx: frame.rcx,
        rdx: frame.rdx,
        rsi: frame.rsi,
        rdi: frame.rdi,
        rbp: frame.rbp,
        rsp: frame.rsp,
        r8: frame.r8,
        r9: frame.r9,
        r10: frame.r10,
        r11: frame.r11,
        r12: frame.r12,
        r13: frame.r13,
        r14: frame.r14,
        r15: frame.r15,
        rip: frame.rip,
        rflags: frame.rflags,
        cs: frame.cs,
        ss: frame.ss,
        // The gates leave these as they were.
        ds: DS::get_reg().0.into(),
        es: ES::get_reg().0.into(),
        fs: FS::get_reg().0.into(),
        gs: GS::get_reg().0.into(),
        fs_base: FsBase::read().as_u64(),
        gs_base: GsBase::read().as_u64(),
        cr2: Cr2::read_raw(),
        cr3: Cr3::read_raw().0.start_address().as_u64(),
        vector: frame.vector,
        error_code: frame.error_code,
    };
    if registers.vector == NMI && smp::is_asked_to_stop() {
        smp::park(&registers);
    }
    crate::kernel::crash::on_fault(&registers)
}
