//! The exact functions of shaders/common, run on the adapter over all their mantissas, against Rust's arithmetic.
use crate::Test;
use crate::common::{kernel_named, on_gpu};
use ggufsmith_core::{Words, float};
use ggufsmith_gpu::testing::Testing;
use ggufsmith_gpu::{Gpu, Options, Selection};
use ggufsmith_shaders::{ARITHMETIC, Words as ShaderWords, parts};

/// In the place of a kernel: `value(index)` for the next 15 indices in the 15 words of its two blocks in which there is no scale, so
/// that the host takes none of them for a block left to it.
const HARNESS: &str = "
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let unit = id.x;
    if (unit >= params.units) {
        return;
    }
    dst[unit * 17u] = 0u;
    dst[unit * 17u + 8u] = 0u;
    for (var i = 0u; i < 7u; i++) {
        dst[unit * 17u + 1u + i] = value(unit * 15u + i);
    }
    for (var i = 7u; i < 15u; i++) {
        dst[unit * 17u + 2u + i] = value(unit * 15u + i);
    }
}
";

/// All mantissas.
const MANTISSAS: u32 = 1 << 23;
/// 2^-90, just above 1 and 2^90, the ends and the middle of the safe range.
const EXPONENTS: [u32; 3] = [37, 127, 217];
/// How far off the guess of a reciprocal may be.
const REACH: i32 = 5;

pub fn trials() -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    let mut add = |name: String, test: Box<dyn FnOnce() + Send>| tests.push((format!("functions::{name}"), test));
    for exponent in EXPONENTS {
        for divisor in [127u8, 63, 31, 15] {
            add(format!("divide by {divisor}, exponent {exponent}"), Box::new(move || divide(exponent, divisor)));
        }
        add(format!("reciprocal, exponent {exponent}"), Box::new(move || assert_eq!(wrong_reciprocals(exponent, 0), 0)));
    }
    for error in (-REACH..=REACH).filter(|error| *error != 0) {
        add(format!("reciprocal, guess {error:+}"), Box::new(move || assert_eq!(wrong_reciprocals(127, error), 0)));
    }
    for error in [-REACH - 1, REACH + 1] {
        add(format!("reciprocal, guess {error:+} is too far"), Box::new(move || assert_ne!(wrong_reciprocals(127, error), 0)));
    }
    for (function, guess, reach) in
        [(QUOTIENT, ["vec4<u32>(", "8388608.0 * (a / b)", "vec4<i32>("], 5), (ROOT, ["u32(", "8388608.0 * sqrt(x)", "i32("], 8)]
    {
        for error in [0, -1, 1, -reach, reach] {
            add(format!("{}, guess {error:+}", function.0), Box::new(move || assert_eq!(wrong(function, guess, error), 0)));
        }
        for error in [-reach - 1, reach + 1] {
            add(
                format!("{}, guess {error:+} is too far", function.0),
                Box::new(move || assert_ne!(wrong(function, guess, error), 0)),
            );
        }
    }
    add("from_f16".to_owned(), Box::new(from_f16));
    add("to_f16".to_owned(), Box::new(to_f16));
    add("round_away".to_owned(), Box::new(round_away));
    for words in [Words::F16, Words::BF16] {
        add(format!("quad {words:?}"), Box::new(move || quad(words)));
    }
    tests
}

/// `value(index)` of the first `count` indices, as the adapter computes them.
fn values(body: &str, arithmetic: Option<String>, words: Words, source: Option<Vec<u8>>, count: u32) -> Vec<u32> {
    let kernel = kernel_named("Q8_0");
    let mut replace = vec![("q8_0.wgsl", format!("fn value(index: u32) -> u32 {{ {body} }}\n{HARNESS}"))];
    replace.extend(arithmetic.map(|text| (ARITHMETIC, text)));
    let units = count.div_ceil(15) as usize;
    let source = source.unwrap_or_else(|| vec![0; units * 64 * words.bytes()]);
    // One dispatch, since each of them counts its units from 0.
    let options = Options {
        slot_bytes: source.len().next_multiple_of(1 << 20),
        slots: 1,
        check_every: 0,
        testing: Testing { replace, skip_self_test: true, ..Testing::default() },
        ..Options::default()
    };
    let gpu = Gpu::open(Selection::Any, options).unwrap();
    let mut worker = gpu.worker().unwrap();
    let out = on_gpu(&mut worker, kernel, words, &source);
    assert_eq!((gpu.summary().gpu_chunks, gpu.summary().redone_blocks), (1, 0));
    let unit = |bytes: &[u8]| -> Vec<u32> {
        let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        [&words[1..8], &words[9..]].concat()
    };
    let mut values: Vec<u32> = out.chunks(68).flat_map(unit).collect();
    values.truncate(count as usize);
    assert_eq!(values.len(), count as usize);
    values
}

fn divide(exponent: u32, divisor: u8) {
    let found = values(&format!("return divide(({exponent}u << 23u) | index, {divisor}u);"), None, Words::BF16, None, MANTISSAS);
    for (index, found) in (0..).zip(found) {
        let value = f32::from_bits((exponent << 23) | index);
        assert_eq!(found, (value / f32::from(divisor)).to_bits(), "{value:e} / {divisor}");
    }
}

