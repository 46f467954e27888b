// The only floating-point arithmetic of the kernels, and all that they ask of a device.
//
// WGSL lets a device round division and reciprocals by several units in the last place, flush denormals before and after any
// operation, fuse a product into a following sum, and compute as if sums were associative (Mesa's compilers make a + b - a into b).
// What is relied on is a lone `*`, `+` or `-` whose operands and result are zero or normal, rounded to nearest, ties to even; the
// self-test at start-up shows whether the device does that. Everything else is done on integers (exact.wgsl) or left to the CPU.

// `value`, behind an operation that the compiler cannot see through: no sum after it can be fused with a product before it.
fn opaque(value: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(value) ^ vec4<u32>(params.zero));
}

fn multiply(a: vec4<f32>, b: f32) -> vec4<f32> {
    return opaque(a * b);
}

fn add(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return opaque(a + b);
}

fn subtract(a: vec4<f32>, b: f32) -> vec4<f32> {
    return opaque(a - b);
}

fn product(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return opaque(a * b);
}

fn difference(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return opaque(a - b);
}

fn times(a: f32, b: f32) -> f32 {
    return opaque(vec4<f32>(a * b)).x;
}

fn plus(a: f32, b: f32) -> f32 {
    return opaque(vec4<f32>(a + b)).x;
}

fn minus(a: f32, b: f32) -> f32 {
    return opaque(vec4<f32>(a - b)).x;
}

// About 2^24 / x for x in [1, 2): up to 5 off, which is more than the 2.5 units in the last place that WGSL allows a division to be.
// `reciprocal` corrects it.
fn reciprocal_guess(x: f32) -> u32 {
    return u32(16777216.0 / x);
}

// About 2^23 * a / b for a / b in [1, 2): up to 5 off. `quotient` corrects it.
fn quotient_guess(a: vec4<f32>, b: f32) -> vec4<u32> {
    return vec4<u32>(8388608.0 * (a / b));
}

// About 2^23 times the root of x for x in [1, 4): up to 8 off, more than WGSL lets a root be, which counts as the reciprocal of an
// inverse root that is off by two units in the last place. `root` corrects it.
fn root_guess(x: f32) -> u32 {
    return u32(8388608.0 * sqrt(x));
}
