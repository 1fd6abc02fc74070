//! Time without an operating system: instants, clocks, and the budgets that
//! every wait runs under.
//!
//! Nothing here sleeps. A [`Clock`] either reads a counter ([`CounterClock`])
//! or, on a machine that has only a delay loop, *makes* time by waiting
//! ([`CountedClock`], 500 us a step as the original's polls).

use core::num::NonZeroU64;

use embedded_hal::delay::DelayNs;

/// A point in time: microseconds since an arbitrary start that stays the same for one clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct Instant(u64);

impl Instant {
    /// The clock's start.
    pub const ZERO: Self = Self(0);
    /// Further away than any deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// The instant `micros_us` microseconds after the clock's start.
    pub const fn from_micros(micros_us: u64) -> Self {
        Self(micros_us)
    }

    /// Microseconds since the clock's start.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// `delay_us` microseconds later, [`Instant::NEVER`] on overflow.
    #[must_use]
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub const fn after(self, delay_us: u64) -> Self {
        Self(self.0.saturating_add(delay_us))
    }

    /// Microseconds since `earlier`; zero if that is not earlier, as after a clock that stepped back.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub const fn since_us(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The same in 32 bits, for what is never longer than 71 minutes: a round trip.
    pub(crate) fn since_short_us(self, earlier: Self) -> u32 {
        u32::try_from(self.since_us(earlier)).unwrap_or(u32::MAX)
    }
}

/// The platform's time source.
///
/// `now` may be read often: it must not wait. `relax` is called between two
/// looks at something that has not happened yet; it may pause the CPU for up
/// to a millisecond, and on a delay-only machine it is what makes time pass.
pub trait Clock {
    /// The present. It should not go back; the library survives if it does.
    fn now(&mut self) -> Instant;
    /// Wait a little: a pause instruction, or one counted delay.
    fn relax(&mut self);
}

/// A clock over a free-running counter (TSC, CNTPCT, `mtime`, a timer), of any
/// width up to 64 bits. One that counts down (SysTick) is read negated.
///
/// A counter of fewer bits must be read at least once a wrap: `mask` says how
/// many bits count, and differences are taken modulo its width.
///
/// ```
/// use core::num::NonZeroU64;
/// use debugnet_core::time::{Clock, CounterClock};
///
/// let mut ticks = 0;
/// let mut clock = CounterClock::new(
///     move || { ticks += 3_000; ticks },   // a 3 GHz counter, 1 us a read
///     NonZeroU64::new(3_000_000_000).unwrap(),
///     u64::MAX,
/// );
/// let first = clock.now();
/// assert_eq!(clock.now().since_us(first), 1);
/// ```
pub struct CounterClock<F: FnMut() -> u64> {
    read: F,
    frequency_hz: NonZeroU64,
    mask: u64,
    last: u64,
    now: Instant,
    /// Ticks x 10^6 not yet worth a microsecond.
    remainder: u64,
}

impl<F: FnMut() -> u64> CounterClock<F> {
    /// A clock that calls `read` for the counter, which counts `frequency_hz`
    /// times a second; only the bits in `mask` are meaningful (all ones from
    /// bit 0: `0xff_ffff` for a 24-bit counter).
    pub fn new(mut read: F, frequency_hz: NonZeroU64, mask: u64) -> Self {
        let last = read() & mask;
        Self { read, frequency_hz, mask, last, now: Instant::ZERO, remainder: 0 }
    }
}

impl<F: FnMut() -> u64> Clock for CounterClock<F> {
    fn now(&mut self) -> Instant {
        const MICROS: u64 = 1_000_000;
        let ticks = (self.read)() & self.mask;
        let passed = ticks.wrapping_sub(self.last) & self.mask;
        // A step back by less than half the range is a step back (a
        // migrated TSC), not almost a whole wrap: time stands still.
        if passed > self.mask >> 1 && self.mask == u64::MAX {
            self.last = ticks;
            return self.now;
        }
        self.last = ticks;
        let frequency = self.frequency_hz.get();
        let whole_s = passed.checked_div(frequency).unwrap_or(0);
        let rest = passed.checked_rem(frequency).unwrap_or(0);
        let scaled = rest.saturating_mul(MICROS).saturating_add(self.remainder);
        let micros = scaled.checked_div(frequency).unwrap_or(0);
        self.remainder = scaled.checked_rem(frequency).unwrap_or(0);
        self.now = self.now.after(whole_s.saturating_mul(MICROS)).after(micros);
        self.now
    }

    fn relax(&mut self) {
        core::hint::spin_loop();
    }
}

/// A clock for machines that have only a delay: time is the sum of the waits.
///
/// One [`relax`](Clock::relax) waits [`CountedClock::STEP_US`] and advances the
/// clock by as much. Work between two waits takes no time on this clock, so a
/// deadline bounds waiting only; `Config::max_transmissions` bounds the rest.
pub struct CountedClock<D: DelayNs> {
    delay: D,
    now: Instant,
}

impl<D: DelayNs> CountedClock<D> {
    /// Length of one wait in microseconds, the poll interval of the original client.
    pub const STEP_US: u32 = 500;

