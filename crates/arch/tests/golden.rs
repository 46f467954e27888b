//! Descriptions of real checkpoints against the F32 files that the reference converter made of them: keys of the architecture's
//! section, tensor names, shapes and data, all in order.

use ggufsmith_arch::{Hparam, Model, Options, describe};
use ggufsmith_checkpoint::{Checkpoint, ModelDir};
use ggufsmith_core::{TensorExpr, TensorSource, Words, float};
use ggufsmith_gguf::Value;
use std::path::{Path, PathBuf};

const MODELS: [&str; 5] = ["llama", "llama-256", "llama3-rope", "llama-spm", "mistral"];

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

fn open(name: &str) -> (Checkpoint, Model) {
    let dir = ModelDir::open(&fixture(&format!("tiny/{name}/hf"))).unwrap();
    let source = Checkpoint::open(&dir).unwrap();
    let model = describe(dir.config(), source.tensors(), &Options { strict_config: true }).unwrap();
    (source, model)
}

/// All elements of an expression as F32.
fn floats(expr: &TensorExpr, source: &dyn TensorSource) -> Vec<f32> {
    let mut bytes = Vec::new();
    expr.append(source, 0..expr.elems(), &mut bytes).unwrap();
    let half = |to_f32: fn(u16) -> f32| bytes.as_chunks().0.iter().map(|w| to_f32(u16::from_le_bytes(*w))).collect();
    match expr.words() {
        Words::F32 => bytes.as_chunks().0.iter().map(|w| f32::from_le_bytes(*w)).collect(),
        Words::F16 => half(float::f16_to_f32),
        Words::BF16 => half(float::bf16_to_f32),
    }
}

/// What differs between a description and the golden file; empty where nothing does.
fn differences(model: &Model, source: &dyn TensorSource, golden: &Golden) -> Vec<String> {
    let mut found = Vec::new();
    let section = format!("{}.", model.arch);
    let wanted: Vec<Hparam> = golden
        .keys
        .iter()
        .filter_map(|(key, value)| match key.as_str() {
            "general.file_type" => Some(Hparam::FileType),
            key if key.starts_with(&section) => Some(Hparam::Set(key.to_owned(), value.clone())),
            _ => None,
        })
        .collect();
    if model.hparams != wanted {
        found.push(format!("keys: {:?}\nwanted: {wanted:?}", model.hparams));
    }
    if model.tensors.len() != golden.tensors.len() {
        found.push(format!("{} tensors, not {}", model.tensors.len(), golden.tensors.len()));
    }
    for (tensor, (name, shape, data)) in model.tensors.iter().zip(&golden.tensors) {
        if tensor.name != *name || tensor.expr.shape() != *shape {
            found.push(format!("{} {:?}, not {name} {shape:?}", tensor.name, tensor.expr.shape()));
        } else if floats(&tensor.expr, source).iter().map(|x| x.to_bits()).ne(data.iter().map(|x| x.to_bits())) {
            found.push(format!("the data of {name}"));
        }
    }
    found
}

#[test]
fn every_model_is_what_the_converter_makes_of_it() {
    for name in MODELS {
        let (source, model) = open(name);
        let golden = Golden::read(&fixture(&format!("tiny/{name}/f32.gguf")));
        assert_eq!(differences(&model, &source, &golden), [""; 0], "{name}");
        assert!(model.warnings.is_empty() && model.dropped.is_empty(), "{name}: {:?}", model.warnings);
        assert_eq!(model.vocab_size, 512);
    }
}

#[test]
fn the_comparison_sees_a_changed_key_order_name_or_bit() {
    let (source, model) = open("llama3-rope");
    let golden = Golden::read(&fixture("tiny/llama3-rope/f32.gguf"));
    let differs = |change: &dyn Fn(&mut Model, &mut Golden)| {
        let (mut model, mut golden) = (model.clone(), golden.clone());
        change(&mut model, &mut golden);
        assert_eq!(differences(&model, &source, &golden).len(), 1);
    };
    differs(&|model, _| model.hparams.swap(0, 1));
    differs(&|model, _| model.hparams.retain(|h| *h != Hparam::FileType));
    differs(&|_, golden| golden.tensors[0].2[7] = f32::from_bits(golden.tensors[0].2[7].to_bits() ^ 1));
    differs(&|_, golden| golden.tensors.last_mut().unwrap().2[1] += 1.0);
    differs(&|model, _| model.tensors[3].name.push('x'));
    differs(&|_, golden| drop(golden.tensors.pop()));
    differs(&|model, _| {
        let q = model.tensors.iter_mut().find(|t| t.name == "blk.0.attn_q.weight").unwrap();
        let TensorExpr::PermuteRows { axes, .. } = &mut q.expr else { panic!("not permuted") };
        *axes = vec![0, 1, 2];
    });
}

/// Keys, and tensors with their data, of an F32 file.
#[derive(Clone)]
struct Golden {
    keys: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<u64>, Vec<f32>)>,
}

/// Reads little-endian fields one after the other.
struct Fields<'a>(&'a [u8], usize);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let field = self.0[self.1..self.1 + N].try_into().unwrap();
        self.1 += N;
        field
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
    fn text(&mut self) -> String {
        let len = self.u64() as usize;
        self.1 += len;
        String::from_utf8(self.0[self.1 - len..self.1].to_vec()).unwrap()
    }
    /// A value of the types that an architecture's section has; others are passed over.
    fn value(&mut self, kind: u32) -> Option<Value> {
        Some(match kind {
            4 => Value::U32(self.u32()),
            6 => Value::F32(f32::from_le_bytes(self.take())),
            7 => Value::Bool(self.take() != [0]),
            8 => Value::String(self.text()),
            9 => {
                let (kind, len) = (self.u32(), self.u64());
                (0..len).for_each(|_| drop(self.value(kind)));
                return None;
            }
            5 => {
                self.u32();
                return None;
            }
            other => panic!("value type {other}"),
        })
    }
}

impl Golden {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let mut fields = Fields(&bytes, 0);
        assert_eq!((fields.take(), fields.u32()), (*b"GGUF", 3));
        let (n_tensors, n_keys) = (fields.u64(), fields.u64());
        let mut keys = Vec::new();
        for _ in 0..n_keys {
            let (key, kind) = (fields.text(), fields.u32());
            keys.extend(fields.value(kind).map(|value| (key, value)));
        }
        let infos: Vec<(String, Vec<u64>, u64)> = (0..n_tensors)
            .map(|_| {
                let (name, n_dims) = (fields.text(), fields.u32());
                let mut shape: Vec<u64> = (0..n_dims).map(|_| fields.u64()).collect();
                shape.reverse();
                assert_eq!(fields.u32(), 0, "{name} is not F32");
                (name, shape, fields.u64())
            })
            .collect();
        let start = fields.1.next_multiple_of(32);
        let data = |shape: &[u64], offset: u64| {
            let from = start + offset as usize;
            let elems = shape.iter().product::<u64>() as usize;
            bytes[from..from + 4 * elems].as_chunks().0.iter().map(|w| f32::from_le_bytes(*w)).collect()
        };
        let tensors = infos
            .into_iter()
            .map(|(name, shape, offset)| {
                let data = data(&shape, offset);
                (name, shape, data)
            })
            .collect();
        Golden { keys, tensors }
    }
}
