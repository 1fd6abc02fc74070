//! The real-time clock: what day it is.

use guest::calendar::RtcTime;
use x86_64::instructions::port::Port;

/// Times the clock is read until two readings agree.
const READINGS_MAX: u32 = 10;
/// Looks at the update flag in a reading: an update takes 2 ms.
const LOOKS_MAX: u32 = 1_000_000;

const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;

/// Seconds since 1970, or 0 if the clock does not say.
pub(super) fn unix_seconds() -> u64 {
    let mut before = reading();
    for _ in 0..READINGS_MAX {
        let now = reading();
        if now == before {
            return now.unix_seconds(register(STATUS_B)).unwrap_or(0);
        }
        before = now;
    }
    0
}

fn reading() -> RtcTime {
    const UPDATING: u8 = 1 << 7;
    for _ in 0..LOOKS_MAX {
        if register(STATUS_A) & UPDATING == 0 {
            break;
        }
    }
    RtcTime {
        second: register(0),
        minute: register(2),
        hour: register(4),
        day: register(7),
        month: register(8),
        year: register(9),
    }
}

fn register(number: u8) -> u8 {
    // SAFETY: selects a register of the clock, which only this module uses. Bit 7
    // stays clear: an NMI is a way to crash this kernel from outside.
    unsafe { Port::<u8>::new(0x70).write(number) };
    // SAFETY: reading one of the clock's registers has no effect on memory.
    unsafe { Port::<u8>::new(0x71).read() }
}
