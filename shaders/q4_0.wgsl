// Blocks of 32 elements: an F16 scale d = m / -8, m being the first element of largest magnitude, then 16 bytes of two codes
// trunc(x / d + 8.5), at most 15: element i in the low half of byte i, element i + 16 in the high half.
//
// twin:       crates/core/src/formats/q4_0.rs
// bindings:   as in common/interface.wgsl; block_elems and second_plane are not used
// workgroup:  64 invocations
// invocation: 64 elements, that is 2 blocks of 18 bytes, 9 words
// sentinel:   d of a block that the host has to encode

const UNIT_WORDS: u32 = 9u;

fn codes(index: u32, inverse: u32) -> vec4<u32> {
    let scaled = multiply(bitcast<vec4<f32>>(quad(index)), bitcast<f32>(inverse));
    // In [0.49, 16.51].
    return min(vec4<u32>(add(scaled, vec4<f32>(8.5))), vec4<u32>(15u));
}

// The codes of four elements and of the four that are 16 further on.
fn code_bytes(index: u32, inverse: u32) -> u32 {
    return pack(codes(index, inverse) | (codes(index + 4u, inverse) << vec4<u32>(4u)));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = id.x;
    if (unit >= params.units) {
        return;
    }
    let first = unit * 16u;
    let at = unit * UNIT_WORDS;
    let scale_0 = signed_scale(first, 3u);
    let scale_1 = signed_scale(first + 8u, 3u);
    // The first block starts with a half word, so its codes straddle words; the second one's are aligned.
    var carry = scale_0.x;
    for (var i = 0u; i < 4u; i++) {
        let word = code_bytes(first + i, scale_0.y);
        dst[at + i] = carry | (word << 16u);
        carry = word >> 16u;
    }
    dst[at + 4u] = carry | (scale_1.x << 16u);
    for (var i = 0u; i < 4u; i++) {
        dst[at + 5u + i] = code_bytes(first + 8u + i, scale_1.y);
    }
}
