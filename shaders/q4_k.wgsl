// Without importance. Blocks of 256 elements in 8 groups of 32: F16 d and dmin, 12 bytes of six-bit scales and minimums, 128 bytes of codes. A group's
// scale and minimum are searched for: ggml's make_qkx2_quants, whose candidates depend on one another, is followed step by step.
//
// twin:       crates/core/src/formats/q4_k.rs
// bindings:   as in common/interface.wgsl; block_elems and second_plane are not used
// workgroup:  64 invocations
// invocation: 32 elements, that is one group; 8 neighbours write a block of 144 bytes, 36 words, which is one unit
// sentinel:   d of a block that the host has to encode
//
// Why the bytes are the CPU's: every operation of the C code is one lone, correctly rounded operation here, in the same order. What
// is left to show is that no operand and no result is denormal, which a device may flush, or overflows. A group is given up, and its
// block marked, unless with a its largest and s its smallest magnitude that is not 0
//
//   2^-24 <= a <= 2^30 and 2^-48 <= s                                                                                             (1)
//
// A sum or difference is a multiple of the last place of the smaller operand, so that of numbers >= 2^-n it is 0 or >= 2^-(n + 23).
//   - Squares are >= 2^-96, their mean's root is in [2^-27, 2^30], weights w in [2^-27, 2^31], w * x is 0 or >= 2^-75.
//   - Of sums over 32, with codes l up to 15: sum_x and sum_xl are 0 or in [2^-98, 2^70], sum_w in [2^-22, 2^36], sum_l and sum_l2 are 0
//     or in [2^-27, 2^44]. Products of two of them are 0 or in [2^-125, 2^114]; the determinant's in [2^-54, 2^80], itself >= 2^-77.
//   - The two numerators are differences of such products, and may be too small:
//       a numerator is exactly 0 or >= 2^-100                                                                                     (2)
//   - Their quotients are asked for:
//       scale and minimum are 0 or in [2^-48, 2^34]                                                                               (3)
//     The minimum that the search starts with is an element, or 0.
//   - x - minimum and scale * l + minimum - x are then 0 or in [2^-71, 2^39]. The range that a candidate divides by is asked not to be
//     0 (4); it is in [2^-71, 2^35], its reciprocal times 14 to 16 in [2^-32, 2^75], times x - minimum 0 or in [2^-103, 2^114].
//   - An error is w * e^2 with e = scale * l + minimum - x. It could be denormal:
//       |e| is 0 or >= t, where t^2 and the mean's root times t^2 are >= 2^-126                                                   (5)
//     Sums of errors are <= 2^115.
//   - Of the scales of 8 groups, max / 63 is in [2^-54, 2^29], 63 / max in [2^-29, 2^54], times any scale <= 2^88. As F16 it may be
//     infinite, which is given up (6); otherwise d times six bits is exact, 0 or in [2^-24, 2^22], x + min is 0 or in [2^-71, 2^31],
//     their quotient 0 or in [2^-93, 2^55].
//
// Ordinary weights break none of (1) to (6). A zero's sign, where it is not C's, reaches no byte.

const QUADS: u32 = 8u; // per group
const GROUPS: u32 = 8u; // per block
const BLOCK_WORDS: u32 = 36u;
const LAST_STEP: u32 = 20u;

// As F32 bits.
const LARGEST_MIN: u32 = 0x33800000u; // 2^-24
const LARGEST_MAX: u32 = 0x4e800000u; // 2^30
const SMALLEST: u32 = 0x27800000u; // 2^-48
const NUMERATOR_MIN: u32 = 0x0d800000u; // 2^-100

struct Found {
    scale: f32,
    min: f32,
    // Codes are counted from `low`, `inverse` per unit.
    inverse: f32,
    low: f32,
    // Nothing was in danger of being denormal, or too large.
    is_exact: bool,
}

struct Error {
    sum: f32,
    is_exact: bool,
}

struct Fit {
    scale: f32,
    min: f32,
    is_candidate: bool,
    is_exact: bool,
}

fn values(index: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(quad(index));
}

// What an element's error counts.
fn weights(x: vec4<f32>, mean: f32) -> vec4<f32> {
    return add(bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4<u32>(MAGNITUDE)), vec4<f32>(mean));
}

