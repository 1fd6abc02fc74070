//! The memory that the crash path works in, all in one section: the dump's
//! window, its cell and receive buffer, the crash cell, and its stack.
//!
//! All of it is zero at first, and the start-up code makes it so: the section has
//! no image in flash.

use core::cell::UnsafeCell;

use debugnet_core::{Cells, Limits, Memory, Needs, Slot, memory_needed};
use nic_hal::Reserved;

use crate::image::STACK_LEN;

/// Messages in the window.
pub(crate) const SLOTS: usize = NEEDS.slots;
const NEEDS: Needs = memory_needed(&Limits::SMALLEST);
/// Enough for an ack or an ARP packet; longer frames are dropped.
const RX_LEN: usize = 128;

#[unsafe(link_section = ".volatile")]
static WINDOW: Reserved<[Slot; NEEDS.slots]> = Reserved::new([Slot::EMPTY; NEEDS.slots]);
#[unsafe(link_section = ".volatile")]
static INDEX: Reserved<[u16; NEEDS.index]> = Reserved::new([0; NEEDS.index]);
#[unsafe(link_section = ".volatile")]
static CELL: Reserved<[u8; NEEDS.cell_bytes]> = Reserved::new([0; NEEDS.cell_bytes]);
#[unsafe(link_section = ".volatile")]
static RX: Reserved<[u8; RX_LEN]> = Reserved::new([0; RX_LEN]);

/// The dump's memory. `None` the second time.
pub(crate) fn dump_memory() -> Option<Memory<'static>> {
    // SAFETY: start-up code, before any interrupt is enabled: no other `take` runs.
    let slots = unsafe { WINDOW.take() }?;
    // SAFETY: the same single thread.
    let index = unsafe { INDEX.take() }?;
    // SAFETY: the same single thread.
    let cell = unsafe { CELL.take() }?;
    // SAFETY: the same single thread.
    let rx = unsafe { RX.take() }?;
    // The chip takes bytes: no device needs the cell's address.
    Some(Memory { slots, index, cells: Cells { bytes: cell, phys: None }, rx })
}

/// A stack for the fault handler: whatever died may have none left.
#[repr(C, align(8))]
pub(crate) struct Stack(UnsafeCell<[u32; STACK_LEN / 4]>);

// SAFETY: it is only ever a stack, of one CPU; `paint_stack` and `stack_used`
// look at it from outside through raw pointers.
unsafe impl Sync for Stack {}

#[unsafe(link_section = ".volatile")]
pub(crate) static STACK: Stack = Stack(UnsafeCell::new([0; STACK_LEN / 4]));

const PAINT: u32 = 0xa5a5_5a5a;

/// Paints the dump's stack, at boot, so that its use can be measured.
pub(crate) fn paint_stack() {
    let base = STACK.0.get().cast::<u32>();
    for at in 0..STACK_LEN / 4 {
        // SAFETY: inside the static, which nothing uses before the first fault.
        unsafe { base.add(at).write_volatile(PAINT) };
    }
}

/// The most bytes of the dump's stack that were ever in use.
pub(crate) fn stack_used() -> usize {
    let base = STACK.0.get().cast::<u32>();
    let painted = (0..STACK_LEN / 4)
        // SAFETY: a look inside the static; a word that the stack changes meanwhile is not paint.
        .take_while(|at| unsafe { base.add(*at).read_volatile() } == PAINT)
        .count();
    STACK_LEN - 4 * painted
}

unsafe extern "C" {
    static __volatile_start: u32;
    static __volatile_end: u32;
}

/// Where the section is: whole pages.
pub(crate) fn section() -> (u64, u64) {
    ((&raw const __volatile_start).addr() as u64, (&raw const __volatile_end).addr() as u64)
}

// Clears the section before `main`, as the start-up code clears `.bss`.
core::arch::global_asm!(
    ".section .text.__pre_init, \"ax\"",
    ".global __pre_init",
    ".type __pre_init, %function",
    ".thumb_func",
    "__pre_init:",
    "ldr r0, =__volatile_start",
    "ldr r1, =__volatile_used_end",
    "movs r2, #0",
    "1: cmp r0, r1",
    "it hs",
    "bxhs lr",
    "stmia r0!, {{r2}}",
    "b 1b",
);
