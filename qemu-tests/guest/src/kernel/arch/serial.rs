//! The console: a serial port, polled, for a bounded time.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::uart;

/// Looks at the port before it is given up, for good: a second at least.
const LOOKS_MAX: u32 = 5_000_000;

/// Whether the port stopped taking bytes. Written while crashing, too.
#[unsafe(link_section = ".volatile")]
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// The serial port. Writing never fails: what a stuck port does not take is lost.
pub(crate) struct Serial;

fn put(byte: u8) {
    if GIVEN_UP.load(Ordering::Relaxed) {
        return;
    }
    for _ in 0..LOOKS_MAX {
        if uart::has_room() {
            uart::send(byte);
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
