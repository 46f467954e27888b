// Blocks of 32 elements: an F16 scale d = max|x| / 127, then 32 bytes round_away(x / d).
//
// twin:       crates/core/src/formats/q8_0.rs
// bindings:   as in common/interface.wgsl; block_elems and second_plane are not used
// workgroup:  64 invocations
// invocation: 64 elements, that is 2 blocks of 34 bytes, 17 words
// sentinel:   d of a block that the host has to encode

const UNIT_WORDS: u32 = 17u;

// x: d as F16. y: the F32 bits of 1 / d, 0 for a block of zeros. `first` is the block's first quad.
fn scale(first: u32) -> vec2<u32> {
    var magnitudes = vec4<u32>(0u);
    for (var i = 0u; i < 8u; i++) {
        magnitudes = max(magnitudes, quad(first + i) & vec4<u32>(MAGNITUDE));
    }
    let magnitude = largest(magnitudes);
    if (magnitude == 0u) {
        return vec2<u32>(0u, 0u);
    }
    if (!is_safe(magnitude)) {
        return vec2<u32>(SENTINEL_F16, 0u);
    }
    let d = divide(magnitude, 127u);
    return vec2<u32>(to_f16(d), reciprocal(d));
}

fn codes(index: u32, inverse: u32) -> u32 {
    let scaled = multiply(bitcast<vec4<f32>>(quad(index)), bitcast<f32>(inverse));
    return pack(bitcast<vec4<u32>>(round_away(scaled)) & vec4<u32>(0xffu));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = id.x;
    if (unit >= params.units) {
        return;
    }
    let first = unit * 16u;
    let at = unit * UNIT_WORDS;
    let scale_0 = scale(first);
    let scale_1 = scale(first + 8u);
    // The first block starts with a half word, so its codes straddle words; the second one's are aligned.
    var carry = scale_0.x;
    for (var i = 0u; i < 8u; i++) {
        let word = codes(first + i, scale_0.y);
        dst[at + i] = carry | (word << 16u);
        carry = word >> 16u;
    }
    dst[at + 8u] = carry | (scale_1.x << 16u);
    for (var i = 0u; i < 8u; i++) {
        dst[at + 9u + i] = codes(first + 8u + i, scale_1.y);
    }
}
