//! A model's weights as a [`TensorSource`]: one safetensors file or many.

use crate::bitsandbytes::{self, Bitsandbytes};
use crate::error::IndexDefect;
use crate::file::{self, Identity};
use crate::index::Index;
use crate::int8::{self, Int8, Int8Config};
use crate::{CheckpointError, ModelDir, header};
use ggufsmith_core::{SourceError, TensorInfo, TensorSource};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The safetensors files of a model, open; only their headers have been read. What bitsandbytes quantized, or `convert --format
/// safetensors` to plain 8-bit codes, reads as what it decodes to.
#[derive(Debug)]
pub struct Checkpoint {
    stored: Stored,
    adapter: Option<Adapter>,
}

/// How quantized tensors read.
#[derive(Debug)]
enum Adapter {
    Bitsandbytes(Bitsandbytes),
    Int8(Int8),
}

/// The tensors as the files hold them.
#[derive(Debug)]
struct Stored {
    shards: Vec<Shard>,
    tensors: Vec<TensorInfo>,
    /// Name to position in `tensors` and position of its file in `shards`.
    by_name: HashMap<String, (usize, usize)>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    opened: Identity,
}

impl Checkpoint {
    /// Open the weights of a model: the shards that `model.safetensors.index.json` names, else every `model*.safetensors`, as
    /// the reference converter chooses them; every header is read and checked. Tensors are in the converter's order: files by
    /// name, inside a file by tensor name.
    ///
    /// # Errors
    /// [`CheckpointError`]: there are no safetensors, a header or the index does not describe its files, a tensor is missing or
    /// there twice, or the checkpoint is quantized in a way that is not read.
    pub fn open(dir: &ModelDir) -> Result<Self, CheckpointError> {
        let by_config = prequantized(dir)?;
        let stored = Stored::open(dir)?;
        let names = stored.tensors.iter().map(|info| info.name.as_str());
        let adapter = match by_config {
            Some(Method::Int8(config)) => Some(Adapter::Int8(Int8::open(&stored, config)?)),
            None if !bitsandbytes::is_one(names) => None,
            _ => Some(Adapter::Bitsandbytes(Bitsandbytes::open(&stored, dir.options().limits.dims)?)),
        };
        Ok(Checkpoint { stored, adapter })
    }

    /// The files that are read, in order, with their size in bytes.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&Path, u64)> {
        self.stored.shards.iter().map(|shard| (shard.path.as_path(), shard.opened.len))
    }

    /// What a user should know: which precision was lost before.
    pub fn notes(&self) -> Vec<String> {
        match &self.adapter {
            Some(Adapter::Bitsandbytes(adapter)) => adapter.notes(),
            Some(Adapter::Int8(adapter)) => adapter.notes(),
            None => Vec::new(),
        }
    }

    /// The tensors as the files hold them: of quantized ones codes and scales.
    pub fn stored(&self) -> &dyn TensorSource {
        &self.stored
    }
}

impl Stored {
    fn open(dir: &ModelDir) -> Result<Self, CheckpointError> {
        let limits = &dir.options().limits;
        let index = Index::read(dir)?;
        let present = weight_files(dir, index.is_some())?;
        let names: Vec<&str> = match &index {
            Some(index) => named_shards(index, &present)?,
            None => present.iter().map(String::as_str).collect(),
        };
        let too_many = |what, limit| CheckpointError::TooMany { path: dir.path().into(), what, limit };
        if names.len() > limits.shards {
            return Err(too_many("shards", limits.shards));
        }
        let mut stored = Stored { shards: Vec::new(), tensors: Vec::new(), by_name: HashMap::new() };
        for name in &names {
            let Some((path, file, metadata)) = dir.open_file(name)? else {
                return Err(missing_shard(dir, index.as_ref(), name));
            };
            let opened = Identity::of(&metadata);
            let info = header::read(&path, &file, &opened, limits)?;
            if stored.tensors.len() + info.tensors.len() > limits.tensors {
                return Err(too_many("tensors", limits.tensors));
            }
            stored.add(Shard { path, file, opened }, info.tensors)?;
        }
        if let Some(index) = &index {
            index.check(stored.tensors.iter().map(|info| (info.name.as_str(), file_name(&info.file))))?;
        }
        Ok(stored)
    }

