//! The internet checksum (RFC 1071): ones' complement sum of big-endian words.

/// A running ones' complement sum, not yet complemented.
///
/// Parts are added one after the other; every part but the last must have an
/// even length, because an odd last byte is padded with zero on the right.
///
/// The words are added in the machine's byte order and swapped at the end,
/// which gives the same sum (RFC 1071 section 2 (B)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// The sum of one run of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::ZERO.and(bytes)
    }

    /// This sum and that of the bytes that follow.
    #[must_use]
    pub fn and(self, bytes: &[u8]) -> Self {
        // Four bytes a step, as a 32-bit sum folds to the 16-bit one; carries
        // gather in the upper half, with room for 16 GiB.
        let (blocks, tail) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        for block in blocks {
            sum = sum.wrapping_add(u64::from(u32::from_ne_bytes(*block)));
        }
        let (words, odd) = tail.as_chunks::<2>();
        for word in words {
            sum = sum.wrapping_add(u64::from(u16::from_ne_bytes(*word)));
        }
        if let [last] = odd {
            sum = sum.wrapping_add(u64::from(u16::from_ne_bytes([*last, 0])));
        }
        Self(sum)
    }

    /// This sum and one more 16-bit word, or a folded sum of other bytes.
    #[must_use]
    pub const fn plus(self, word: u16) -> Self {
        Self(self.0.wrapping_add(word.to_be() as u64))
    }

    /// Folded to 16 bits, not complemented.
    pub const fn folded(self) -> u16 {
        let mut sum = (self.0 & 0xffff_ffff).wrapping_add(self.0 >> 32);
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
        u16::from_be(sum as u16)
    }

    /// Folded and complemented: the value of a checksum field, and zero for data that verifies.
    pub const fn complement(self) -> u16 {
        !self.folded()
    }

    /// As [`Sum::complement`], with zero sent as all ones because zero means "no checksum" (RFC 768).
    pub const fn udp_field(self) -> u16 {
        match self.complement() {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// The sum of two folded sums, folded.
pub(crate) const fn added(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(carry as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 section 3: 0001 f203 f4f5 f6f7 sums to ddf2.
    #[test]
    fn rfc1071_example() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
    }

    #[test]
    fn zero_is_sent_as_ones() {
        assert_eq!(Sum::of(&[0xff, 0xff]).udp_field(), 0xffff);
        assert_eq!(Sum::ZERO.udp_field(), 0xffff);
    }

    /// One byte after the other, as the RFC's own program does it.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for (i, byte) in bytes.iter().enumerate() {
            sum += u32::from(*byte) << if i % 2 == 0 { 8 } else { 0 };
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn same(a: u16, b: u16) -> bool {
        // Ones' complement has two zeros.
        a == b || (a ^ b == 0xffff && (a == 0 || b == 0))
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert!(same(Sum::of(&bytes).folded(), reference(&bytes)));
        }

        #[test]
        fn parts_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..150) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let (head, tail) = bytes.split_at(cut);
            let whole = Sum::of(&bytes).folded();
            prop_assert!(same(Sum::of(head).and(tail).folded(), whole));
            prop_assert!(same(Sum::of(head).plus(Sum::of(tail).folded()).folded(), whole));
        }
    }
}
