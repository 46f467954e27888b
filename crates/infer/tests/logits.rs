//! Logits of small models on both sides against those of transformers (float32, eager attention).
#![allow(missing_docs, reason = "tests")]

use ggufsmith_arch::Decoder;
use ggufsmith_arch::decoder::Rope;
use ggufsmith_checkpoint::{Checkpoint, ModelDir};
use ggufsmith_core::TensorSource;
use ggufsmith_gguf::{Limits, Shards};
use ggufsmith_infer::{Batch, Buffers, Gemm, GgufTensors, Model, Session, SourceTensors, Weights};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Every tiny model.
fn cases() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny");
    let mut cases: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("hf").is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    cases.sort();
    assert!(cases.len() >= 37);
    cases
}

/// Without a file: the converter would make a wrong one.
const SOURCE_ONLY: [&str; 1] = ["falcon-11b"];

/// What the two may differ by.
const TOLERANCE: f32 = 2e-3;

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny").join(case)
}

struct Golden {
    ids: Vec<u32>,
    logits: Vec<f32>,
}

fn golden(case: &str) -> Golden {
    let bytes = std::fs::read(folder(case).join("logits.safetensors")).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let part = |name: &str| {
        let at = |i: usize| header[name]["data_offsets"][i].as_u64().unwrap() as usize + 8 + len;
        &bytes[at(0)..at(1)]
    };
    let ids = part("ids").as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word) as u32).collect();
    let logits = part("logits").as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    Golden { ids, logits }
}

fn source(case: &str) -> (Decoder, Weights) {
    let dir = ModelDir::open(&folder(case).join("hf")).unwrap();
    let checkpoint: Arc<dyn TensorSource> = Arc::new(Checkpoint::open(&dir).unwrap());
    let decoder = ggufsmith_arch::decoder(dir.config(), &|name| checkpoint.info(name).is_some()).unwrap();
    (decoder, Weights::new(Box::new(SourceTensors(checkpoint))))
}

fn gguf(case: &str) -> (Decoder, Weights) {
    let shards = Arc::new(Shards::open(&folder(case).join("f32.gguf"), &Limits::default()).unwrap());
    let decoder = ggufsmith_arch::decoder_of_gguf(shards.metadata(), &|name| shards.tensor(name).is_some()).unwrap();
    (decoder, Weights::new(Box::new(GgufTensors(shards))))
}

/// Logits of every position.
fn run((decoder, weights): (Decoder, Weights), ids: &[u32]) -> Vec<f32> {
    let model = Model::new(decoder, weights, Box::new(Gemm), ids.len()).unwrap();
    let batch = Batch::of_lengths([ids.len()]);
    let mut buffers = Buffers::default();
    let mut hidden = model.embed(&batch, ids).unwrap();
    for layer in 0..model.decoder().layers.len() {
        model.layer(layer, &batch, &mut hidden, None, &mut buffers).unwrap();
    }
    let rows = model.output_rows(&hidden, &(0..ids.len()).collect::<Vec<_>>()).unwrap();
    let mut logits = Vec::new();
    model.logits(&rows, 0..model.decoder().n_vocab as usize, &mut logits, &mut buffers).unwrap();
    logits
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn both_sides_compute_what_transformers_computes() {
    let mut wrong = Vec::new();
    for case in &cases() {
        let golden = golden(case);
        let file = (!SOURCE_ONLY.contains(&case.as_str())).then(|| ("gguf", gguf(case)));
        for (side, parts) in [("source", source(case))].into_iter().chain(file) {
            let worst = worst(&run(parts, &golden.ids), &golden.logits);
            if worst.is_nan() || worst >= TOLERANCE {
                wrong.push(format!("{case}, {side}: {worst}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

fn ropes(decoder: &mut Decoder) -> impl Iterator<Item = &mut Rope> {
    decoder.layers.iter_mut().filter_map(|layer| layer.attn.rope.as_mut())
}

/// Each field of a description matters: with any of them changed the logits leave the tolerance.
#[test]
fn a_wrong_description_is_seen() {
    type Change = fn(&mut Decoder);
    let changes: [(&str, Change); 5] = [
        ("rope layout", |d| {
            ropes(d).for_each(|rope| rope.layout = ggufsmith_arch::decoder::RopeLayout::Pairs);
        }),
        ("rope base", |d| {
            for rope in ropes(d) {
                let n = rope.inv_freq.len() as f64;
                for (i, freq) in rope.inv_freq.iter_mut().enumerate() {
                    *freq *= 2f64.powf(i as f64 / n);
                }
            }
        }),
        ("magnitude", |d| ropes(d).for_each(|rope| rope.magnitude = 1.2)),
        ("layers exchanged", |d| d.layers.swap(0, 1)),
        ("window", |d| d.layers.iter_mut().for_each(|l| l.attn.window = Some(4))),
    ];
    let golden = golden("llama-256");
    for (what, change) in changes {
        let (mut decoder, weights) = source("llama-256");
        change(&mut decoder);
        let worst = worst(&run((decoder, weights), &golden.ids), &golden.logits);
        assert!(worst > TOLERANCE, "{what}: {worst}");
    }
}

#[test]
fn a_session_gives_the_logits_of_one_pass() {
    let golden = golden("llama-256");
    let (decoder, weights) = source("llama-256");
    let mut model = Model::new(decoder, weights, Box::new(Gemm), 64).unwrap();
    assert!(!model.make_resident(1000).unwrap() && model.make_resident(1 << 30).unwrap());
    let n_vocab = model.decoder().n_vocab as usize;
    let mut session = Session::new(&model, 3);
    let (first, rest) = golden.ids.split_at(7);
    session.feed(&[(1, first)]).unwrap();
    session.fork(1, 2);
    session.feed(&[(2, &[5, 6])]).unwrap();
    session.truncate(2, 7);
    for (i, token) in rest.iter().enumerate() {
        let logits = session.feed(&[(2, &[*token]), (1, &[*token])]).unwrap();
        let expected = &golden.logits[(7 + i) * n_vocab..(8 + i) * n_vocab];
        assert!(worst(&logits[0], expected) < TOLERANCE && worst(&logits[1], expected) < TOLERANCE, "{i}");
    }
    assert_eq!((session.used(0), session.used(1)), (0, golden.ids.len()));
}

#[test]
fn threads_do_not_change_a_bit() {
    let ids = golden("llama-256").ids;
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(gguf("llama-256"), &ids))
    };
    let bits = |logits: Vec<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(with(1)), bits(with(3)));
}
