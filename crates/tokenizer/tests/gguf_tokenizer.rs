//! `GgufTokenizer`: what it says of itself, against the source's own tokenizer, and on metadata that is damaged.

use ggufsmith_arch::VocabRoute;
use ggufsmith_checkpoint::ModelDir;
use ggufsmith_gguf::{Array, LookupError, Metadata, Value};
use ggufsmith_tokenizer::{GgufTokenizer, GgufTokenizerError, Request, SourceTokenizer, TokenizerError, Unsupported, build};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn open(model: &str) -> (Metadata, SourceTokenizer) {
    let dir = ModelDir::open(&fixtures().join(model)).unwrap();
    let vocab_size = dir.config()["vocab_size"].as_u64().unwrap_or(0);
    let request = Request { route: VocabRoute::Llama, vocab_size, config: dir.config(), pre: None };
    let mut metadata = Metadata::new();
    metadata.extend(build(&dir, &request).unwrap().metadata);
    (metadata, SourceTokenizer::new(&dir, &request).unwrap())
}

#[test]
fn both_sides_make_the_same_of_long_texts() {
    let article = std::fs::read_to_string(fixtures().join("eb1911-shakespeare.txt")).unwrap();
    let plays = std::fs::read_to_string(fixtures().join("bard/eval.txt")).unwrap();
    let pieces = "tokenizer.model, converted as transformers does";
    for (model, kind, add_bos, bos) in [
        ("bard", "tokenizer.json", true, 1),
        ("tiny/llama/hf", "tokenizer.json", false, 0),
        ("tiny/llama3-rope/hf", "tokenizer.json", false, 0),
        ("tiny/llama-spm/hf", pieces, true, 1),
        ("tiny/mistral/hf", pieces, true, 1),
    ] {
        let (metadata, source) = open(model);
        let file = GgufTokenizer::new(&metadata).unwrap();
        for text in [&article, &plays] {
            let ids = file.encode(text, false).unwrap();
            assert!(ids == source.encode(text, false).unwrap(), "{model}");
            assert!(file.decode(&ids, false) == *text, "{model}");
        }
        assert_eq!((source.kind(), source.add_bos(), source.bos()), (kind, add_bos, Some(bos)), "{model}");
        assert_eq!((file.add_bos(), file.bos()), (add_bos, Some(bos)), "{model}");
        let framed = source.encode("a", true).unwrap();
        assert_eq!(framed.len() - usize::from(add_bos), source.encode("a", false).unwrap().len(), "{model}");
        assert_eq!(framed[0] == bos, add_bos, "{model}");
    }
}

#[test]
fn a_unigram_model_is_not_encoded_by() {
    let dir = tempfile::tempdir().unwrap();
    let spm = fixtures().join("tiny/llama-spm/hf");
    for file in ["config.json", "tokenizer_config.json"] {
        std::fs::copy(spm.join(file), dir.path().join(file)).unwrap();
    }
    // TrainerSpec.model_type behind the last field counts: 1 is Unigram.
    let mut model = std::fs::read(spm.join("tokenizer.model")).unwrap();
    model.extend([0x12, 2, 0x18, 1]);
    std::fs::write(dir.path().join("tokenizer.model"), model).unwrap();
    let dir = ModelDir::open(dir.path()).unwrap();
    let request = Request { route: VocabRoute::Llama, vocab_size: 512, config: dir.config(), pre: None };
    match SourceTokenizer::new(&dir, &request) {
        Err(TokenizerError::Unsupported { what, .. }) => assert_eq!(what, Unsupported::SentencePiece("Unigram")),
        other => panic!("{other:?}"),
    }
}

/// A byte-level vocabulary of `tokens` behind the 256 bytes' characters of ASCII letters, and its types.
fn byte_level(tokens: &[(&str, i32)], merges: &[&str]) -> Metadata {
    let letters = ('a'..='z').map(|c| (c.to_string(), 1)).chain([("Ġ".to_owned(), 1)]);
    let all: Vec<(String, i32)> = letters.chain(tokens.iter().map(|(text, kind)| ((*text).to_owned(), *kind))).collect();
    let mut metadata = Metadata::new();
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", "gpt-2");
    metadata.set("tokenizer.ggml.tokens", all.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>());
    metadata.set("tokenizer.ggml.token_type", all.iter().map(|(_, kind)| *kind).collect::<Vec<_>>());
    metadata.set("tokenizer.ggml.merges", merges.iter().map(|merge| (*merge).to_owned()).collect::<Vec<_>>());
    metadata
}

