//! Plain 8-bit codes: what is written follows the formulas of the documentation, and reads again.

use ggufsmith_checkpoint::int8::{Int8Config, Int8Scheme};
use ggufsmith_checkpoint::{Checkpoint, ModelDir};
use ggufsmith_convert::bitsandbytes::{MANIFEST, Method, Quantization, QuantizeError, QuantizeOptions, QuantizeRun};
use ggufsmith_core::schemes::int8_affine::Codes;
use ggufsmith_core::schemes::nf4;
use ggufsmith_core::{TensorInfo, TensorSource, float};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn plain(scheme: Int8Scheme, per_row: bool) -> Method {
    Method::Plain(Int8Config { scheme, per_row })
}

fn every_method() -> Vec<Method> {
    let schemes = [Int8Scheme::Affine(Codes::Signed), Int8Scheme::Affine(Codes::Unsigned), Int8Scheme::Absmax];
    schemes.into_iter().flat_map(|scheme| [plain(scheme, false), plain(scheme, true)]).collect()
}

fn prepare(options: QuantizeOptions) -> Quantization {
    Quantization::prepare(&fixture("bard"), options).unwrap()
}

/// Run, and how many bytes of the source were told as progress.
fn run(quantization: &Quantization, threads: usize) -> Result<u64, QuantizeError> {
    let (done, begun) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let run = QuantizeRun {
        threads,
        force: false,
        manifest: Some(vec!["convert".into()]),
        cancel: &AtomicBool::new(false),
        progress: &|bytes| {
            done.fetch_add(bytes, Ordering::Relaxed);
        },
        begun: &|files| begun.lock().unwrap().extend_from_slice(files),
    };
    let files = quantization.run(&run)?;
    assert_eq!(begun.into_inner().unwrap().len(), files.len());
    Ok(done.into_inner())
}

fn checked(quantization: &Quantization) -> ggufsmith_convert::bitsandbytes::Checked {
    let (cancel, manifest) = (AtomicBool::new(false), None);
    let run = QuantizeRun { threads: 2, force: false, manifest, cancel: &cancel, progress: &|_| (), begun: &|_| () };
    quantization.check(&run).unwrap()
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(&ModelDir::open(path).unwrap()).unwrap()
}

fn bytes(source: &dyn TensorSource, name: &str) -> Vec<u8> {
    let mut bytes = vec![0; source.info(name).unwrap_or_else(|| panic!("no {name}")).bytes() as usize];
    source.read(name, 0, &mut bytes).unwrap();
    bytes
}

fn original(source: &Checkpoint, info: &TensorInfo) -> Vec<f32> {
    assert_eq!(info.dtype.name(), "BF16");
    let words = bytes(source, &info.name);
    words.as_chunks().0.iter().map(|word| float::bf16_to_f32(u16::from_le_bytes(*word))).collect()
}

/// The documented formulas, on their own: scale, zero point, codes, values.
fn by_hand(values: &[f32], scheme: Int8Scheme) -> (f32, i64, Vec<i64>, Vec<f32>) {
    let min = values.iter().copied().fold(f32::INFINITY, f32::min);
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (lowest, highest) = if scheme == Int8Scheme::Affine(Codes::Unsigned) { (0, 255) } else { (-128, 127) };
    let (scale, zero) = match scheme {
        Int8Scheme::Absmax => (127.0 / max.max(-min), 0),
        Int8Scheme::Affine(_) => {
            let scale = 255.0 / (max - min);
            (scale, lowest - (f64::from(scale) * f64::from(min)).round_ties_even() as i64)
        }
    };
    let code = |x: &f32| ((f64::from(scale) * f64::from(*x) + zero as f64).round_ties_even() as i64).clamp(lowest, highest);
    let codes: Vec<i64> = values.iter().map(code).collect();
    let value = |code: &i64| ((code - zero) as f64 / f64::from(scale)) as f32;
    let values = codes.iter().map(value).collect();
    (scale, zero, codes, values)
}

