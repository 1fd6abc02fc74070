//! `defmt`'s global logger, on the second UART, for a machine that may be dead.
//!
//! It takes no lock: whoever died may have held it. Each frame is begun anew, with a
//! separator in front, so that one that the death cut short harms no other. Waiting is
//! bounded, by a few milliseconds a frame.

use core::cell::UnsafeCell;

use debugnet_core::observer::{Event, Observer, ToDefmt};
use debugnet_core::time::Instant;
use defmt::Encoder;

use crate::uart;

/// Looks at a full transmitter, some 50 bytes' time, before the frame is given up.
const LOOKS: u32 = 20_000;

/// A frame on its way.
struct Frame {
    encoder: Encoder,
    /// The transmitter did not take a byte: the rest is not sent.
    is_lost: bool,
}

struct Current(UnsafeCell<Frame>);

// SAFETY: one CPU, on which no interrupt is ever enabled: two contexts meet only when
// code dies with a frame begun. The fault handler never goes back to it.
unsafe impl Sync for Current {}

/// It changes while the dump is sent.
#[unsafe(link_section = ".volatile")]
static CURRENT: Current = Current(UnsafeCell::new(Frame::new()));

impl Frame {
    const fn new() -> Self {
        Self { encoder: Encoder::new(), is_lost: false }
    }

    /// Does something with the encoder, and sends what comes out.
    fn encode(&mut self, step: impl FnOnce(&mut Encoder, &mut dyn FnMut(&[u8]))) {
        let Self { encoder, is_lost } = self;
        step(encoder, &mut |bytes| {
            for byte in bytes {
                *is_lost = *is_lost || !uart::SECOND.put(*byte, LOOKS);
            }
        });
    }
}

/// The frame on its way.
fn with_frame(act: impl FnOnce(&mut Frame)) {
    // SAFETY: the only reference: nothing in `act` comes back here, and code that died
    // with one (see `Current`) never uses it again.
    act(unsafe { &mut *CURRENT.0.get() });
}

#[defmt::global_logger]
struct Log;

// SAFETY: the contract is one frame at a time in a context, and `Current` says why there is but
// one context. A second `acquire` replaces the frame, where the contract has a panic: a
// decoder calls it malformed, and the dump goes on.
unsafe impl defmt::Logger for Log {
    fn acquire() {
        with_frame(|frame| {
            *frame = Frame::new();
            frame.encode(|encoder, send| encoder.start_frame(send));
        });
    }

    // Each byte is with the UART already.
    unsafe fn flush() {}

    unsafe fn release() {
        with_frame(|frame| frame.encode(|encoder, send| encoder.end_frame(send)));
    }

    unsafe fn write(bytes: &[u8]) {
        with_frame(|frame| frame.encode(|encoder, send| encoder.write(bytes, send)));
    }
}

/// Switches the UART on.
pub(crate) fn start() {
    uart::SECOND.start();
}

/// Logs an event of the dump.
pub(crate) fn event(now: Instant, event: &Event) {
    ToDefmt.event(now, event);
}
