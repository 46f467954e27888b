//! File names by the GGUF naming convention (gguf-py's `naming_convention` and `fill_templated_filename`).

use super::MetadataError;
use super::python::strip;

/// The parts of a default file name; what is absent leaves no trace, what is empty leaves its dash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NameParts {
    pub name: Option<String>,
    pub basename: Option<String>,
    pub finetune: Option<String>,
    pub version: Option<String>,
    pub size_label: Option<String>,
}

impl NameParts {
    /// `Base-Size-Finetune-Version-TYPE.gguf`.
    ///
    /// A path separator becomes a dash: the reference does so for the name alone and fails on the others.
    pub fn file_name(&self, type_name: &str) -> String {
        let mut out = self.stem(self.size_label.as_deref());
        push(&mut out, &type_name.to_uppercase());
        out + ".gguf"
    }

    /// `Base-Finetune-Version-vocab.gguf`, for a file without tensors.
    pub fn vocabulary_file_name(&self) -> String {
        self.stem(None) + "-vocab.gguf"
    }

    fn stem(&self, size_label: Option<&str>) -> String {
        let name = self.basename.as_deref().or(self.name.as_deref()).unwrap_or("ggml-model");
        let mut out = String::new();
        push(&mut out, name);
        out.remove(0);
        if let Some(size) = size_label {
            // The reference neither strips nor dashes this part.
            out.push('-');
            out.extend(size.chars().map(safe));
        }
        for part in [&self.finetune, &self.version].into_iter().flatten() {
            push(&mut out, part);
        }
        out
    }
}

fn push(out: &mut String, part: &str) {
    out.push('-');
    out.extend(strip(part).chars().map(|c| if c == ' ' { '-' } else { safe(c) }));
}

/// Names come from model cards: they must not leave the output's folder.
fn safe(c: char) -> char {
    if c == '/' || c == '\0' || std::path::is_separator(c) { '-' } else { c }
}

/// Fill `{ftype}`, `{outtype}`, `{FTYPE}`, `{OUTTYPE}`, `{}` in a user's file name; `{{` and `}}` stand for the braces.
///
/// # Errors
/// [`MetadataError::Template`] for any other brace.
pub fn fill_template(file_name: &str, type_name: &str) -> Result<String, MetadataError> {
    let (lower, upper) = (type_name.to_lowercase(), type_name.to_uppercase());
    let error = || MetadataError::Template { file_name: file_name.to_owned() };
    let mut out = String::new();
    let mut rest = file_name;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            out.push_str(&rest[..1]);
            rest = after;
            continue;
        }
        let (field, after) = rest.strip_prefix('{').and_then(|r| r.split_once('}')).ok_or_else(error)?;
        out.push_str(match field {
            "" | "0" | "ftype" | "outtype" => &lower,
            "FTYPE" | "OUTTYPE" => &upper,
            _ => return Err(error()),
        });
        rest = after;
    }
    Ok(out + rest)
}
