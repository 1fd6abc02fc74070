//! The random numbers of the simulator: fixed algorithm, fixed for ever, so
//! that a seed printed by a failing test replays the same run on any machine.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014): 64 bits of state, period 2^64, a few operations a number.
///
/// ```
/// use netsim::rng::Rng;
/// // Reference value of the published algorithm.
/// assert_eq!(Rng::new(1_234_567).next_u64(), 6_457_827_717_110_365_317);
/// ```
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The sequence of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A sequence of its own for purpose `stream` of the same seed: using or
    /// not using one does not shift what the others give.
    pub fn stream(seed: u64, stream: u64) -> Self {
        let mut root = Self::new(seed);
        let salted = root.next_u64() ^ Self::new(stream).next_u64().rotate_left(17);
        Self::new(Self::new(salted).next_u64())
    }

    /// 64 uniformly distributed bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(Self::GAMMA);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0. The bias of the multiply
    /// method, `bound` / 2^64, is far below anything a test could see.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }

    /// `true` with `probability`: never at or below 0 (and for NaN), always at or above 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        // 53 bits: every value is exact in an f64.
        let unit = (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        unit < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_sequence() {
        // The first outputs of the reference C code for seed 1234567.
        let mut rng = Rng::new(1_234_567);
        let got: Vec<u64> = (0..5).map(|_| rng.next_u64()).collect();
        assert_eq!(
            got,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
    }

    #[test]
    fn chance_keeps_its_ends() {
        let mut rng = Rng::new(1);
        assert!((0..1000).all(|_| rng.chance(1.0)));
        assert!((0..1000).all(|_| !rng.chance(0.0)));
        assert!((0..1000).all(|_| !rng.chance(f64::NAN)));
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let mut rng = Rng::new(2);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[rng.below(7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn streams_differ() {
        let first = |stream| Rng::stream(9, stream).next_u64();
        let mut values: Vec<u64> = (0..100).map(first).collect();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), 100);
    }
}
