//! What was found about one file, as data, and as pages for people.
//!
//! `report.json` is [`Report`] as it stands. [`markdown`], [`html`] and [`terminal`] show any number of files of one source; the same
//! reports give the same text, since nothing in it comes from a clock. Whatever a file says about itself (names of tensors, keys)
//! is treated as hostile: it is escaped in Markdown and HTML, and control characters never reach a terminal.

mod file;
mod float;
mod html;
mod markdown;
mod outcome;
mod plot;
mod terminal;
pub(crate) mod text;

pub use file::{FileError, Written, check_writable, read, write};
pub use html::html;
pub use markdown::markdown;
pub use terminal::terminal;

use serde::{Deserialize, Serialize};

/// [`Report::schema`]. Its number goes up when a key changes its meaning or goes away; new keys may appear at any time.
pub const SCHEMA: &str = "ggufsmith.report/1";

/// One GGUF file (or the shards of one) against its source. Numbers that are not finite become `null` in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// `ggufsmith 0.1.0`.
    pub tool: String,
    /// The arguments of the run.
    pub command: Vec<String>,
    /// Name of the file; of several shards the first.
    pub file: String,
    /// SHA-256 of [`Report::file`], in hex.
    pub sha256: String,
    /// Every shard; one entry where the file is not split.
    pub files: Vec<HashedFile>,
    /// Size of all shards in bytes.
    pub bytes: u64,
    /// `general.architecture`.
    pub architecture: String,
    /// The file type's name, e.g. `Q4_0`; `NF4 in Q8_0` where the values are those of another scheme.
    pub file_type: String,
    /// Number of weights.
    pub parameters: u64,
    /// Bits of tensor data per weight.
    #[serde(deserialize_with = "float::one")]
    pub bits_per_weight: f64,
    /// What it was compared with.
    pub source: Source,
    /// Whether every check ran and passed.
    pub faithful: bool,
    /// The verdict in one sentence.
    pub verdict: String,
    /// The four checks, in the order in which they ran.
    pub checks: Vec<Check>,
    /// The user's thresholds, and whether they hold.
    pub gate: Gate,
    /// What the forward pass measured, where it ran over a text.
    #[serde(flatten, deserialize_with = "float::figures")]
    pub figures: Option<Figures>,
    /// Perplexity of single sentences (`--sentences`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sentences: Option<Sentences>,
    /// What llama.cpp's own `llama-perplexity` measured on the same windows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub engine: Option<Engine>,
    /// Bytes by tensor type.
    pub memory: Memory,
    /// Speed of this reference implementation on both sides, where it was measured.
    pub latency: Option<Latency>,
    /// Every tensor of the file, in file order.
    pub tensors: Vec<TensorFigures>,
}

/// A file and its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashedFile {
    /// Its name, without a folder.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// The model that the file was compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Name of its directory or repository.
    pub name: String,
    /// Commit of the repository, where the directory is a snapshot in a Hub cache.
    pub revision: Option<String>,
    /// Weight files, config.json, tokenizer files, sorted by name.
    pub files: Vec<HashedFile>,
    /// Bytes of its weights.
    pub bytes: u64,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It ran and found nothing.
    Passed,
    /// It ran and found what [`Check::problems`] says.
    Failed,
    /// It did not run: [`Check::summary`] says why. A file with a check that was skipped is not called faithful.
    Skipped,
}

/// One of `structure`, `tensors`, `tokenizer`, `forward`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// One sentence, e.g. `272 of 272 tensors are exact`.
    pub summary: String,
    /// What is wrong, one sentence each, naming key, tensor or token.
    pub problems: Vec<String>,
}

/// The user's thresholds (`--max-ppl-ratio`, `--max-kld`, `--min-top1`, `verify.toml`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// Largest perplexity of the file over the source's.
    pub max_ppl_ratio: Option<f64>,
    /// Largest mean KL divergence, in nats.
    pub max_kld: Option<f64>,
    /// Smallest share of positions with the same most probable token, 0 to 1.
    pub min_top1: Option<f64>,
    /// What does not hold, one sentence each; also a collapse (non-finite figures, perplexity ratio above 2), which needs no threshold.
    pub failures: Vec<String>,
}

