//! The tokenizer classes of transformers 4.57.6 whose constructors change what a byte-level or byte-fallback BPE tokenizer does.

use serde_json::{Map, Value};

/// What a fast tokenizer class adds to tokenizer.json.
#[derive(Debug, PartialEq)]
pub(super) struct Class {
    /// The name in tokenizer_config.json, with or without `Fast`.
    pub(super) name: &'static str,
    /// Special tokens that the constructor assumes where tokenizer_config.json is silent; `None`: none, but said so.
    pub(super) roles: &'static [(&'static str, Option<&'static str>)],
    /// The class puts BOS and EOS round a text itself, whatever the post-processor says; the defaults of `add_bos_token` and
    /// `add_eos_token`.
    pub(super) frame: Option<(bool, bool)>,
    /// Default of `add_prefix_space`.
    pub(super) prefix_space: Option<bool>,
    /// `add_prefix_space: true` reaches pre-tokenizers inside a sequence.
    pub(super) prefix_space_nested: bool,
    /// Special tokens that become non-normalized ones where they are given as text, and whether they take the spaces before them.
    pub(super) wrapped: &'static [(&'static str, bool)],
    /// Tokens that become additional special tokens: key in tokenizer_config.json, default.
    pub(super) infill: &'static [(&'static str, &'static str)],
}

const PLAIN: Class = Class {
    name: "PreTrainedTokenizer",
    roles: &[],
    frame: None,
    prefix_space: Some(false),
    prefix_space_nested: false,
    wrapped: &[],
    infill: &[],
};

const LLAMA: Class = Class {
    name: "LlamaTokenizer",
    roles: &[("bos_token", Some("<s>")), ("eos_token", Some("</s>")), ("unk_token", Some("<unk>"))],
    frame: Some((true, false)),
    prefix_space: None,
    ..PLAIN
};

const END_OF_TEXT: Option<&str> = Some("<|endoftext|>");
const GPT2_ROLES: &[(&str, Option<&str>)] = &[("bos_token", END_OF_TEXT), ("eos_token", END_OF_TEXT), ("unk_token", END_OF_TEXT)];
static CLASSES: &[Class] = &[
    PLAIN,
    LLAMA,
    Class {
        name: "CodeLlamaTokenizer",
        prefix_space: Some(false),
        infill: &[("prefix_token", "▁<PRE>"), ("middle_token", "▁<MID>"), ("suffix_token", "▁<SUF>"), ("eot_token", "▁<EOT>")],
        ..LLAMA
    },
    Class {
        name: "GemmaTokenizer",
        roles: &[
            ("bos_token", Some("<bos>")),
            ("eos_token", Some("<eos>")),
            ("unk_token", Some("<unk>")),
            ("pad_token", Some("<pad>")),
        ],
        frame: Some((true, false)),
        ..PLAIN
    },
    Class {
        name: "CohereTokenizer",
        roles: &[("bos_token", Some("<BOS_TOKEN>")), ("eos_token", Some("<|END_OF_TURN_TOKEN|>")), ("unk_token", Some("<UNK>"))],
        frame: Some((true, false)),
        prefix_space_nested: true,
        ..PLAIN
    },
    Class {
        name: "GPTNeoXTokenizer",
        roles: &[("bos_token", END_OF_TEXT), ("eos_token", END_OF_TEXT), ("unk_token", END_OF_TEXT), ("pad_token", None)],
        frame: Some((false, false)),
        ..PLAIN
    },
    Class { name: "GPT2Tokenizer", roles: GPT2_ROLES, ..PLAIN },
    Class { name: "CodeGenTokenizer", roles: GPT2_ROLES, ..PLAIN },
    Class {
        name: "Qwen2Tokenizer",
        roles: &[("bos_token", None), ("eos_token", END_OF_TEXT), ("unk_token", END_OF_TEXT), ("pad_token", END_OF_TEXT)],
        wrapped: &[("bos_token", false), ("eos_token", false), ("unk_token", false), ("pad_token", false)],
        ..PLAIN
    },
    Class {
        name: "BloomTokenizer",
        roles: &[
            ("bos_token", Some("<s>")),
            ("eos_token", Some("</s>")),
            ("unk_token", Some("<unk>")),
            ("pad_token", Some("<pad>")),
        ],
        prefix_space_nested: true,
        ..PLAIN
    },
    Class {
        name: "RobertaTokenizer",
        roles: &[
            ("bos_token", Some("<s>")),
            ("eos_token", Some("</s>")),
            ("unk_token", Some("<unk>")),
            ("sep_token", Some("</s>")),
            ("pad_token", Some("<pad>")),
            ("cls_token", Some("<s>")),
            ("mask_token", Some("<mask>")),
        ],
        wrapped: &[("mask_token", true)],
        ..PLAIN
    },
];

