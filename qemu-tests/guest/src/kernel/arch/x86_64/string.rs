//! The memory functions that the precompiled core library for a hosted target
//! expects from libc.
//!
//! Assembly, so that the compiler cannot turn a body into a call of itself,
//! and string instructions by quadwords, which an emulated CPU does fastest.

use core::arch::global_asm;

global_asm!(
    r#"
    .section .text.string, "ax"
    .globl memcpy
memcpy:
    mov rax, rdi
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    mov ecx, edx
    and ecx, 7
    rep movsb
    ret

    .globl memmove
memmove:
    mov rax, rdi
    sub rax, rsi
    cmp rax, rdx                    # unsigned: target starts inside the source?
    jae memcpy
    mov rax, rdi
    mov rcx, rdx
    lea rdi, [rdi + rdx - 1]
    lea rsi, [rsi + rdx - 1]
    std
    rep movsb
    cld
    ret

    .globl memset
memset:
    mov r8, rdi
    movzx eax, sil
    movabs rcx, 0x0101010101010101
    imul rax, rcx
    mov rcx, rdx
    shr rcx, 3
    rep stosq
    mov ecx, edx
    and ecx, 7
    rep stosb
    mov rax, r8
    ret

    .globl bcmp
    .globl memcmp
bcmp:
memcmp:
    cmp rdx, 8
    jb 2f
1:  mov rax, [rdi]
    mov rcx, [rsi]
    cmp rax, rcx
    jne 4f
    add rdi, 8
    add rsi, 8
    sub rdx, 8
    cmp rdx, 8
    jae 1b
2:  test rdx, rdx
    jz 3f
    movzx eax, byte ptr [rdi]
    movzx ecx, byte ptr [rsi]
    inc rdi
    inc rsi
    dec rdx
    sub eax, ecx
    jz 2b
    ret
3:  xor eax, eax
    ret
4:  bswap rax                       # the first byte decides: make it the highest
    bswap rcx
    cmp rax, rcx
    sbb eax, eax
    or eax, 1
    ret

    .globl strlen
strlen:
    xor eax, eax
1:  cmp byte ptr [rdi + rax], 0
    je 2f
    inc rax
    jmp 1b
2:  ret
"#
);