// One after the other, as in C.
fn sum_in_order(sum: f32, v: vec4<f32>) -> f32 {
    return plus(plus(plus(plus(sum, v.x), v.y), v.z), v.w);
}

// The nearest integers, in 0..=15.
fn codes_at(places: vec4<f32>) -> vec4<u32> {
    return vec4<u32>(clamp(integer_of(add(places, vec4<f32>(12582912.0))), vec4<i32>(0), vec4<i32>(15)));
}

fn codes_from(x: vec4<f32>, low: f32, inverse: f32) -> vec4<u32> {
    return codes_at(multiply(subtract(x, low), inverse));
}

fn ratio(a: f32, b: f32) -> f32 {
    return bitcast<f32>(quotient(vec4<u32>(bitcast<u32>(a)), bitcast<u32>(b)).x);
}

fn is_zero(value: f32) -> bool {
    return (bitcast<u32>(value) & MAGNITUDE) == 0u;
}

// Whether a difference is what it should be: (2).
fn is_exact_difference(a: f32, b: f32, difference: f32) -> bool {
    return (bitcast<u32>(difference) & MAGNITUDE) >= NUMERATOR_MIN || a == b;
}

// Whether a / b is 0 or in [2^-48, 2^34], by the exponents alone: (3).
fn is_exact_ratio(a: f32, b: f32) -> bool {
    let exponent = i32((bitcast<u32>(a) >> 23u) & 0xffu) - i32((bitcast<u32>(b) >> 23u) & 0xffu);
    return is_zero(a) || (exponent > -48 && exponent < 34);
}

// t of (5): as stored, the exponents e of the mean's root and f of t give 2^(e - 127) * 2^(2 * (f - 127)) >= 2^-126.
fn least_difference(mean: f32) -> u32 {
    return max((257u - (bitcast<u32>(mean) >> 23u)) / 2u, 64u) << 23u;
}

// Of the codes that `found` gives with its scale and minimum.
fn error(first: u32, mean: f32, found: Found) -> Error {
    let least = least_difference(mean) - 1u;
    var sum = 0.0;
    var smallest_differences = vec4<u32>(0xffffffffu); // less one, so that 0 comes last
    for (var i = 0u; i < QUADS; i++) {
        let x = values(first + i);
        let l = vec4<f32>(codes_from(x, found.low, found.inverse));
        let e = difference(add(multiply(l, found.scale), vec4<f32>(found.min)), x);
        smallest_differences = min(smallest_differences, (bitcast<vec4<u32>>(e) & vec4<u32>(MAGNITUDE)) - vec4<u32>(1u));
        sum = sum_in_order(sum, product(weights(x, mean), product(e, e)));
    }
    return Error(sum, smallest(smallest_differences) >= least);
}

// The scale and minimum that suit the codes best. sum_w: of weights; sum_x: of weights times values.
fn fit(first: u32, mean: f32, sum_w: f32, sum_x: f32, low: f32, inverse: f32) -> Fit {
    var sum_l = 0.0;
    var sum_l2 = 0.0;
    var sum_xl = 0.0;
    for (var i = 0u; i < QUADS; i++) {
        let x = values(first + i);
        let l = vec4<f32>(codes_from(x, low, inverse));
        let wl = product(weights(x, mean), l);
        sum_l = sum_in_order(sum_l, wl);
        sum_l2 = sum_in_order(sum_l2, product(wl, l));
        sum_xl = sum_in_order(sum_xl, product(wl, x));
    }
    let w_l2 = times(sum_w, sum_l2);
    let l_l = times(sum_l, sum_l);
    let determinant = minus(w_l2, l_l);
    if (!(determinant > 0.0)) {
        return Fit(0.0, 0.0, false, true);
    }
    let w_xl = times(sum_w, sum_xl);
    let x_l = times(sum_x, sum_l);
    let of_scale = minus(w_xl, x_l);
    let l2_x = times(sum_l2, sum_x);
    let l_xl = times(sum_l, sum_xl);
    let of_min = minus(l2_x, l_xl);
    var is_exact = is_exact_difference(w_xl, x_l, of_scale) && is_exact_difference(l2_x, l_xl, of_min)
        && is_exact_ratio(of_scale, determinant) && is_exact_ratio(of_min, determinant);
    let numerators = vec4<u32>(bitcast<u32>(of_scale), bitcast<u32>(of_min), 0u, 0u);
    let both = bitcast<vec4<f32>>(quotient(numerators, bitcast<u32>(determinant)));
    if (both.y > 0.0) {
        is_exact = is_exact && is_exact_ratio(sum_xl, sum_l2);
        return Fit(ratio(sum_xl, sum_l2), 0.0, true, is_exact);
    }
    return Fit(both.x, both.y, true, is_exact);
}

