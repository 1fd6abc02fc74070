//! A small set of numbers, for what is outstanding at the device.

/// A set of numbers below [`Bits::LEN`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits([u32; 32]);

impl Bits {
    /// One more than the largest number: the longest queue this driver makes.
    pub(crate) const LEN: u16 = 1024;

    /// The empty set.
    pub(crate) const fn new() -> Self {
        Self([0; 32])
    }

    const fn mask(number: u16) -> u32 {
        1u32.wrapping_shl(number as u32)
    }

    /// Puts `number` in.
    pub(crate) fn insert(&mut self, number: u16) {
        if let Some(word) = self.0.get_mut(usize::from(number >> 5)) {
            *word |= Self::mask(number);
        }
    }

    /// Takes `number` out. `false` if it was not in.
    pub(crate) fn remove(&mut self, number: u16) -> bool {
        let Some(word) = self.0.get_mut(usize::from(number >> 5)) else { return false };
        let was_in = *word & Self::mask(number) != 0;
        *word &= !Self::mask(number);
        was_in
    }

    /// Whether `number` is in.
    pub(crate) fn contains(&self, number: u16) -> bool {
        self.0.get(usize::from(number >> 5)).is_some_and(|word| word & Self::mask(number) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_own_bit() {
        let mut bits = Bits::new();
        for number in 0..Bits::LEN {
            assert!(!bits.contains(number));
            bits.insert(number);
        }
        for number in 0..Bits::LEN {
            assert!(bits.remove(number) && !bits.remove(number) && !bits.contains(number));
        }
        bits.insert(Bits::LEN);
        assert!(!bits.contains(Bits::LEN) && !bits.remove(u16::MAX));
    }
}
