//! What a name of `tokenizer.ggml.pre` means: regular expressions that cut text, whether whole words are taken without merging,
//! and whether a text starts with BOS where no key says so (llama.cpp's `llama_vocab::impl::load`).

use crate::pre;
use serde_json::{Value, json};

/// The rules of a pre-tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// Matches of each, in order, stand alone; so does the text between them.
    regexes: Cuts,
    /// A word that is a token is taken as it is.
    pub(super) ignore_merges: bool,
    /// BOS is added where the file has no `add_bos_token`.
    pub(super) add_bos: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cuts {
    /// The expression that `ByteLevel` has built in.
    Gpt2,
    /// The same, after every digit was cut off.
    DigitsGpt2,
    /// A group of `pretok.json`, by its name.
    Group(&'static str),
    /// What the engine does where it knows no better.
    Default,
}

/// Names with the rules of another one: group, names, whether they take whole words, whether they add BOS.
const NAMES: &[(Cuts, &[&str], bool, bool)] = &[
    (
        Cuts::Gpt2,
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "gigachat",
            "jina-v2-es",
            "jina-v2-de",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
            "exaone4",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
        ],
        false,
        false,
    ),
    (
        Cuts::DigitsGpt2,
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        false,
        false,
    ),
    (
        Cuts::Group("smaug-bpe"),
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
        true,
        true,
    ),
    (Cuts::Group("smaug-bpe"), &["glm4", "glm5"], true, false),
    (Cuts::Group("smaug-bpe"), &["smaug-bpe", "dbrx", "chatglm-bpe"], false, false),
    (Cuts::Group("deepseek-v3"), &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], false, false),
    (
        Cuts::Group("qwen2"),
        &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"],
        false,
        false,
    ),
    (Cuts::Group("bloom"), &["bloom", "poro-chat", "gpt3-finnish"], false, false),
    (Cuts::Group("gpt-4o"), &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], false, false),
    (Cuts::Group("tiny_aya"), &["tiny_aya", "cohere2moe"], false, false),
    (Cuts::Group("bailingmoe"), &["bailingmoe", "bailingmoe2", "llada-moe"], false, false),
    (Cuts::Group("tekken"), &["tekken"], true, true),
    (Cuts::Group("youtu"), &["youtu"], true, false),
    (Cuts::Group("granite-embed-multi-97m"), &["granite-embed-multi-97m"], true, false),
    (Cuts::Group("minicpm5"), &["minicpm5"], true, false),
    (Cuts::Default, &["default"], false, false),
];

/// The engine's expressions for a tokenizer without a name.
const DEFAULT: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];

/// The rules of a name; `None` where the engine completes them in code, or there is no such name.
pub(super) fn of(name: &str) -> Option<Rules> {
    if let Some(&(regexes, _, ignore_merges, add_bos)) = NAMES.iter().find(|(_, names, ..)| names.contains(&name)) {
        return Some(Rules { regexes, ignore_merges, add_bos });
    }
    // The other groups have one name, their own.
    let (group, _) = pre::group(name)?;
    Some(Rules { regexes: Cuts::Group(group), ignore_merges: false, add_bos: false })
}

impl Rules {
    /// tokenizer.json's `pre_tokenizer`.
    pub(super) fn pre_tokenizer(self, add_prefix_space: bool) -> Value {
        let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex});
        let split = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        let members: Vec<Value> = match self.regexes {
            Cuts::Gpt2 => return bytes(true),
            Cuts::DigitsGpt2 => vec![json!({"type": "Digits", "individual_digits": true}), bytes(true)],
            Cuts::Group(name) => {
                let regexes = pre::group(name).map(|(_, regexes)| regexes).unwrap_or_default();
                regexes.iter().map(|regex| split(regex)).chain([bytes(false)]).collect()
            }
            Cuts::Default => DEFAULT.into_iter().map(split).chain([bytes(false)]).collect(),
        };
        json!({"type": "Sequence", "pretokenizers": members})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists that the engine completes in code, or that are not byte-level.
    const NONE: [&str; 8] =
        ["afmoe", "chameleon", "gemma4", "granite-embed-multi-311m", "kimi-k2", "sarvam-moe", "superbpe", "whitespace"];

    #[test]
    fn every_name_of_the_engine_has_rules_or_is_known_to_have_none() {
        for name in pre::names() {
            assert_eq!(of(name).is_none(), NONE.contains(name), "{name}");
            if let Some(Rules { regexes: Cuts::Group(group), .. }) = of(name) {
                assert!(pre::group(group).is_some_and(|(_, regexes)| !regexes.is_empty()), "{name}: {group}");
            }
        }
        for name in NAMES.iter().flat_map(|(_, names, ..)| *names) {
            assert!(pre::names().contains(name), "{name}");
        }
        assert_eq!(of("no such name"), None);
    }

    #[test]
    fn what_is_written_is_recognised() {
        for (name, structure) in [("llama-bpe", "smaug-bpe"), ("qwen2", "qwen2"), ("olmo", "gpt-2"), ("starcoder", "smollm")] {
            let rules = of(name).unwrap();
            assert_eq!(pre::by_pre_tokenizer(&rules.pre_tokenizer(false), false), Some(structure), "{name}");
        }
    }
}