fn search(first: u32) -> Found {
    var lows = vec4<u32>(0xffffffffu);
    var highs = vec4<u32>(0u);
    var magnitudes = vec4<u32>(0u);
    var nonzeros = vec4<u32>(0xffffffffu); // less one, so that 0 comes last
    var squares = 0.0;
    for (var i = 0u; i < QUADS; i++) {
        let four = quad(first + i);
        lows = min(lows, ordered(four));
        highs = max(highs, ordered(four));
        magnitudes = max(magnitudes, four & vec4<u32>(MAGNITUDE));
        nonzeros = min(nonzeros, (four & vec4<u32>(MAGNITUDE)) - vec4<u32>(1u));
        squares = sum_in_order(squares, product(bitcast<vec4<f32>>(four), bitcast<vec4<f32>>(four)));
    }
    let magnitude = largest(magnitudes);
    if (magnitude == 0u) {
        return Found(0.0, 0.0, 0.0, 0.0, true);
    }
    if (magnitude < LARGEST_MIN || magnitude > LARGEST_MAX || smallest(nonzeros) < SMALLEST - 1u) {
        return Found(0.0, 0.0, 0.0, 0.0, false); // (1)
    }
    let low_bits = unordered(smallest(lows));
    let low = bitcast<f32>(select(0u, low_bits, low_bits >= SIGN)); // at most 0
    let high = bitcast<f32>(unordered(largest(highs)));
    if (high <= low) {
        return Found(0.0, low, 0.0, low, true); // equal values, all codes 0
    }
    let mean = bitcast<f32>(root(bitcast<u32>(times(squares, 0.03125))));
    var sum_w = 0.0;
    var sum_x = 0.0;
    for (var i = 0u; i < QUADS; i++) {
        let x = values(first + i);
        let w = weights(x, mean);
        sum_w = sum_in_order(sum_w, w);
        sum_x = sum_in_order(sum_x, product(w, x));
    }
    let inverse = ratio(15.0, minus(high, low));
    var found = Found(ratio(1.0, inverse), low, inverse, low, is_exact_ratio(1.0, inverse));
    let start = error(first, mean, found);
    var best = start.sum;
    var is_exact = found.is_exact && start.is_exact;
    for (var step = 0u; step <= LAST_STEP; step++) {
        // From the minimum found so far, not from the smallest value.
        let range = minus(high, found.min);
        if (is_zero(range)) {
            is_exact = false; // (4)
            break;
        }
        let tried = ratio(plus(plus(-1.0, times(0.1, f32(step))), 15.0), range);
        let candidate = fit(first, mean, sum_w, sum_x, found.min, tried);
        is_exact = is_exact && candidate.is_exact;
        if (candidate.is_candidate && is_exact) {
            let tried_found = Found(candidate.scale, candidate.min, tried, found.min, true);
            let result = error(first, mean, tried_found);
            is_exact = is_exact && result.is_exact;
            // Strictly smaller: the first one stays.
            if (result.sum < best) {
                best = result.sum;
                found = tried_found;
            }
        }
    }
    found.is_exact = is_exact;
    return found;
}

// A scale or minimum in units of the largest one's 63rd part.
fn six_bits(value: f32, inverse: f32) -> u32 {
    let place = vec4<f32>(times(inverse, value));
    // Kept as an unsigned byte: what is negative wraps.
    return min(bitcast<u32>(integer_of(add(place, vec4<f32>(12582912.0))).x) & 0xffu, 63u);
}

// The searched scales and minimums (negative, their magnitudes are stored) of the groups in this workgroup.
var<workgroup> found_scales: array<f32, WORKGROUP>;
var<workgroup> found_mins: array<f32, WORKGROUP>;
var<workgroup> found_exactly: array<u32, WORKGROUP>;
// Four codes to a word.
var<workgroup> found_codes: array<u32, WORKGROUP * QUADS>;

