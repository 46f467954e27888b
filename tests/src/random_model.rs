//! Llama checkpoints of any size with random BF16 weights and real proportions: for memory, faults and speed.

use crate::checkpoint::header;
use crate::fixture;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Proportions of a model. Its tokenizer is that of `fixtures/tiny/llama`.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// `hidden_size`; a multiple of 256.
    pub hidden: u64,
    /// Number of blocks.
    pub layers: u64,
    /// Embedding rows: at least the tokenizer's 512.
    pub vocabulary: u64,
    /// Number of weight files.
    pub shards: u64,
}

impl Shape {
    /// About `bytes` of weights in blocks of `hidden` columns.
    pub fn of_bytes(bytes: u64, hidden: u64, shards: u64) -> Self {
        let one = Shape { hidden, layers: 1, vocabulary: 512, shards };
        let block: u64 = one.block(0).iter().map(|(_, shape)| 2 * shape.iter().product::<u64>()).sum();
        Shape { layers: (bytes / block).max(1), ..one }
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        self.tensors().iter().map(|(_, shape)| 2 * shape.iter().product::<u64>()).sum()
    }

    fn head_dim(&self) -> u64 {
        if self.hidden >= 1024 { 128 } else { 64 }
    }

    fn kv_heads(&self) -> u64 {
        (self.hidden / self.head_dim() / 4).max(1)
    }

    fn intermediate(&self) -> u64 {
        (self.hidden * 8 / 3).next_multiple_of(256)
    }

    fn block(&self, layer: u64) -> Vec<(String, Vec<u64>)> {
        let (hidden, wide, kv) = (self.hidden, self.intermediate(), self.kv_heads() * self.head_dim());
        let of = |name: &str, shape: &[u64]| (format!("model.layers.{layer}.{name}.weight"), shape.to_vec());
        vec![
            of("input_layernorm", &[hidden]),
            of("mlp.down_proj", &[hidden, wide]),
            of("mlp.gate_proj", &[wide, hidden]),
            of("mlp.up_proj", &[wide, hidden]),
            of("post_attention_layernorm", &[hidden]),
            of("self_attn.k_proj", &[kv, hidden]),
            of("self_attn.o_proj", &[hidden, hidden]),
            of("self_attn.q_proj", &[hidden, hidden]),
            of("self_attn.v_proj", &[kv, hidden]),
        ]
    }

    fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, self.hidden])];
        all.extend((0..self.layers).flat_map(|layer| self.block(layer)));
        all.push(("model.norm.weight".to_owned(), vec![self.hidden]));
        all
    }

    /// Write the checkpoint; the same shape gives the same bytes.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let tiny = fixture("tiny/llama/hf");
        for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"] {
            std::fs::copy(tiny.join(name), folder.join(name))?;
        }
        let mut config = crate::json(&tiny.join("config.json"));
        for (key, value) in [
            ("head_dim", self.head_dim()),
            ("hidden_size", self.hidden),
            ("intermediate_size", self.intermediate()),
            ("num_attention_heads", self.hidden / self.head_dim()),
            ("num_key_value_heads", self.kv_heads()),
            ("num_hidden_layers", self.layers),
            ("vocab_size", self.vocabulary),
        ] {
            config[key] = value.into();
        }
        std::fs::write(folder.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
        self.write_weights(folder)
    }

    fn write_weights(&self, folder: &Path) -> io::Result<()> {
        let tensors = self.tensors();
        let per_shard = tensors.len().div_ceil(self.shards.max(1) as usize);
        let count = tensors.len().div_ceil(per_shard);
        let table = gaussian_words();
        let mut random = SplitMix(0x67_67_75_66);
        let mut map = Map::new();
        for (number, shard) in tensors.chunks(per_shard).enumerate() {
            let name = match count {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
            };
            let sizes: Vec<_> =
                shard.iter().map(|(n, s)| (n.as_str(), "BF16", s.as_slice(), 2 * s.iter().product::<u64>())).collect();
            let mut file = BufWriter::with_capacity(1 << 20, File::create(folder.join(&name))?);
            file.write_all(&header(&sizes))?;
            for (tensor, _, _, bytes) in &sizes {
                map.insert((*tensor).to_owned(), name.clone().into());
                write_words(&mut file, *bytes / 2, &table, &mut random)?;
            }
            file.flush()?;
        }
        if count > 1 {
            let index = json!({"metadata": {"total_size": self.bytes()}, "weight_map": Value::Object(map)});
            std::fs::write(folder.join("model.safetensors.index.json"), index.to_string())?;
        }
        Ok(())
    }
}

fn write_words(out: &mut impl Write, words: u64, table: &[u16], random: &mut SplitMix) -> io::Result<()> {
    let mut left = words;
    while left > 0 {
        let four = random.next().to_le_bytes();
        for pair in four.as_chunks::<2>().0.iter().take(left.min(4) as usize) {
            out.write_all(&table[usize::from(u16::from_le_bytes(*pair))].to_le_bytes())?;
        }
        left -= left.min(4);
    }
    Ok(())
}

/// 65,536 BF16 words, distributed as weights are: a sum of uniform numbers, standard deviation 0.02.
fn gaussian_words() -> Vec<u16> {
    let mut random = SplitMix(0x42_46_31_36);
    let uniform = |word: u64| (word >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
    let word = |_| {
        let sum: f32 = (0..12).map(|_| uniform(random.next())).sum();
        ((sum * 0.02).to_bits() >> 16) as u16
    };
    (0..1 << 16).map(word).collect()
}

/// Vigna's splitmix64: also the source of the tests' random moments.
#[derive(Debug, Clone)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// The next word.
    #[allow(clippy::should_implement_trait, reason = "an endless source, not an iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
