//! The internet checksum's sum over memory, eight bytes at a time (RFC 1071).
//!
//! On the hot path of the dump, under emulation: halves are added into a wide
//! accumulator, so that no carry has to be looked at.

/// A ones' complement sum in progress. Words are native (little-endian) and
/// swapped once at the end: RFC 1071 section 2 (B) allows that.
#[derive(Clone, Copy, Default, Debug)]
pub struct WordSum {
    /// Sum of 32-bit halves. Holds 2^31 words, 16 GiB, without overflow.
    halves: u64,
}

impl WordSum {
    /// Adds eight bytes, read as a little-endian word at an even distance from the start.
    #[inline(always)]
    pub fn add(&mut self, word: u64) {
        self.halves = self.halves.wrapping_add((word & 0xffff_ffff).wrapping_add(word >> 32));
    }

    /// The folded, uncomplemented sum of big-endian 16-bit words.
    pub fn finish(self) -> u16 {
        let mut sum = (self.halves & 0xffff_ffff).wrapping_add(self.halves >> 32);
        // 33 bits at most: three folds leave 16.
        for _ in 0..3 {
            sum = (sum & 0xffff).wrapping_add(sum >> 16);
        }
        (sum as u16).swap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 as written: big-endian words, end-around carry, odd byte padded on the right.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            sum += u32::from(word);
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn summed(bytes: &[u8]) -> u16 {
        let mut sum = WordSum::default();
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            sum.add(u64::from_le_bytes(word));
        }
        sum.finish()
    }

    #[test]
    fn all_ones_and_all_zeros() {
        assert_eq!(summed(&[0; 64]), 0);
        assert_eq!(summed(&[0xff; 64]), 0xffff);
        // The vector of RFC 1071 section 3.
        assert_eq!(summed(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    proptest! {
        #[test]
        fn equals_the_sum_as_written(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert_eq!(summed(&bytes), plain(&bytes));
        }
    }
}
