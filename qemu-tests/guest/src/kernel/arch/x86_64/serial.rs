//! The first serial port (16550), polled, for a bounded time.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use x86_64::instructions::port::Port;

const BASE: u16 = 0x3f8;
/// Looks at the line status before the port is given up, for good: a second at least.
const LOOKS_MAX: u32 = 5_000_000;

/// Whether the port stopped taking bytes. Written while crashing, too.
#[unsafe(link_section = ".volatile")]
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// The serial port. Writing never fails: what a stuck port does not take is lost.
pub(crate) struct Serial;

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

fn put(byte: u8) {
    const TRANSMITTER_EMPTY: u8 = 0x20;
    if GIVEN_UP.load(Ordering::Relaxed) {
        return;
    }
    for _ in 0..LOOKS_MAX {
        // SAFETY: reading the line status only clears error bits that nobody uses.
        let status = unsafe { Port::<u8>::new(BASE + 5).read() };
        if status & TRANSMITTER_EMPTY != 0 {
            // SAFETY: the transmitter has room for one byte.
            unsafe { Port::<u8>::new(BASE).write(byte) };
            return;
        }
    }
    GIVEN_UP.store(true, Ordering::Relaxed);
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(put);
        Ok(())
    }
}
