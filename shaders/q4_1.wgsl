// Blocks of 32 elements: F16 d = (max - min) / 15 and F16 min, then 16 bytes of two codes trunc((x - min) / d + 0.5), at most 15:
// element i in the low half of byte i, element i + 16 in the high half.
//
// twin:       crates/core/src/formats/q4_1.rs
// bindings:   as in common/interface.wgsl; block_elems and second_plane are not used
// workgroup:  64 invocations
// invocation: 64 elements, that is 2 blocks of 20 bytes, 10 words
// sentinel:   d of a block that the host has to encode

const BLOCK_WORDS: u32 = 5u;

fn codes(index: u32, block: Range) -> vec4<u32> {
    let above = subtract(bitcast<vec4<f32>>(quad(index)), bitcast<f32>(block.min));
    let scaled = multiply(above, bitcast<f32>(block.inverse));
    // In [0.5, 15.51].
    return min(vec4<u32>(add(scaled, vec4<f32>(0.5))), vec4<u32>(15u));
}

fn encode(first: u32, at: u32) {
    let block = range_over(first, 15u);
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
