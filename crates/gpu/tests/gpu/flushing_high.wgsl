// A device at the limit of what the kernels allow for: denormals are zeros before and after every operation, and the guess of a
// reciprocal is 5 higher than it should be.

fn flush(value: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(value);
    return bitcast<vec4<f32>>(select(bits, bits & vec4<u32>(0x80000000u), (bits & vec4<u32>(0x7f800000u)) == vec4<u32>(0u)));
}

fn multiply(a: vec4<f32>, b: f32) -> vec4<f32> {
    return flush(flush(a) * flush(vec4<f32>(b)));
}

fn add(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return flush(flush(a) + flush(b));
}

fn subtract(a: vec4<f32>, b: f32) -> vec4<f32> {
    return flush(flush(a) - flush(vec4<f32>(b)));
}

fn reciprocal_guess(x: f32) -> u32 {
    return u32(16777216.0 / x) + 5u;
}
