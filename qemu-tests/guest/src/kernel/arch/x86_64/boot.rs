//! From the entry points to the first line of Rust.
//!
//! The loader enters in 32-bit protected mode, paging off, with the physical
//! address of `hvm_start_info` in `ebx` (Xen `docs/misc/pvh.pandoc`); the second
//! CPU comes from real mode, at the page that [`super::smp`] copied
//! [`ap_trampoline`] to. Both take tables that map the first GiB onto itself and
//! at the kernel's virtual addresses, switch SSE on (the precompiled core library
//! uses it even to format an integer), and enter long mode.
//!
//! All of it lies in sections with virtual addresses equal to physical ones,
//! wherever the kernel itself is linked.

use core::arch::global_asm;

use super::smp::SECOND_STACK;
use super::stacks::BOOT_STACK;
use crate::kernel::arch::stack::LIVING_LEN;

global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18                  # name length, descriptor length, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .balign 4
    .long pvh_start

    .section .tables, "aw", @nobits
    .balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4096

    .section .boot, "ax"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # 0x08: 64-bit code, accessed
    .quad 0x00cf93000000ffff        # 0x10: data, accessed
    .quad 0x00cf9b000000ffff        # 0x18: 32-bit code, accessed
boot_gdt_end:
boot_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt

    # Paging on, long mode, SSE: as Rust code needs it. Spoils eax, ecx, edx.
    .macro enter_long_mode
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
    andl $0x9ffffff3, %eax          # not CD, not NW, not EM, not TS
    orl $0x80000022, %eax           # PG, NE, MP
    movl %eax, %cr0
    ljmp $8, $1f
    .code64
1:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    .endm

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
    # The first GiB, and the first of the top two: the same memory.
    movl $boot_pd, %eax
    orl $0x23, %eax
    movl %eax, boot_pdpt
    movl %eax, boot_pdpt + 510*8
    movl $boot_pdpt, %eax
    orl $0x23, %eax
    movl %eax, boot_pml4
    movl %eax, boot_pml4 + 511*8
    lgdt boot_gdtr
    enter_long_mode
    movabsq ${stack}+{stack_len}, %rsp
    movl %ebx, %edi                 # start info, zero-extended
    movabsq $kernel_entry, %rax
    jmpq *%rax

    # Copied to a page below 1 MiB; nothing in it may depend on its place.
    .code16
    .globl ap_trampoline
    .globl ap_trampoline_end
ap_trampoline:
    cli
    cld
    lgdtl %cs:(ap_gdtr - ap_trampoline)
    movl %cr0, %eax
    orl $1, %eax                    # PE
    movl %eax, %cr0
    ljmpl $0x18, $ap_protected
    .balign 4
ap_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
ap_trampoline_end:

    .code32
ap_protected:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    enter_long_mode
    movabsq ${second_stack}+{stack_len}, %rsp
    movabsq $second_entry, %rax
    jmpq *%rax

    # The outermost frames of the two CPUs: their unwind information says that
    # there is no caller, so that a debugger stops here.
    .macro outermost name, rust
    .type \name, @function
\name:
    .cfi_startproc
    .cfi_undefined %rip
    xorl %ebp, %ebp
    call \rust
    ud2
    .cfi_endproc
    .size \name, . - \name
    .endm
    .section .text.entry, "ax"
    outermost kernel_entry, {start}
    outermost second_entry, {second}

    # Addresses that the linker alone knows, as data: from a higher-half kernel
    # the low ones are out of reach of an instruction.
    .section .rodata.layout, "a"
    .balign 8
    .globl image_layout
image_layout:
    .quad __image_start             # physical
    .quad __image_end               # virtual
    .quad __volatile_start          # virtual
    .quad __volatile_end            # virtual
    .quad __virt_offset
    .quad ap_trampoline             # physical
    .quad ap_trampoline_end         # physical
    .quad __build_id                # virtual
    .quad __build_id_end            # virtual
    .text
"#,
    stack = sym BOOT_STACK,
    stack_len = const LIVING_LEN,
    start = sym super::start,
    second_stack = sym SECOND_STACK,
    second = sym super::smp::second_start,
    options(att_syntax)
);

/// The linker's addresses.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Layout {
    /// First byte of the image, physical.
    pub(super) image_start: u64,
    /// One past its last byte, virtual.
    pub(super) image_end: u64,
    /// First byte of the volatile section, virtual.
    pub(super) volatile_start: u64,
    /// One past its last byte, virtual.
    pub(super) volatile_end: u64,
    /// Virtual less physical addresses of the kernel: 0 if it is mapped onto itself.
    pub(super) virt_offset: u64,
    /// First byte of the second CPU's first code, physical.
    pub(super) trampoline: u64,
    /// One past its last byte, physical.
    pub(super) trampoline_end: u64,
    /// The build id's note, virtual.
    pub(super) build_id: u64,
    /// One past its last byte, virtual.
    pub(super) build_id_end: u64,
}

unsafe extern "C" {
    static image_layout: Layout;
}

/// Where the linker put what.
pub(super) fn layout() -> Layout {
    // SAFETY: read-only data of the image, defined above with this layout; nobody writes it.
    unsafe { (&raw const image_layout).read() }
}
