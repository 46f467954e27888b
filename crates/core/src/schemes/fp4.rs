//! `FP4` of bitsandbytes: a sign and three bits for a magnitude of 0, 1/192 (denormal), or 2 to 12 twelfths; one F32 scale per
//! block. 4.5 bits per weight in blocks of 64.

use crate::scheme::FourBit;

/// bitsandbytes' `fp4`. Codes 0 and 8 both stand for +0, as in its `quant_map`, and so in all that it decodes on a processor with AVX-512
/// where the columns are a multiple of 16, or odd, or the blocks at least 2048 elements long. Its scalar kernel, for everything else,
/// multiplies -0 for code 8 (which elements between 0 and half the smallest magnitude get): every value is equal there, too, but for
/// the sign of those zeros.
pub static SCHEME: FourBit = FourBit::new("FP4", VALUES, [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3]);

const VALUES: [f32; 16] = {
    let magnitudes = [0.0, 0.0625 / 12.0, 8.0 / 12.0, 1.0, 4.0 / 12.0, 0.5, 2.0 / 12.0, 0.25];
    let mut values = [0.0; 16];
    let mut code = 1;
    while code < 8 {
        values[code] = magnitudes[code];
        values[code + 8] = -magnitudes[code];
        code += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_the_order_of_their_values() {
        assert!(SCHEME.codes.is_sorted_by(|a, b| SCHEME.values[usize::from(*a)] <= SCHEME.values[usize::from(*b)]));
        let mut codes = SCHEME.codes;
        codes.sort();
        assert_eq!(codes, crate::scheme::ASCENDING);
        assert_eq!(SCHEME.values.map(f32::to_bits)[1..3], [0x3baa_aaab, 0x3f2a_aaab]);
        assert_eq!([0, 8].map(|code| SCHEME.values[code].to_bits()), [0, 0]);
    }
}