fn spelled(tokenizer: &GgufTokenizer, text: &str, parse_special: bool) -> Vec<String> {
    let ids = tokenizer.encode(text, parse_special).unwrap();
    ids.iter().map(|&id| tokenizer.token(id).unwrap().to_owned()).collect()
}

#[test]
fn merges_by_rank_and_special_tokens() {
    let tokens = [("ab", 1), ("bc", 1), ("abc", 1), ("<s>", 3), ("<u>", 4), ("Ġab", 1)];
    let tokenizer = GgufTokenizer::new(&byte_level(&tokens, &["b c", "a b", "Ġ ab", "a bc"])).unwrap();
    assert_eq!(spelled(&tokenizer, "abc ab", false), ["abc", "Ġab"]);
    assert_eq!(spelled(&tokenizer, "a<u>b<s>c", true), ["a", "<u>", "b", "<s>", "c"]);
    // A control token that is not asked for is text; characters without a token are left out, as in llama.cpp.
    assert_eq!(spelled(&tokenizer, "a<u>b<s>c", false), ["a", "<u>", "b", "s", "c"]);
    let ids = tokenizer.encode("a<u>b<s>c", true).unwrap();
    assert_eq!((tokenizer.decode(&ids, true), tokenizer.decode(&ids, false)), ("a<u>b<s>c".into(), "a<u>bc".into()));
    assert_eq!(tokenizer.special_tokens(false).collect::<Vec<_>>(), [(31, "<u>")]);
    assert_eq!(tokenizer.token_bytes(32), b" ab");
    assert_eq!((tokenizer.token_bytes(99), tokenizer.token(99), tokenizer.id("abc")), (Vec::new(), None, Some(29)));
}

#[test]
fn a_merged_text_that_is_no_token_falls_apart() {
    let tokenizer = GgufTokenizer::new(&byte_level(&[("abcd", 1)], &["a b", "c d", "ab cd"])).unwrap();
    assert_eq!(spelled(&tokenizer, "abcd abx", false), ["abcd", "Ġ", "a", "b", "x"]);
}

#[test]
fn a_word_of_the_vocabulary_needs_no_merges_by_some_names() {
    let mut metadata = byte_level(&[("word", 1)], &["w o"]);
    assert_eq!(spelled(&GgufTokenizer::new(&metadata).unwrap(), "word", false), ["w", "o", "r", "d"]);
    metadata.set("tokenizer.ggml.pre", "llama-bpe");
    let tokenizer = GgufTokenizer::new(&metadata).unwrap();
    assert_eq!(spelled(&tokenizer, "word", false), ["word"]);
    assert!(tokenizer.add_bos(), "llama-bpe has a BOS unless the file says otherwise");
}

#[test]
fn defaults_and_ends() {
    let mut metadata =
        byte_level(&[("<|im_end|>", 4), ("<|end|>", 3), ("<|return|>", 3), ("<|call|>", 3), ("[PAD]", 1)], &["a b"]);
    let tokenizer = GgufTokenizer::new(&metadata).unwrap();
    // [PAD] fills in the middle; <|end|> ends nothing beside <|return|> and <|call|>; 11 is the engine's end of sequence.
    assert_eq!(tokenizer.end_of_generation(), [11, 27, 29, 30, 31]);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos(), tokenizer.add_eos()), (Some(11), Some(11), false, false));
    assert_eq!(tokenizer.chat_template(), None);
    // What ends a generation is a control token, whatever its type says.
    assert!(!spelled(&tokenizer, "<|im_end|>", false).contains(&"<|im_end|>".to_owned()));
    assert_eq!(spelled(&tokenizer, "<|im_end|>", true), ["<|im_end|>"]);

    metadata.set("tokenizer.ggml.eos_token_id", 28u32);
    metadata.set("tokenizer.ggml.eom_token_id", 3u32);
    metadata.set("tokenizer.ggml.add_eos_token", true);
    metadata.set("tokenizer.chat_template", "{{ x }}");
    metadata.set("tokenizer.ggml.pre", "glm4");
    let tokenizer = GgufTokenizer::new(&metadata).unwrap();
    assert_eq!(tokenizer.end_of_generation(), [3, 27, 29, 30, 31]);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_eos()), (None, Some(28), true));
    assert_eq!((tokenizer.chat_template(), tokenizer.len()), (Some("{{ x }}"), 32));
}

