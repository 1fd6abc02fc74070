//! The division of 64-bit numbers that the compiler calls, small instead of fast:
//! that of `compiler_builtins` is 0.9 KiB. A dump divides a few times a packet.

// By hand, because a body in Rust would be compiled to a call of itself.
core::arch::global_asm!(
    ".syntax unified",
    ".section .text.division, \"ax\"",
    ".global __aeabi_uldivmod",
    ".type __aeabi_uldivmod, %function",
    ".thumb_func",
    // r1:r0 / r3:r2: the quotient in r1:r0, the rest in r3:r2 (Run-time ABI for the Arm
    // Architecture, 4.3.1). Bit by bit, the dividend's highest first: what leaves it on
    // the left enters the rest r5:r4, and quotient bits take its place.
    "__aeabi_uldivmod:",
    "push {{r4-r7, lr}}",
    "movs r4, #0",
    "movs r5, #0",
    "movs r6, #64",
    // Zeros in front are passed over, 32 at a time: most numbers are short.
    "cmp r1, #0",
    "itt eq",
    "moveq r1, r0",
    "moveq r6, #32",
    "it eq",
    "moveq r0, #0",
    "1: adds r0, r0",
    "adcs r1, r1",
    "adcs r4, r4",
    "adcs r5, r5",
    // No carry: after n steps the rest has n bits at most.
    "subs r7, r4, r2",
    "sbcs r12, r5, r3",
    "ittt hs",
    "movhs r4, r7",
    "movhs r5, r12",
    "addhs r0, #1",
    "subs r6, #1",
    "bne 1b",
    "mov r2, r4",
    "mov r3, r5",
    "pop {{r4-r7, pc}}",
);
