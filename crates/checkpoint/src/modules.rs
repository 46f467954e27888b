//! Which tensors of a model are quantized by those who quantize its linear layers: transformers' choice, and the user's.

use ggufsmith_core::TensorInfo;
use std::fmt;

/// The head is not quantized: transformers keeps it, tied to the embeddings or not.
pub const HEAD: &str = "lm_head";

/// Why a tensor stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It is no matrix of a linear layer: a vector, a bias, a norm.
    NoMatrix,
    /// A table that is looked up.
    Embedding,
    /// [`HEAD`].
    Head,
    /// The user named its module so.
    Skipped(String),
    /// The user named others.
    NotOnly,
}

impl Kept {
    /// Why `info` is not quantized; `None` where it is. `skip` are names of modules, whole or parts of them at their dots.
    pub fn of(info: &TensorInfo, skip: &[String]) -> Option<Kept> {
        let module = module_of(&info.name);
        let last = module.rsplit('.').next().unwrap_or(module);
        if !info.name.ends_with(".weight") || info.shape.len() != 2 || info.elems() == 0 || last.contains("norm") {
            Some(Kept::NoMatrix)
        } else if last.contains("embed") {
            Some(Kept::Embedding)
        } else if is_named(module, HEAD) {
            Some(Kept::Head)
        } else {
            skip.iter().find(|name| is_named(module, name)).map(|name| Kept::Skipped(name.clone()))
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kept::NoMatrix => f.write_str("no matrix of a linear layer"),
            Kept::Embedding => f.write_str("embedding"),
            Kept::Head => f.write_str("head"),
            Kept::Skipped(name) => write!(f, "--skip-modules {name}"),
            Kept::NotOnly => f.write_str("not selected by --only"),
        }
    }
}

/// The module that a tensor belongs to: its name without the last part.
pub fn module_of(tensor: &str) -> &str {
    tensor.rsplit_once('.').map_or(tensor, |(module, _)| module)
}

/// Whether `name` is a module's name or a run of its parts.
pub fn is_named(module: &str, name: &str) -> bool {
    !name.is_empty() && format!(".{module}.").contains(&format!(".{name}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ggufsmith_core::DType;
    use std::path::PathBuf;

    #[test]
    fn which_tensors_are_quantized() {
        let kept = |name: &str, shape: &[u64], skip: &[&str]| {
            let info =
                TensorInfo { name: name.into(), dtype: DType::BF16, shape: shape.to_vec(), file: PathBuf::new(), offset: 0 };
            Kept::of(&info, &skip.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let weight = "model.layers.11.mlp.up_proj.weight";
        assert_eq!(kept(weight, &[8, 8], &[]), None);
        assert_eq!(kept(weight, &[8, 8], &["layers.1", "up", "proj", ""]), None);
        for skip in ["up_proj", "mlp", "mlp.up_proj", "layers.11", "model", "model.layers.11.mlp.up_proj"] {
            assert_eq!(kept(weight, &[8, 8], &[skip]), Some(Kept::Skipped(skip.to_owned())));
        }
        for (name, shape, why) in [
            ("lm_head.weight", vec![8, 8], Kept::Head),
            ("model.embed_tokens.weight", vec![8, 8], Kept::Embedding),
            ("model.norm.weight", vec![8], Kept::NoMatrix),
            ("model.layers.0.input_layernorm.weight", vec![8, 8], Kept::NoMatrix),
            ("model.layers.0.self_attn.q_proj.bias", vec![8], Kept::NoMatrix),
            ("model.layers.0.self_attn.q_proj.weight", vec![0, 8], Kept::NoMatrix),
        ] {
            assert_eq!(kept(name, &shape, &[]), Some(why), "{name}");
        }
    }
}