#[test]
fn damaged_metadata_is_refused_by_name() {
    let error = |change: &dyn Fn(&mut Metadata), base: &str| {
        let mut metadata = open(base).0;
        change(&mut metadata);
        GgufTokenizer::new(&metadata).map(|_| ()).unwrap_err()
    };
    let (bard, llama) = ("bard", "tiny/llama/hf");
    use GgufTokenizerError as E;
    for key in ["tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.scores"] {
        assert_eq!(error(&|m| drop(m.remove(key)), bard), E::Lookup(LookupError::Missing { key: key.into() }));
        assert!(matches!(error(&|m| m.set(key, 1u8), bard), E::Lookup(LookupError::WrongType { .. })), "{key}");
    }
    assert!(matches!(error(&|m| drop(m.remove("tokenizer.ggml.merges")), llama), E::Lookup(LookupError::Missing { .. })));
    for (key, value) in [("tokenizer.ggml.model", "rwkv"), ("tokenizer.ggml.pre", "whitespace")] {
        let error = error(&|m| m.set(key, value), llama);
        assert!(matches!(&error, E::Unsupported { key: k, found, .. } if *k == key && found == value), "{error}");
    }
    let short = error(&|m| m.set("tokenizer.ggml.scores", vec![0f32; 7]), bard);
    assert_eq!(short, E::Length { key: "tokenizer.ggml.scores", found: 7, expected: 1024 });
    let short = error(&|m| m.set("tokenizer.ggml.token_type", vec![1i32; 7]), llama);
    assert_eq!(short, E::Length { key: "tokenizer.ggml.token_type", found: 7, expected: 512 });
    assert_eq!(error(&|m| m.set("tokenizer.ggml.token_type", vec![9i32; 512]), llama), E::TokenType { id: 0, found: 9 });
    let byte = error(&|m| m.set("tokenizer.ggml.token_type", vec![6i32; 512]), llama);
    assert_eq!(byte, E::Byte { id: 0, found: "<|endoftext|>".into() });
    assert_eq!(error(&|m| m.set("tokenizer.ggml.scores", vec![f32::NAN; 1024]), bard), E::Score { id: 0 });
    assert_eq!(error(&|m| m.set("tokenizer.ggml.tokens", Vec::<String>::new()), bard), E::Empty { key: "tokenizer.ggml.tokens" });
    let twice = error(&|m| m.set("tokenizer.ggml.tokens", vec!["a".to_owned(), "a".to_owned()]), bard);
    assert!(matches!(twice, E::Length { .. } | E::Duplicate { .. }));
    assert_eq!(
        error(&|m| m.set("tokenizer.ggml.bos_token_id", 1024u32), bard),
        E::Id { key: "tokenizer.ggml.bos_token_id", id: 1024, tokens: 1024 }
    );
    for merge in ["ab", "", " ", "a ", "a  b", "a b c"] {
        let error = error(&|m| m.set("tokenizer.ggml.merges", vec![merge.to_owned()]), llama);
        assert_eq!(error, E::Merge { at: 0, found: merge.to_owned() });
    }
}

