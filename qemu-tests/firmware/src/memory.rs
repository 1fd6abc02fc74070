//! The memory functions that the compiler calls, small instead of fast: those
//! of `compiler_builtins` are 1.9 KiB. Nothing long is copied with them.

// In assembly, so that the compiler cannot turn a body into a call of itself.
core::arch::global_asm!(
    ".syntax unified",
    ".section .text.memory, \"ax\"",
    ".macro function name",
    ".global \\name",
    ".type \\name, %function",
    ".thumb_func",
    "\\name:",
    ".endm",
    // Copies r2 bytes from r1 to r0; r0 stays.
    "function memcpy",
    "function __aeabi_memcpy",
    "function __aeabi_memcpy4",
    "function __aeabi_memcpy8",
    "mov r12, r0",
    "1: subs r2, #1",
    "ittt hs",
    "ldrbhs r3, [r1], #1",
    "strbhs r3, [r12], #1",
    "bhs 1b",
    "bx lr",
    // Clears r1 bytes from r0 on.
    "function __aeabi_memclr",
    "function __aeabi_memclr4",
    "function __aeabi_memclr8",
    "movs r2, #0",
    // Fills r1 bytes from r0 on with r2.
    "function __aeabi_memset",
    "function __aeabi_memset4",
    "function __aeabi_memset8",
    "1: subs r1, #1",
    "itt hs",
    "strbhs r2, [r0], #1",
    "bhs 1b",
    "bx lr",
    // Compares r2 bytes at r0 and r1: the difference of the first two that differ.
    "function memcmp",
    "mov r12, r0",
    "movs r0, #0",
    "1: subs r2, #1",
    "it lo",
    "bxlo lr",
    "ldrb r0, [r12], #1",
    "ldrb r3, [r1], #1",
    "subs r0, r3",
    "beq 1b",
    "bx lr",
);
