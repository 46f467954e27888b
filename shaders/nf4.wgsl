// Blocks of `block_elems` elements, 32 to 4096: the F32 absmax, and per element a code of four bits, the index of the NF4 value
// nearest to x / absmax; the earlier element in the high half of its byte.
//
// twin:       crates/core/src/schemes/nf4.rs
// bindings:   as in common/interface.wgsl; block_elems is the block length, a multiple of 32; the second plane holds the absmax
// workgroup:  64 invocations
// invocation: 1 block, block_elems / 8 words of codes and one word of the second plane
// sentinel:   the absmax of a block that the host has to encode

// How many of the 15 boundaries a value exceeds is its code. A boundary is the mean of two neighbouring NF4 values in F32; given as
// bits, so that nobody rounds them again.
fn code(v: vec4<f32>) -> vec4<u32> {
    return above(v, 0xbf591cd8u) + above(v, 0xbf1c5270u) + above(v, 0xbeeb8480u) + above(v, 0xbeadea76u) + above(v, 0xbe703cecu)
        + above(v, 0xbe0d38bcu) + above(v, 0xbd3a7871u) + above(v, 0x3d22faffu) + above(v, 0x3df64862u) + above(v, 0x3e5067e0u)
        + above(v, 0x3e9582d4u) + above(v, 0x3ec753f9u) + above(v, 0x3f006d04u) + above(v, 0x3f248dafu) + above(v, 0x3f5c89dau);
}

fn above(v: vec4<f32>, boundary: u32) -> vec4<u32> {
    return select(vec4<u32>(0u), vec4<u32>(1u), v > vec4<f32>(bitcast<f32>(boundary)));
}

fn codes(index: u32, inverse: u32) -> vec4<u32> {
    return code(multiply(bitcast<vec4<f32>>(quad(index)), bitcast<f32>(inverse)));
}

// Four codes as two bytes.
fn half_word(v: vec4<u32>) -> u32 {
    return (v.x << 4u) | v.y | (v.z << 12u) | (v.w << 8u);
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
    for (var i = 0u; i < quads; i++) {
        magnitudes = max(magnitudes, quad(first + i) & vec4<u32>(MAGNITUDE));
    }
    let magnitude = largest(magnitudes);
    var absmax = magnitude;
    var inverse = 0u; // a block of zeros: every code is that of 0
    if (is_safe(magnitude)) {
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
