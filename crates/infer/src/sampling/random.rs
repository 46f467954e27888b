//! Random numbers that are the same everywhere.

/// SplitMix64 of Steele, Lea and Flood ("Fast splittable pseudorandom number generators", 2014), as in Java's `SplittableRandom`:
/// a counter with an odd step, its values mixed. Not for secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// Every seed is as good as any other.
    pub fn new(seed: u64) -> Self {
        SplitMix64 { state: seed }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in [0, 1), one of 2^53 equally likely ones.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published outputs of the reference implementation for seed 1234567.
    #[test]
    fn the_reference_s_numbers() {
        let mut random = SplitMix64::new(1_234_567);
        let expected =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423, 4_593_380_528_125_082_431];
        assert_eq!([(); 4].map(|()| random.bits()), expected);
    }

    #[test]
    fn units_stay_below_one() {
        let mut random = SplitMix64::new(0);
        let units: Vec<f64> = (0..10_000).map(|_| random.unit()).collect();
        assert!(units.iter().all(|unit| (0.0..1.0).contains(unit)));
        let mean = units.iter().sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.0116, "{mean}"); // 4 standard deviations
    }
}
