//! What `fixtures/sensitivity/make.py` wrote: changes of config.json and what transformers makes of them.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

/// One change.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is changed, e.g. `rope_scaling.factor`; names of keys that change together have `+` between them.
    pub key: String,
    pub set: Map<String, Value>,
    pub without: Vec<String>,
    /// Whether the keys stand outside `text_config`.
    pub outer: bool,
    /// The case whose logits it is measured against, where it is not the unchanged model.
    pub from: Option<usize>,
    /// Logits move, but little.
    pub slight: bool,
    /// Tensors to be filled by [`filled`], with their shapes.
    pub made: Vec<(String, Vec<u64>)>,
    /// Tensors that are not there.
    pub gone: Vec<String>,
}

/// A model's cases.
pub struct Golden {
    pub name: String,
    pub ids: Vec<u32>,
    /// Rows of `ids` whose logits are kept, and which.
    pub positions: Vec<usize>,
    pub tokens: Vec<usize>,
    /// Of the unchanged model.
    pub base: Vec<f32>,
    /// Changes with the logits they lead to.
    pub cases: Vec<(Case, Vec<f32>)>,
    /// Changes without effect.
    pub same: Vec<Case>,
    /// Changes that transformers fails on.
    pub fails: Vec<Case>,
}

/// The models that have cases.
pub fn names() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(fixture("sensitivity"))
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    names
}

impl Golden {
    pub fn open(name: &str) -> Self {
        let text = std::fs::read_to_string(fixture(&format!("sensitivity/{name}.json"))).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let numbers = |key: &str| json[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect::<Vec<_>>();
        let (positions, tokens) = (numbers("positions"), numbers("tokens"));
        let tensors = Safetensors::open(&fixture(&format!("sensitivity/{name}.safetensors")));
        let rows = floats(tensors.bytes("logits"));
        let len = positions.len() * tokens.len();
        let cases: Vec<_> = json["cases"].as_array().unwrap().iter().map(Case::read).collect();
        assert_eq!(rows.len(), cases.len() * len, "{name}");
        let unchanged = Safetensors::open(&fixture(&format!("tiny/{name}/logits.safetensors")));
        let ids: Vec<u32> =
            unchanged.bytes("ids").as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word) as u32).collect();
        let all = floats(unchanged.bytes("logits"));
        let base = picked(&all, all.len() / ids.len(), &positions, &tokens);
        Golden {
            name: name.to_owned(),
            ids,
            base,
            cases: cases.into_iter().zip(rows.chunks_exact(len).map(<[f32]>::to_vec)).collect(),
            same: group(&json["same"]),
            fails: group(&json["fails"]),
            positions,
            tokens,
        }
    }

    /// What a case's logits are measured against.
    pub fn against(&self, case: &Case) -> &[f32] {
        case.from.map_or(&self.base, |from| &self.cases[from].1)
    }
}

impl Case {
    fn read(json: &Value) -> Self {
        let texts = |key: &str| json[key].as_array().into_iter().flatten().map(|s| s.as_str().unwrap().to_owned()).collect();
        Case {
            key: json["key"].as_str().unwrap().to_owned(),
            set: json["set"].as_object().unwrap().clone(),
            without: texts("without"),
            outer: json["outer"] == true,
            from: json["from"].as_u64().map(|n| n as usize),
            slight: json["slight"] == true,
            made: by_block(&json["made"]),
            gone: by_block(&json["gone"]).into_iter().map(|(name, _)| name).collect(),
        }
    }

    /// config.json with the change.
    pub fn config(&self, unchanged: &Value) -> Value {
        let mut config = unchanged.clone();
        let wrapped = config.get("text_config").is_some() && !self.outer;
        let at = if wrapped { &mut config["text_config"] } else { &mut config };
        let at = at.as_object_mut().unwrap();
        at.extend(self.set.clone());
        self.without.iter().for_each(|key| _ = at.shift_remove(key));
        config
    }

    /// Whether a message names what is changed: a key, a field of an object under it, or a tensor that comes or goes.
    pub fn is_named_in(&self, message: &str) -> bool {
        let keys = self.key.split(['+', '.']).chain(self.set.keys().map(String::as_str));
        let tensors = self.made.iter().map(|(name, _)| name).chain(&self.gone).map(String::as_str);
        keys.chain(tensors).any(|name| message.contains(name))
    }
}

