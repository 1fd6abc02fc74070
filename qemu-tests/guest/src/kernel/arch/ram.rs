//! RAM by its physical address: what the dump reads and the pattern fills.
//!
//! Never through a reference. The memory holds live stacks and statics, and a
//! reference would promise the compiler that nothing else touches them.

use debugnet_core::addr::{PhysAddr, PhysRange};
use guest::pattern;
use guest::sum::WordSum;

use super::{copy, direct};

const WORD: u64 = 8;

/// Copies `into.len()` bytes from RAM at `from`.
///
/// # Safety
/// The range is RAM, as [`super::Machine::ram`] lists it.
pub(crate) unsafe fn read(from: PhysAddr, into: &mut [u8]) {
    // SAFETY: the source is mapped RAM by the caller's word; the target is an exclusive
    // borrow of just these bytes.
    unsafe { copy(direct(from), into) };
}

/// Ones' complement sum of big-endian words over RAM, folded, not complemented.
///
/// # Safety
/// As [`read`].
pub(crate) unsafe fn sum(range: PhysRange) -> u16 {
    let mut sum = WordSum::default();
    let start = direct(range.start());
    let whole = range.len() / WORD * WORD;
    if start.addr().is_multiple_of(WORD as usize) {
        let mut word = start.cast::<u64>().cast_const();
        let end = word.wrapping_byte_add(whole as usize);
        while word < end {
            // SAFETY: aligned, inside the caller's range of RAM.
            sum.add(unsafe { word.read_volatile() });
            word = word.wrapping_add(1);
        }
    } else {
        for at in (0..whole).step_by(WORD as usize) {
            // SAFETY: eight bytes of the caller's range, one by one.
            sum.add(unsafe { bytes(start.wrapping_add(at as usize), WORD) });
        }
    }
    // SAFETY: the last bytes of the caller's range; the rest of the word stays zero,
    // which is the padding on the right that the sum asks for.
    sum.add(unsafe { bytes(start.wrapping_add(whole as usize), range.len() - whole) });
    sum.finish()
}

/// Length of the run of zero bytes that `range` begins with, in bytes.
///
/// # Safety
/// As [`read`].
pub(crate) unsafe fn zero_prefix(range: PhysRange) -> u64 {
    let start = direct(range.start());
    let mut at = 0;
    while at < range.len() {
        let here = start.wrapping_add(at as usize);
        if here.addr().is_multiple_of(WORD as usize) && range.len() - at >= WORD {
            // SAFETY: aligned, eight bytes of the caller's range are left.
            if unsafe { here.cast::<u64>().read_volatile() } == 0 {
                at += WORD;
                continue;
            }
        }
        // SAFETY: one byte of the caller's range.
        if unsafe { here.read_volatile() } != 0 {
            break;
        }
        at += 1;
    }
    at
}

/// `count` bytes, at most eight, as the low bytes of a little-endian word.
///
/// # Safety
/// They are mapped.
unsafe fn bytes(first: *const u8, count: u64) -> u64 {
    let mut word = 0;
    for at in 0..count {
        // SAFETY: below `count`, mapped by the caller's word.
        let byte = unsafe { first.wrapping_add(at as usize).read_volatile() };
        word |= u64::from(byte) << (8 * at);
    }
    word
}

/// Fills free RAM with the pattern: whole words, the odd bytes at an end stay.
///
/// # Safety
/// `range` is RAM that nothing lives in, now or later.
pub(crate) unsafe fn fill(range: PhysRange, seed: u64) {
    let first = range.start().0.next_multiple_of(WORD);
    let count = range.end().0.saturating_sub(first) / WORD;
    let mut target = direct(PhysAddr(first)).cast::<u64>();
    for word in pattern::words(first, seed).take(count as usize) {
        // SAFETY: an aligned word of RAM that nobody else uses, by the caller's word.
        unsafe { target.write_volatile(word) };
        target = target.wrapping_add(1);
    }
}

/// Writes one word.
///
/// # Safety
/// `at` is a multiple of 8 and inside RAM that the caller owns.
pub(crate) unsafe fn write_word(at: PhysAddr, word: u64) {
    // SAFETY: aligned RAM of the caller's.
    unsafe { direct(at).cast::<u64>().write_volatile(word) };
}
