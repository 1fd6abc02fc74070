//! From the PVH entry point to the first line of Rust.
//!
//! The loader enters in 32-bit protected mode, paging off, with the physical
//! address of `hvm_start_info` in `ebx` (Xen `docs/misc/pvh.pandoc`). The code
//! here maps the first GiB onto itself, switches SSE on (the precompiled core
//! library uses it even to format an integer), enters long mode, and goes to
//! `start` on the boot stack.

use core::arch::global_asm;

use super::stacks::{BOOT_STACK, BOOT_STACK_LEN};

global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18                  # name length, descriptor length, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .balign 4
    .long pvh_start

    .section .bss.boot, "aw", @nobits
    .balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4096

    .section .rodata.boot, "a"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # 0x08: 64-bit code, accessed
    .quad 0x00cf93000000ffff        # 0x10: data, accessed
boot_gdt_end:
boot_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt

    .section .text.boot, "ax"
    .code32
    .globl pvh_start
pvh_start:
    cli
    cld
    # 512 pages of 2 MiB: present, writable, accessed, dirty, large.
    movl $boot_pd, %edi
    movl $0xe3, %eax
    movl $512, %ecx
1:  movl %eax, (%edi)
    movl $0, 4(%edi)
    addl $0x200000, %eax
    addl $8, %edi
    decl %ecx
    jnz 1b
    movl $boot_pd, %eax
    orl $0x23, %eax
    movl %eax, boot_pdpt
    movl $boot_pdpt, %eax
    orl $0x23, %eax
    movl %eax, boot_pml4

    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x620, %eax                # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $0xc0000080, %ecx          # EFER
    rdmsr
    orl $0x100, %eax                # LME
    wrmsr
    movl %cr0, %eax
    andl $0xfffffff3, %eax          # not EM, not TS
    orl $0x80000022, %eax           # PG, NE, MP
    movl %eax, %cr0
    lgdt boot_gdtr
    ljmp $8, $1f

    .code64
1:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    leaq {stack}+{stack_len}(%rip), %rsp
    movl %ebx, %edi                 # start info, zero-extended
    xorl %ebp, %ebp
    pushq $0                        # no caller; rsp % 16 == 8, as after a call
    jmp {start}
"#,
    stack = sym BOOT_STACK,
    stack_len = const BOOT_STACK_LEN,
    start = sym super::start,
    options(att_syntax)
);