/// Cases that are no more than one key and its value stand together under the key, all others under "".
fn group(json: &Value) -> Vec<Case> {
    let mut cases = Vec::new();
    for (key, values) in json.as_object().unwrap() {
        for value in values.as_array().unwrap() {
            let alone = || serde_json::json!({ "key": key, "set": { key: value } });
            cases.push(Case::read(&if key.is_empty() { value.clone() } else { alone() }));
        }
    }
    cases
}

/// Names with shapes; one with two numbers behind the shape stands for those of the blocks from one to the other.
fn by_block(json: &Value) -> Vec<(String, Vec<u64>)> {
    let mut tensors = Vec::new();
    for entry in json.as_array().into_iter().flatten() {
        let name = entry[0].as_str().unwrap();
        let shape: Vec<u64> = entry[1].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        match (entry[2].as_u64(), entry[3].as_u64()) {
            (Some(from), Some(to)) => {
                tensors.extend((from..to).map(|block| (name.replacen("{}", &block.to_string(), 1), shape.clone())));
            }
            _ => tensors.push((name.to_owned(), shape)),
        }
    }
    tensors
}

/// A safetensors file in memory.
pub struct Safetensors {
    pub header: Map<String, Value>,
    pub data: Vec<u8>,
}

impl Safetensors {
    pub fn open(path: &Path) -> Self {
        let mut data = std::fs::read(path).unwrap();
        let rest = data.split_off(8);
        let len = u64::from_le_bytes(data.try_into().unwrap()) as usize;
        let mut header: Map<String, Value> = serde_json::from_slice(&rest[..len]).unwrap();
        header.shift_remove("__metadata__");
        Safetensors { header, data: rest[len..].to_vec() }
    }

    pub fn bytes(&self, name: &str) -> &[u8] {
        let at = |i: usize| self.header[name]["data_offsets"][i].as_u64().unwrap() as usize;
        &self.data[at(0)..at(1)]
    }

    /// The file with a case's tensors in place of, or besides, its own.
    pub fn changed(&self, case: &Case) -> Vec<u8> {
        let mut tensors: BTreeMap<&str, (Value, Value, Vec<u8>)> = BTreeMap::new();
        for (name, info) in self.header.iter().filter(|(name, _)| !case.gone.contains(name)) {
            tensors.insert(name, (info["dtype"].clone(), info["shape"].clone(), self.bytes(name).to_vec()));
        }
        for (name, shape) in &case.made {
            tensors.insert(name, ("BF16".into(), shape.clone().into(), filled(name, shape)));
        }
        let (mut header, mut data) = (Map::new(), Vec::new());
        for (name, (dtype, shape, bytes)) in tensors {
            let offsets = [data.len(), data.len() + bytes.len()];
            header.insert(name.to_owned(), serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
            data.extend(bytes);
        }
        let header = serde_json::to_vec(&header).unwrap();
        [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
    }
}

/// `filled` of the generator: BF16 numbers from SplitMix64 of the name's FNV-1a hash and the index.
fn filled(name: &str, shape: &[u64]) -> Vec<u8> {
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
    let number = |i: u64| {
        let mut z = hash.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let x = (((z ^ (z >> 31)) >> 57) as f32 - 63.5) / 64.0;
        let scale = |cols: u64| 2f32.powi(1 - (0..).find(|&k| 4u64.pow(k) >= cols).unwrap() as i32);
        match shape {
            [_] => x / 2.0 + if name.ends_with("norm.weight") { 1.0 } else { 0.0 },
            [.., cols] => x * scale(*cols),
            [] => x,
        }
    };
    let bf16 = |x: f32| ((x.to_bits() + 0x7FFF + ((x.to_bits() >> 16) & 1)) >> 16) as u16;
    (0..shape.iter().product()).flat_map(|i| bf16(number(i)).to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

/// The logits that are kept, of all of them.
pub fn picked(logits: &[f32], n_vocab: usize, positions: &[usize], tokens: &[usize]) -> Vec<f32> {
    positions.iter().flat_map(|at| tokens.iter().map(move |token| logits[at * n_vocab + token])).collect()
}
