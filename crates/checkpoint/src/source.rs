//! A model's weights as a [`TensorSource`]: one safetensors file or many.

use crate::bitsandbytes::{self, Bitsandbytes};
use crate::error::IndexDefect;
use crate::index::Index;
use crate::int8::{self, Int8, Int8Config};
use crate::shard::{RemoteShard, RemoteShards, Shard, name_of};
use crate::{CheckpointError, ModelDir};
use ggufsmith_core::{SourceError, TensorInfo, TensorSource};
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

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
    /// Where the shards are read from, if not from files.
    remote: Option<Arc<dyn RemoteShards>>,
    finished: OnceLock<Vec<RemoteShard>>,
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
        self.stored.shards.iter().map(|shard| (shard.path.as_path(), shard.len()))
    }

    /// Tell what reads the shards over a network that their weights are about to be asked for.
    pub fn begin(&self) {
        if let Some(remote) = &self.stored.remote {
            remote.begin();
        }
    }

    /// The shards that were read over a network, with the hashes that they were found to have: known once
    /// [`TensorSource::check_unchanged`] has passed. `None` where shards are files.
    pub fn remote(&self) -> Option<&[RemoteShard]> {
        self.stored.remote.as_ref().map(|_| self.stored.finished.get().map_or(&[][..], Vec::as_slice))
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
        let mut stored = Stored {
            shards: Vec::new(),
            tensors: Vec::new(),
            by_name: HashMap::new(),
            remote: dir.options().remote.clone(),
            finished: OnceLock::new(),
        };
        for name in &names {
            let Some(shard) = Shard::open(dir, name)? else {
                return Err(missing_shard(dir, index.as_ref(), name));
            };
            let tensors = shard.tensors(limits)?;
            if stored.tensors.len() + tensors.len() > limits.tensors {
                return Err(too_many("tensors", limits.tensors));
            }
            stored.add(shard, tensors)?;
        }
        if let Some(index) = &index {
            index.check(stored.tensors.iter().map(|info| (info.name.as_str(), name_of(&info.file))))?;
        }
        Ok(stored)
    }

    fn add(&mut self, shard: Shard, tensors: Vec<TensorInfo>) -> Result<(), CheckpointError> {
        let at = self.shards.len();
        for info in tensors {
            let earlier = self.by_name.insert(info.name.clone(), (self.tensors.len(), at));
            if let Some((_, other)) = earlier {
                let first = self.shards[other].name().to_owned();
                let second = shard.name().to_owned();
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
        offset.checked_add(out.len() as u64).filter(|&end| end <= bytes).ok_or_else(|| SourceError::Range {
            tensor: name.to_owned(),
            start: offset,
            end: offset.saturating_add(out.len() as u64),
            bytes,
        })?;
        shard.read(name, out, info.offset + offset)
    }

    fn check_unchanged(&self) -> Result<(), SourceError> {
        self.shards.iter().try_for_each(Shard::check_unchanged)?;
        if let Some(remote) = &self.remote {
            let names: Vec<&str> = self.shards.iter().map(Shard::name).collect();
            let finished = remote.finish(&names).map_err(|source| SourceError::Remote { source })?;
            // Asked once more they are still the same.
            let _ = self.finished.set(finished);
        }
        Ok(())
    }
}

/// The `model*.safetensors` of a directory, sorted; without any (and without an index that names some) says what is there.
fn weight_files(dir: &ModelDir, has_index: bool) -> Result<Vec<String>, CheckpointError> {
    let mut names = match &dir.options().remote {
        Some(remote) => remote.names(),
        None => dir.list("")?,
    };
    names.sort();
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
