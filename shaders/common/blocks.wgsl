// What kernels of ggml's blocks share: scales of a block, order, packed codes.

// Of 32 elements, the first quad of which is `first`: d = m / -2^shift, m being the first element of largest magnitude.
// x: d as F16, or the sentinel. y: the F32 bits of 1 / d, 0 for a block of zeros.
fn signed_scale(first: u32, shift: u32) -> vec2<u32> {
    var extreme = 0u;
    for (var i = 0u; i < 8u; i++) {
        let four = quad(first + i);
        for (var j = 0u; j < 4u; j++) {
            // Strictly larger: the first one stays.
            extreme = select(extreme, four[j], (four[j] & MAGNITUDE) > (extreme & MAGNITUDE));
        }
    }
    let magnitude = extreme & MAGNITUDE;
    if (magnitude == 0u) {
        return vec2<u32>(0x8000u, 0u); // 0 / -2^shift
    }
    if (!is_safe(magnitude)) {
        return vec2<u32>(SENTINEL_F16, 0u);
    }
    let d = magnitude - (shift << 23u);
    let sign = (extreme & SIGN) ^ SIGN;
    return vec2<u32>(to_f16(d | sign), reciprocal(d) | sign);
}

struct Range {
    // d and min, as F16; the sentinel in the place of d.
    halves: u32,
    // The F32 bits of min and of 1 / d, 0 for a block of equal elements.
    min: u32,
    inverse: u32,
}

// F32 bits to integers of the same order, but that -0 comes before +0; and back.
fn ordered(bits: vec4<u32>) -> vec4<u32> {
    return bits ^ select(vec4<u32>(SIGN), vec4<u32>(0xffffffffu), bits >= vec4<u32>(SIGN));
}
fn unordered(key: u32) -> u32 {
    return key ^ select(0xffffffffu, SIGN, key >= SIGN);
}

// Of 32 elements, the first quad of which is `first`: their minimum and d = (max - min) / top.
fn range_over(first: u32, top: u32) -> Range {
    var lows = vec4<u32>(0xffffffffu);
    var highs = vec4<u32>(0u);
    var zero = 1u; // the first zero among the elements, if any
    for (var i = 0u; i < 8u; i++) {
        let four = quad(first + i);
        lows = min(lows, ordered(four));
        highs = max(highs, ordered(four));
        for (var j = 0u; j < 4u; j++) {
            zero = select(zero, four[j], zero == 1u && (four[j] & MAGNITUDE) == 0u);
        }
    }
    var low = unordered(smallest(lows));
    let high = unordered(largest(highs));
    if ((low & MAGNITUDE) == 0u) {
        low = zero; // -0 and +0 are equal, so the first of them is the minimum
    }
    // NaN and infinity are at one of the ends.
    if (max(low & MAGNITUDE, high & MAGNITUDE) > SAFE_MAX) {
        return Range(SENTINEL_F16, 0u, 0u);
    }
    let min_half = to_f16(low) << 16u;
    if (low == high || ((low | high) & MAGNITUDE) == 0u) {
        return Range(min_half, low, 0u);
    }
    // The larger of the two is at least half the difference: a denormal operand cannot change a difference in the safe range.
    let range = bitcast<u32>(subtract(vec4<f32>(bitcast<f32>(high)), bitcast<f32>(low)).x);
    if (!is_safe(range)) {
        return Range(SENTINEL_F16, 0u, 0u);
    }
    let d = divide(range, top);
    return Range(to_f16(d) | min_half, low, reciprocal(d));
}

// Of codes of five bits, two quads of them: the lower four bits, the first quad's in the low halves of four bytes.
fn lower_bits(low: vec4<u32>, high: vec4<u32>) -> u32 {
    return pack((low & vec4<u32>(15u)) | ((high & vec4<u32>(15u)) << vec4<u32>(4u)));
}

// The fifth bits of four codes, the first one's in bit 0.
fn fifth_bits(codes: vec4<u32>) -> u32 {
    let bits = codes >> vec4<u32>(4u);
    return bits.x | (bits.y << 1u) | (bits.z << 2u) | (bits.w << 3u);
}
