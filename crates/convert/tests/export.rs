//! A model to GGUF and back: the same tensors, the same config, and the same GGUF from it again.

use ggufsmith_checkpoint::{Checkpoint, ModelDir, OpenOptions};
use ggufsmith_convert::export::{DEFAULT_SHARD_BYTES, DTypeChoice, Export, ExportError, ExportOptions, ExportRun};
use ggufsmith_convert::plan::Via;
use ggufsmith_convert::{Conversion, Options, RunOptions, Target, metadata, recipe};
use ggufsmith_core::worker::CpuWorker;
use ggufsmith_core::{DType, TensorSource, Words, float};
use ggufsmith_gguf::{Limits, Shards};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

const TINY: [&str; 5] = ["llama", "llama-256", "llama-spm", "llama3-rope", "mistral"];

/// The model directories of the repository.
fn models() -> Vec<PathBuf> {
    let tiny = TINY.iter().map(|name| fixtures().join("tiny").join(name).join("hf"));
    tiny.chain([fixtures().join("bard")]).collect()
}

fn convert(source: &Path, file_type: &str, out: &Path) {
    let options = Options {
        types: vec![recipe::by_name(file_type).unwrap()],
        target: Target::File(out.to_owned()),
        via: Via::Auto,
        split: Default::default(),
        choices: Default::default(),
        imatrix: None,
        overrides: metadata::Overrides::default(),
        pre: None,
        strict_config: true,
        open: OpenOptions::default(),
    };
    let conversion = Conversion::prepare(source, &options).unwrap();
    let run = RunOptions {
        workers: vec![Box::new(CpuWorker)],
        force: false,
        allow_nonfinite: false,
        manifest: None,
        cancel: &AtomicBool::new(false),
        progress: &|_| (),
    };
    conversion.run(run).unwrap();
}

fn options(out: &Path) -> ExportOptions {
    ExportOptions {
        out: out.to_owned(),
        dtype: DTypeChoice::Auto,
        class: None,
        max_shard_bytes: DEFAULT_SHARD_BYTES,
        tokenizer: true,
    }
}

fn run(export: &Export, threads: usize, force: bool) -> Result<Vec<PathBuf>, ExportError> {
    let run = ExportRun { threads, force, cancel: &AtomicBool::new(false), progress: &|_| () };
    Ok(export.run(&run)?.into_iter().map(|file| file.path).collect())
}

fn export(file: &Path, out: &Path, change: impl FnOnce(&mut ExportOptions)) -> Result<Export, ExportError> {
    let mut options = options(out);
    change(&mut options);
    let export = Export::prepare(file, &options)?;
    run(&export, 2, false)?;
    Ok(export)
}

/// Every tensor of a model directory: type, shape, bytes.
type Tensors = BTreeMap<String, (DType, Vec<u64>, Vec<u8>)>;

fn tensors(dir: &Path) -> Tensors {
    let checkpoint = Checkpoint::open(&ModelDir::open(dir).unwrap()).unwrap();
    let read = |info: &ggufsmith_core::TensorInfo| {
        let mut bytes = vec![0; info.bytes() as usize];
        checkpoint.read(&info.name, 0, &mut bytes).unwrap();
        (info.name.clone(), (info.dtype, info.shape.clone(), bytes))
    };
    checkpoint.tensors().iter().map(read).collect()
}

/// The first tensor that differs.
fn difference(found: &Tensors, expected: &Tensors) -> Option<String> {
    let names = found.keys().chain(expected.keys());
    names.clone().find(|name| found.get(*name) != expected.get(*name)).cloned()
}

/// The same tensors with their values as F32.
fn widened(tensors: &Tensors) -> Tensors {
    let wide = |(name, (dtype, shape, bytes)): (&String, &(DType, Vec<u64>, Vec<u8>))| {
        let mut words = Vec::new();
        match dtype.words() {
            Words::F32 => words.clone_from(bytes),
            words_of => {
                let widen = if words_of == Words::F16 { float::f16_to_f32 } else { float::bf16_to_f32 };
                let values = bytes.as_chunks::<2>().0.iter().map(|word| widen(u16::from_le_bytes(*word)));
                words.extend(values.flat_map(f32::to_le_bytes));
            }
        }
        (name.clone(), (DType::F32, shape.clone(), words))
    };
    tensors.iter().map(wide).collect()
}

/// What the config and the tensors of a directory come to in a GGUF file.
fn hparams(dir: &Path) -> String {
    let dir = ModelDir::open(dir).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let strict = ggufsmith_arch::Options { strict_config: true };
    format!("{:?}", ggufsmith_arch::describe(dir.config(), checkpoint.tensors(), &strict).unwrap().hparams)
}

