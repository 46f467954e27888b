//! The self-test has power: each of these kernels is wrong in one place, and its self-test says so. On plain weights most of them
//! would pass.
use crate::Test;
use crate::common::kernel_named;
use ggufsmith_core::Words;
use ggufsmith_gpu::testing::Testing;
use ggufsmith_gpu::{Gpu, KERNELS, Kernel, Options, Selection, SelfTest, WORDS};
use ggufsmith_shaders::{self as shaders, ARITHMETIC, BLOCKS, EXACT};

enum Edit {
    /// In a file, this text by that one.
    Replace(&'static str, &'static str, &'static str),
    /// In the kernel's own file.
    ReplaceInKernel(&'static str, String),
    Append(&'static str, &'static str),
    Whole(&'static str, &'static str),
}
use Edit::{Append, Replace, ReplaceInKernel, Whole};

fn in_kernel(from: &'static str, to: &str) -> Edit {
    ReplaceInKernel(from, to.to_owned())
}

/// With scales of one kind: the reciprocal of a largest magnitude or a range.
const RECIPROCAL: &[&str] = &["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "NF4", "FP4"];
const HALF_SCALES: &[&str] = &["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K"];
const DIVIDED: &[&str] = &["Q8_0", "Q4_1", "Q5_1", "Q4_K"];

const GUESS: &str = "u32(16777216.0 / x)";
const UNCORRECTED: Edit = Replace(EXACT, "round < 5", "round < 0");
const ROUND_TO_HALF: &str = "(rebased + 0xfffu + ((rebased >> 13u) & 1u)) >> 13u";

/// A product and a sum that are rounded once, as by a device that fuses them: the product's rounding error is found by splitting both
/// factors, and added to the sum's. Every step is opaque, for Mesa's compilers take a + b - a for b.
const FUSED: &str = "
fn split(a: vec4<f32>) -> vec4<f32> {
    let large = opaque(4097.0 * a);
    return opaque(large - opaque(large - a));
}

fn fused(a: vec4<f32>, factor: f32, c: f32) -> vec4<f32> {
    let b = vec4<f32>(factor);
    let p = opaque(a * b);
    let a_high = split(a);
    let b_high = split(b);
    let a_low = opaque(a - a_high);
    let b_low = opaque(b - b_high);
    let lost = opaque(opaque(opaque(opaque(a_high * b_high) - p) + opaque(a_high * b_low)) + opaque(a_low * b_high));
    let sum = opaque(p + c);
    let back = opaque(sum - p);
    let sum_lost = opaque(opaque(p - opaque(sum - back)) + opaque(c - back));
    return opaque(sum + opaque(sum_lost + opaque(lost + opaque(a_low * b_low))));
}
";

type Control = (&'static str, &'static [&'static str], Vec<Edit>);

fn controls() -> Vec<Control> {
    let mut all = of_common_parts();
    all.extend(of_kernels());
    all.extend(of_the_search());
    all
}

fn of_common_parts() -> Vec<Control> {
    vec![
        (
            "reciprocal uncorrected, one too large",
            RECIPROCAL,
            vec![UNCORRECTED, Replace(ARITHMETIC, GUESS, "u32(16777216.0 / x) + 1u")],
        ),
        (
            "reciprocal uncorrected, two too small",
            RECIPROCAL,
            vec![UNCORRECTED, Replace(ARITHMETIC, GUESS, "u32(16777216.0 / x) - 2u")],
        ),
        (
            "scale cut off",
            &["Q8_0", "Q4_1", "Q5_1"],
            vec![Replace(EXACT, "let half = divisor << shift;", "let half = 1000000u;")],
        ),
        ("half precision cut off", HALF_SCALES, vec![Replace(EXACT, ROUND_TO_HALF, "rebased >> 13u")]),
        ("half precision ties away", DIVIDED_TO_TIES, vec![Replace(EXACT, ROUND_TO_HALF, "(rebased + 0x1000u) >> 13u")]),
        ("half precision subnormals cut off", DIVIDED, vec![Replace(EXACT, "select(kept, kept + 1u, up)", "kept")]),
        ("ties to even", &["Q8_0"], vec![Replace(EXACT, "vec4<i32>(add(v, half))", "vec4<i32>(round(v))")]),
        ("one half added", &["Q8_0"], vec![Replace(EXACT, "0x3effffffu", "0x3f000000u")]),
        (
            "last of equal magnitudes",
            &["Q4_0", "Q5_0"],
            vec![Replace(BLOCKS, "> (extreme & MAGNITUDE)", ">= (extreme & MAGNITUDE)")],
        ),
        ("minimum zero without its sign", &["Q4_1", "Q5_1"], vec![Replace(BLOCKS, "low = zero;", "low = 0u;")]),
        ("nothing left to the CPU", RECIPROCAL, vec![Replace(EXACT, "magnitude >= SAFE_MIN && magnitude <= SAFE_MAX", "true")]),
        (
            "denormals flushed, small blocks not left to the CPU",
            RECIPROCAL,
            vec![Whole(ARITHMETIC, include_str!("flushing_high.wgsl")), Replace(EXACT, "magnitude >= SAFE_MIN && ", "")],
        ),
    ]
}

fn of_kernels() -> Vec<Control> {
    let fused = |sum, instead| vec![Append(ARITHMETIC, FUSED), ReplaceInKernel(sum, instead)];
    let (signed, range) = ("bitcast<vec4<f32>>(quad(index)), bitcast<f32>(inverse)", "above, bitcast<f32>(block.inverse)");
    let (signed, range) = (|c| format!("fused({signed}, {c})"), format!("fused({range}, 0.5)"));
    vec![
        ("product fused into the sum", &["Q4_0"], fused("add(scaled, vec4<f32>(8.5))", signed("8.5"))),
        ("product fused into the sum", &["Q5_0"], fused("add(scaled, vec4<f32>(16.5))", signed("16.5"))),
        ("product fused into the sum", &["Q4_1", "Q5_1"], fused("add(scaled, vec4<f32>(0.5))", range)),
        (
            "fifth bits of the halves exchanged",
            &["Q5_0", "Q5_1"],
            vec![in_kernel("fifth_bits(low) | (fifth_bits(high) << 16u)", "fifth_bits(high) | (fifth_bits(low) << 16u)")],
        ),
        ("boundary one unit too high", &["NF4"], vec![in_kernel("0x3d22faffu", "0x3d22fb00u")]),
        ("boundary one unit too high", &["FP4"], vec![in_kernel("0x3db00000u", "0x3db00001u")]),
        ("boundary included", &["NF4", "FP4"], vec![in_kernel("v > vec4", "v >= vec4")]),
        ("codes of two values exchanged", &["FP4"], vec![in_kernel("0x32547618u", "0x23547618u")]),
        (
            "zero counts as more than zero",
            &["FP4"],
            vec![in_kernel("bitcast<vec4<i32>>(x) > vec4", "bitcast<vec4<i32>>(x) >= vec4")],
        ),
        ("products of small elements not left to the CPU", &["FP4"], vec![in_kernel("> stays_positive(magnitude)", "!= 0u")]),
        ("one word not written", &["Q8_0", "Q4_0"], vec![in_kernel("u] = carry | (scale_1.x << 16u)", "u] |= 0u")]),
        ("one word not written", &["Q4_1", "Q5_1"], vec![in_kernel("dst[at] = block.halves;", "")]),
        ("one word not written", &["Q5_0"], vec![in_kernel("dst[at + 6u] = b.fifth;", "")]),
        ("one word not written", &["Q4_K"], vec![in_kernel("dst[at + 2u] = head.y;", "")]),
        ("one word not written", &["NF4", "FP4"], vec![in_kernel("dst[params.second_plane + unit] = absmax;", "")]),
    ]
}

/// Of Q4_K.
fn of_the_search() -> Vec<Control> {
    const Q4_K: &[&str] = &["Q4_K"];
    vec![
        (
            "quotients uncorrected",
            Q4_K,
            vec![
                Replace(EXACT, "let half = i32(m);\n    for (var round = 0;", "let half = i32(m);\n    for (var round = 5;"),
                Replace(ARITHMETIC, "8388608.0 * (a / b)", "8388608.0 * (a / b) + 1.0"),
            ],
        ),
        (
            "root uncorrected",
            Q4_K,
            vec![
                Replace(EXACT, "round < 8", "round < 0"),
                Replace(ARITHMETIC, "u32(8388608.0 * sqrt(x))", "u32(8388608.0 * sqrt(x)) + 1u"),
            ],
        ),
        ("last of equal errors", Q4_K, vec![in_kernel("result.sum < best", "result.sum <= best")]),
        ("too few steps", Q4_K, vec![in_kernel("LAST_STEP: u32 = 20u", "LAST_STEP: u32 = 15u")]),
        (
            "from the smallest value, not from the minimum found",
            Q4_K,
            vec![in_kernel("sum_x, found.min, tried)", "sum_x, low, tried)")],
        ),
        (
            "sums in another order",
            Q4_K,
            vec![in_kernel("plus(plus(plus(plus(sum, v.x), v.y), v.z), v.w)", "plus(plus(sum, plus(v.x, v.y)), plus(v.z, v.w))")],
        ),
        (
            "weights not in the sum of products",
            Q4_K,
            vec![in_kernel("product(weights(x, mean), product(e, e))", "product(e, e)")],
        ),
        ("weights multiplied last", Q4_K, vec![in_kernel("product(wl, x)", "product(weights(x, mean), product(l, x))")]),
        ("a positive minimum kept", Q4_K, vec![in_kernel("if (both.y > 0.0)", "if (both.y > 1e30)")]),
        ("ties away from zero", Q4_K, vec![in_kernel("integer_of(add(places, vec4<f32>(12582912.0)))", "round_away(places)")]),
        ("codes of the search kept", Q4_K, vec![in_kernel("if (is_zero(unit_of_codes))", "if (unit_of_codes >= 0.0)")]),
        (
            "codes of a scale of zero not kept",
            Q4_K,
            vec![in_kernel("codes = codes_from(x, found.low, found.inverse);", "codes = vec4<u32>(0u);")],
        ),
        ("infinite scales not left to the CPU", Q4_K, vec![in_kernel("all_exact = 0u; // (6)", "")]),
        (
            "nothing left to the CPU",
            Q4_K,
            vec![
                in_kernel("magnitude < LARGEST_MIN || magnitude > LARGEST_MAX || smallest(nonzeros) < SMALLEST - 1u", "false"),
                in_kernel("found.is_exact = is_exact;", "found.is_exact = true;"),
            ],
        ),
    ]
}

/// Half precision ties do not come about where a scale is a power of two's part of an element; the scales of a search are arbitrary.
const DIVIDED_TO_TIES: &[&str] = &["Q8_0", "Q4_1", "Q5_1"];

pub fn trials() -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    for (name, kernels, edits) in controls() {
        for kernel in kernels.iter().map(|name| kernel_named(name)) {
            let replace = edited(kernel, &edits);
            tests.push((format!("controls::{}, {name}", kernel.name()), Box::new(move || must_fail(kernel, replace))));
        }
    }
    // One fill alone could hide a missing word: it may be the right one.
    for fill in [0xffff_ffff, 0x5a5a_a5a5] {
        tests.push((format!("controls::every kernel passes, filled with {fill:08x}"), Box::new(move || must_pass(fill))));
    }
    tests
}

/// The files as they are after the edits.
fn edited(kernel: &Kernel, edits: &[Edit]) -> Vec<(&'static str, String)> {
    let file_name = format!("{}.wgsl", kernel.name().to_lowercase());
    let shader = shaders::KERNELS.iter().find(|k| k.file == file_name).unwrap();
    let mut texts: Vec<(&'static str, String)> = vec![];
    for edit in edits {
        let file = match edit {
            Replace(file, ..) | Append(file, _) | Whole(file, _) => *file,
            ReplaceInKernel(..) => shader.file,
        };
        let known = texts.iter().position(|(f, _)| *f == file).unwrap_or_else(|| {
            let parts = shaders::parts(shader, shaders::Words::F32);
            texts.push((file, parts.iter().find(|part| part.file == file).unwrap().text.to_owned()));
            texts.len() - 1
        });
        let text = &mut texts[known].1;
        match edit {
            Replace(_, from, to) => exchange(text, from, to, file),
            ReplaceInKernel(from, to) => exchange(text, from, to, file),
            Append(_, more) => text.push_str(more),
            Whole(_, whole) => *text = (*whole).to_owned(),
        }
    }
    texts
}

fn exchange(text: &mut String, from: &str, to: &str, file: &str) {
    assert!(text.contains(from), "{file} has no {from:?}");
    *text = text.replace(from, to);
}

fn open(testing: Testing) -> Gpu {
    Gpu::open(Selection::Any, Options { testing, ..Options::default() }).unwrap()
}

fn must_fail(kernel: &'static Kernel, replace: Vec<(&'static str, String)>) {
    let gpu = open(Testing { replace, poison: Some(0xffff_ffff), ..Testing::default() });
    let result = gpu.self_test(kernel, Words::F32).unwrap();
    assert!(matches!(result, SelfTest::Failed { wrong: 1.., .. }), "{result:?}");
    assert!(!result.passed());
}

fn must_pass(fill: u32) {
    let gpu = open(Testing { poison: Some(fill), ..Testing::default() });
    for kernel in KERNELS {
        for words in WORDS {
            let result = gpu.self_test(kernel, words).unwrap();
            // Some blocks are of the kind that a kernel leaves to the CPU, most are not.
            let SelfTest::Passed { blocks, left_to_cpu } = result else { panic!("{} {words:?}: {result:?}", kernel.name()) };
            assert!((1..blocks as u64 / 2).contains(&left_to_cpu), "{} {words:?}: {left_to_cpu} of {blocks}", kernel.name());
        }
    }
}