    fn add(&mut self, shard: Shard, tensors: Vec<TensorInfo>) -> Result<(), CheckpointError> {
        let at = self.shards.len();
        for info in tensors {
            let earlier = self.by_name.insert(info.name.clone(), (self.tensors.len(), at));
            if let Some((_, other)) = earlier {
                let first = file_name(&self.shards[other].path).to_owned();
                let second = file_name(&shard.path).to_owned();
                return Err(CheckpointError::InTwoFiles { tensor: info.name, first, second });
            }
            self.tensors.push(info);
        }
        self.shards.push(shard);
        Ok(())
    }
}

impl TensorSource for Checkpoint {
    fn tensors(&self) -> &[TensorInfo] {
        match &self.adapter {
            Some(Adapter::Bitsandbytes(adapter)) => &adapter.tensors,
            Some(Adapter::Int8(adapter)) => &adapter.tensors,
            None => &self.stored.tensors,
        }
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        match &self.adapter {
            Some(Adapter::Bitsandbytes(adapter)) => adapter.info(name),
            Some(Adapter::Int8(adapter)) => adapter.info(name),
            None => self.stored.info(name),
        }
    }

    fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        match &self.adapter {
            Some(Adapter::Bitsandbytes(adapter)) => adapter.read(&self.stored, name, offset, out),
            Some(Adapter::Int8(adapter)) => adapter.read(&self.stored, name, offset, out),
            None => self.stored.read(name, offset, out),
        }
    }

    fn check_unchanged(&self) -> Result<(), SourceError> {
        self.stored.check_unchanged()
    }
}

impl TensorSource for Stored {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&(at, _)| &self.tensors[at])
    }

    fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let Some(&(at, shard)) = self.by_name.get(name) else {
            return Err(SourceError::NoTensor { tensor: name.to_owned() });
        };
        let (info, shard) = (&self.tensors[at], &self.shards[shard]);
        let bytes = info.bytes();
        let end = offset.checked_add(out.len() as u64).filter(|&end| end <= bytes).ok_or_else(|| SourceError::Range {
            tensor: name.to_owned(),
            start: offset,
            end: offset.saturating_add(out.len() as u64),
            bytes,
        })?;
        let result = file::read_exact_at(&shard.file, out, info.offset + offset);
        // Looked at after reading: what was read lies inside a file that was still the same.
        shard.check(name, info.offset + end)?;
        result.map_err(|source| SourceError::Io {
            file: shard.path.clone(),
            tensor: name.to_owned(),
            offset: info.offset + offset,
            source,
        })
    }

    fn check_unchanged(&self) -> Result<(), SourceError> {
        for shard in &self.shards {
            let io = |source| SourceError::Io { file: shard.path.clone(), tensor: String::new(), offset: 0, source };
            let now = match std::fs::metadata(&shard.path) {
                Ok(metadata) => Identity::of(&metadata),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(SourceError::Changed { file: shard.path.clone() }),
                Err(e) => return Err(io(e)),
            };
            if now != shard.opened {
                return Err(SourceError::Changed { file: shard.path.clone() });
            }
        }
        Ok(())
    }
}

impl Shard {
    /// Whether the open file is as it was at opening, after `tensor` was read up to byte `expected` of the file.
    fn check(&self, tensor: &str, expected: u64) -> Result<(), SourceError> {
        let now = match self.file.metadata() {
            Ok(metadata) => Identity::of(&metadata),
            Err(source) => {
                return Err(SourceError::Io { file: self.path.clone(), tensor: tensor.to_owned(), offset: expected, source });
            }
        };
        if now.len < expected {
            return Err(SourceError::Shrunk { file: self.path.clone(), tensor: tensor.to_owned(), expected, found: now.len });
        }
        if now != self.opened {
            return Err(SourceError::Changed { file: self.path.clone() });
        }
        Ok(())
    }
}

