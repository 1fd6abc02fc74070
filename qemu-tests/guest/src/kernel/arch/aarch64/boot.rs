//! From the entry point to the first line of Rust.
//!
//! QEMU enters in EL1, translation off, with the device tree at the start of RAM.
//! The kernel lives on `SP_EL0`, so that every fault changes to `SP_EL1`, the fault
//! stack, without a push onto the stack that died.

use core::arch::global_asm;

use crate::kernel::arch::stack::{DUMP_LEN, LIVING_LEN};
use crate::kernel::arch::virt::{BOOT_STACK, FAULT_STACK};

global_asm!(
    r#"
    .section .boot, "ax"
    .globl boot_entry
boot_entry:
    msr daifset, #15
    mov x0, #(3 << 20)              // floating point: Rust uses it
    msr cpacr_el1, x0
    ldr x0, =trap_vectors
    msr vbar_el1, x0
    isb
    ldr x0, ={fault_stack} + {fault_len}
    mov sp, x0
    msr spsel, #0
    ldr x0, ={boot_stack} + {boot_len}
    mov sp, x0
    ldr x0, ={tree}
    b kernel_entry
    .ltorg

    // The outermost frame: its unwind information says that there is no caller, so
    // that a debugger stops here.
    .section .text.entry, "ax"
    .type kernel_entry, @function
kernel_entry:
    .cfi_startproc
    .cfi_undefined x30
    mov x29, xzr
    mov x30, xzr
    bl {start}
    udf #0
    .cfi_endproc
    .size kernel_entry, . - kernel_entry
    .text
"#,
    fault_stack = sym FAULT_STACK,
    fault_len = const DUMP_LEN,
    boot_stack = sym BOOT_STACK,
    boot_len = const LIVING_LEN,
    tree = const 0x4000_0000_u32,
    start = sym crate::kernel::arch::virt::start,
);
