//! The registers of a CPU, as a core file has them.
//!
//! Order and number are those of Linux's `elf_gregset_t`, which gdb and lldb
//! know (`arch/*/include/*/ptrace.h`, `elf.h`).

/// Width of addresses, which decides the layout of the headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Class {
    /// ELFCLASS32.
    Elf32 = 1,
    /// ELFCLASS64.
    Elf64 = 2,
}

/// A kind of machine, as the registers of one CPU of it.
pub trait Registers {
    /// Its class.
    const CLASS: Class;
    /// `e_machine`: 62 for x86-64.
    const MACHINE: u16;
    /// `e_flags`.
    const FLAGS: u32 = 0;
    /// General registers, each as wide as an address.
    const COUNT: usize;

    /// The general register of this index below [`Registers::COUNT`], in the order of `elf_gregset_t`.
    fn get(&self, index: usize) -> u64;
}

/// x86-64. What was not saved may stay 0; a debugger wants `rip`, `rsp`, `rbp`
/// and the others a called function keeps: `rbx`, `r12` to `r15`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[allow(missing_docs, reason = "they are called what they are")]
pub struct X86_64 {
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
}

impl Registers for X86_64 {
    const CLASS: Class = Class::Elf64;
    const MACHINE: u16 = 62;
    const COUNT: usize = 27;

    fn get(&self, index: usize) -> u64 {
        match index {
            0 => self.r15,
            1 => self.r14,
            2 => self.r13,
            3 => self.r12,
            4 => self.rbp,
            5 => self.rbx,
            6 => self.r11,
            7 => self.r10,
            8 => self.r9,
            9 => self.r8,
            10 => self.rax,
            11 => self.rcx,
            12 => self.rdx,
            13 => self.rsi,
            14 => self.rdi,
            // orig_rax: no system call is to be restarted.
            15 => u64::MAX,
            16 => self.rip,
            17 => self.cs,
            18 => self.rflags,
            19 => self.rsp,
            20 => self.ss,
            21 => self.fs_base,
            22 => self.gs_base,
            23 => self.ds,
            24 => self.es,
            25 => self.fs,
            26 => self.gs,
            _ => 0,
        }
    }
}

/// AArch64.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Aarch64 {
    /// `x0` to `x30`.
    pub x: [u64; 31],
    /// Stack pointer of the interrupted code.
    pub sp: u64,
    /// Where it was: `ELR_EL1` in an exception handler.
    pub pc: u64,
    /// `SPSR_EL1` in an exception handler.
    pub pstate: u64,
}

impl Registers for Aarch64 {
    const CLASS: Class = Class::Elf64;
    const MACHINE: u16 = 183;
    const COUNT: usize = 34;

    fn get(&self, index: usize) -> u64 {
        match index {
            31 => self.sp,
            32 => self.pc,
            33 => self.pstate,
            _ => self.x.get(index).copied().unwrap_or(0),
        }
    }
}

/// RISC-V with 64-bit registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Riscv64 {
    /// Where the code was: `sepc` in a trap handler.
    pub pc: u64,
    /// `x1` (`ra`) to `x31` (`t6`); `x0` is zero and not stored.
    pub x: [u64; 31],
}

impl Registers for Riscv64 {
    const CLASS: Class = Class::Elf64;
    const MACHINE: u16 = 243;
    const COUNT: usize = 32;

    fn get(&self, index: usize) -> u64 {
        match index.checked_sub(1) {
            None => self.pc,
            Some(index) => self.x.get(index).copied().unwrap_or(0),
        }
    }
}

/// 32-bit Arm.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Arm {
    /// `r0` to `r15`: 13 is the stack pointer, 14 the link register, 15 where the code was.
    pub r: [u32; 16],
    /// `SPSR` in an exception handler.
    pub cpsr: u32,
}

impl Registers for Arm {
    const CLASS: Class = Class::Elf32;
    const MACHINE: u16 = 40;
    /// EABI version 5.
    const FLAGS: u32 = 0x0500_0000;
    const COUNT: usize = 18;

    fn get(&self, index: usize) -> u64 {
        match index {
            16 => self.cpsr.into(),
            // orig_r0: no system call is to be restarted.
            17 => u32::MAX.into(),
            _ => self.r.get(index).copied().unwrap_or(0).into(),
        }
    }
}
