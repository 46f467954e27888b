//! NF4 and FP4 in GGUF: the file of the type that carries them, made of the model that holds their values.

use ggufsmith_checkpoint::{ModelDir, OpenOptions, Rounding};
use ggufsmith_convert::bitsandbytes::{Method, Quantization, QuantizeOptions, QuantizeRun};
use ggufsmith_convert::plan::Via;
use ggufsmith_convert::{Conversion, ConvertError, Options, Preparation, RunOptions, Target, metadata, recipe};
use ggufsmith_core::schemes::{fp4, nf4};
use ggufsmith_core::worker::CpuWorker;
use ggufsmith_core::{FourBit, Rows, Words, formats};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn options(types: &[&str], out: &Path) -> Options {
    Options {
        types: types.iter().map(|name| recipe::by_name(name).unwrap()).collect(),
        target: Target::Directory(out.to_owned()),
        via: Via::Auto,
        split: Default::default(),
        overrides: metadata::Overrides { directory_name: Some("tiny".into()), ..Default::default() },
        pre: None,
        strict_config: true,
        open: OpenOptions::default(),
        choices: Default::default(),
        imatrix: None,
    }
}

fn run(conversion: &Conversion, workers: usize) -> Result<Vec<String>, Box<ConvertError>> {
    let run = RunOptions {
        workers: (0..workers).map(|_| Box::new(CpuWorker) as _).collect(),
        force: false,
        allow_nonfinite: false,
        manifest: Some(Vec::new()),
        cancel: &AtomicBool::new(false),
        progress: &|_| (),
    };
    Ok(conversion.run(run).map_err(Box::new)?.files.into_iter().map(|file| file.sha256).collect())
}

fn rounding(scheme: &'static FourBit, block_len: u64, double: bool) -> Rounding {
    Rounding { scheme, block_len, double, skip_modules: Vec::new() }
}

fn preparation(rounding: Rounding) -> Preparation {
    Preparation { rounding: Some(rounding), draft: false }
}

/// An F32 model, so that bitsandbytes' decoded values are F32, too: by way of a bitsandbytes checkpoint or not, the file is the same.
#[test]
fn the_files_of_the_bitsandbytes_checkpoint() {
    let source = fixture("dtypes/llama-256-f32/hf");
    assert!(ModelDir::open(&source).unwrap().config()["torch_dtype"] != "bfloat16");
    for (scheme, block_len, double) in [(&nf4::SCHEME, 64, false), (&nf4::SCHEME, 64, true), (&fp4::SCHEME, 256, false)] {
        let folder = tempfile::tempdir().unwrap();
        let (dir, out, other) = (folder.path().join("q"), folder.path().join("a"), folder.path().join("b"));
        std::fs::create_dir_all(&out).unwrap();
        std::fs::create_dir_all(&other).unwrap();
        let method = Method::FourBit { scheme, block_len, double };
        let quantization = Quantization::prepare(&source, QuantizeOptions::new(method, dir.clone())).unwrap();
        let cancel = AtomicBool::new(false);
        let with = QuantizeRun { threads: 2, force: false, manifest: None, cancel: &cancel, progress: &|_| (), begun: &|_| () };
        quantization.run(&with).unwrap();
        let types = ["Q8_0", "F16"];
        let expected = run(&Conversion::prepare(&dir, &options(&types, &other)).unwrap(), 2).unwrap();
        for threads in [1, 2] {
            let conversion =
                Conversion::prepare_with(&source, &options(&types, &out), preparation(rounding(scheme, block_len, double)))
                    .unwrap();
            assert_eq!(run(&conversion, threads).unwrap(), expected, "{}", scheme.name);
            let output = &conversion.plan.outputs[0];
            let path = &output.files[0].path;
            assert!(path.to_str().unwrap().ends_with(&format!("-{}-in-Q8_0.gguf", scheme.name)), "{path:?}");
            let rules = output.places.iter().filter(|place| place.rule.contains(&format!("{} in blocks of", scheme.name)));
            assert_eq!(rules.count(), quantization.tensors().1);
            let manifest = std::fs::read(path.with_extension("gguf.manifest.json")).unwrap();
            let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
            assert_eq!(manifest["values"]["scheme"], scheme.name);
            assert_eq!((&manifest["values"]["block_size"], &manifest["file_type"]), (&block_len.into(), &"Q8_0".into()));
            for file in conversion.plan.files() {
                std::fs::remove_file(&file.path).unwrap();
            }
        }
    }
}

