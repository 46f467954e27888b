//! Names in checkpoints that hold more, or less, than the decoder with its head: models that wrap a text model, bare decoders.

use crate::Class;
use crate::tensors::{LAYER, Name, Table};

/// What the names of a text model's tensors have in addition inside a model that wraps it.
const TEXT_PARTS: [&str; 2] = ["language_model.", "text_model."];

/// Parts of names that only encoders of pictures and sound, and what leads from them to the text model, have.
const TOWERS: [&str; 12] = [
    "vision_",
    "audio_",
    "visual.",
    "vision.",
    "audio.",
    "projector.",
    "image_newline",
    "patch_embed",
    "patch_merg",
    "merger.",
    "mm_projector",
    "connector.",
];

const TOWER: &str = "part of an encoder of pictures or sound: GGUF keeps those in a file of its own (mmproj)";

/// The name as the family's table has it, or why the tensor is left out.
pub(crate) fn canonical(class: &Class, name: &str, table: &Table) -> Result<String, &'static str> {
    let mut plain = name.to_owned();
    if class.text.is_some() {
        if TOWERS.iter().any(|part| name.contains(part)) {
            return Err(TOWER);
        }
        for part in TEXT_PARTS {
            plain = plain.replacen(part, "", 1);
        }
    }
    let known = |name: &str| {
        let pattern = Name::parse(name).pattern;
        table.rows.iter().any(|row| row.hf == pattern)
    };
    let with_base = format!("{}{plain}", table.base);
    Ok(if !known(&plain) && known(&with_base) { with_base } else { plain })
}

/// The name that a checkpoint has for a tensor of the table: the reverse of [`canonical`]. `has` says which there are.
pub(crate) fn actual(class: &Class, name: &str, table: &Table, has: &dyn Fn(&str) -> bool) -> String {
    let bare = name.strip_prefix(table.base).unwrap_or(name);
    let mut candidates = vec![name.to_owned(), bare.to_owned()];
    if class.text.is_some() {
        for part in TEXT_PARTS {
            candidates.extend([format!("{part}{name}"), format!("{}{part}{bare}", table.base), format!("{part}{bare}")]);
        }
    }
    // A name may stand for those of all experts.
    candidates.into_iter().find(|candidate| has(&candidate.replace(LAYER, "0"))).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::{Dim, row};

    const TABLE: Table = Table {
        rows: &[
            row("model.layers.{}.norm.weight", "blk.{}.attn_norm.weight", &[Dim::Embd]),
            row("lm_head.weight", "output.weight", &[Dim::Vocab, Dim::Embd]),
        ],
        base: "model.",
        dropped: &[],
    };
    const PLAIN: Class = Class::of("PlainForCausalLM", "plain");
    const WRAPPER: Class = Class::of("PlainForConditionalGeneration", "plain3").wrapping("plain");

    #[test]
    fn wrapped_and_bare_names_lead_to_the_table_and_back() {
        for (class, name, plain) in [
            (&PLAIN, "model.layers.3.norm.weight", "model.layers.3.norm.weight"),
            (&PLAIN, "layers.3.norm.weight", "model.layers.3.norm.weight"),
            (&WRAPPER, "language_model.model.layers.3.norm.weight", "model.layers.3.norm.weight"),
            (&WRAPPER, "model.language_model.layers.3.norm.weight", "model.layers.3.norm.weight"),
            (&WRAPPER, "model.text_model.layers.3.norm.weight", "model.layers.3.norm.weight"),
            (&WRAPPER, "language_model.lm_head.weight", "lm_head.weight"),
            (&WRAPPER, "lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(canonical(class, name, &TABLE).as_deref(), Ok(plain), "{name}");
            assert_eq!(actual(class, plain, &TABLE, &|candidate| candidate == name), name);
        }
        let unknown = canonical(&PLAIN, "language_model.model.layers.3.norm.weight", &TABLE).unwrap();
        assert_eq!(unknown, "language_model.model.layers.3.norm.weight");
    }

    #[test]
    fn towers_are_left_out_of_wrappers_only() {
        for name in ["vision_tower.layers.0.q.weight", "model.vision_tower.norm.weight", "multi_modal_projector.linear_1.weight"]
        {
            assert_eq!(canonical(&WRAPPER, name, &TABLE), Err(TOWER));
            assert_eq!(canonical(&PLAIN, name, &TABLE).as_deref(), Ok(name));
        }
    }
}
