//! The serial port: a PL011 (Arm DDI 0183, section 3.3).

use core::ptr;

const BASE: usize = 0x0900_0000;
const DATA: usize = 0x00;
const FLAGS: usize = 0x18;
const LINE_CONTROL: usize = 0x2c;
const CONTROL: usize = 0x30;

fn register(offset: usize) -> *mut u32 {
    ptr::with_exposed_provenance_mut(BASE + offset)
}

/// 8N1, FIFO on, transmitter on, no interrupts. The clock is the board's.
pub(in crate::kernel::arch) fn init() {
    for (offset, value) in [(CONTROL, 0), (LINE_CONTROL, 0x70), (CONTROL, 0x101)] {
        // SAFETY: the port is the kernel's own, and no register of it touches memory.
        unsafe { register(offset).write_volatile(value) };
    }
}

/// Whether the transmitter takes a byte.
pub(in crate::kernel::arch) fn has_room() -> bool {
    const TRANSMIT_FULL: u32 = 1 << 5;
    // SAFETY: reading the flags has no effect.
    unsafe { register(FLAGS).read_volatile() & TRANSMIT_FULL == 0 }
}

/// Sends a byte, for which there is room.
pub(in crate::kernel::arch) fn send(byte: u8) {
    // SAFETY: the transmitter has room for one byte.
    unsafe { register(DATA).write_volatile(byte.into()) };
}
