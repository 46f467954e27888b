//! The self-test has power: each of these kernels is wrong in one place, and its self-test says so. On plain weights most of them
//! would pass.
use crate::Test;
use crate::common::kernel_named;
use ggufsmith_core::Words;
use ggufsmith_gpu::testing::Testing;
use ggufsmith_gpu::{Gpu, KERNELS, Kernel, Options, Selection, SelfTest, WORDS};
use ggufsmith_shaders::{self as shaders, ARITHMETIC, EXACT};

enum Edit {
    /// In a file, this text by that one.
    Replace(&'static str, &'static str, &'static str),
    /// In the kernel's own file.
    ReplaceInKernel(&'static str, &'static str),
    Append(&'static str, &'static str),
    Whole(&'static str, &'static str),
}
use Edit::{Append, Replace, ReplaceInKernel, Whole};

const ALL: &[&str] = &["Q8_0", "Q4_0", "Q4_1", "NF4"];
const HALF_SCALES: &[&str] = &["Q8_0", "Q4_0", "Q4_1"];

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

fn controls() -> Vec<(&'static str, &'static [&'static str], Vec<Edit>)> {
    vec![
        ("reciprocal uncorrected, one too large", ALL, vec![UNCORRECTED, Replace(ARITHMETIC, GUESS, "u32(16777216.0 / x) + 1u")]),
        ("reciprocal uncorrected, two too small", ALL, vec![UNCORRECTED, Replace(ARITHMETIC, GUESS, "u32(16777216.0 / x) - 2u")]),
        ("scale cut off", &["Q8_0", "Q4_1"], vec![Replace(EXACT, "let half = divisor << shift;", "let half = 1000000u;")]),
        ("half precision cut off", HALF_SCALES, vec![Replace(EXACT, ROUND_TO_HALF, "rebased >> 13u")]),
        ("half precision ties away", HALF_SCALES, vec![Replace(EXACT, ROUND_TO_HALF, "(rebased + 0x1000u) >> 13u")]),
        ("half precision subnormals cut off", HALF_SCALES, vec![Replace(EXACT, "select(kept, kept + 1u, up)", "kept")]),
        ("ties to even", &["Q8_0"], vec![Replace(EXACT, "vec4<i32>(add(v, half))", "vec4<i32>(round(v))")]),
        ("one half added", &["Q8_0"], vec![Replace(EXACT, "0x3effffffu", "0x3f000000u")]),
        (
            "product fused into the sum",
            &["Q4_0"],
            vec![
                Append(ARITHMETIC, FUSED),
                ReplaceInKernel(
                    "add(scaled, vec4<f32>(8.5))",
                    "fused(bitcast<vec4<f32>>(quad(index)), bitcast<f32>(inverse), 8.5)",
                ),
            ],
        ),
        (
            "product fused into the sum",
            &["Q4_1"],
            vec![
                Append(ARITHMETIC, FUSED),
                ReplaceInKernel("add(scaled, vec4<f32>(0.5))", "fused(above, bitcast<f32>(block.inverse), 0.5)"),
            ],
        ),
        ("last of equal magnitudes", &["Q4_0"], vec![ReplaceInKernel("> (extreme & MAGNITUDE)", ">= (extreme & MAGNITUDE)")]),
        ("minimum zero without its sign", &["Q4_1"], vec![ReplaceInKernel("low = zero;", "low = 0u;")]),
        ("boundary one unit too high", &["NF4"], vec![ReplaceInKernel("0x3d22faffu", "0x3d22fb00u")]),
        ("boundary included", &["NF4"], vec![ReplaceInKernel("v > vec4", "v >= vec4")]),
        ("nothing left to the CPU", ALL, vec![Replace(EXACT, "magnitude >= SAFE_MIN && magnitude <= SAFE_MAX", "true")]),
        (
            "denormals flushed, small blocks not left to the CPU",
            ALL,
            vec![Whole(ARITHMETIC, include_str!("flushing_high.wgsl")), Replace(EXACT, "magnitude >= SAFE_MIN && ", "")],
        ),
        ("one word not written", &["Q8_0", "Q4_0"], vec![ReplaceInKernel("u] = carry | (scale_1.x << 16u)", "u] |= 0u")]),
        ("one word not written", &["Q4_1"], vec![ReplaceInKernel("dst[at] = block.halves;", "")]),
        ("one word not written", &["NF4"], vec![ReplaceInKernel("dst[params.second_plane + unit] = absmax;", "")]),
    ]
}

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
            Replace(_, from, to) | ReplaceInKernel(from, to) => {
                assert!(text.contains(from), "{file} has no {from:?}");
                *text = text.replace(from, to);
            }
            Append(_, more) => text.push_str(more),
            Whole(_, whole) => *text = (*whole).to_owned(),
        }
    }
    texts
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