#[test]
fn codes_scales_and_zero_points_follow_the_formulas() {
    let source = open(&fixture("bard"));
    for method in every_method() {
        let Method::Plain(Int8Config { scheme, per_row }) = method else { unreachable!() };
        let out = tempfile::tempdir().unwrap();
        let dir = out.path().join("m");
        let quantization = prepare(QuantizeOptions::new(method, dir.clone()));
        // Progress comes to what was announced.
        assert_eq!(run(&quantization, 2).unwrap(), quantization.source_bytes());
        let found = open(&dir);
        let mut quantized = 0;
        for info in source.tensors() {
            let name = &info.name;
            let state = found.stored().info(&format!("{name}.scale"));
            let linear = name.ends_with("_proj.weight");
            assert_eq!(state.is_some(), linear, "{name}");
            if !linear {
                assert!(bytes(&found, name) == bytes(&source, name));
                continue;
            }
            quantized += 1;
            let values = original(&source, info);
            let rows = if per_row { values.chunks(info.shape[1] as usize).collect() } else { vec![values.as_slice()] };
            let (mut scales, mut zeros, mut codes, mut decoded) = (vec![], vec![], vec![], vec![]);
            for row in rows {
                let (scale, zero, row_codes, row_values) = by_hand(row, scheme);
                scales.extend(scale.to_le_bytes());
                zeros.extend(zero.to_le_bytes());
                codes.extend(row_codes.iter().map(|code| *code as u8));
                decoded.extend(row_values.iter().flat_map(|value| value.to_le_bytes()));
            }
            assert!(bytes(found.stored(), &format!("{name}.scale")) == scales, "{method:?} {name}");
            match scheme {
                Int8Scheme::Absmax => assert!(found.stored().info(&format!("{name}.zero_point")).is_none()),
                Int8Scheme::Affine(_) => assert!(bytes(found.stored(), &format!("{name}.zero_point")) == zeros),
            }
            assert!(bytes(found.stored(), name) == codes, "{method:?} {name}");
            assert!(bytes(&found, name) == decoded, "{method:?} {name}");
        }
        assert_eq!((source.tensors().len(), quantized), quantization.tensors());
        let found = checked(&quantization);
        assert_eq!((found.equal, found.problems.len()), (found.tensors, 0));
        // A quantized model is not quantized again.
        let again = Quantization::prepare(&dir, QuantizeOptions::new(method, out.path().join("n")));
        assert!(matches!(again, Err(QuantizeError::Quantized { .. })));
    }
}

fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

#[test]
fn threads_and_shards_change_no_tensor() {
    let mut methods = every_method();
    methods.extend([Method::Int8, Method::FourBit { scheme: &nf4::SCHEME, block_len: 64, double: true }]);
    for method in methods {
        let out = tempfile::tempdir().unwrap();
        let (one, four, small) = (out.path().join("1"), out.path().join("4"), out.path().join("small"));
        for (dir, threads) in [(&one, 1), (&four, 4)] {
            run(&prepare(QuantizeOptions::new(method, dir.clone())), threads).unwrap();
        }
        assert!(content(&one) == content(&four), "{method:?}");
        let options = QuantizeOptions { max_shard_bytes: 300_000, ..QuantizeOptions::new(method, small.clone()) };
        run(&prepare(options), 2).unwrap();
        assert!(content(&small).contains_key("model.safetensors.index.json"));
        let (whole, parts) = (open(&one), open(&small));
        assert_eq!(whole.stored().tensors().len(), parts.stored().tensors().len());
        for info in whole.stored().tensors() {
            assert!(bytes(whole.stored(), &info.name) == bytes(parts.stored(), &info.name), "{method:?} {}", info.name);
        }
    }
}

#[test]
fn plans_say_what_is_written() {
    for method in every_method() {
        let out = tempfile::tempdir().unwrap();
        let dir = out.path().join("m");
        let options = QuantizeOptions {
            skip_modules: vec!["down_proj".into()],
            only: "layers=1-2,ffn".parse().unwrap(),
            ..QuantizeOptions::new(method, dir.clone())
        };
        let quantization = prepare(options);
        let plan = quantization.plan().unwrap();
        assert!(plan.exact && !dir.exists());
        run(&quantization, 2).unwrap();
        let sizes: Vec<u64> = plan.files.iter().map(|file| std::fs::metadata(&file.path).unwrap().len()).collect();
        assert_eq!(sizes, plan.files.iter().map(|file| file.bytes).collect::<Vec<_>>());
        assert_eq!(sizes.len() + 1, content(&dir).len(), "all files, and the manifest");
        let found = open(&dir);
        for tensor in &plan.tensors {
            let prefix = format!("{}.", tensor.name);
            let parts = found.stored().tensors().iter().filter(|i| i.name == tensor.name || i.name.starts_with(&prefix));
            assert_eq!(parts.map(TensorInfo::bytes).sum::<u64>(), tensor.bytes, "{}", tensor.name);
            let name = tensor.name.as_str();
            let layer = ["layers.1.", "layers.2."].iter().any(|layer| name.contains(layer));
            let chosen = layer && (name.contains("up_proj") || name.contains("gate_proj"));
            assert_eq!(tensor.stored == method.name(), chosen, "{name}: {}", tensor.rule);
            let rule = match name {
                _ if chosen => "matrix of a linear layer",
                "lm_head.weight" => "kept: head",
                "model.embed_tokens.weight" => "kept: embedding",
                _ if name.contains("norm") => "kept: no matrix of a linear layer",
                _ if name.contains("down_proj") => "kept: --skip-modules down_proj",
                _ => "kept: not selected by --only",
            };
            assert_eq!(tensor.rule, rule, "{name}");
        }
        assert!(quantization.memory_bound(2) > 0);
        // The manifest names every file with its hash, and says what was kept.
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join(MANIFEST)).unwrap()).unwrap();
        assert_eq!(manifest["outputs"].as_array().unwrap().len(), sizes.len());
        assert_eq!((&manifest["type"], &manifest["command"][0]), (&method.name().into(), &"convert".into()));
        assert_eq!(manifest["kept"]["model.embed_tokens.weight"], "embedding");
        let weights =
            manifest["inputs"].as_array().unwrap().iter().filter(|i| i["name"].as_str().unwrap().contains("safetensors"));
        assert!(weights.clone().count() > 0 && weights.into_iter().all(|input| input["sha256"].as_str().unwrap().len() == 64));
        let config: serde_json::Value = serde_json::from_slice(&content(&dir)["config.json"]).unwrap();
        let kept = config["quantization_config"]["modules_to_not_convert"].as_array().unwrap();
        assert!(kept.contains(&"lm_head".into()) && kept.contains(&"model.layers.0.mlp.up_proj".into()));
    }
}