    /// A clock that starts at zero and waits through `delay`.
    pub fn new(delay: D) -> Self {
        Self { delay, now: Instant::ZERO }
    }
}

impl<D: DelayNs> Clock for CountedClock<D> {
    fn now(&mut self) -> Instant {
        self.now
    }

    fn relax(&mut self) {
        self.delay.delay_us(Self::STEP_US);
        self.now = self.now.after(u64::from(Self::STEP_US));
    }
}

/// How long a wait may last: until an instant *and* for a number of looks,
/// whichever ends first, because the clock may be as dead as the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Budget {
    deadline: Instant,
    looks: u32,
}

impl Budget {
    /// A budget that ends at `deadline` or after `looks` calls of [`Budget::spend`].
    pub const fn new(deadline: Instant, looks: u32) -> Self {
        Self { deadline, looks }
    }

    /// Takes one look. `false` once the time or the looks are used up.
    #[must_use]
    pub fn spend(&mut self, now: Instant) -> bool {
        match self.looks.checked_sub(1) {
            Some(left) if now < self.deadline => {
                self.looks = left;
                true
            }
            _ => false,
        }
    }

    /// When the time is up.
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// Any [`Clock`] as an `embedded_hal` delay, for driver code written against
/// [`DelayNs`] (reset and PHY waits, SPI chips).
///
/// A delay is rounded up to whole microseconds. It ends after
/// [`ClockDelay::MAX_LOOKS`] looks and one a nanosecond at the latest, so that
/// a stopped clock cannot hang the dump.
pub struct ClockDelay<'a>(pub &'a mut dyn Clock);

impl ClockDelay<'_> {
    /// Looks at the clock, besides one a nanosecond, before a delay is given up.
    pub const MAX_LOOKS: u32 = 10_000_000;
}

impl DelayNs for ClockDelay<'_> {
    fn delay_ns(&mut self, ns: u32) {
        // `now` is cut to whole microseconds: one more makes sure.
        let until = self.0.now().after(u64::from(ns.div_ceil(1000)).saturating_add(1));
        let mut budget = Budget::new(until, Self::MAX_LOOKS.saturating_add(ns));
        while budget.spend(self.0.now()) {
            self.0.relax();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    struct NoDelay;
    impl DelayNs for NoDelay {
        fn delay_ns(&mut self, _: u32) {}
    }

    #[test]
    fn counter_wraps_and_keeps_the_fraction() {
        let ticks = Cell::new(0xff_fff0_u64);
        let mut clock =
            CounterClock::new(|| ticks.get(), NonZeroU64::new(3_000_000).unwrap(), 0xff_ffff);
        // 24-bit counter at 3 ticks a microsecond, one tick at a time across the wrap.
        for _ in 0..300 {
            ticks.set((ticks.get() + 1) & 0xff_ffff);
            clock.now();
        }
        assert_eq!(clock.now().as_micros(), 100);
    }

    #[test]
    fn wide_counter_that_steps_back_stands_still() {
        let ticks = Cell::new(1_000_000);
        let mut clock =
            CounterClock::new(|| ticks.get(), NonZeroU64::new(1_000_000).unwrap(), u64::MAX);
        ticks.set(2_000_000);
        assert_eq!(clock.now().as_micros(), 1_000_000);
        ticks.set(1_500_000);
        assert_eq!(clock.now().as_micros(), 1_000_000);
        ticks.set(1_500_010);
        assert_eq!(clock.now().as_micros(), 1_000_010);
    }

    #[test]
    fn a_long_silence_does_not_overflow() {
        let ticks = Cell::new(0_u64);
        let mut clock =
            CounterClock::new(|| ticks.get(), NonZeroU64::new(3_000_000_000).unwrap(), u64::MAX);
        ticks.set(3_000_000_000 * 1000);
        assert_eq!(clock.now().as_micros(), 1_000_000_000);
    }

    #[test]
    fn counted_clock_moves_only_by_waiting() {
        let mut clock = CountedClock::new(NoDelay);
        assert_eq!(clock.now(), clock.now());
        clock.relax();
        assert_eq!(clock.now().as_micros(), 500);
    }

    #[test]
    fn budget_ends_by_time_and_by_looks() {
        let mut by_looks = Budget::new(Instant::NEVER, 2);
        assert!(by_looks.spend(Instant::ZERO) && by_looks.spend(Instant::ZERO));
        assert!(!by_looks.spend(Instant::ZERO));
        let mut by_time = Budget::new(Instant::from_micros(5), u32::MAX);
        assert!(by_time.spend(Instant::from_micros(4)));
        assert!(!by_time.spend(Instant::from_micros(5)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "ten million looks take an interpreter too long")]
    fn clock_delay_ends_on_a_stopped_clock() {
        struct Stopped(u32);
        impl Clock for Stopped {
            fn now(&mut self) -> Instant {
                Instant::ZERO
            }
            fn relax(&mut self) {
                self.0 += 1;
            }
        }
        let mut stopped = Stopped(0);
        ClockDelay(&mut stopped).delay_ns(1000);
        assert_eq!(stopped.0, ClockDelay::MAX_LOOKS + 1000);
    }
}
