//! The time stamp counter, calibrated against the interval timer.

use core::arch::x86_64::_rdtsc;
use core::num::NonZeroU64;

use x86_64::instructions::port::Port;

/// What the interval timer (8254) counts, in Hz.
const PIT_HZ: u64 = 1_193_182;
/// One measurement: 10 ms.
const PIT_TICKS: u16 = 11_932;
/// Each measurement can only come out too long (the host ran something else meanwhile): the shortest counts.
const MEASUREMENTS: u32 = 5;
/// Looks at the timer before it is given up: several seconds.
const LOOKS_MAX: u32 = 20_000_000;

/// The counter.
pub(crate) fn counter() -> u64 {
    // SAFETY: every x86_64 CPU has the instruction, and ring 0 may use it.
    unsafe { _rdtsc() }
}

/// Counter ticks a second, or `None` if the interval timer does not move.
pub(super) fn calibrate() -> Option<NonZeroU64> {
    let shortest = (0..MEASUREMENTS).filter_map(|_| measure()).min()?;
    NonZeroU64::new(shortest.checked_mul(PIT_HZ)? / u64::from(PIT_TICKS))
}

/// Counter ticks while channel 0 of the timer counts [`PIT_TICKS`] down. `None` if
/// that was not seen from its beginning to its end.
///
/// Channel 0, as a `microvm` has no port 0x61, which opens channel 2 and shows
/// its output. The interrupt at the end is not taken: they are off for ever.
fn measure() -> Option<u64> {
    /// Bit 7 of the status: the output, high when the count has ended.
    const OUTPUT: u8 = 0x80;
    /// Channel 0, low then high byte, mode 0: the output rises at the end of the count.
    const COMMAND: u8 = 0x30;
    /// Read-back: the next byte of channel 0 is its status.
    const STATUS: u8 = 0xe2;
    let (mut command, mut channel) = (Port::<u8>::new(0x43), Port::<u8>::new(0x40));
    let [low, high] = PIT_TICKS.to_le_bytes();

    // SAFETY: the kernel uses no timer interrupt; nobody else counts on channel 0.
    unsafe { command.write(COMMAND) };
    // SAFETY: first half of the count that the command announced.
    unsafe { channel.write(low) };
    let start = counter();
    // SAFETY: second half: the count starts.
    unsafe { channel.write(high) };
    let mut was_counting = false;
    for _ in 0..LOOKS_MAX {
        // SAFETY: latches the status, and does not touch the count.
        unsafe { command.write(STATUS) };
        // SAFETY: takes the status that was latched.
        if unsafe { channel.read() } & OUTPUT == 0 {
            was_counting = true;
        } else {
            return was_counting.then(|| counter().wrapping_sub(start));
        }
    }
    None
}
