//! safetensors files: which tensors go into which file, headers, the index.

use ggufsmith_core::DType;
use serde_json::{Map, Value, json};
use std::ops::Range;

/// Headers end where a multiple of this many bytes ends, as the safetensors library has it.
const HEADER_ALIGNMENT: usize = 8;

/// A tensor to be placed.
#[derive(Debug, Clone)]
pub(crate) struct Spec<'a> {
    pub(crate) name: &'a str,
    pub(crate) dtype: DType,
    /// Outermost dimension first.
    pub(crate) shape: &'a [u64],
}

impl Spec<'_> {
    fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.dtype.bytes() as u64
    }
}

/// One file.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) name: String,
    /// The length of the JSON text, and the text.
    pub(crate) header: Vec<u8>,
    pub(crate) bytes: u64,
    /// Index of each tensor and where its bytes lie in the file, ascending.
    pub(crate) tensors: Vec<(usize, Range<u64>)>,
}

/// Place tensors, which are in the order of their names: a new file begins where one would hold more than `max_bytes` of data.
/// The files, and the index where there are several.
pub(crate) fn place(specs: &[Spec<'_>], max_bytes: u64) -> (Vec<Shard>, Option<Value>) {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut filled = 0u64;
    for (index, spec) in specs.iter().enumerate() {
        let bytes = spec.bytes();
        match groups.last_mut() {
            Some(group) if filled.saturating_add(bytes) <= max_bytes => {
                group.push(index);
                filled += bytes;
            }
            _ => {
                groups.push(vec![index]);
                filled = bytes;
            }
        }
    }
    let count = groups.len();
    let name = |number: usize| match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    };
    let shards: Vec<Shard> = groups.into_iter().enumerate().map(|(number, group)| shard(name(number), group, specs)).collect();
    let index = (count > 1).then(|| {
        let mut map: Vec<(&str, &str)> = Vec::new();
        for shard in &shards {
            map.extend(shard.tensors.iter().map(|(index, _)| (specs[*index].name, shard.name.as_str())));
        }
        map.sort_unstable();
        let map: Map<String, Value> = map.into_iter().map(|(name, file)| (name.to_owned(), file.into())).collect();
        let total: u64 = specs.iter().map(Spec::bytes).sum();
        json!({"metadata": {"total_size": total}, "weight_map": map})
    });
    (shards, index)
}

/// Wider elements first, so that every tensor is aligned to its elements; then by name.
fn shard(name: String, mut group: Vec<usize>, specs: &[Spec<'_>]) -> Shard {
    group.sort_by_key(|&index| (std::cmp::Reverse(specs[index].dtype.bytes()), index));
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut at = 0;
    let mut places = Vec::with_capacity(group.len());
    for index in group {
        let Spec { name, dtype, shape } = &specs[index];
        let range = at..at + specs[index].bytes();
        at = range.end;
        entries
            .insert((*name).to_owned(), json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [range.start, range.end]}));
        places.push((index, range));
    }
    let mut text = Value::Object(entries).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(HEADER_ALIGNMENT) - text.len()));
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(text.as_bytes());
    let start = header.len() as u64;
    let tensors = places.into_iter().map(|(index, range)| (index, start + range.start..start + range.end)).collect();
    Shard { name, bytes: start + at, header, tensors }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wider_elements_come_first_and_offsets_are_contiguous() {
        let specs = [
            Spec { name: "a", dtype: DType::F16, shape: &[3] },
            Spec { name: "b", dtype: DType::F32, shape: &[2, 2] },
            Spec { name: "c", dtype: DType::F16, shape: &[1] },
        ];
        let (shards, index) = place(&specs, 1000);
        let [shard] = shards.as_slice() else { panic!("{shards:?}") };
        assert_eq!((shard.name.as_str(), index), ("model.safetensors", None));
        let start = shard.header.len() as u64;
        assert_eq!(start % 8, 0);
        assert_eq!(shard.tensors, [(1, start..start + 16), (0, start + 16..start + 22), (2, start + 22..start + 24)]);
        assert_eq!(shard.bytes, start + 24);
        let text: Value = serde_json::from_slice(&shard.header[8..]).unwrap();
        assert_eq!(text["a"], json!({"dtype": "F16", "shape": [3], "data_offsets": [16, 22]}));
        assert_eq!(text["__metadata__"], json!({"format": "pt"}));
    }

    #[test]
    fn shards_hold_at_most_what_was_asked_for_but_always_a_tensor() {
        let shape = [4u64];
        let specs: Vec<Spec> =
            ["a", "b", "c", "d"].into_iter().map(|name| Spec { name, dtype: DType::F32, shape: &shape }).collect();
        let (shards, index) = place(&specs, 32);
        let names: Vec<&str> = shards.iter().map(|shard| shard.name.as_str()).collect();
        assert_eq!(names, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
        let index = index.unwrap();
        assert_eq!(index["metadata"]["total_size"], 64);
        assert_eq!(index["weight_map"]["c"], names[1]);
        assert_eq!(place(&specs, 1).0.len(), 4);
    }
}