#[test]
fn what_is_refused() {
    let out = tempfile::tempdir().unwrap();
    let refused = |source: &str, rounding| {
        Conversion::prepare_with(&fixture(source), &options(&["Q8_0"], out.path()), preparation(rounding)).unwrap_err()
    };
    assert!(matches!(refused("bard", rounding(&nf4::SCHEME, 96, false)), ConvertError::BlockLength { found: 96 }));
    let skip = Rounding { skip_modules: vec!["model".into()], ..rounding(&nf4::SCHEME, 64, false) };
    assert!(matches!(refused("bard", skip), ConvertError::Nothing { .. }));
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}

/// What the types cost on Gaussian weights, measured against the weights: 0.0919 in NF4, 0.0921 of it in Q8_0, F16 loses next to nothing.
#[test]
fn carriers_cost_little() {
    let weights: Vec<f32> = gaussian(1 << 20);
    let bytes: Vec<u8> = weights.iter().flat_map(|x| x.to_le_bytes()).collect();
    let (mut codes, mut absmax) = (vec![0; weights.len() / 2], vec![0.0; weights.len() / 64]);
    nf4::SCHEME.encode(Words::F32, &bytes, 64, &mut codes, &mut absmax).unwrap();
    let mut values = vec![0.0; weights.len()];
    nf4::SCHEME.decode(&codes, &absmax, 64, &mut values).unwrap();
    let stored: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let carried = |encoder: &ggufsmith_core::Encoder| {
        let rows = Rows { words: Words::F32, cols: 1024, bytes: &stored };
        let mut blocks = vec![0; encoder.format.bytes_for(weights.len() as u64).unwrap() as usize];
        encoder.encode(rows, None, &mut blocks).unwrap();
        let mut out = vec![0.0; weights.len()];
        encoder.format.decode(&blocks, &mut out).unwrap();
        out
    };
    let (q8_0, f16) = (carried(&formats::q8_0::ENCODER), carried(&formats::f16::ENCODER));
    let four = |x: f64| (x * 1e4).round() / 1e4;
    assert_eq!(four(relative(&weights, &values)), 0.0919);
    let q8_0 = relative(&weights, &q8_0);
    assert!((q8_0 - 0.0921).abs() < 1e-4, "{q8_0}");
    let extra = relative(&values, &f16);
    assert!((1e-4..3e-4).contains(&extra), "{extra}");
    // The alternative that the summary names is better at the same size.
    let encoder = &formats::iq4_nl::ENCODER;
    let rows = Rows { words: Words::F32, cols: 1024, bytes: &bytes };
    let mut blocks = vec![0; encoder.format.bytes_for(weights.len() as u64).unwrap() as usize];
    encoder.encode(rows, None, &mut blocks).unwrap();
    let mut iq4_nl = vec![0.0; weights.len()];
    encoder.format.decode(&blocks, &mut iq4_nl).unwrap();
    assert!(relative(&weights, &iq4_nl) < relative(&weights, &values));
}

fn relative(weights: &[f32], values: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let error: f64 = weights.iter().zip(values).map(|(w, v)| square(f64::from(*w) - f64::from(*v))).sum();
    (error / weights.iter().map(|w| square(f64::from(*w))).sum::<f64>()).sqrt()
}

/// Box and Muller, from a counter's hash.
fn gaussian(len: usize) -> Vec<f32> {
    let mut state = 42u64;
    let mut uniform = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..len).map(|_| ((-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32).collect()
}

/// Types without an encoder are decided as others are, and refused when they are to be written.
#[test]
fn drafts_decide_what_cannot_be_written() {
    let out = tempfile::tempdir().unwrap();
    for name in recipe::RECIPES.iter().map(|recipe| recipe.name()) {
        let draft = Preparation { rounding: None, draft: true };
        let conversion = Conversion::prepare_with(&fixture("tiny/llama-256/hf"), &options(&[name], out.path()), draft).unwrap();
        let writable = recipe::writable().iter().any(|file| file.name() == name);
        let strict = Conversion::prepare(&fixture("tiny/llama-256/hf"), &options(&[name], out.path()));
        let refused = conversion.warnings.iter().any(|warning| warning.contains("can be planned, but not written"));
        assert_eq!(refused, strict.is_err(), "{name}");
        if refused {
            assert!(!writable || name == "Q2_K_S", "{name}");
            assert!(run(&conversion, 1).is_err_and(|error| matches!(*error, ConvertError::Draft(_))));
        }
    }
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    let draft = Preparation { rounding: None, draft: true };
    let conversion = Conversion::prepare_with(&fixture("tiny/llama-256/hf"), &options(&["IQ2_XS"], out.path()), draft).unwrap();
    let formats: Vec<_> = conversion.plan.outputs[0].places.iter().map(|place| place.format.name).collect();
    assert!(formats.contains(&"IQ2_XS"), "{formats:?}");
}
