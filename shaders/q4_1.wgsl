// Blocks of 32 elements: F16 d = (max - min) / 15 and F16 min, then 16 bytes of two codes trunc((x - min) / d + 0.5), at most 15:
// element i in the low half of byte i, element i + 16 in the high half.
//
// twin:       crates/core/src/formats/q4_1.rs
// bindings:   as in common/interface.wgsl; block_elems and second_plane are not used
// workgroup:  64 invocations
// invocation: 64 elements, that is 2 blocks of 20 bytes, 10 words
// sentinel:   d of a block that the host has to encode

const BLOCK_WORDS: u32 = 5u;

struct Scale {
    // d and min, as F16.
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

// `first` is the block's first quad.
fn scale(first: u32) -> Scale {
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
        return Scale(SENTINEL_F16, 0u, 0u);
    }
    let min_half = to_f16(low) << 16u;
    if (low == high || ((low | high) & MAGNITUDE) == 0u) {
        return Scale(min_half, low, 0u);
    }
    // The larger of the two is at least half the difference: a denormal operand cannot change a difference in the safe range.
    let range = bitcast<u32>(subtract(vec4<f32>(bitcast<f32>(high)), bitcast<f32>(low)).x);
    if (!is_safe(range)) {
        return Scale(SENTINEL_F16, 0u, 0u);
    }
    let d = divide(range, 15u);
    return Scale(to_f16(d) | min_half, low, reciprocal(d));
}

fn codes(index: u32, block: Scale) -> vec4<u32> {
    let above = subtract(bitcast<vec4<f32>>(quad(index)), bitcast<f32>(block.min));
    let scaled = multiply(above, bitcast<f32>(block.inverse));
    // In [0.5, 15.51].
    return min(vec4<u32>(add(scaled, vec4<f32>(0.5))), vec4<u32>(15u));
}

fn encode(first: u32, at: u32) {
    let block = scale(first);
    dst[at] = block.halves;
    for (var i = 0u; i < 4u; i++) {
        dst[at + 1u + i] = pack(codes(first + i, block) | (codes(first + 4u + i, block) << vec4<u32>(4u)));
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = id.x;
    if (unit >= params.units) {
        return;
    }
    encode(unit * 16u, 2u * unit * BLOCK_WORDS);
    encode(unit * 16u + 8u, (2u * unit + 1u) * BLOCK_WORDS);
}