/// Figures over windows of a text. KL divergences are in nats; every `_error` is one standard error. F32 activations: llama.cpp
/// itself quantizes activations and keeps its KV cache in F16, so its figures differ a little.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The text.
    pub text: HashedFile,
    /// Tokens per window.
    pub n_ctx: u64,
    /// Windows that were run.
    pub windows: u64,
    /// Scored positions.
    pub tokens: u64,
    /// Perplexity of the source, as llama-perplexity defines it.
    #[serde(deserialize_with = "float::one")]
    pub perplexity_source: f64,
    /// Its error, as llama-perplexity computes it.
    #[serde(deserialize_with = "float::one")]
    pub perplexity_source_error: f64,
    /// Perplexity of the file.
    #[serde(deserialize_with = "float::one")]
    pub perplexity: f64,
    /// Its error.
    #[serde(deserialize_with = "float::one")]
    pub perplexity_error: f64,
    /// [`Figures::perplexity`] over [`Figures::perplexity_source`].
    #[serde(deserialize_with = "float::one")]
    pub perplexity_ratio: f64,
    /// By bootstrap over windows, paired.
    #[serde(deserialize_with = "float::one")]
    pub perplexity_ratio_error: f64,
    /// Correlation of the two sides' negative log-likelihoods over positions.
    #[serde(deserialize_with = "float::one")]
    pub nll_correlation: f64,
    /// Mean KL divergence from the source's distribution to the file's.
    #[serde(deserialize_with = "float::one")]
    pub kld_mean: f64,
    /// By bootstrap over windows.
    #[serde(deserialize_with = "float::one")]
    pub kld_mean_error: f64,
    /// Largest KL divergence of a position.
    #[serde(deserialize_with = "float::one")]
    pub kld_max: f64,
    /// 99.9 % quantile.
    #[serde(deserialize_with = "float::one")]
    pub kld_p999: f64,
    /// 99 % quantile.
    #[serde(deserialize_with = "float::one")]
    pub kld_p99: f64,
    /// 95 % quantile.
    #[serde(deserialize_with = "float::one")]
    pub kld_p95: f64,
    /// 50 % quantile.
    #[serde(deserialize_with = "float::one")]
    pub kld_median: f64,
    /// Positions by the decimal logarithm of their KL divergence.
    pub kld_histogram: Histogram,
    /// Mean change of the right token's probability, file minus source.
    #[serde(deserialize_with = "float::one")]
    pub delta_p_mean: f64,
    /// By bootstrap over windows.
    #[serde(deserialize_with = "float::one")]
    pub delta_p_mean_error: f64,
    /// Root mean square of that change.
    #[serde(deserialize_with = "float::one")]
    pub delta_p_rms: f64,
    /// By bootstrap over windows.
    #[serde(deserialize_with = "float::one")]
    pub delta_p_rms_error: f64,
    /// Share of positions where both sides have the same most probable token, 0 to 1.
    #[serde(deserialize_with = "float::one")]
    pub same_top1: f64,
    /// By bootstrap over windows.
    #[serde(deserialize_with = "float::one")]
    pub same_top1_error: f64,
    /// Window by window, in order.
    pub per_window: Vec<WindowFigures>,
    /// Relative RMSE of the hidden state behind each layer (first entry: behind layer 0), over all positions.
    #[serde(deserialize_with = "float::many")]
    pub hidden_error: Vec<f64>,
}

/// Counts in bins of equal width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Where the first bin begins.
    #[serde(deserialize_with = "float::one")]
    pub from: f64,
    /// Width of a bin.
    #[serde(deserialize_with = "float::one")]
    pub width: f64,
    /// Counts; values outside are counted in the first or last bin.
    pub counts: Vec<u64>,
}

/// One window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowFigures {
    /// Perplexity of the source in this window.
    #[serde(deserialize_with = "float::one")]
    pub perplexity_source: f64,
    /// Perplexity of the file.
    #[serde(deserialize_with = "float::one")]
    pub perplexity: f64,
    /// Mean KL divergence.
    #[serde(deserialize_with = "float::one")]
    pub kld_mean: f64,
    /// Share of positions with the same most probable token.
    #[serde(deserialize_with = "float::one")]
    pub same_top1: f64,
}

/// Perplexity of sentences, one line each: every token after the first is scored (the first too, behind a BOS).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sentences {
    /// The text.
    pub text: HashedFile,
    /// Sentences that were scored.
    pub sentences: u64,
    /// Scored tokens.
    pub tokens: u64,
    /// Over all tokens, source.
    #[serde(deserialize_with = "float::one")]
    pub perplexity_source: f64,
    /// Over all tokens, file.
    #[serde(deserialize_with = "float::one")]
    pub perplexity: f64,
    /// Mean of the sentences' own perplexities, source.
    #[serde(deserialize_with = "float::one")]
    pub mean_perplexity_source: f64,
    /// Mean of the sentences' own perplexities, file.
    #[serde(deserialize_with = "float::one")]
    pub mean_perplexity: f64,
    /// Median of the sentences' own perplexities, source.
    #[serde(deserialize_with = "float::one")]
    pub median_perplexity_source: f64,
    /// Median of the sentences' own perplexities, file.
    #[serde(deserialize_with = "float::one")]
    pub median_perplexity: f64,
}