fn wrong_reciprocals(exponent: u32, guess_error: i32) -> usize {
    let kernel_parts = parts(&ggufsmith_shaders::Q8_0, ShaderWords::Bf16);
    let arithmetic = kernel_parts.iter().find(|part| part.file == ARITHMETIC).unwrap().text;
    let off = arithmetic.replace("u32(16777216.0 / x)", &format!("u32(i32(16777216.0 / x) + ({guess_error}))"));
    assert_ne!(arithmetic, off);
    let found = values(&format!("return reciprocal(({exponent}u << 23u) | index);"), Some(off), Words::BF16, None, MANTISSAS);
    let wrong = |(index, found): &(u32, u32)| *found != (1.0 / f32::from_bits((exponent << 23) | index)).to_bits();
    (0..).zip(found).filter(wrong).count()
}

/// Name, what the shader returns for an index, and what it should.
type Function = (&'static str, &'static str, fn(u32) -> f32);

/// Every mantissa over another one, both signs and exponents that differ.
const QUOTIENT: Function = (
    "quotient",
    "let b = 0x3f800000u | ((index * 2654435761u) >> 9u);
    return quotient(vec4<u32>(index, (index << 31u) | ((100u + index % 50u) << 23u) | index, b, 0u), b).y;",
    |index| {
        let b = f32::from_bits(0x3f80_0000 | (index.wrapping_mul(2_654_435_761) >> 9));
        f32::from_bits((index << 31) | ((100 + index % 50) << 23) | index) / b
    },
);

/// Every mantissa, exponents even and odd.
const ROOT: Function = ("root", "return root(((100u + index % 57u) << 23u) | index);", |index| {
    f32::from_bits(((100 + index % 57) << 23) | index).sqrt()
});

/// How many of all mantissas' results are wrong where guesses are off by so much.
fn wrong((_, body, expected): Function, [unsigned, guess, signed]: [&str; 3], error: i32) -> usize {
    let kernel_parts = parts(&ggufsmith_shaders::Q8_0, ShaderWords::Bf16);
    let arithmetic = kernel_parts.iter().find(|part| part.file == ARITHMETIC).unwrap().text;
    // The guess of lavapipe is exact.
    let exact = format!("{unsigned}{guess})");
    assert!(arithmetic.contains(&exact));
    let off = arithmetic.replace(&exact, &format!("{unsigned}{signed}{guess}) + {signed}{error}))"));
    let found = values(body, Some(off), Words::BF16, None, MANTISSAS);
    (0..).zip(found).filter(|(index, found)| *found != expected(*index).to_bits()).count()
}

fn from_f16() {
    let found = values("return from_f16((index & 0x7bffu) | ((index & 0x10000u) >> 1u));", None, Words::BF16, None, 1 << 17);
    for (index, found) in (0..).zip(found) {
        assert_eq!(found, float::f16_to_f32((index & 0x7bff | (index & 0x1_0000) >> 1) as u16).to_bits(), "{index:04x}");
    }
}

/// Every F16 value's upper and lower end, and a stride through everything and through the subnormal range.
fn to_f16() {
    let strides = [
        ("((index / 3u) << 13u) | (0xfffu + index % 3u)", 3 << 19),
        ("index * 511u", 1 << 23),
        ("0x32800000u + index * 13u", 0x610_0000 / 13),
    ];
    for (bits, count) in strides {
        let found = values(&format!("return to_f16({bits});"), None, Words::BF16, None, count);
        let mut looked_at = 0;
        for (index, found) in (0..).zip(found) {
            let bits = match bits.as_bytes()[0] {
                b'(' => ((index / 3) << 13) | (0xfff + index % 3),
                b'i' => index * 511,
                _ => 0x3280_0000 + index * 13,
            };
            let value = f32::from_bits(bits);
            if !value.is_nan() {
                assert_eq!(found, u32::from(float::f32_to_f16(value)), "{bits:08x}");
                looked_at += 1;
            }
        }
        assert!(looked_at > count / 100 * 99);
    }
}

/// Every half between -128 and 128 and its neighbours, and a stride through smaller values.
fn round_away() {
    let halves =
        "let value = (f32(index / 33u) - 256.0) * 0.5; let bits = u32(i32(bitcast<u32>(value)) + i32(index % 33u) - 16);";
    let strides = [(halves, 33 * 513), ("let bits = (index & 1u) << 31u | (index / 2u) * 260u;", 1 << 23)];
    for (bits, count) in strides {
        let body = format!("{bits} return u32(round_away(vec4<f32>(bitcast<f32>(bits))).y);");
        let found = values(&body, None, Words::BF16, None, count);
        for (index, found) in (0..).zip(found) {
            let value = if bits == halves {
                let half = (index / 33) as f32 - 256.0;
                f32::from_bits(((half * 0.5).to_bits() as i32).wrapping_add((index % 33) as i32 - 16) as u32)
            } else {
                f32::from_bits(((index & 1) << 31) | (index / 2 * 260))
            };
            // A half of 0 less some units is NaN, which does not come here.
            if value.abs() < 4_194_304.0 {
                assert_eq!(found as i32, value.round() as i32, "{value:e}");
            }
        }
    }
}

/// Every word of 16 bits, in each of the four places.
fn quad(words: Words) {
    let count = 4 << 16;
    let word = |index: u32| (index.wrapping_mul(0x4001) >> 2) as u16;
    let source: Vec<u8> = (0..count * 64 / 15 / 64 * 64 + 64).flat_map(|index| word(index).to_le_bytes()).collect();
    let found = values("return quad(index / 4u)[index % 4u];", None, words, Some(source), count);
    for (index, found) in (0..).zip(found) {
        let value = match words {
            Words::F16 => float::f16_to_f32(word(index)),
            _ => float::bf16_to_f32(word(index)),
        };
        // A NaN stays one; which one does not matter.
        assert!(found == value.to_bits() || value.is_nan() && f32::from_bits(found).is_nan(), "{:04x}", word(index));
    }
}
