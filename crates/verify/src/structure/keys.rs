//! Hyper-parameters.

use crate::report::layer_and_kind;
use ggufsmith_arch::Family;
use ggufsmith_arch::expected::{BlockSizes, COMMON_KEYS, ExpertSizes, FileKey, FileSizes, KeyType};
use ggufsmith_gguf::{Metadata, Shards, Value};

/// `LLAMA_MAX_LAYERS`: beyond it llama.cpp wrote outside its arrays once, today it stops.
const MAX_BLOCKS: u32 = 512;
/// What `rope.scaling.type` may be (`llama_rope_scaling_type_from_string`).
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];

/// What the keys say of the tensors.
pub(super) enum Sizes {
    Known(FileSizes),
    /// A key is missing or wrong.
    Unknown,
}

/// Check the section of architecture `arch`; `vocab` is the number of tokens.
pub(super) fn check(
    shards: &Shards,
    arch: &str,
    family: Option<&dyn Family>,
    vocab: Option<u32>,
    problems: &mut Vec<String>,
) -> Sizes {
    let section = Section { metadata: shards.metadata(), arch };
    let own = family.map(|family| family.file_keys()).unwrap_or_default();
    // Of an architecture that is not known only that part is sure that every one has.
    let sure = |key: &&FileKey| family.is_some() || key.name == "block_count" || key.name == "context_length";
    for key in COMMON_KEYS.iter().chain(own).filter(sure) {
        section.check_type(key, problems);
    }
    let n_layer = section.u32("block_count");
    if let Some(n_layer) = n_layer {
        blocks(shards, arch, n_layer, family.is_some(), problems);
    }
    match (family, n_layer) {
        (Some(_), Some(n_layer)) if (1..=MAX_BLOCKS).contains(&n_layer) => section.sizes(n_layer, vocab, problems),
        _ => Sizes::Unknown,
    }
}

/// `block_count` against the names of the tensors.
fn blocks(shards: &Shards, arch: &str, n_layer: u32, known: bool, problems: &mut Vec<String>) {
    if !(1..=MAX_BLOCKS).contains(&n_layer) {
        problems.push(format!("{arch}.block_count is {n_layer}, llama.cpp takes 1 to {MAX_BLOCKS}"));
    }
    let highest = shards.tensors().filter_map(|tensor| Some((layer_and_kind(&tensor.name).0?, &tensor.name))).max();
    match highest {
        Some((layer, name)) if layer.checked_add(1) != Some(n_layer) => {
            problems.push(format!("{arch}.block_count is {n_layer}, the highest block of a tensor is {layer} ({name})"));
        }
        None if known => problems.push(format!("{arch}.block_count is {n_layer}, no tensor is in a block")),
        _ => {}
    }
}

/// The keys `ARCH.*`.
struct Section<'a> {
    metadata: &'a Metadata,
    arch: &'a str,
}

