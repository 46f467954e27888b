//! Checkpoints in memory, to be damaged in one way and written out.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// One tensor of a safetensors file.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// E.g. `BF16`.
    pub dtype: String,
    /// Outermost first.
    pub shape: Vec<u64>,
    /// Little-endian elements.
    pub bytes: Vec<u8>,
}

/// The tensors of one safetensors file.
///
/// # Panics
/// Where it is not a sound one: fixtures are.
pub fn load_tensors(path: &Path) -> BTreeMap<String, Tensor> {
    parse(&std::fs::read(path).expect("fixtures are complete"))
}

/// A model directory.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Every file that holds no weights, by name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// config.json.
    pub config: Value,
    /// All tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Load a model directory with one `model.safetensors`.
    ///
    /// # Panics
    /// Where it is not a sound one: fixtures are.
    pub fn load(folder: &Path) -> Self {
        let read = |name: &str| std::fs::read(folder.join(name)).expect("fixtures are complete");
        let mut files: BTreeMap<_, _> =
            crate::outputs::names(folder).into_iter().map(|name| (name.clone(), read(&name))).collect();
        let weights = files.remove("model.safetensors").expect("one weight file");
        let config = serde_json::from_slice(&files.remove("config.json").expect("a config")).expect("JSON");
        Checkpoint { files, config, tensors: parse(&weights) }
    }

    /// Write everything, the tensors into one `model.safetensors`.
    ///
    /// # Panics
    /// Where the folder cannot be written.
    pub fn write(&self, folder: &Path) {
        self.write_small_files(folder);
        let all: Vec<_> = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        std::fs::write(folder.join("model.safetensors"), safetensors(&all)).expect("a writable folder");
    }

    /// Write everything, tensor number `i` into shard `i % shards`, with an index.
    ///
    /// # Panics
    /// As [`Checkpoint::write`].
    pub fn write_shards(&self, folder: &Path, shards: usize) {
        self.write_small_files(folder);
        let mut map = Map::new();
        for shard in 0..shards {
            let file = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
            let part: Vec<_> = self.tensors.iter().skip(shard).step_by(shards).map(|(n, t)| (n.as_str(), t)).collect();
            map.extend(part.iter().map(|(name, _)| ((*name).to_owned(), Value::from(file.clone()))));
            std::fs::write(folder.join(&file), safetensors(&part)).expect("a writable folder");
        }
        let total: usize = self.tensors.values().map(|tensor| tensor.bytes.len()).sum();
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).expect("a writable folder");
    }

    fn write_small_files(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("a writable folder");
        for (name, bytes) in &self.files {
            std::fs::write(folder.join(name), bytes).expect("a writable folder");
        }
        std::fs::write(folder.join("config.json"), self.config.to_string()).expect("a writable folder");
    }

    /// Set one BF16 element.
    ///
    /// # Panics
    /// Where there is no such element.
    pub fn set_bf16(&mut self, tensor: &str, index: usize, word: u16) {
        let tensor = self.tensors.get_mut(tensor).expect("the tensor exists");
        assert_eq!(tensor.dtype, "BF16");
        tensor.bytes[2 * index..2 * index + 2].copy_from_slice(&word.to_le_bytes());
    }
}

/// The bytes of a safetensors file that holds these tensors in this order.
pub fn safetensors(tensors: &[(&str, &Tensor)]) -> Vec<u8> {
    let sizes: Vec<_> =
        tensors.iter().map(|(name, t)| (*name, t.dtype.as_str(), t.shape.as_slice(), t.bytes.len() as u64)).collect();
    let mut file = header(&sizes);
    tensors.iter().for_each(|(_, tensor)| file.extend(&tensor.bytes));
    file
}

/// The header of a safetensors file: name, dtype, shape and bytes of each tensor, in the order of the data.
pub fn header(tensors: &[(&str, &str, &[u64], u64)]) -> Vec<u8> {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut at = 0;
    for (name, dtype, shape, bytes) in tensors {
        entries.insert((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes]}));
        at += bytes;
    }
    let mut text = Value::Object(entries).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text.as_bytes());
    header
}

fn parse(file: &[u8]) -> BTreeMap<String, Tensor> {
    let (len, rest) = file.split_first_chunk::<8>().expect("a header");
    let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let header: Map<String, Value> = serde_json::from_slice(header).expect("JSON");
    let number = |value: &Value| value.as_u64().expect("a number");
    let tensor = |entry: &Value| Tensor {
        dtype: entry["dtype"].as_str().expect("a string").to_owned(),
        shape: entry["shape"].as_array().expect("a list").iter().map(number).collect(),
        bytes: data[number(&entry["data_offsets"][0]) as usize..number(&entry["data_offsets"][1]) as usize].to_vec(),
    };
    header.iter().filter(|(name, _)| *name != "__metadata__").map(|(name, entry)| (name.clone(), tensor(entry))).collect()
}
