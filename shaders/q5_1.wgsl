// Blocks of 32 elements: F16 d = (max - min) / 31 and F16 min, then 32 fifth bits of codes trunc((x - min) / d + 0.5), at most 31,
// then 16 bytes of their lower four: element i in the low half of byte i, element i + 16 in the high half.
//
// twin:       crates/core/src/formats/q5_1.rs
// bindings:   as in common/interface.wgsl; block_elems and second_plane are not used
// workgroup:  64 invocations
// invocation: 64 elements, that is 2 blocks of 24 bytes, 12 words
// sentinel:   d of a block that the host has to encode

const BLOCK_WORDS: u32 = 6u;

fn codes(index: u32, block: Range) -> vec4<u32> {
    let above = subtract(bitcast<vec4<f32>>(quad(index)), bitcast<f32>(block.min));
    let scaled = multiply(above, bitcast<f32>(block.inverse));
    // In [0.5, 31.51].
    return min(vec4<u32>(add(scaled, vec4<f32>(0.5))), vec4<u32>(31u));
}

fn encode(first: u32, at: u32) {
    let block = range_over(first, 31u);
    var fifth = 0u;
    for (var i = 0u; i < 4u; i++) {
        let low = codes(first + i, block);
        let high = codes(first + 4u + i, block);
        dst[at + 2u + i] = lower_bits(low, high);
        fifth |= (fifth_bits(low) | (fifth_bits(high) << 16u)) << (4u * i);
    }
    dst[at] = block.halves;
    dst[at + 1u] = fifth;
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