/// config.json's `model_type` and the class that `AutoTokenizer` takes where no file names one; others get the plain class.
static MODEL_TYPES: &[(&str, &[&str])] = &[
    (
        "LlamaTokenizer",
        &[
            "arcee",
            "chameleon",
            "deepseek_v2",
            "deepseek_v3",
            "diffllama",
            "ernie4_5",
            "ernie4_5_moe",
            "jamba",
            "jetmoe",
            "llama",
            "llama4",
            "llama4_text",
            "llava",
            "ministral",
            "mistral",
            "mistral3",
            "mixtral",
            "mllama",
            "persimmon",
            "phi3",
            "phimoe",
            "zamba",
            "zamba2",
        ],
    ),
    ("CodeLlamaTokenizer", &["code_llama"]),
    ("CohereTokenizer", &["aya_vision", "cohere", "cohere2"]),
    (
        "GPT2Tokenizer",
        &[
            "dbrx",
            "emu3",
            "exaone4",
            "flex_olmo",
            "gpt2",
            "gpt_bigcode",
            "gpt_neo",
            "gptj",
            "minimax",
            "olmo3",
            "opt",
            "starcoder2",
        ],
    ),
    ("BloomTokenizer", &["bloom"]),
    ("CodeGenTokenizer", &["codegen", "phi"]),
    (
        "Qwen2Tokenizer",
        &["qwen2", "qwen2_5_vl", "qwen2_moe", "qwen2_vl", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_vl", "qwen3_vl_moe"],
    ),
    (
        "GPTNeoXTokenizer",
        &["falcon_mamba", "gpt_neox", "mamba", "mamba2", "mpt", "olmo", "olmo2", "olmoe", "rwkv", "stablelm", "xlstm"],
    ),
    ("GemmaTokenizer", &["gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "recurrent_gemma"]),
];

/// The class that `AutoTokenizer` picks: tokenizer_config.json's `tokenizer_class`, else config.json's, else by `model_type`.
/// A class that is not in the list (other ones add special tokens at most, and those a model of that class has) is taken for the
/// plain one.
pub(super) fn pick(tokenizer_config: Option<&Map<String, Value>>, config: &Value) -> &'static Class {
    let named = |value: Option<&'_ Value>| value.and_then(Value::as_str).map(str::to_owned);
    let name = named(tokenizer_config.and_then(|c| c.get("tokenizer_class"))).or_else(|| named(config.get("tokenizer_class")));
    let name = name.or_else(|| {
        let model_type = config.get("model_type")?.as_str()?;
        MODEL_TYPES.iter().find(|(_, types)| types.contains(&model_type)).map(|(class, _)| (*class).to_owned())
    });
    let name = name.unwrap_or_default();
    let name = name.strip_suffix("Fast").unwrap_or(&name);
    CLASSES.iter().find(|c| c.name == name).unwrap_or(&CLASSES[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn picks_as_auto_tokenizer_does() {
        let by_config = |name: &str| pick(json!({ "tokenizer_class": name }).as_object(), &json!({"model_type": "llama"})).name;
        assert_eq!(by_config("LlamaTokenizerFast"), "LlamaTokenizer");
        assert_eq!(by_config("Qwen2Tokenizer"), "Qwen2Tokenizer");
        assert_eq!(by_config("TokenizersBackend"), "PreTrainedTokenizer");
        assert_eq!(pick(None, &json!({"model_type": "olmo2"})).name, "GPTNeoXTokenizer");
        assert_eq!(pick(None, &json!({"model_type": "llama", "tokenizer_class": "GPT2Tokenizer"})).name, "GPT2Tokenizer");
        assert_eq!(pick(None, &json!({})).name, "PreTrainedTokenizer");
    }

    #[test]
    fn every_model_type_names_a_class_of_the_list() {
        for (class, _) in MODEL_TYPES {
            assert!(CLASSES.iter().any(|c| c.name == *class), "{class}");
        }
    }
}
