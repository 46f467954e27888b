//! What a user may decide instead of the recipes: `llama-quantize`'s options, and `--only`.

use super::{Only, format_by_name};
use fancy_regex::Regex;
use ggufsmith_core::Format;
use std::fmt;

/// The options of `llama-quantize` that change types, and `--only`.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// `--pure`: no mixture, one type for all.
    pub pure: bool,
    /// `--leave-output-tensor`.
    pub leave_output: bool,
    /// `--output-tensor-type`.
    pub output_type: Option<&'static Format>,
    /// `--token-embedding-type`.
    pub embedding_type: Option<&'static Format>,
    /// `--tensor-type` and `--tensor-type-file`: the first that matches decides.
    pub tensor_types: Vec<TensorType>,
    /// `--only`.
    pub only: Only,
}

impl Choices {
    /// Whether nothing was chosen.
    pub fn is_empty(&self) -> bool {
        let Choices { pure, leave_output, output_type, embedding_type, tensor_types, only } = self;
        let named = output_type.is_some() || embedding_type.is_some() || !tensor_types.is_empty();
        !(*pure || *leave_output || named) && only.is_everything()
    }
}

/// One `REGEX=TYPE`. As in `llama-quantize` the expression is lower-cased, searched for anywhere in a tensor's name, and honoured
/// only where the file's type is a quantized one.
#[derive(Debug, Clone)]
pub struct TensorType {
    pattern: Regex,
    /// The type of tensors whose names match.
    pub format: &'static Format,
}

/// Why a `REGEX=TYPE` means nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum ChoiceError {
    #[error("{0:?} is not of the form REGEX=TYPE, as in attn_v=q6_k")]
    Form(String),
    #[error("{0:?} is no tensor type; there are {list}", list = format_names())]
    Type(String),
    #[error("{pattern:?} is no regular expression: {source}")]
    Pattern { pattern: String, source: Box<fancy_regex::Error> },
}

impl TensorType {
    /// Read `REGEX=TYPE`; the expression ends at the first `=`.
    ///
    /// # Errors
    /// [`ChoiceError`].
    pub fn parse(text: &str) -> Result<Self, ChoiceError> {
        let form = || ChoiceError::Form(text.to_owned());
        let (pattern, name) =
            text.split_once('=').filter(|(pattern, name)| !pattern.is_empty() && !name.is_empty()).ok_or_else(form)?;
        let format = format_by_name(name).ok_or_else(|| ChoiceError::Type(name.to_owned()))?;
        let pattern = pattern.to_ascii_lowercase();
        match Regex::new(&pattern) {
            Ok(pattern) => Ok(TensorType { pattern, format }),
            Err(source) => Err(ChoiceError::Pattern { pattern, source: Box::new(source) }),
        }
    }

    /// Read the words of a `--tensor-type-file`.
    ///
    /// # Errors
    /// [`ChoiceError`] of the first word that is no `REGEX=TYPE`.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, ChoiceError> {
        text.split_ascii_whitespace().map(TensorType::parse).collect()
    }

    /// Whether the expression occurs in a name. One that the engine gives up on does not.
    pub fn matches(&self, tensor: &str) -> bool {
        self.pattern.is_match(tensor).unwrap_or(false)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--tensor-type {}={}", self.pattern.as_str(), self.format.name)
    }
}

fn format_names() -> String {
    let formats = ggufsmith_core::FORMATS.iter().copied().chain(ggufsmith_core::LAYOUTS);
    formats.map(|format| format.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_lower_cased_and_searched_for() {
        let tensor_type = TensorType::parse(r"BLK\.[0-3]\.attn_(v|output)=q6_K").unwrap();
        assert_eq!(tensor_type.format.name, "Q6_K");
        assert!(tensor_type.matches("blk.3.attn_output.weight") && !tensor_type.matches("blk.30.attn_output.weight"));
        assert_eq!(tensor_type.to_string(), r"--tensor-type blk\.[0-3]\.attn_(v|output)=Q6_K");
        let all = TensorType::parse_all("a=f16\n\tb=Q4_0  c=iq3_s\n").unwrap();
        assert_eq!(all.iter().map(|t| t.format.name).collect::<Vec<_>>(), ["F16", "Q4_0", "IQ3_S"]);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in ["attn_v", "=q4_0", "attn_v=", ""] {
            assert!(matches!(TensorType::parse(text), Err(ChoiceError::Form(_))), "{text:?}");
        }
        assert!(matches!(TensorType::parse("a=b=q4_0"), Err(ChoiceError::Type(name)) if name == "b=q4_0"));
        assert!(matches!(TensorType::parse("a=q4_k_m"), Err(ChoiceError::Type(_))), "a file type is no tensor type");
        assert!(matches!(TensorType::parse("a(=q4_0"), Err(ChoiceError::Pattern { .. })));
        assert!(TensorType::parse_all("a=q4_0 b").is_err());
    }

    #[test]
    fn any_choice_counts() {
        assert!(Choices::default().is_empty());
        assert!(!Choices { pure: true, ..Choices::default() }.is_empty());
        assert!(!Choices { only: "ffn".parse().unwrap(), ..Choices::default() }.is_empty());
        assert!(!Choices { tensor_types: TensorType::parse_all("a=f16").unwrap(), ..Choices::default() }.is_empty());
    }
}
