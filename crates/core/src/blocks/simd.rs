//! Which instructions the fast encoders are compiled for, decided when they run.
//!
//! A `Kernel` is compiled once per instruction set, with everything that is inlined into it; plain loops over arrays then become
//! vector code, and `Isa` holds the few operations that the compiler does not find by itself. No set changes a result: products
//! and sums are not contracted, and operations keep their order.

use std::cell::Cell;

/// A set of vector instructions, for comparing and timing them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the build target guarantees (SSE2 on x86-64, NEON on AArch64).
    Baseline,
    /// x86-64-v3.
    Avx2,
    /// x86-64-v4.
    Avx512,
}

thread_local! {
    static CAP: Cell<Level> = const { Cell::new(Level::Avx512) };
}

impl Level {
    /// The levels that this machine has, least first.
    pub fn available() -> Vec<Level> {
        [Level::Baseline, Level::Avx2, Level::Avx512].into_iter().filter(|level| level.is_available()).collect()
    }

    /// Run `f` with the encoders of this thread limited to this level. Where the machine lacks it, they use the best one below.
    pub fn limit<R>(self, f: impl FnOnce() -> R) -> R {
        struct Restore(Level);
        impl Drop for Restore {
            fn drop(&mut self) {
                CAP.set(self.0);
            }
        }
        let _restore = Restore(CAP.replace(self));
        f()
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Level::Baseline => true,
            Level::Avx2 => pulp::x86::V3::try_new().is_some(),
            Level::Avx512 => pulp::x86::V4::try_new().is_some(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        self == Level::Baseline
    }
}

/// Operations on 32 lanes that need their own instructions to be fast.
pub(crate) trait Isa: Copy {
    /// Toward zero, each value to a byte (two's complement), then at most `TOP` unless that is 255.
    /// Values lie in -128.99 to 127.99; what becomes of others is unspecified.
    fn truncate<const TOP: u8>(self, values: &[f32; 32]) -> [u8; 32];

    /// Bit 4 of each byte: byte `j`'s in bit `j`.
    fn fifth_bits(self, bytes: &[u8; 32]) -> u32;
}

/// Work that is compiled for every instruction set.
pub(crate) trait Kernel {
    /// Must be `#[inline(always)]`, and so must whatever it calls, to be compiled for the set.
    fn run<I: Isa>(self, isa: I);
}

/// Run a kernel with the best instructions that the machine has and [`Level::limit`] allows.
pub(crate) fn dispatch(kernel: impl Kernel) {
    dispatch_up_to(Level::Avx512, kernel);
}

/// As [`dispatch`], with instructions of at most `level`.
#[cfg(target_arch = "x86_64")]
pub(crate) fn dispatch_up_to(level: Level, kernel: impl Kernel) {
    use pulp::Simd;
    use pulp::x86::{V1, V3, V4};
    let cap = CAP.get().min(level);
    if cap >= Level::Avx512
        && let Some(isa) = V4::try_new()
    {
        return Simd::vectorize(
            isa,
            #[inline(always)]
            || kernel.run(isa),
        );
    }
    if cap >= Level::Avx2
        && let Some(isa) = V3::try_new()
    {
        return Simd::vectorize(
            isa,
            #[inline(always)]
            || kernel.run(isa),
        );
    }
    match V1::try_new() {
        Some(isa) => kernel.run(isa),
        None => kernel.run(Portable),
    }
}

/// Run a kernel: the build target's own instructions are all there are.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn dispatch_up_to(_level: Level, kernel: impl Kernel) {
    kernel.run(Portable);
}