/// The `model*.safetensors` of a directory, sorted; without any (and without an index that names some) says what is there.
fn weight_files(dir: &ModelDir, has_index: bool) -> Result<Vec<String>, CheckpointError> {
    let mut names = dir.list("")?;
    let pickle = names.iter().find(|n| n.starts_with("pytorch_model") && n.ends_with(".bin")).cloned();
    let consolidated = names.iter().find(|n| n.starts_with("consolidated") && n.ends_with(".safetensors")).cloned();
    names.retain(|name| name.starts_with("model") && name.ends_with(".safetensors"));
    match pickle {
        _ if has_index || !names.is_empty() => Ok(names),
        Some(file) => Err(CheckpointError::Pickle { path: dir.path().into(), file }),
        None => Err(CheckpointError::NoWeights { path: dir.path().into(), consolidated }),
    }
}

/// The shards of an index; what else looks like a shard must not be there.
fn named_shards<'a>(index: &'a Index, present: &[String]) -> Result<Vec<&'a str>, CheckpointError> {
    let named = index.shards();
    match present.iter().find(|name| !named.contains(name.as_str())) {
        Some(shard) => {
            Err(CheckpointError::Index { path: index.path.clone(), defect: IndexDefect::UnnamedShard { shard: shard.clone() } })
        }
        None => Ok(named.into_iter().collect()),
    }
}

fn missing_shard(dir: &ModelDir, index: Option<&Index>, name: &str) -> CheckpointError {
    match index {
        Some(index) => {
            CheckpointError::Index { path: index.path.clone(), defect: IndexDefect::MissingShard { shard: name.to_owned() } }
        }
        // It was listed a moment ago.
        None => CheckpointError::Io { path: dir.path().join(name), source: io::ErrorKind::NotFound.into() },
    }
}

/// What quantized a checkpoint, of what can be read.
enum Method {
    Bitsandbytes,
    Int8(Int8Config),
}

/// Quantized checkpoints say so in config.json, or (ModelOpt) in a file of their own. A method that is not read is an error.
fn prequantized(dir: &ModelDir) -> Result<Option<Method>, CheckpointError> {
    const CONFIG: &str = "config.json";
    const MODELOPT: &str = "hf_quant_config.json";
    let modelopt = dir.json(MODELOPT)?;
    let places = [
        (CONFIG, Some(dir.config()), "quantization_config", "quant_method"),
        (CONFIG, Some(dir.config()), "compression_config", "format"),
        (CONFIG, Some(dir.config()), "quantization", "mode"), // MLX
        (MODELOPT, modelopt.as_ref(), "quantization", "quant_algo"),
    ];
    let mut found = None;
    for (file, config, key, method) in places {
        if let Some(entry) = config.and_then(|config| config.get(key)).filter(|entry| !entry.is_null()) {
            if (file, key) == (CONFIG, "quantization_config") && is_bitsandbytes(entry) {
                found = Some(Method::Bitsandbytes);
                continue;
            }
            if (file, key) == (CONFIG, "quantization_config") && entry.get(method).is_some_and(|m| m == int8::QUANT_METHOD) {
                let config = Int8Config::parse(entry);
                let refuse = |defect| CheckpointError::Int8Config { path: dir.path().into(), defect: Box::new(defect) };
                found = Some(Method::Int8(config.map_err(refuse)?));
                continue;
            }
            let method = entry.get(method).and_then(Value::as_str).unwrap_or("an unnamed method").to_owned();
            return Err(CheckpointError::Prequantized { path: dir.path().into(), file, key, method });
        }
    }
    Ok(found)
}

/// Old versions of transformers wrote no method, only what to load.
fn is_bitsandbytes(entry: &Value) -> bool {
    let flag = |key| entry.get(key).and_then(Value::as_bool) == Some(true);
    match entry.get("quant_method") {
        Some(method) => method == "bitsandbytes",
        None => flag("load_in_4bit") || flag("load_in_8bit"),
    }
}

/// The last part of a path; shard names are UTF-8, having come from JSON or from a listing that leaves out others.
fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