impl Section<'_> {
    fn full(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.metadata.get(&self.full(name))
    }

    fn u32(&self, name: &str) -> Option<u32> {
        self.metadata.lookup(&self.full(name)).ok().flatten()
    }

    fn check_type(&self, key: &FileKey, problems: &mut Vec<String>) {
        let name = self.full(key.name);
        let found = match key.kind {
            KeyType::U32 => self.metadata.lookup::<u32>(&name).map(|value| value.is_some()),
            KeyType::F32 => self.metadata.lookup::<f32>(&name).map(|value| value.is_some()),
            KeyType::Bool => self.metadata.lookup::<bool>(&name).map(|value| value.is_some()),
            KeyType::Str => self.metadata.lookup::<&str>(&name).map(|value| value.is_some()),
            KeyType::PerBlock => match self.get(key.name) {
                Some(Value::Array(_)) => Ok(true), // looked at by per_block
                _ => self.metadata.lookup::<u32>(&name).map(|value| value.is_some()),
            },
        };
        match found {
            Err(error) => problems.push(error.to_string()),
            Ok(false) if key.required => problems.push(format!("the key {name} is missing: llama.cpp needs it")),
            Ok(_) => {}
        }
    }

    /// One value per block; none where the key is missing or wrong.
    fn per_block(&self, name: &str, n_layer: u32, problems: &mut Vec<String>) -> Option<Vec<u32>> {
        let n = n_layer as usize; // at most MAX_BLOCKS
        let Some(Value::Array(array)) = self.get(name) else { return Some(vec![self.u32(name)?; n]) };
        let (key, value) = (self.full(name), Value::Array(array.clone()));
        if array.len() != n {
            problems.push(format!("{key} has {} entries, block_count is {n}", array.len()));
            return None;
        }
        let values: Option<Vec<u32>> = match array {
            ggufsmith_gguf::Array::U32(values) => Some(values.clone()),
            ggufsmith_gguf::Array::I32(values) => values.iter().map(|&value| u32::try_from(value).ok()).collect(),
            _ => None,
        };
        if values.is_none() {
            problems.push(format!("{key} is {} of type {}, llama.cpp takes whole numbers", value.short(40), value.type_name()));
        }
        values
    }

    fn positive(&self, name: &str, problems: &mut Vec<String>) -> Option<u32> {
        let value = self.u32(name)?;
        if value == 0 {
            problems.push(format!("{} is 0", self.full(name)));
        }
        (value > 0).then_some(value)
    }

    fn sizes(&self, n_layer: u32, vocab: Option<u32>, problems: &mut Vec<String>) -> Sizes {
        self.floats(problems);
        self.positive("context_length", problems);
        let embd = self.positive("embedding_length", problems);
        let heads = self.per_block("attention.head_count", n_layer, problems);
        let kv_name = "attention.head_count_kv";
        let heads_kv = if self.get(kv_name).is_some() { self.per_block(kv_name, n_layer, problems) } else { heads.clone() };
        let ff = self.per_block("feed_forward_length", n_layer, problems);
        if let (Some(size), Some(tokens)) = (self.u32("vocab_size"), vocab)
            && size != tokens
        {
            problems.push(format!("{} is {size}, tokenizer.ggml.tokens has {tokens} entries", self.full("vocab_size")));
        }
        let Some(vocab) = vocab.or(self.u32("vocab_size")) else { return Sizes::Unknown };
        let (Some(embd), Some(heads), Some(heads_kv), Some(ff)) = (embd, heads, heads_kv, ff) else { return Sizes::Unknown };
        let before = problems.len();
        for (block, ((&n_head, &n_head_kv), &ff)) in heads.iter().zip(&heads_kv).zip(&ff).enumerate() {
            if n_head == 0 || n_head_kv == 0 || ff == 0 {
                let values = format!("head_count {n_head}, head_count_kv {n_head_kv}, feed_forward_length {ff}");
                problems.push(format!("{}: block {block} has {values}; none may be 0", self.arch));
            } else if !n_head.is_multiple_of(n_head_kv) {
                let (q, kv) = (self.full("attention.head_count"), self.full(kv_name));
                problems.push(format!("{q} is {n_head}, no multiple of {kv}, which is {n_head_kv} (block {block})"));
            }
            if problems.len() > before {
                return Sizes::Unknown; // one block is enough: most files have one value for all
            }
        }
        let Some(head) = self.head_size(embd, heads[0], problems) else { return Sizes::Unknown };
        let rope = self.u32("rope.dimension_count").unwrap_or(head);
        let blocks = heads.into_iter().zip(heads_kv).zip(ff.iter().copied());
        let blocks = blocks.map(|((n_head, n_head_kv), ff)| BlockSizes { ff, n_head, n_head_kv }).collect();
        let context = self.u32("context_length").unwrap_or(0);
        let Some(experts) = self.experts(ff[0], problems) else { return Sizes::Unknown };
        Sizes::Known(FileSizes { vocab, embd, head, rope, context, experts, blocks })
    }

    /// The sizes of a mixture of experts; `ff` is `feed_forward_length`. What a file does not say the loaders take from that.
    fn experts(&self, ff: u32, problems: &mut Vec<String>) -> Option<ExpertSizes> {
        let count = self.u32("expert_count").unwrap_or(0);
        if count == 0 {
            return Some(ExpertSizes::default());
        }
        let (key, used) = (self.full("expert_used_count"), self.u32("expert_used_count").unwrap_or(0));
        if used == 0 || used > count {
            problems.push(format!("{key} is {used}, it must be from 1 to {}, which is {count}", self.full("expert_count")));
            return None;
        }
        let own = |name| self.u32(name).filter(|&own| own > 0);
        let shared_ff = own("expert_shared_feed_forward_length").unwrap_or(ff);
        Some(ExpertSizes { count, ff: own("expert_feed_forward_length").unwrap_or(ff / used), shared_ff })
    }

    fn head_size(&self, embd: u32, n_head: u32, problems: &mut Vec<String>) -> Option<u32> {
        let (key, value) = (self.u32("attention.key_length"), self.u32("attention.value_length"));
        if key.is_none() && !embd.is_multiple_of(n_head) {
            let (length, heads) = (self.full("embedding_length"), self.full("attention.head_count"));
            problems.push(format!("{length} is {embd}, no multiple of {heads}, which is {n_head}, and there is no key_length"));
            return None;
        }
        let head = key.unwrap_or(embd / n_head);
        let value = value.unwrap_or(embd / n_head);
        if head != value {
            let (k, v) = (self.full("attention.key_length"), self.full("attention.value_length"));
            problems.push(format!("{k} comes to {head}, {v} to {value}: the engine needs heads of one size here"));
            return None;
        }
        let rope = self.full("rope.dimension_count");
        match self.u32("rope.dimension_count") {
            Some(found) if found > head => {
                problems.push(format!("{rope} is {found}, more than the head size of {head}"));
            }
            // load_hparams: "invalid n_rot".
            Some(found) if found != head && self.arch == "llama" => {
                problems.push(format!("{rope} is {found}, in this architecture llama.cpp needs the head size of {head}"));
            }
            Some(found) if found % 2 != 0 => problems.push(format!("{rope} is {found}, it must be even")),
            _ => {}
        }
        if head == 0 {
            problems.push(format!("{}: the head size comes to 0", self.arch));
        }
        (head > 0).then_some(head)
    }

    /// Numbers with a range, and names.
    fn floats(&self, problems: &mut Vec<String>) {
        for name in ["attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "rope.freq_base", "rope.scaling.factor"]
        {
            let key = self.full(name);
            if let Ok(Some(value)) = self.metadata.lookup::<f32>(&key)
                && !(value.is_finite() && value >= 0.0 && (value > 0.0 || name.starts_with("rope.scaling")))
            {
                problems.push(format!("{key} is {value}, it must be a number above 0"));
            }
        }
        let key = self.full("rope.scaling.type");
        if let Ok(Some(found)) = self.metadata.lookup::<&str>(&key)
            && !ROPE_SCALINGS.contains(&found)
        {
            problems.push(format!("{key} is {found:?}, llama.cpp knows {}", ROPE_SCALINGS.join(", ")));
        }
    }
}
