//! The model card (`README.md`) of a repository of GGUF files.
//!
//! Front matter as the Hub documents it (hub-docs, model-cards.md), then a part between two markers that is ours: it is replaced in
//! place when files are published again, and everything around it stays as its author wrote it. No clock: the same files give the
//! same card. Whatever a name, a source's card or a report says is treated as hostile: it is escaped, so that it adds no markup, no
//! key and no end of our part.

mod body;
mod front;
mod plot;
mod text;

pub use plot::divergences;

use front::{Front, Value};

/// Begins our part of a card.
pub const BEGIN: &str = "<!-- ggufsmith:begin (this part is written anew when files are published) -->";
/// Ends it.
pub const END: &str = "<!-- ggufsmith:end -->";

/// What is said of a file's faithfulness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A report says that every check ran and passed, and so did the user's thresholds.
    Faithful,
    /// A report says otherwise.
    NotFaithful,
    /// There is no report of these bytes, or one without a forward pass.
    NotVerified,
}

/// A value and its standard error.
pub type Measured = (f64, f64);

/// What a forward pass measured over a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Name of the text.
    pub text: String,
    /// Windows of it.
    pub windows: u64,
    /// Tokens per window.
    pub n_ctx: u64,
    /// Perplexity of the source.
    pub perplexity_source: Measured,
    /// Perplexity of the file.
    pub perplexity: Measured,
    /// Mean KL divergence from the source, in nats.
    pub kld: Measured,
    /// Share of positions with the same most probable token, 0 to 1.
    pub same_top1: Measured,
    /// Positions by the decimal logarithm of their KL divergence: where the first bin begins, its width, counts.
    pub kld_histogram: (f64, f64, Vec<u64>),
}

/// A GGUF file, or the shards of one.
#[derive(Debug, Clone, PartialEq)]
pub struct CardFile {
    /// Name, size in bytes and sha256 of every shard; one where it is not split.
    pub shards: Vec<(String, u64, String)>,
    /// The file type's name; empty where nothing says it.
    pub file_type: String,
    /// Bits of tensor data per weight.
    pub bits_per_weight: Option<f64>,
    /// What a report says.
    pub verdict: Verdict,
    /// Name of the report to read, in the same repository.
    pub report: Option<String>,
    /// What was measured.
    pub figures: Option<Figures>,
}

impl CardFile {
    /// Its name: that of the first shard.
    pub fn name(&self) -> &str {
        self.shards.first().map_or("", |(name, ..)| name)
    }

    /// Size of all shards.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|(_, bytes, _)| bytes).sum()
    }
}

/// Everything that a card says.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// `org/name` of the repository that the card is for.
    pub repo: String,
    /// Address of the Hub, without a slash at the end.
    pub endpoint: String,
    /// Who publishes.
    pub quantized_by: String,
    /// `org/name` of the model that the files were made from, where it is known.
    pub base_model: Option<String>,
    /// Name of the source's directory.
    pub source: String,
    /// The source's commit.
    pub revision: Option<String>,
    /// The source's own card.
    pub source_card: Option<String>,
    /// Name and version of what made the files, without repetitions.
    pub tools: Vec<String>,
    /// The llama.cpp that they equal the files of.
    pub reference: Option<String>,
    /// Command lines that made the files, without repetitions.
    pub commands: Vec<Vec<String>>,
    /// Name of the importance matrix.
    pub imatrix: Option<String>,
    /// The files, in the order of the table.
    pub files: Vec<CardFile>,
    /// Name of the image of [`divergences`], in the same repository.
    pub plot: Option<String>,
}

/// Tags of a source's card that say in which form its weights are: not in this one.
const OTHER_FORMS: &[&str] = &[
    "transformers",
    "transformers.js",
    "safetensors",
    "pytorch",
    "tf",
    "tensorflow",
    "jax",
    "flax",
    "onnx",
    "openvino",
    "coreml",
    "mlx",
    "text-generation-inference",
];

/// Whether a card can be edited: its front matter line by line, and our part between its two comments.
///
/// # Errors
/// What is in the way.
pub fn check_existing(card: &str) -> Result<(), String> {
    let (front, body) = Front::split(card.trim_start_matches('\u{feff}'));
    if let Some(line) = front.odd_line() {
        return Err(format!("its front matter has the line {:?}, which cannot be kept", crate::error::printable(line, 80)));
    }
    let (begin, end) = (body.matches(BEGIN).count(), body.matches(END).count());
    match (begin, end) {
        (0, 0) => Ok(()),
        (1, 1) if body.find(BEGIN) < body.find(END) => Ok(()),
        _ => Err(format!("the comments around our part do not match: {begin} that begin it, {end} that end it")),
    }
}

impl Card {
    /// The card's text: `existing` with our keys added to its front matter and our part replaced or appended, or a new one.
    pub fn render(&self, existing: Option<&str>) -> String {
        let existing = existing.map(|text| text.trim_start_matches('\u{feff}')).filter(|text| !text.trim().is_empty());
        let (mut front, body) = existing.map_or_else(|| (Front::default(), ""), Front::split);
        self.merge(&mut front);
        let ours = format!("{BEGIN}\n\n{}\n{END}", body::ours(self));
        let end = |begin| body[begin..].find(END).map(|end| begin + end);
        let body = match (body.find(BEGIN), body.find(BEGIN).and_then(end)) {
            (Some(begin), Some(end)) => {
                format!("{}{ours}{}", &body[..begin], &body[end + END.len()..])
            }
            _ if body.trim().is_empty() => format!("\n# {}\n\n{ours}\n", text::inline(self.name())),
            _ => format!("{}\n\n{ours}\n", body.trim_end()),
        };
        format!("{}{body}", front.text())
    }

    fn name(&self) -> &str {
        self.repo.rsplit('/').next().unwrap_or(&self.repo)
    }

    /// Our keys into a front matter: what it has stays as it is, tags are added to.
    fn merge(&self, front: &mut Front) {
        let source = self.source_card.as_deref().map(|text| Front::split(text).0).unwrap_or_default();
        for key in ["license", "license_name"] {
            front.add(key, source.value(key));
        }
        front.add("license_link", source.value("license_link").and_then(|link| self.absolute(link)));
        front.add("language", source.value("language"));
        let one = |text: &str| Some(Value::One(text.to_owned()));
        if let Some(base) = &self.base_model {
            front.add("base_model", one(base));
            front.add("base_model_relation", one("quantized"));
        }
        front.add("library_name", one("gguf"));
        front.add("pipeline_tag", source.value("pipeline_tag").or_else(|| one("text-generation")));
        front.add("quantized_by", one(&self.quantized_by));
        let mut tags: Vec<String> = source.value("tags").map(Value::into_list).unwrap_or_default();
        tags.retain(|tag| !OTHER_FORMS.contains(&tag.as_str()));
        tags.extend(["gguf", "quantized", "llama.cpp"].map(str::to_owned));
        if self.imatrix.is_some() {
            tags.push("imatrix".to_owned());
        }
        front.extend("tags", &tags);
    }

    /// A link of the source's card, for a card elsewhere.
    fn absolute(&self, link: Value) -> Option<Value> {
        let Value::One(link) = link else { return None };
        if link.starts_with("https://") || link.starts_with("http://") {
            return Some(Value::One(link));
        }
        let name: crate::FileName = link.trim_start_matches("./").parse().ok()?;
        let base = self.base_model.as_ref()?;
        Some(Value::One(format!(
            "{}/{base}/blob/{}/{}",
            self.endpoint,
            self.revision.as_deref().unwrap_or("main"),
            name.encoded()
        )))
    }
}

#[cfg(test)]
mod tests;
