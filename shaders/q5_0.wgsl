// Blocks of 32 elements: an F16 scale d = m / -16, m being the first element of largest magnitude, then 32 fifth bits of codes
// trunc(x / d + 16.5), at most 31, then 16 bytes of their lower four: element i in the low half of byte i, element i + 16 in the high
// half.
//
// twin:       crates/core/src/formats/q5_0.rs
// bindings:   as in common/interface.wgsl; block_elems and second_plane are not used
// workgroup:  64 invocations
// invocation: 64 elements, that is 2 blocks of 22 bytes, 11 words
// sentinel:   d of a block that the host has to encode

const UNIT_WORDS: u32 = 11u;

struct Block {
    // d as F16.
    d: u32,
    // The fifth bit of element i in bit i.
    fifth: u32,
    lower: vec4<u32>,
}

fn codes(index: u32, inverse: u32) -> vec4<u32> {
    let scaled = multiply(bitcast<vec4<f32>>(quad(index)), bitcast<f32>(inverse));
    // In [0.49, 32.51].
    return min(vec4<u32>(add(scaled, vec4<f32>(16.5))), vec4<u32>(31u));
}

fn block(first: u32) -> Block {
    let d_and_inverse = signed_scale(first, 4u);
    var found = Block(d_and_inverse.x, 0u, vec4<u32>(0u));
    for (var i = 0u; i < 4u; i++) {
        let low = codes(first + i, d_and_inverse.y);
        let high = codes(first + 4u + i, d_and_inverse.y);
        found.lower[i] = lower_bits(low, high);
        found.fifth |= (fifth_bits(low) | (fifth_bits(high) << 16u)) << (4u * i);
    }
    return found;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = id.x;
    if (unit >= params.units) {
        return;
    }
    let at = unit * UNIT_WORDS;
    // The first block starts with a half word, so the rest of it straddles words; the second one's is aligned.
    let a = block(unit * 16u);
    let b = block(unit * 16u + 8u);
    dst[at] = a.d | (a.fifth << 16u);
    dst[at + 1u] = (a.fifth >> 16u) | (a.lower.x << 16u);
    dst[at + 2u] = (a.lower.x >> 16u) | (a.lower.y << 16u);
    dst[at + 3u] = (a.lower.y >> 16u) | (a.lower.z << 16u);
    dst[at + 4u] = (a.lower.z >> 16u) | (a.lower.w << 16u);
    dst[at + 5u] = (a.lower.w >> 16u) | (b.d << 16u);
    dst[at + 6u] = b.fifth;
    dst[at + 7u] = b.lower.x;
    dst[at + 8u] = b.lower.y;
    dst[at + 9u] = b.lower.z;
    dst[at + 10u] = b.lower.w;
}
