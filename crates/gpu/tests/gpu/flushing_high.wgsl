// A device at the limit of what the kernels allow for: denormals are zeros before and after every operation, and the guesses of
// reciprocals, quotients and roots are as much higher than they should be as they may be.

fn flush(value: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(value);
    return bitcast<vec4<f32>>(select(bits, bits & vec4<u32>(0x80000000u), (bits & vec4<u32>(0x7f800000u)) == vec4<u32>(0u)));
}

fn product(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return flush(flush(a) * flush(b));
}

fn add(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return flush(flush(a) + flush(b));
}

fn difference(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return flush(flush(a) - flush(b));
}

fn multiply(a: vec4<f32>, b: f32) -> vec4<f32> {
    return product(a, vec4<f32>(b));
}

fn subtract(a: vec4<f32>, b: f32) -> vec4<f32> {
    return difference(a, vec4<f32>(b));
}

fn times(a: f32, b: f32) -> f32 {
    return product(vec4<f32>(a), vec4<f32>(b)).x;
}

fn plus(a: f32, b: f32) -> f32 {
    return add(vec4<f32>(a), vec4<f32>(b)).x;
}

fn minus(a: f32, b: f32) -> f32 {
    return difference(vec4<f32>(a), vec4<f32>(b)).x;
}

fn reciprocal_guess(x: f32) -> u32 {
    return u32(16777216.0 / x) + 5u;
}

fn quotient_guess(a: vec4<f32>, b: f32) -> vec4<u32> {
    return vec4<u32>(8388608.0 * (a / b)) + vec4<u32>(5u);
}

fn root_guess(x: f32) -> u32 {
    return u32(8388608.0 * sqrt(x)) + 8u;
}