#[test]
fn a_byte_without_a_token_is_named() {
    let mut metadata = Metadata::new();
    metadata.set("tokenizer.ggml.model", "llama");
    metadata.set("tokenizer.ggml.tokens", ["<unk>", "<s>", "</s>", "▁", "a", "▁a", "\n"].map(str::to_owned).to_vec());
    metadata.set("tokenizer.ggml.scores", vec![0f32, 0.0, 0.0, -1.0, -2.0, -0.5, -3.0]);
    metadata.set("tokenizer.ggml.token_type", vec![2i32, 3, 3, 1, 1, 1, 1]);
    let tokenizer = GgufTokenizer::new(&metadata).unwrap();
    assert_eq!(spelled(&tokenizer, "a a\n", false), ["▁a", "▁a", "\n"]);
    assert_eq!(tokenizer.encode("aé", false), Err(GgufTokenizerError::NoByte { byte: 0xc3 }));
}

static TINY: LazyLock<(GgufTokenizer, SourceTokenizer)> = LazyLock::new(|| {
    let (metadata, source) = open("tiny/llama/hf");
    (GgufTokenizer::new(&metadata).unwrap(), source)
});
static BARD: LazyLock<(GgufTokenizer, SourceTokenizer)> = LazyLock::new(|| {
    let (metadata, source) = open("bard");
    (GgufTokenizer::new(&metadata).unwrap(), source)
});

/// Any value, most of them small.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u32>().prop_map(Value::U32),
        any::<bool>().prop_map(Value::Bool),
        ".{0,8}".prop_map(Value::String),
        prop::collection::vec(".{0,4}", 0..8).prop_map(|v| Value::Array(Array::String(v))),
        prop::collection::vec(any::<f32>(), 0..8).prop_map(|v| Value::Array(Array::F32(v))),
        prop::collection::vec(-2..8i32, 0..8).prop_map(|v| Value::Array(Array::I32(v))),
        // A table of replacements whose length may be right.
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|v| Value::Array(Array::U8([vec![16, 0, 0, 0], v, vec![0]].concat()))),
    ]
}

proptest! {
    #[test]
    fn any_text_comes_back(text in prop_oneof![any::<String>(), "[a-e' \n0-9é日🙂]{0,60}"]) {
        for (file, source) in [&*TINY, &*BARD] {
            let ids = file.encode(&text, false).unwrap();
            prop_assert_eq!(&file.decode(&ids, false), &text);
            prop_assert_eq!(&ids, &source.encode(&text, false).unwrap());
        }
    }

    #[test]
    fn any_ids_decode(ids in prop::collection::vec(0..2000u32, 0..40)) {
        for (file, _) in [&*TINY, &*BARD] {
            let bytes: usize = ids.iter().map(|&id| file.token_bytes(id).len()).sum();
            // A replacement character has three bytes.
            prop_assert!(file.decode(&ids, true).len() <= 3 * bytes);
        }
    }

    #[test]
    fn no_metadata_panics(
        model in prop::sample::select(vec!["gpt2", "llama", "gemma4", "bert", "t5"]),
        tokens in prop::collection::vec(".{0,3}", 1..12),
        changes in prop::collection::vec((0..18usize, any_value()), 0..4),
        text in ".{0,20}",
    ) {
        const KEYS: [&str; 18] = [
            "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type",
            "tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
            "tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_space_prefix", "general.name",
            "tokenizer.chat_template", "tokenizer.ggml.precompiled_charsmap", "tokenizer.ggml.unknown_token_id",
            "tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.normalizer.lowercase",
        ];
        let mut metadata = Metadata::new();
        metadata.set("tokenizer.ggml.model", model);
        metadata.set("tokenizer.ggml.scores", vec![-1f32; tokens.len()]);
        metadata.set("tokenizer.ggml.token_type", (0..tokens.len() as i32).map(|at| at % 6).collect::<Vec<i32>>());
        metadata.set("tokenizer.ggml.tokens", tokens);
        metadata.set("tokenizer.ggml.merges", vec!["a b".to_owned(), "Ġ a".to_owned()]);
        for (key, value) in changes {
            metadata.set(KEYS[key], value);
        }
        if let Ok(tokenizer) = GgufTokenizer::new(&metadata) {
            for parse_special in [false, true] {
                if let Ok(ids) = tokenizer.encode(&text, parse_special) {
                    tokenizer.decode(&ids, parse_special);
                }
            }
        }
    }
}

#[test]
fn it_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<GgufTokenizer>();
    shared::<SourceTokenizer>();
}
