//! The board's UARTs (CMSDK APB UART, Cortex-M System Design Kit manual, 4.3):
//! the transmitter, polled. Keeps no state, so that it may be used in a fault.

use core::ptr;

/// A UART, by the address of its registers.
pub(crate) struct Uart(usize);

/// What the harness reads.
#[cfg(feature = "harness")]
pub(crate) const FIRST: Uart = Uart(0x4000_4000);
/// What `defmt`'s frames are written to.
#[cfg(feature = "defmt")]
pub(crate) const SECOND: Uart = Uart(0x4000_5000);

/// Offsets of the registers.
const DATA: usize = 0;
const STATE: usize = 4;
const CTRL: usize = 8;
const BAUDDIV: usize = 16;

/// `STATE`: no room for a byte.
const TX_FULL: u32 = 1;

impl Uart {
    /// Switches the transmitter on, 115200 baud at 25 MHz.
    pub(crate) fn start(&self) {
        // SAFETY: the UART's own register; a word access, as the manual asks for.
        unsafe { self.register(BAUDDIV).write_volatile(217) };
        // SAFETY: likewise; bit 0 enables the transmitter, and nothing interrupts.
        unsafe { self.register(CTRL).write_volatile(1) };
    }

    /// Writes a byte, or drops it if the transmitter is full at each of so many looks.
    pub(crate) fn put(&self, byte: u8, looks: u32) -> bool {
        // SAFETY: reading the state changes nothing.
        let full = || unsafe { self.register(STATE).read_volatile() } & TX_FULL != 0;
        let has_room = (0..looks).any(|_| !full());
        if has_room {
            // SAFETY: the data register takes a byte in a word, and there is room for it.
            unsafe { self.register(DATA).write_volatile(byte.into()) };
        }
        has_room
    }

    const fn register(&self, offset: usize) -> *mut u32 {
        ptr::without_provenance_mut(self.0 + offset)
    }
}
