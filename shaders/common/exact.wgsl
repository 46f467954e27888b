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

// a / b to nearest, for normal a and b whose quotient is normal; 0 for an a of 0. No ties exist: a number of 25 bits whose last one is
// set, times one of 24 bits, is never a number of 24 bits times 2^24.
//
// As in `reciprocal`, the remainder is known exactly from its low 32 bits and corrects the guess of the quotient.
fn quotient(a: vec4<u32>, b: u32) -> vec4<u32> {
    let m = (b & 0x7fffffu) | 0x800000u;
    let mantissa = (a & vec4<u32>(0x7fffffu)) | vec4<u32>(0x800000u);
    // So that dividend / m is in [1, 2), of which 2^23 times are 24 bits.
    let borrowed = select(vec4<u32>(0u), vec4<u32>(1u), mantissa < vec4<u32>(m));
    let dividend = mantissa << borrowed;
    var q = quotient_guess(vec4<f32>(dividend), f32(m));
    var residual = bitcast<vec4<i32>>((dividend << vec4<u32>(23u)) - q * m);
    let half = i32(m);
    for (var round = 0; round < 5; round++) {
        let up = select(vec4<i32>(0), vec4<i32>(1), 2 * residual > vec4<i32>(half));
        let down = select(vec4<i32>(0), vec4<i32>(1), 2 * residual < vec4<i32>(-half));
        q = bitcast<vec4<u32>>(bitcast<vec4<i32>>(q) + up - down);
        residual -= (up - down) * half;
    }
    let exponent = ((a >> vec4<u32>(23u)) & vec4<u32>(0xffu)) + vec4<u32>(127u) - vec4<u32>((b >> 23u) & 0xffu) - borrowed;
    let sign = (a ^ vec4<u32>(b)) & vec4<u32>(SIGN);
    let magnitude = (exponent << vec4<u32>(23u)) + (q - vec4<u32>(0x800000u));
    return select(magnitude, vec4<u32>(0u), (a & vec4<u32>(MAGNITUDE)) == vec4<u32>(0u)) | sign;
}

// The square root of a positive normal value to nearest. No ties exist, since (q + 1/2)^2 is no integer.
//
// With value = m * 2^k, k even, the result's mantissa is the q of 24 bits nearest to the root of 2^23 * m.
fn root(bits: u32) -> u32 {
    let exponent = bits >> 23u;
    let odd = 1u - (exponent & 1u); // the bias is odd
    let m = ((bits & 0x7fffffu) | 0x800000u) << odd;
    var q = root_guess(bitcast<f32>((bits & 0x7fffffu) | ((127u + odd) << 23u)));
    var residual = bitcast<i32>((m << 23u) - q * q);
    for (var round = 0; round < 8; round++) {
        let q_now = bitcast<i32>(q);
        if (residual > q_now) {
            residual -= 2 * q_now + 1;
            q += 1u;
        } else if (residual <= -q_now) {
            residual += 2 * q_now - 1;
            q -= 1u;
        }
    }
    return (((exponent - odd + 127u) >> 1u) << 23u) + (q - 0x800000u);
}

// F16 to F32 bits; no NaN and no infinity come here.
fn from_f16(half: u32) -> u32 {
    let magnitude = half & 0x7fffu;
    let leading = firstLeadingBit(magnitude | 1u);
    // A subnormal is magnitude * 2^-24; its leading bit becomes the implicit one.
    let subnormal = ((leading + 103u) << 23u) | ((magnitude << (23u - leading)) & 0x7fffffu);
    let finite = select((magnitude << 13u) + 0x38000000u, subnormal, magnitude < 0x400u);
    return select(finite, 0u, magnitude == 0u) | ((half & 0x8000u) << 16u);
}

// ggml's nearest_int, from what adding 12582912 to a value gives: to the nearest integer, ties to even, for magnitudes up to 2^22, and
// what C makes of the bits for larger ones.
fn integer_of(sum: vec4<f32>) -> vec4<i32> {
    return bitcast<vec4<i32>>(bitcast<vec4<u32>>(sum) & vec4<u32>(0x7fffffu)) - vec4<i32>(0x400000);
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