#[test]
fn damage_is_found() {
    let double = Method::FourBit { scheme: &nf4::SCHEME, block_len: 64, double: true };
    for method in [plain(Int8Scheme::Affine(Codes::Signed), true), double, Method::Int8] {
        let out = tempfile::tempdir().unwrap();
        let dir = out.path().join("m");
        let quantization = prepare(QuantizeOptions::new(method, dir.clone()));
        run(&quantization, 2).unwrap();
        let found = checked(&quantization);
        assert_eq!((found.equal, found.problems.len()), (found.tensors, 0), "{:?}", found.problems);
        let file = dir.join("model.safetensors");
        let good = std::fs::read(&file).unwrap();
        let stored = open(&dir);
        for info in
            stored.stored().tensors().iter().filter(|i| i.name.contains("layers.1.mlp.up_proj") || i.name.contains("norm"))
        {
            // The last bit of the last byte: of a scale's mantissa the sign, of a text one character.
            let mut bad = good.clone();
            bad[(info.offset + info.bytes() - 1) as usize] ^= if info.bytes() > 1 { 1 } else { 0 };
            if bad == good {
                continue;
            }
            std::fs::write(&file, &bad).unwrap();
            let cancel = AtomicBool::new(false);
            let again =
                QuantizeRun { threads: 2, force: false, manifest: None, cancel: &cancel, progress: &|_| (), begun: &|_| () };
            match quantization.check(&again) {
                // What cannot be read at all is an error.
                Err(error) => assert!(error.to_string().contains("up_proj"), "{error}"),
                Ok(found) => {
                    assert_eq!(found.problems.len(), 1, "{}", info.name);
                    assert!(found.problems[0].starts_with(&info.name) && found.equal + 1 == found.tensors);
                }
            }
        }
        std::fs::write(&file, &good).unwrap();
        std::fs::write(dir.join("config.json"), std::fs::read_to_string(dir.join("config.json")).unwrap() + " ").unwrap();
        assert_eq!(checked(&quantization).problems, ["config.json is not what the source gives"]);
    }
}

#[test]
fn a_stopped_run_leaves_nothing() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("m");
    let quantization = prepare(QuantizeOptions::new(plain(Int8Scheme::Absmax, false), dir.clone()));
    let cancel = AtomicBool::new(false);
    // In the second reading, when the files are there under their temporary names.
    let begun = |files: &[PathBuf]| {
        assert!(files.iter().all(|file| file.exists()));
        cancel.store(true, Ordering::Relaxed);
    };
    let run = QuantizeRun { threads: 2, force: false, manifest: Some(vec![]), cancel: &cancel, progress: &|_| (), begun: &begun };
    assert!(matches!(quantization.run(&run), Err(QuantizeError::Cancelled)));
    assert!(!dir.exists());
}

#[test]
fn wishes_that_mean_nothing_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let options = |only: &str, skip: &[&str]| QuantizeOptions {
        only: only.parse().unwrap(),
        skip_modules: skip.iter().map(ToString::to_string).collect(),
        ..QuantizeOptions::new(plain(Int8Scheme::Absmax, true), out.path().join("m"))
    };
    let refused =
        |only: &str, skip: &[&str]| Quantization::prepare(&fixture("bard"), options(only, skip)).unwrap_err().to_string();
    assert!(refused("ffm", &[]).contains("no such tensor"));
    assert!(refused("layers=99", &[]).contains("layers=0-"));
    assert!(refused("token_embd", &[]).contains("all are skipped"));
    assert!(refused("ffn", &["mlp"]).contains("all are skipped"));
    assert!(!out.path().join("m").exists());
}
