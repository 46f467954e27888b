// Blocks of `block_elems` elements, 32 to 4096: the F32 absmax, and per element a code of four bits, that of the FP4 value nearest to
// x / absmax; the earlier element in the high half of its byte.
//
// twin:       crates/core/src/schemes/fp4.rs
// bindings:   as in common/interface.wgsl; block_elems is the block length, a multiple of 32; the second plane holds the absmax
// workgroup:  64 invocations
// invocation: 1 block, block_elems / 8 words of codes and one word of the second plane
// sentinel:   the absmax of a block that the host has to encode

// The codes of the values in ascending order, four bits each, the lowest value's lowest: eight and eight.
const CODES_LOW: u32 = 0x09efcdabu;
const CODES_HIGH: u32 = 0x32547618u;

// How many of the 15 boundaries a value exceeds. A boundary is the mean of two neighbouring values in F32; given as bits, so that
// nobody rounds them again. The eighth is 0, which x / absmax exceeds where x does: asked of x itself, since a device may flush x.
fn rank(x: vec4<u32>, inverse: u32) -> vec4<u32> {
    let v = multiply(bitcast<vec4<f32>>(x), bitcast<f32>(inverse));
    return above(v, 0xbf555556u) + above(v, 0xbf155556u) + above(v, 0xbed55556u) + above(v, 0xbe955556u) + above(v, 0xbe555556u)
        + above(v, 0xbdb00000u) + above(v, 0xbb2aaaabu) + above(v, 0x3b2aaaabu) + above(v, 0x3db00000u) + above(v, 0x3e555556u)
        + above(v, 0x3e955556u) + above(v, 0x3ed55556u) + above(v, 0x3f155556u) + above(v, 0x3f555556u)
        + select(vec4<u32>(0u), vec4<u32>(1u), bitcast<vec4<i32>>(x) > vec4<i32>(0));
}

fn above(v: vec4<f32>, boundary: u32) -> vec4<u32> {
    return select(vec4<u32>(0u), vec4<u32>(1u), v > vec4<f32>(bitcast<f32>(boundary)));
}

fn codes(index: u32, inverse: u32) -> vec4<u32> {
    let at = rank(quad(index), inverse);
    let eight = select(vec4<u32>(CODES_LOW), vec4<u32>(CODES_HIGH), at >= vec4<u32>(8u));
    return (eight >> (4u * (at & vec4<u32>(7u)))) & vec4<u32>(15u);
}

// Four codes as two bytes.
fn half_word(v: vec4<u32>) -> u32 {
    return (v.x << 4u) | v.y | (v.z << 12u) | (v.w << 8u);
}

// A positive element that is at least this much, as F32 bits, stays more than 0 when it is multiplied with 1 / magnitude: from 1/2 on
// the reciprocal is small enough to make a product of 0. With exponents as stored, x >= 2^(e - 274) where 1 / magnitude >= 2^(126 - e)
// gives a product of 2^-148 or more.
fn stays_positive(magnitude: u32) -> u32 {
    let exponent = magnitude >> 23u;
    return select(0u, (max(exponent, 148u) - 147u) << 23u, exponent >= 126u);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = id.x;
    if (unit >= params.units) {
        return;
    }
    let quads = params.block_elems / 4u;
    let first = unit * quads;
    var magnitudes = vec4<u32>(0u);
    var positives = vec4<u32>(0xffffffffu); // less one, so that 0 comes last
    for (var i = 0u; i < quads; i++) {
        let four = quad(first + i);
        magnitudes = max(magnitudes, four & vec4<u32>(MAGNITUDE));
        positives = min(positives, four - vec4<u32>(1u));
    }
    let magnitude = largest(magnitudes);
    var absmax = magnitude;
    var inverse = 0u; // a block of zeros: every code is that of 0
    if (is_safe(magnitude) && smallest(positives) + 1u > stays_positive(magnitude)) {
        inverse = reciprocal(magnitude);
    } else if (magnitude != 0u) {
        absmax = SENTINEL_F32;
    }
    dst[params.second_plane + unit] = absmax;
    let words = quads / 2u;
    for (var i = 0u; i < words; i++) {
        let low = half_word(codes(first + 2u * i, inverse));
        let high = half_word(codes(first + 2u * i + 1u, inverse));
        dst[unit * words + i] = low | (high << 16u);
    }
}
