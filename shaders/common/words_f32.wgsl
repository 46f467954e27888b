// F32 source: one element per word.

// The F32 bits of elements 4 * index .. 4 * index + 4.
fn quad(index: u32) -> vec4<u32> {
    let at = 4u * index;
    return vec4<u32>(src[at], src[at + 1u], src[at + 2u], src[at + 3u]);
}
