//! The time stamp counter as a clock, calibrated against the interval timer.

use core::arch::x86_64::_rdtsc;
use core::num::NonZeroU64;

use debugnet_core::time::CounterClock;
use x86_64::instructions::port::Port;

/// What the interval timer (8254) counts, in Hz.
const PIT_HZ: u64 = 1_193_182;
/// One measurement: 10 ms.
const PIT_TICKS: u16 = 11_932;
/// Each measurement can only come out too long (the host ran something else meanwhile): the shortest counts.
const MEASUREMENTS: u32 = 5;
/// Looks at the timer before it is given up: several seconds.
const LOOKS_MAX: u32 = 20_000_000;

/// A clock that starts now.
pub(crate) type TscClock = CounterClock<fn() -> u64>;

/// The clock over a counter of this frequency.
pub(crate) fn tsc_clock(frequency_hz: NonZeroU64) -> TscClock {
    CounterClock::new(read_tsc, frequency_hz, u64::MAX)
}

fn read_tsc() -> u64 {
    // SAFETY: every x86_64 CPU has the instruction, and ring 0 may use it.
    unsafe { _rdtsc() }
}

/// Counter ticks a second, or `None` if the interval timer does not move.
pub(super) fn calibrate() -> Option<NonZeroU64> {
    let mut shortest = u64::MAX;
    for _ in 0..MEASUREMENTS {
        shortest = shortest.min(measure()?);
    }
    NonZeroU64::new(shortest.checked_mul(PIT_HZ)? / u64::from(PIT_TICKS))
}

/// Counter ticks while channel 2 of the timer counts [`PIT_TICKS`] down.
fn measure() -> Option<u64> {
    const GATE: u8 = 0x01;
    const SPEAKER: u8 = 0x02;
    const OUTPUT: u8 = 0x20;
    /// Channel 2, low then high byte, mode 0: the output rises at the end of the count.
    const COMMAND: u8 = 0xb0;
    let (mut control, mut command, mut channel) =
        (Port::<u8>::new(0x61), Port::<u8>::new(0x43), Port::<u8>::new(0x42));
    let [low, high] = PIT_TICKS.to_le_bytes();

    // SAFETY: port 0x61 gates channel 2 and the speaker, which nothing else uses.
    let before = unsafe { control.read() };
    // SAFETY: as above; the speaker stays off.
    unsafe { control.write(before & !SPEAKER | GATE) };
    // SAFETY: channel 2 drives nothing but the speaker.
    unsafe { command.write(COMMAND) };
    // SAFETY: first half of the count that the command announced.
    unsafe { channel.write(low) };
    let start = read_tsc();
    // SAFETY: second half: the count starts.
    unsafe { channel.write(high) };
    for _ in 0..LOOKS_MAX {
        // SAFETY: reading has no effect.
        if unsafe { control.read() } & OUTPUT != 0 {
            return Some(read_tsc().wrapping_sub(start));
        }
    }
    None
}
