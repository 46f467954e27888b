//! What each token is to the engine: `tokenizer.ggml.token_type`, and what `llama_vocab::impl::load` changes by token text.

use super::GgufTokenizerError;
use ggufsmith_gguf::Metadata;
use std::collections::{BTreeSet, HashMap};

/// Attributes of a token, as bits.
pub(super) const NORMAL: u8 = 1;
pub(super) const UNKNOWN: u8 = 2;
pub(super) const CONTROL: u8 = 4;
pub(super) const USER_DEFINED: u8 = 8;
pub(super) const UNUSED: u8 = 16;
pub(super) const BYTE: u8 = 32;
/// White space in front of the token is dropped.
pub(super) const STRIP_LEFT: u8 = 64;
/// White space behind the token is dropped.
pub(super) const STRIP_RIGHT: u8 = 128;

/// The attribute of a `tokenizer.ggml.token_type`; 0 (undefined) has none.
pub(super) fn from_type(id: usize, number: i32) -> Result<u8, GgufTokenizerError> {
    Ok(match number {
        0 => 0,
        1 => NORMAL,
        2 => UNKNOWN,
        3 => CONTROL,
        4 => USER_DEFINED,
        5 => UNUSED,
        6 => BYTE,
        found => return Err(GgufTokenizerError::TokenType { id, found }),
    })
}

/// Tokens that end a generation wherever they are in a vocabulary.
const END: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Keys, texts, whether they end a generation.
type Fill = (&'static [&'static str], &'static [&'static str], bool);

/// Tokens of fill-in-the-middle by the keys that name them (the newer first) and the texts by which they are found otherwise;
/// whether they end a generation.
const FILL: [Fill; 6] = [
    (
        &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        false,
    ),
    (
        &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
        &["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"],
        false,
    ),
    (
        &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
        &["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"],
        false,
    ),
    (&["tokenizer.ggml.fim_pad_token_id"], &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"], true),
    (&["tokenizer.ggml.fim_rep_token_id"], &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"], true),
    (&["tokenizer.ggml.fim_sep_token_id"], &["<|file_sep|>"], true),
];

/// The tokens that end a generation; `attributes` are changed as the engine changes them. `named`: eos, eot and eom, where the file
/// or the kind of tokenizer names them.
///
/// Where a vocabulary has several of the texts of one entry of [`FILL`], the engine takes the one that its hash table has first;
/// here it is the first of the list.
pub(super) fn end_of_generation(
    metadata: &Metadata,
    ids: &HashMap<String, u32>,
    attributes: &mut [u8],
    named: &[Option<u32>],
) -> Result<BTreeSet<u32>, GgufTokenizerError> {
    let mut end = BTreeSet::new();
    for (keys, texts, ends) in FILL {
        let mut id = None;
        for key in keys {
            id = metadata.lookup(key)?.filter(|&id: &u32| (id as usize) < attributes.len()).or(id);
        }
        if id.is_none() {
            id = texts.iter().find_map(|text| ids.get(*text).copied());
            id.inspect(|&id| attributes[id as usize] |= CONTROL);
        }
        end.extend(id.filter(|_| ends));
    }
    for id in END.iter().filter_map(|text| ids.get(*text).copied()) {
        end.insert(id);
        attributes[id as usize] |= CONTROL;
    }
    for text in ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"] {
        if let Some(&id) = ids.get(text) {
            attributes[id as usize] = USER_DEFINED;
        }
    }
    end.extend(named.iter().flatten());

    let ending = |text: &str| ids.get(text).filter(|id| end.contains(id)).copied();
    let called = ending("<|call|>").or_else(|| ending("<|calls|>")).is_some();
    let marked = ending("<|return|>").is_some_and(|_| called) || ending("<|flush|>").is_some_and(|_| called);
    let not_end = ending("<|end|>").filter(|_| marked);
    let normal = ending("<|tool_response>").or_else(|| ending("<|plamo:eos|>")).and_then(|_| ending("</s>"));
    if let Some(id) = not_end {
        end.remove(&id);
        attributes[id as usize] = USER_DEFINED;
    }
    if let Some(id) = normal {
        end.remove(&id);
        attributes[id as usize] = NORMAL;
    }
    Ok(end)
}

/// White space that goes with special tokens; the engine knows by the model's name where.
pub(super) fn strip(metadata: &Metadata, pre: &str, ids: &HashMap<String, u32>, attributes: &mut [u8]) {
    let name = metadata.lookup::<&str>("general.name").ok().flatten().unwrap_or_default().to_ascii_lowercase();
    let architecture = metadata.lookup::<&str>("general.architecture").ok().flatten().unwrap_or_default();
    let mut left = |text: &str| {
        if let Some(&id) = ids.get(text) {
            attributes[id as usize] |= STRIP_LEFT;
        }
    };
    let contains = |text: &str, any: &[&str]| any.iter().any(|part| text.contains(part));
    if contains(pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"]) || contains(architecture, &["nomic-bert-moe", "jina-bert-v3"])
    {
        left("<mask>");
    } else if contains(&name, &["phi-3", "phi3"]) {
        for attribute in attributes.iter_mut().filter(|a| is_special(**a)) {
            *attribute |= STRIP_RIGHT;
        }
        if let Some(&id) = ids.get("</s>") {
            attributes[id as usize] |= STRIP_RIGHT;
        }
        for id in ["<unk>", "<s>", "<|endoftext|>"].iter().filter_map(|text| ids.get(*text)) {
            attributes[*id as usize] &= !STRIP_RIGHT;
        }
    } else if name.contains("modern-bert") {
        left("[MASK]");
    }
}

/// Whether a token is looked for in texts.
pub(super) fn is_special(attribute: u8) -> bool {
    attribute & (CONTROL | USER_DEFINED | UNKNOWN) != 0
}
