// Exact arithmetic on the bits of F32 values, by integer operations.

// Scales in the range below are computed here; for any other block (denormal or huge scale, infinity, NaN) the kernel writes the
// sentinel where the scale belongs and the host encodes that block on the CPU. Inside the range flushing cannot matter: an element
// that is denormal is more than 2^35 times smaller than the scale.
const SAFE_MIN: u32 = 0x12800000u; // 2^-90
const SAFE_MAX: u32 = 0x6c800000u; // 2^90

// A scale that no encoder writes: NaN with every bit set, as F16 and as F32.
const SENTINEL_F16: u32 = 0x7fffu;
const SENTINEL_F32: u32 = 0x7fffffffu;

const MAGNITUDE: u32 = 0x7fffffffu;
const SIGN: u32 = 0x80000000u;

fn is_safe(magnitude: u32) -> bool {
    return magnitude >= SAFE_MIN && magnitude <= SAFE_MAX;
}

// The largest of four.
fn largest(v: vec4<u32>) -> u32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

// The smallest of four.
fn smallest(v: vec4<u32>) -> u32 {
    return min(min(v.x, v.y), min(v.z, v.w));
}

// F32 to F16 bits, to nearest, ties to even, overflow to infinity; no NaN comes here.
fn to_f16(bits: u32) -> u32 {
    let magnitude = bits & MAGNITUDE;
    let rebased = magnitude - (112u << 23u);
    let normal = (rebased + 0xfffu + ((rebased >> 13u) & 1u)) >> 13u;
    // Subnormal results: the mantissa moves down to units of 2^-24; below 2^-25 nothing remains.
    let exponent = magnitude >> 23u;
    let shift = min(126u - min(exponent, 126u), 25u);
    let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    let kept = mantissa >> shift;
    let rest = mantissa & ((1u << shift) - 1u);
    let half = (1u << shift) >> 1u;
    let up = rest > half || (rest == half && (kept & 1u) == 1u);
    let subnormal = select(kept, kept + 1u, up);
    let finite = select(normal, subnormal, magnitude < 0x38800000u);
    return select(finite, 0x7c00u, magnitude >= 0x477ff000u) | ((bits & SIGN) >> 16u);
}

// value / divisor to nearest, ties to even, for a positive value in the safe range and a divisor of 3..127 whose quotient stays
// normal. The 31-bit dividend leaves a quotient of 24 to 30 bits and an exact remainder.
fn divide(bits: u32, divisor: u32) -> u32 {
    let dividend = ((bits & 0x7fffffu) | 0x800000u) << 7u;
    let quotient = dividend / divisor;
    let remainder = dividend - quotient * divisor;
    let shift = 8u - countLeadingZeros(quotient); // down to 24 bits
    let kept = quotient >> shift;
    // The part below the last bit kept, in units of 1 / (2 * divisor), against one half.
    let rest = 2u * ((quotient & ((1u << shift) - 1u)) * divisor + remainder);
    let half = divisor << shift;
    let up = rest > half || (rest == half && (kept & 1u) == 1u);
    // A carry out of the mantissa goes into the exponent, as it should.
    return (((bits >> 23u) + shift - 7u) << 23u) + (kept - 0x800000u) + select(0u, 1u, up);
}

// 1 / value to nearest, for a positive value whose reciprocal is normal. No ties exist.
//
// With value = m * 2^k, m of 24 bits, the result's mantissa is the q of 24 bits nearest to 2^47 / m. The device's division is only
// a first guess; 2^47 - q * m is known exactly from its low 32 bits, since 2^47 is 0 modulo 2^32, and says how to correct q.
fn reciprocal(bits: u32) -> u32 {
    let m = (bits & 0x7fffffu) | 0x800000u;
    var q = reciprocal_guess(bitcast<f32>((bits & 0x7fffffu) | 0x3f800000u));
    var residual = bitcast<i32>(0u - q * m);
    let half = i32(m);
    for (var round = 0; round < 5; round++) {
        let step = select(0, 1, 2 * residual > half) - select(0, 1, 2 * residual < -half);
        q = bitcast<u32>(bitcast<i32>(q) + step);
        residual -= step * half;
    }
    return ((253u - (bits >> 23u)) << 23u) + (q - 0x800000u);
}

// C's roundf, half away from zero, for |v| < 2^22: adding the largest value below one half, towards the sign, carries to the next
// integer exactly when the fraction is one half or more (0.49999997 stays, for it comes to 0.99999994).
fn round_away(v: vec4<f32>) -> vec4<i32> {
    let half = bitcast<vec4<f32>>((bitcast<vec4<u32>>(v) & vec4<u32>(SIGN)) | vec4<u32>(0x3effffffu));
    return vec4<i32>(add(v, half));
}

// Four values of 0..255, the first one in the lowest byte.
fn pack(v: vec4<u32>) -> u32 {
    return v.x | (v.y << 8u) | (v.z << 16u) | (v.w << 24u);
}
