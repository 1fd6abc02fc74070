//! From the entry point to the first line of Rust.
//!
//! Without firmware QEMU enters in machine mode at the start of RAM, with the device
//! tree's address in `a1`. All memory and all traps are handed to supervisor mode, the
//! only one with translation.

use core::arch::global_asm;

use crate::kernel::arch::stack::{DUMP_LEN, LIVING_LEN};
use crate::kernel::arch::virt::{BOOT_STACK, FAULT_STACK};

global_asm!(
    r#"
    .section .boot, "ax"
    .globl boot_entry
boot_entry:
    csrw mie, zero
    li t0, -1
    csrw pmpaddr0, t0               // all of memory:
    li t1, 0x1f                     // read, write, execute
    csrw pmpcfg0, t1
    csrw medeleg, t0
    csrw mideleg, t0
    csrw mcounteren, t0             // `rdtime`
    csrw satp, zero
    li t0, 0x2800                   // floating point on, previous mode: supervisor
    csrw mstatus, t0
    la t0, trap_vector
    csrw stvec, t0
    la t0, {fault_stack}
    li t1, {fault_len}
    add t0, t0, t1
    csrw sscratch, t0
    la sp, {boot_stack}
    li t1, {boot_len}
    add sp, sp, t1
    la t0, kernel_entry
    csrw mepc, t0
    mv a0, a1
    mret

    # The outermost frame: its unwind information says that there is no caller, so
    # that a debugger stops here.
    .section .text.entry, "ax"
    .type kernel_entry, @function
kernel_entry:
    .cfi_startproc
    .cfi_undefined ra
    li fp, 0
    li ra, 0
    call {start}
    unimp
    .cfi_endproc
    .size kernel_entry, . - kernel_entry
    .text
"#,
    fault_stack = sym FAULT_STACK,
    fault_len = const DUMP_LEN,
    boot_stack = sym BOOT_STACK,
    boot_len = const LIVING_LEN,
    start = sym crate::kernel::arch::virt::start,
);
