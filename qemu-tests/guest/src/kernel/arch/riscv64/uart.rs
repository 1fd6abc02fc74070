//! The serial port: a 16550 in memory.

use core::ptr;

fn register(number: usize) -> *mut u8 {
    ptr::with_exposed_provenance_mut(0x1000_0000 + number)
}

/// 8N1, FIFO on, no interrupts. The speed is the emulator's.
pub(in crate::kernel::arch) fn init() {
    for (number, value) in [(1, 0), (3, 0x03), (2, 0xc7), (4, 0x03)] {
        // SAFETY: the port is the kernel's own, and no register of it touches memory.
        unsafe { register(number).write_volatile(value) };
    }
}

/// Whether the transmitter takes a byte.
pub(in crate::kernel::arch) fn has_room() -> bool {
    const TRANSMITTER_EMPTY: u8 = 0x20;
    // SAFETY: reading the line status only clears error bits that nobody uses.
    unsafe { register(5).read_volatile() & TRANSMITTER_EMPTY != 0 }
}

/// Sends a byte, for which there is room.
pub(in crate::kernel::arch) fn send(byte: u8) {
    // SAFETY: the transmitter has room for one byte.
    unsafe { register(0).write_volatile(byte) };
}