/// BF16 checkpoints through every unquantized type: values, and from BF16 and to `--dtype bf16` the very bytes.
#[test]
fn every_model_comes_back_bit_for_bit() {
    for model in models() {
        let scratch = tempfile::tempdir().unwrap();
        let original = tensors(&model);
        assert!(original.values().all(|(dtype, ..)| *dtype == DType::BF16), "{}", model.display());
        for file_type in ["BF16", "F32", "F16"] {
            let (file, out) = (scratch.path().join(format!("{file_type}.gguf")), scratch.path().join(file_type));
            convert(&model, file_type, &file);
            let exported = export(&file, &out, |_| ()).unwrap();
            let found = tensors(&out);
            assert_eq!(hparams(&out), hparams(&model), "{}", model.display());
            match file_type {
                "BF16" => {
                    assert_eq!(difference(&found, &original), None, "{}", model.display());
                    assert_eq!(exported.dtype, DType::BF16);
                }
                "F32" => {
                    assert_eq!(difference(&found, &widened(&original)), None, "{}", model.display());
                    let narrow = scratch.path().join("narrow");
                    export(&file, &narrow, |options| options.dtype = DTypeChoice::Words(Words::BF16)).unwrap();
                    assert_eq!(difference(&tensors(&narrow), &original), None, "{}", model.display());
                }
                _ => {
                    // What BF16 loses in F16 is lost in the file; norms stay F32 there and keep every bit.
                    let wide = widened(&found);
                    for (name, (_, _, bytes)) in widened(&original) {
                        if found[&name].1.len() == 1 {
                            assert_eq!(wide[&name].2, bytes, "{name}");
                        }
                    }
                }
            }
            // The way there again.
            let again = scratch.path().join(format!("{file_type}-again.gguf"));
            convert(&out, file_type, &again);
            assert!(std::fs::read(&again).unwrap() == std::fs::read(&file).unwrap(), "{} {file_type}", model.display());
        }
    }
}

/// Checkpoints of other types, through files of their own type.
#[test]
fn f16_and_f32_checkpoints_come_back_bit_for_bit() {
    for (name, file_type, dtype) in [("llama-256-f16", "F16", DType::F16), ("llama-256-f32", "F32", DType::F32)] {
        let model = fixtures().join("dtypes").join(name).join("hf");
        let scratch = tempfile::tempdir().unwrap();
        let (file, out) = (scratch.path().join("a.gguf"), scratch.path().join("out"));
        convert(&model, file_type, &file);
        let exported = export(&file, &out, |_| ()).unwrap();
        assert_eq!(exported.dtype, dtype);
        assert_eq!(difference(&tensors(&out), &tensors(&model)), None, "{name}");
    }
}

/// Files that llama.cpp's own converter wrote.
#[test]
fn the_reference_converters_files_come_back() {
    for name in TINY {
        let scratch = tempfile::tempdir().unwrap();
        let model = fixtures().join("tiny").join(name);
        let original = tensors(&model.join("hf"));
        let (wide, narrow) = (scratch.path().join("wide"), scratch.path().join("narrow"));
        let exported = export(&model.join("f32.gguf"), &wide, |_| ()).unwrap();
        assert_eq!(difference(&tensors(&wide), &widened(&original)), None, "{name}");
        assert_eq!(exported.class, if name == "mistral" { "MistralForCausalLM" } else { "LlamaForCausalLM" });
        export(&model.join("f32.gguf"), &narrow, |options| options.dtype = DTypeChoice::Words(Words::BF16)).unwrap();
        assert_eq!(difference(&tensors(&narrow), &original), None, "{name}");
        // The comparison itself.
        let mut damaged = original.clone();
        damaged.values_mut().nth(3).unwrap().2[17] ^= 1;
        assert!(difference(&tensors(&narrow), &damaged).is_some());
    }
}

/// Quantized weights are decoded as the format says, and the user is told.
#[test]
fn quantized_files_are_dequantized() {
    let scratch = tempfile::tempdir().unwrap();
    for file_type in ["Q8_0", "Q4_0", "Q6_K"] {
        let (file, out) = (scratch.path().join(format!("{file_type}.gguf")), scratch.path().join(file_type));
        convert(&fixtures().join("bard"), file_type, &file);
        let exported = export(&file, &out, |options| options.dtype = DTypeChoice::Words(Words::F32)).unwrap();
        assert!(exported.warnings.iter().any(|w| w.contains("dequantized from")), "{:?}", exported.warnings);
        let found = tensors(&out);
        let shards = Shards::open(&file, &Limits::default()).unwrap();
        let tensor = shards.tensor("blk.1.ffn_up.weight").unwrap();
        assert!(tensor.format.is_quantized());
        let mut blocks = vec![0; tensor.bytes as usize];
        shards.read_at(&tensor.name, 0, &mut blocks).unwrap();
        let mut values = vec![0.0; tensor.elems() as usize];
        tensor.format.decode(&blocks, &mut values).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(found["model.layers.1.mlp.up_proj.weight"].2, bytes);
        // Rows that were reordered, decoded from blocks: those of the original, up to the format's precision.
        let original = widened(&tensors(&fixtures().join("bard")));
        for (name, (_, _, bytes)) in &found {
            let floats = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|w| f32::from_le_bytes(*w)).collect::<Vec<_>>();
            let (a, b) = (floats(bytes), floats(&original[name].2));
            let error: f32 = a.iter().zip(&b).map(|(x, y)| (x - y).powi(2)).sum();
            let power: f32 = b.iter().map(|x| x * x).sum();
            assert!(error <= 0.02 * power, "{name}: {error} of {power}");
        }
        // By default 16 bits, and F32 for norms that would lose some.
        let half = scratch.path().join(format!("{file_type}-auto"));
        let exported = export(&file, &half, |_| ()).unwrap();
        assert_eq!(exported.dtype, DType::F16);
        let narrow = tensors(&half);
        let (dtype, _, bytes) = &narrow["model.layers.1.mlp.up_proj.weight"];
        let expected: Vec<u8> = values.iter().flat_map(|v| float::f32_to_f16(*v).to_le_bytes()).collect();
        assert_eq!((*dtype, bytes), (DType::F16, &expected));
        assert_eq!(widened(&narrow)["model.norm.weight"], original["model.norm.weight"]);
    }
}