/// No instructions of its own.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Isa for Portable {
    #[inline(always)]
    fn truncate<const TOP: u8>(self, values: &[f32; 32]) -> [u8; 32] {
        super::words::map(values, |value| (value as i32 as u8).min(TOP))
    }

    #[inline(always)]
    fn fifth_bits(self, bytes: &[u8; 32]) -> u32 {
        let mut bits = 0;
        for (at, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
            // One bit per byte; the product moves byte `i`'s to bit `56 + i`.
            let spread = u64::from_le_bytes(*eight) >> 4 & 0x0101_0101_0101_0101;
            bits |= ((spread.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32) << (8 * at);
        }
        bits
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Isa;
    use pulp::cast;
    use pulp::x86::{V1, V3, V4};
    use std::arch::x86_64::{__m128, __m128i, __m256, __m512};

    // No closures here: each would be a function of its own, without the instructions.

    impl Isa for V1 {
        #[inline(always)]
        fn truncate<const TOP: u8>(self, values: &[f32; 32]) -> [u8; 32] {
            let v: [__m128; 8] = cast(*values);
            let ab = self.sse2._mm_packs_epi32(self.sse2._mm_cvttps_epi32(v[0]), self.sse2._mm_cvttps_epi32(v[1]));
            let cd = self.sse2._mm_packs_epi32(self.sse2._mm_cvttps_epi32(v[2]), self.sse2._mm_cvttps_epi32(v[3]));
            let ef = self.sse2._mm_packs_epi32(self.sse2._mm_cvttps_epi32(v[4]), self.sse2._mm_cvttps_epi32(v[5]));
            let gh = self.sse2._mm_packs_epi32(self.sse2._mm_cvttps_epi32(v[6]), self.sse2._mm_cvttps_epi32(v[7]));
            let (low, high) = (self.sse2._mm_packs_epi16(ab, cd), self.sse2._mm_packs_epi16(ef, gh));
            let top = self.sse2._mm_set1_epi8(TOP as i8);
            cast([self.sse2._mm_min_epu8(low, top), self.sse2._mm_min_epu8(high, top)])
        }

        #[inline(always)]
        fn fifth_bits(self, bytes: &[u8; 32]) -> u32 {
            let v: [__m128i; 2] = cast(*bytes);
            let low = self.sse2._mm_movemask_epi8(self.sse2._mm_slli_epi16::<3>(v[0]));
            let high = self.sse2._mm_movemask_epi8(self.sse2._mm_slli_epi16::<3>(v[1]));
            low as u32 | (high as u32) << 16
        }
    }

    impl Isa for V3 {
        #[inline(always)]
        fn truncate<const TOP: u8>(self, values: &[f32; 32]) -> [u8; 32] {
            let v: [__m256; 4] = cast(*values);
            let ab = self.avx2._mm256_packs_epi32(self.avx._mm256_cvttps_epi32(v[0]), self.avx._mm256_cvttps_epi32(v[1]));
            let cd = self.avx2._mm256_packs_epi32(self.avx._mm256_cvttps_epi32(v[2]), self.avx._mm256_cvttps_epi32(v[3]));
            // Packing works within halves of 128 bits: put the groups of four bytes into order.
            let packed = self.avx2._mm256_packs_epi16(ab, cd);
            let ordered = self.avx2._mm256_permutevar8x32_epi32(packed, cast([0i32, 4, 1, 5, 2, 6, 3, 7]));
            cast(self.avx2._mm256_min_epu8(ordered, self.avx._mm256_set1_epi8(TOP as i8)))
        }

        #[inline(always)]
        fn fifth_bits(self, bytes: &[u8; 32]) -> u32 {
            self.avx2._mm256_movemask_epi8(self.avx2._mm256_slli_epi16::<3>(cast(*bytes))) as u32
        }
    }

    impl Isa for V4 {
        #[inline(always)]
        fn truncate<const TOP: u8>(self, values: &[f32; 32]) -> [u8; 32] {
            let v: [__m512; 2] = cast(*values);
            let low = self.avx512f._mm512_cvtepi32_epi8(self.avx512f._mm512_cvttps_epi32(v[0]));
            let high = self.avx512f._mm512_cvtepi32_epi8(self.avx512f._mm512_cvttps_epi32(v[1]));
            let top = self.sse2._mm_set1_epi8(TOP as i8);
            cast([self.sse2._mm_min_epu8(low, top), self.sse2._mm_min_epu8(high, top)])
        }

        #[inline(always)]
        fn fifth_bits(self, bytes: &[u8; 32]) -> u32 {
            self.avx2._mm256_movemask_epi8(self.avx2._mm256_slli_epi16::<3>(cast(*bytes))) as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_computes_alike() {
        struct Check;
        impl Kernel for Check {
            fn run<I: Isa>(self, isa: I) {
                for step in 0..8000 {
                    let values = std::array::from_fn(|lane| (step * 32 + lane) as f32 / 1000.0 - 128.0);
                    let bytes = isa.truncate::<255>(&values);
                    assert_eq!(bytes, values.map(|value| value as i8 as u8));
                    assert_eq!(isa.truncate::<31>(&values), bytes.map(|byte| byte.min(31)));
                    let bits: u32 = (0..32).map(|j| u32::from(bytes[j] >> 4 & 1) << j).sum();
                    assert_eq!(isa.fifth_bits(&bytes), bits);
                }
            }
        }
        Check.run(Portable);
        for level in Level::available() {
            level.limit(|| dispatch(Check));
        }
    }

    #[test]
    fn a_limit_ends_with_its_closure() {
        let caught = std::panic::catch_unwind(|| Level::Baseline.limit(|| panic!("expected")));
        assert!(caught.is_err());
        assert_eq!(CAP.get(), Level::Avx512);
    }
}