// Positive numbers keep their order as bits; others count as 0.
fn positive_bits(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits, 0u, bits >= SIGN);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let unit = id.x / GROUPS;
    let group = id.x % GROUPS;
    let first = id.x * QUADS;
    let here = local.x;
    let block = here - group; // its first group in this workgroup

    // Units beyond the last one take part in the barriers, with whatever their elements are.
    let found = search(first);
    found_scales[here] = found.scale;
    found_mins[here] = bitcast<f32>(bitcast<u32>(found.min) & MAGNITUDE);
    found_exactly[here] = select(0u, 1u, found.is_exact);
    workgroupBarrier();

    var max_scale = 0u;
    var max_min = 0u;
    var all_exact = 1u;
    for (var i = 0u; i < GROUPS; i++) {
        max_scale = max(max_scale, positive_bits(found_scales[block + i]));
        max_min = max(max_min, bitcast<u32>(found_mins[block + i]));
        all_exact &= found_exactly[block + i];
    }
    var d = vec2<u32>(0u);
    var inverses = vec2<f32>(0.0);
    if (all_exact == 1u && max_scale != 0u) {
        d.x = to_f16(divide(max_scale, 63u));
        inverses.x = ratio(63.0, bitcast<f32>(max_scale));
    }
    if (all_exact == 1u && max_min != 0u) {
        d.y = to_f16(divide(max_min, 63u));
        inverses.y = ratio(63.0, bitcast<f32>(max_min));
    }
    if (d.x == 0x7c00u || d.y == 0x7c00u) {
        all_exact = 0u; // (6)
    }

    let own_scale = f32(six_bits(found.scale, inverses.x));
    let own_min = f32(six_bits(found_mins[here], inverses.y));
    let unit_of_codes = times(bitcast<f32>(from_f16(d.x)), own_scale);
    let offset = times(bitcast<f32>(from_f16(d.y)), own_min);
    for (var i = 0u; i < QUADS; i++) {
        let x = values(first + i);
        var codes: vec4<u32>;
        if (is_zero(unit_of_codes)) {
            codes = codes_from(x, found.low, found.inverse);
        } else {
            let above = bitcast<vec4<u32>>(add(x, vec4<f32>(offset)));
            codes = codes_at(bitcast<vec4<f32>>(quotient(above, bitcast<u32>(unit_of_codes))));
        }
        found_codes[here * QUADS + i] = pack(codes);
    }
    workgroupBarrier();

    if (unit >= params.units) {
        return;
    }
    let at = unit * BLOCK_WORDS;
    // Two groups share 32 bytes of codes, the even one's are low; each of the two writes half of the words.
    let even = here & 0xfffffffeu;
    let half = (here & 1u) * (QUADS / 2u);
    for (var i = half; i < half + QUADS / 2u; i++) {
        dst[at + 4u + (group / 2u) * QUADS + i] = found_codes[even * QUADS + i] | (found_codes[(even + 1u) * QUADS + i] << 4u);
    }
    if (group != 0u) {
        return;
    }
    dst[at] = select(SENTINEL_F16, d.x | (d.y << 16u), all_exact == 1u);
    // Six lower bits of four scales, of four minimums, then four lower bits of the other scales (low) and minimums (high), the upper
    // two bits of which are on top of the first eight bytes.
    var head = vec3<u32>(0u);
    for (var i = 0u; i < 4u; i++) {
        let scale = six_bits(found_scales[block + i], inverses.x);
        let minimum = six_bits(found_mins[block + i], inverses.y);
        let later_scale = six_bits(found_scales[block + 4u + i], inverses.x);
        let later_min = six_bits(found_mins[block + 4u + i], inverses.y);
        head.x |= (scale | ((later_scale >> 4u) << 6u)) << (8u * i);
        head.y |= (minimum | ((later_min >> 4u) << 6u)) << (8u * i);
        head.z |= ((later_scale & 15u) | ((later_min & 15u) << 4u)) << (8u * i);
    }
    dst[at + 1u] = head.x;
    dst[at + 2u] = head.y;
    dst[at + 3u] = head.z;
}
