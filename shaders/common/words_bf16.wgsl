// BF16 source: two elements per word, the first one in the low half.

// The F32 bits of elements 4 * index .. 4 * index + 4.
fn quad(index: u32) -> vec4<u32> {
    let low = src[2u * index];
    let high = src[2u * index + 1u];
    return vec4<u32>(low << 16u, low & 0xffff0000u, high << 16u, high & 0xffff0000u);
}