/// llama-perplexity on the same windows, its KL divergence against our logits of the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// Its version, as it prints it.
    pub version: String,
    /// Perplexity of the file.
    #[serde(deserialize_with = "float::one")]
    pub perplexity: f64,
    /// Mean KL divergence.
    #[serde(deserialize_with = "float::one")]
    pub kld_mean: f64,
    /// Largest KL divergence.
    #[serde(deserialize_with = "float::one")]
    pub kld_max: f64,
    /// Share of positions with the same most probable token, 0 to 1.
    #[serde(deserialize_with = "float::one")]
    pub same_top1: f64,
}

/// What weights take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The source's weights by element type, in order of first appearance.
    pub source: Vec<TypeBytes>,
    /// The file's weights by tensor type, in order of first appearance.
    pub file: Vec<TypeBytes>,
}

/// Tensors of one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeBytes {
    /// The type's name.
    pub format: String,
    /// Number of tensors.
    pub tensors: u64,
    /// Bytes of their data.
    pub bytes: u64,
}

/// Speed of the reference implementation. It says how the two compare here, not how fast llama.cpp is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Threads.
    pub threads: u64,
    /// The source.
    pub source: Speed,
    /// The file.
    pub file: Speed,
}

/// Speed of one side; medians of several rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Tokens per second while reading a prompt.
    #[serde(deserialize_with = "float::one")]
    pub prompt_tokens_per_second: f64,
    /// Tokens per second while generating.
    #[serde(deserialize_with = "float::one")]
    pub generated_tokens_per_second: f64,
    /// Milliseconds per generated token.
    #[serde(deserialize_with = "float::one")]
    pub ms_per_token: f64,
}

/// What became of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TensorVerdict {
    /// F32, F16 or BF16, and every value is the source's.
    Lossless,
    /// Re-encoding the source gives the same bytes.
    Exact,
    /// Other bytes, and an error of at most 1.05 times our own encoder's.
    Bounded,
    /// Neither: the tensor is wrong or damaged.
    Wrong,
    /// The type cannot be decoded or written yet.
    Unknown,
}

impl TensorVerdict {
    /// As in JSON.
    pub fn word(self) -> &'static str {
        match self {
            TensorVerdict::Lossless => "lossless",
            TensorVerdict::Exact => "exact",
            TensorVerdict::Bounded => "bounded",
            TensorVerdict::Wrong => "wrong",
            TensorVerdict::Unknown => "unknown",
        }
    }
}

/// A tensor of the file against the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorFigures {
    /// Its name, e.g. `blk.3.attn_q.weight`.
    pub name: String,
    /// Number of the block, where it is in one.
    pub layer: Option<u32>,
    /// What it is: the name without block and suffix, e.g. `attn_q`.
    pub kind: String,
    /// Its type.
    pub format: String,
    /// Number of elements.
    pub elems: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// What became of it.
    pub verdict: TensorVerdict,
    /// The 16-bit type that the values were rounded to on the way, where that made the bytes equal.
    pub via: Option<String>,
    /// Largest absolute difference to the source.
    #[serde(deserialize_with = "float::one")]
    pub max_error: f64,
    /// Root mean square of the difference.
    #[serde(deserialize_with = "float::one")]
    pub rmse: f64,
    /// [`TensorFigures::rmse`] over the root mean square of the source.
    #[serde(deserialize_with = "float::one")]
    pub relative_rmse: f64,
    /// Cosine similarity with the source.
    #[serde(deserialize_with = "float::one")]
    pub cosine: f64,
    /// Share of values at the largest magnitude that their block can hold.
    #[serde(deserialize_with = "float::one")]
    pub saturated: f64,
    /// Values that are NaN or infinite.
    pub non_finite: u64,
}

/// `blk.3.attn_q.weight` as `(Some(3), "attn_q")`; biases keep their suffix: `attn_q.bias`.
pub fn layer_and_kind(name: &str) -> (Option<u32>, &str) {
    let kind = |rest: &'_ str| rest.strip_suffix(".weight").map_or(rest.len(), str::len);
    if let Some((number, rest)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'))
        && let Ok(layer) = number.parse()
    {
        return (Some(layer), &rest[..kind(rest)]);
    }
    (None, &name[..kind(name)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(layer_and_kind("blk.12.ffn_down.weight"), (Some(12), "ffn_down"));
        assert_eq!(layer_and_kind("blk.0.attn_q.bias"), (Some(0), "attn_q.bias"));
        assert_eq!(layer_and_kind("token_embd.weight"), (None, "token_embd"));
        assert_eq!(layer_and_kind("blk.x.y.weight"), (None, "blk.x.y"));
    }
}