#[test]
fn files_do_not_depend_on_threads_and_shards_hold_what_was_asked_for() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("bard.gguf");
    convert(&fixtures().join("bard"), "BF16", &file);
    let mut sets = Vec::new();
    for threads in [1, 3] {
        let out = scratch.path().join(format!("t{threads}"));
        let export = Export::prepare(&file, &ExportOptions { max_shard_bytes: 1_000_000, ..options(&out) }).unwrap();
        let paths = run(&export, threads, false).unwrap();
        assert_eq!(paths, export.paths().collect::<Vec<_>>());
        let bytes = |path: &PathBuf| (path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap());
        sets.push(paths.iter().map(bytes).collect::<Vec<_>>());
        assert_eq!(difference(&tensors(&out), &tensors(&fixtures().join("bard"))), None);
    }
    assert!(sets[0] == sets[1]);
    let names: Vec<_> = sets[0].iter().map(|(name, _)| name.to_string_lossy()).filter(|n| n.ends_with(".safetensors")).collect();
    assert!(names.len() >= 6 && names[0] == format!("model-00001-of-{:05}.safetensors", names.len()), "{names:?}");
    assert!(sets[0].iter().filter(|(n, _)| n.to_string_lossy().ends_with(".safetensors")).all(|(_, b)| b.len() < 1_020_000));
}

#[test]
fn a_run_that_fails_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("a.gguf");
    convert(&fixtures().join("bard"), "F16", &file);
    let out = scratch.path().join("new/deep");
    let export = Export::prepare(&file, &options(&out)).unwrap();
    let cancelled = ExportRun { threads: 2, force: false, cancel: &AtomicBool::new(true), progress: &|_| () };
    assert!(matches!(export.run(&cancelled), Err(ExportError::Cancelled)));
    assert!(!scratch.path().join("new").exists());

    // Once it is there it needs --force, and nothing of it is touched without.
    run(&export, 1, false).unwrap();
    let config = std::fs::read(out.join("config.json")).unwrap();
    assert!(matches!(run(&export, 1, false), Err(ExportError::Sink(_))));
    assert_eq!(std::fs::read(out.join("config.json")).unwrap(), config);
    run(&export, 1, true).unwrap();
    // Parts of another model would be read together with this one: not even with --force.
    std::fs::write(out.join("model-00001-of-00002.safetensors"), b"").unwrap();
    assert!(matches!(run(&export, 1, true), Err(ExportError::InTheWay { .. })));
    std::fs::remove_file(out.join("model-00001-of-00002.safetensors")).unwrap();
    assert!(std::fs::read_dir(&out).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with('.')));
}

/// An F32 file with a weight that F16 has no room for: refused, and named.
#[test]
fn overflow_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("a.gguf");
    std::fs::copy(fixtures().join("tiny/llama/f32.gguf"), &file).unwrap();
    let shards = Shards::open(&file, &Limits::default()).unwrap();
    let at = shards.tensor("blk.0.ffn_up.weight").unwrap().offset as usize + 40;
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[at..at + 4].copy_from_slice(&70000f32.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    let as_type = |words, name: &str| {
        let out = scratch.path().join(name);
        export(&file, &out, |options| options.dtype = DTypeChoice::Words(words)).map(|_| ())
    };
    match as_type(Words::F16, "f16") {
        Err(ExportError::Overflow { tensor, count: 1, largest: 70000.0, .. }) => {
            assert_eq!(tensor, "model.layers.0.mlp.up_proj.weight");
        }
        other => panic!("{other:?}"),
    }
    assert!(!scratch.path().join("f16").exists());
    as_type(Words::BF16, "bf16").unwrap();
}
