// F16 source: two elements per word, the first one in the low half. Widened by integer operations alone: a device may flush F16
// subnormals in its own conversion.

// The F32 bits of elements 4 * index .. 4 * index + 4.
fn quad(index: u32) -> vec4<u32> {
    let low = src[2u * index];
    let high = src[2u * index + 1u];
    let half = vec4<u32>(low & 0xffffu, low >> 16u, high & 0xffffu, high >> 16u);
    let magnitude = half & vec4<u32>(0x7fffu);
    let normal = (magnitude << vec4<u32>(13u)) + vec4<u32>(0x38000000u);
    let special = (magnitude << vec4<u32>(13u)) | vec4<u32>(0x7f800000u);
    // A subnormal is magnitude * 2^-24; its leading bit becomes the implicit one.
    let leading = firstLeadingBit(magnitude | vec4<u32>(1u));
    let fraction = (magnitude << (vec4<u32>(23u) - leading)) & vec4<u32>(0x7fffffu);
    let subnormal = select(vec4<u32>(0u), ((leading + vec4<u32>(103u)) << vec4<u32>(23u)) | fraction, magnitude > vec4<u32>(0u));
    let finite = select(normal, subnormal, magnitude < vec4<u32>(0x400u));
    return select(finite, special, magnitude >= vec4<u32>(0x7c00u)) | ((half & vec4<u32>(0x8000u)) << vec4<u32>(16u));
}
