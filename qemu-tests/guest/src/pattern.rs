//! What free RAM is filled with: 64-bit words that depend on their own address.
//!
//! No two words are equal, so a page that arrives in another page's place, or
//! twice, or shifted, is seen. One addition, one shift and one xor a word, so
//! that an emulated CPU fills gigabytes in seconds.

/// 2^64 divided by the golden ratio: odd, so that multiplying by it is one to one.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The word at `address`, a multiple of 8.
pub const fn word(address: u64, seed: u64) -> u64 {
    spread((address >> 3).wrapping_add(seed.rotate_left(32)).wrapping_mul(STEP))
}

const fn spread(linear: u64) -> u64 {
    linear ^ (linear >> 32)
}

/// The words from `address` upwards, without end.
pub fn words(address: u64, seed: u64) -> impl Iterator<Item = u64> {
    let mut linear = (address >> 3).wrapping_add(seed.rotate_left(32)).wrapping_mul(STEP);
    core::iter::repeat_with(move || {
        let word = spread(linear);
        linear = linear.wrapping_add(STEP);
        word
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_stream_is_the_words_of_its_addresses() {
        for start in [0, 0x9fb00, 0x1_0000_0000] {
            for (at, streamed) in words(start, 99).take(1000).enumerate() {
                assert_eq!(streamed, word(start + 8 * at as u64, 99));
            }
        }
    }

    #[test]
    fn no_two_words_are_equal() {
        let seen: HashSet<u64> = words(0, 1).take(1 << 18).collect();
        assert_eq!(seen.len(), 1 << 18);
    }

    #[test]
    fn seeds_and_pages_differ_in_every_word() {
        let differs = |a: u64, b: u64, first: u64, second: u64| {
            words(a, first).zip(words(b, second)).take(512).all(|(x, y)| x != y)
        };
        assert!(differs(0x200000, 0x200000, 1, 2));
        assert!(differs(0x200000, 0x201000, 1, 1));
        // One seed must not be another one's RAM, moved.
        assert!(differs(0x200000, 0x200008, 2, 1));
    }
}
