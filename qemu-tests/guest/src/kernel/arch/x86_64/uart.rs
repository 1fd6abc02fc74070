//! The first serial port: a 16550.

use x86_64::instructions::port::Port;

const BASE: u16 = 0x3f8;

/// 115200 baud, 8N1, FIFO on, no interrupts.
pub(super) fn init() {
    const DIVISOR_LATCH: u8 = 0x80;
    const EIGHT_N_ONE: u8 = 0x03;
    for (register, value) in
        [(1, 0), (3, DIVISOR_LATCH), (0, 1), (1, 0), (3, EIGHT_N_ONE), (2, 0xc7), (4, 0x03)]
    {
        // SAFETY: the port is the kernel's own, and no register of it touches memory.
        unsafe { Port::<u8>::new(BASE + register).write(value) };
    }
}

/// Whether the transmitter takes a byte.
pub(crate) fn has_room() -> bool {
    const TRANSMITTER_EMPTY: u8 = 0x20;
    // SAFETY: reading the line status only clears error bits that nobody uses.
    let status = unsafe { Port::<u8>::new(BASE + 5).read() };
    status & TRANSMITTER_EMPTY != 0
}

/// Sends a byte, for which there is room.
pub(crate) fn send(byte: u8) {
    // SAFETY: the transmitter has room for one byte.
    unsafe { Port::<u8>::new(BASE).write(byte) };
}
