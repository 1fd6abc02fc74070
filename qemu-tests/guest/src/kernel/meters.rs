//! What a dump is measured by, and what is done to its clock.

use core::cell::Cell;
use core::ptr;

use debugnet_core::time::{Clock, Instant};
use guest::cmdline::ClockFate;

use super::arch;

/// The kernel's clock, until half of the image is acknowledged; then what it was fated to become.
pub(super) struct FatedClock<'a, C> {
    pub(super) inner: &'a mut C,
    pub(super) fate: ClockFate,
    pub(super) is_half: &'a Cell<bool>,
    pub(super) stopped_at: Option<Instant>,
}

impl<C: Clock> Clock for FatedClock<'_, C> {
    fn now(&mut self) -> Instant {
        const SECOND_US: u64 = 1_000_000;
        let now = self.inner.now();
        if !self.is_half.get() {
            return now;
        }
        match self.fate {
            ClockFate::Steady => now,
            ClockFate::Stop => *self.stopped_at.get_or_insert(now),
            ClockFate::Jump => now.after(10 * SECOND_US),
            ClockFate::Back => Instant::from_micros(now.as_micros().saturating_sub(SECOND_US)),
            ClockFate::Late => now.after(7200 * SECOND_US),
        }
    }

    fn relax(&mut self) {
        self.inner.relax();
    }
}

/// Whether this CPU takes interrupts, looked at again and again.
#[derive(Default)]
pub(super) struct Interrupts {
    looks: u64,
    were_on: bool,
}

impl Interrupts {
    pub(super) fn look(&mut self) {
        self.looks += 1;
        self.were_on |= !arch::interrupts_are_off();
    }

    /// They were off each time, and somebody looked more than once.
    pub(super) const fn were_off(&self) -> bool {
        self.looks > 1 && !self.were_on
    }
}

/// A stretch of the running stack, painted to see later how deep the calls went.
pub(super) struct Paint {
    /// The stack pointer, more or less.
    base: usize,
}

impl Paint {
    /// Bytes painted: a part of what any stack that a dump runs on has left.
    const LEN: usize = 12 << 10;
    /// Bytes below the stack pointer that are left alone: this code's own.
    const MARGIN: usize = 1024;
    const COLOUR: u64 = 0x5ace_5ace_5ace_5ace;

    fn words(&self) -> impl Iterator<Item = *mut u64> + use<> {
        let top = self.base - Self::MARGIN;
        (top - Self::LEN..top).step_by(8).map(ptr::with_exposed_provenance_mut)
    }

    /// Paints below the caller's frame.
    #[inline(never)]
    pub(super) fn new() -> Self {
        let here = 0_u64;
        let paint = Self { base: (&raw const here).expose_provenance() & !7 };
        for word in paint.words() {
            // SAFETY: free stack of this CPU, mapped: a dump runs on 24 KiB of it, of which
            // the fault handler has used less than what lies above these 13.
            unsafe { word.write_volatile(Self::COLOUR) };
        }
        paint
    }

    /// Bytes of stack used since, all of [`Paint::LEN`] if no paint is left.
    #[inline(never)]
    pub(super) fn used(&self) -> u64 {
        // SAFETY: what `new` wrote, or calls that have returned since.
        let spoilt = self.words().find(|word| unsafe { word.read_volatile() } != Self::COLOUR);
        spoilt.map_or(0, |word| (self.base - word.addr()) as u64)
    }
}
