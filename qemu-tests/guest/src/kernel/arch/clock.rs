//! The clock of the live kernel and of the dump, over the CPU's counter.

use core::num::NonZeroU64;

use debugnet_core::time::CounterClock;

/// A clock over the CPU's counter.
pub(crate) type CpuClock = CounterClock<fn() -> u64>;

/// The clock over a counter of this frequency, from now on.
pub(crate) fn cpu_clock(frequency_hz: NonZeroU64) -> CpuClock {
    CounterClock::new(super::counter, frequency_hz, u64::MAX)
}
