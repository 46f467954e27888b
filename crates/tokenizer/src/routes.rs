//! Where each family's vocabulary is looked for, and what the family adds to the metadata: the `set_vocab` methods of the converter's
//! model classes.

use super::files::Files;
use super::json::Kind;
use super::pre::{Pre, PreSource};
use super::special::{self, SpecialVocab};
use super::{Request, TokenizerError, Unsupported, Vocabulary, bpe, byte_fallback, set, spm};
use ggufsmith_arch::VocabRoute;
use ggufsmith_gguf::Value;
use serde_json::Value as Json;

/// Ids that are set whatever the vocabulary has under them.
type Ids = &'static [(&'static str, u32)];

/// Of Code Llama; the converter takes a vocabulary of 32,016 tokens for its.
const CODE_LLAMA: Ids = &[("prefix", 32007), ("suffix", 32008), ("middle", 32009), ("eot", 32010)];

/// Of CodeGemma; the converter sets them for every Gemma of the first generation.
const CODE_GEMMA: Ids = &[("prefix", 67), ("suffix", 69), ("middle", 68), ("fsep", 70), ("eot", 107)];

/// `tokenizer.ggml.model` and `tokenizer.ggml.pre`.
type Names = (&'static str, Pre);

/// What a route finds, as it is found.
pub(super) struct Output {
    pub(super) metadata: Vec<(String, Value)>,
    pub(super) warnings: Vec<String>,
}

impl Output {
    /// The vocabulary by the route of `request`.
    pub(super) fn fill(
        &mut self,
        files: &mut Files,
        request: &Request,
        given: Option<&'static str>,
    ) -> Result<Names, TokenizerError> {
        match request.route {
            VocabRoute::Llama => self.llama(files, request, given),
            VocabRoute::Bpe => self.bpe(files, request, given),
            VocabRoute::SentencePieceOrBpe => match files.dir.bytes("tokenizer.model")? {
                Some(model) => self.pieces(files, request, given, &model, spm::Dialect::Common),
                None => self.bpe(files, request, given),
            },
            VocabRoute::Phi3 => self.phi3(files, request, given),
            VocabRoute::Gemma => {
                let names = self.model_or_json(files, request, given, spm::Dialect::Common)?;
                self.fixed_ids(files, CODE_GEMMA, "CodeGemma's vocabulary")?;
                self.without_space(names)
            }
            VocabRoute::Gemma2 | VocabRoute::Gemma3 => {
                let names = self.model_or_json(files, request, given, spm::Dialect::Common)?;
                self.without_space(names)
            }
        }
    }

    fn llama(&mut self, files: &mut Files, request: &Request, given: Option<&'static str>) -> Result<Names, TokenizerError> {
        if files.tokenizer_json.is_none() && files.dir.bytes("tekken.json")?.is_some() {
            return Err(TokenizerError::Unsupported {
                what: Unsupported::Tekken,
                supported: "tokenizer.json and tokenizer.model, both of which transformers can write",
            });
        }
        if let Some(config) = &files.tokenizer_config {
            match config.get("add_prefix_space") {
                None | Some(Json::Null) => {}
                Some(&Json::Bool(flag)) => set(&mut self.metadata, "tokenizer.ggml.add_space_prefix", flag),
                Some(other) => {
                    return Err(TokenizerError::Type {
                        file: "tokenizer_config.json",
                        key: "add_prefix_space".into(),
                        expected: "a boolean",
                        found: Kind::of(other),
                    });
                }
            }
            if config.get("tokenizer_class").and_then(Json::as_str) == Some("HybridDNATokenizer") {
                return Err(TokenizerError::Unsupported {
                    what: Unsupported::Class("HybridDNATokenizer".into()),
                    supported: "byte-level BPE and SentencePiece tokenizers",
                });
            }
        }
        let names = if let Some(model) = files.dir.bytes("tokenizer.model")? {
            self.pieces(files, request, given, &model, spm::Dialect::Common)?
        } else if files.tokenizer_json.as_ref().is_some_and(byte_fallback::accepts) {
            let vocabulary = byte_fallback::vocabulary(files, byte_fallback::Scores::Equal, &mut self.warnings)?;
            self.sentencepiece_like(files, vocabulary, given)?
        } else {
            self.bpe(files, request, given)?
        };
        // The converter takes these two numbers for Code Llama and for Granite's code models; SmolLM's 49,152 is caught, too.
        if request.vocab_size == 32016 {
            self.fixed_ids(files, CODE_LLAMA, "Code Llama's vocabulary")?;
        }
        if request.vocab_size == 49152 {
            set(&mut self.metadata, "tokenizer.ggml.add_bos_token", false);
        }
        Ok(names)
    }

    fn phi3(&mut self, files: &mut Files, request: &Request, given: Option<&'static str>) -> Result<Names, TokenizerError> {
        let class = files.tokenizer_config.as_ref().and_then(|config| config.get("tokenizer_class"));
        if class.and_then(Json::as_str) == Some("GPT2Tokenizer") {
            return self.bpe(files, request, given);
        }
        self.model_or_json(files, request, given, spm::Dialect::Phi3)
    }

    /// tokenizer.model; without it, where the converter gives up, tokenizer.json of either kind.
    fn model_or_json(
        &mut self,
        files: &mut Files,
        request: &Request,
        given: Option<&'static str>,
        dialect: spm::Dialect,
    ) -> Result<Names, TokenizerError> {
        if let Some(model) = files.dir.bytes("tokenizer.model")? {
            return self.pieces(files, request, given, &model, dialect);
        }
        if !files.tokenizer_json.as_ref().is_some_and(byte_fallback::accepts) {
            return self.bpe(files, request, given);
        }
        let scores = byte_fallback::Scores::OfMerges { vocab_size: request.vocab_size };
        let vocabulary = byte_fallback::vocabulary(files, scores, &mut self.warnings)?;
        self.sentencepiece_like(files, vocabulary, given)
    }

    fn pieces(
        &mut self,
        files: &mut Files,
        request: &Request,
        given: Option<&'static str>,
        model: &[u8],
        dialect: spm::Dialect,
    ) -> Result<Names, TokenizerError> {
        let vocabulary = spm::vocabulary(files, model, request.vocab_size, dialect, &mut self.warnings)?;
        self.sentencepiece_like(files, vocabulary, given)
    }

    fn sentencepiece_like(
        &mut self,
        files: &mut Files,
        vocabulary: Vocabulary,
        given: Option<&'static str>,
    ) -> Result<Names, TokenizerError> {
        if let Some(name) = given.filter(|&name| name != "default") {
            self.warnings.push(format!("--pre {name} is ignored: a SentencePiece vocabulary has no pre-tokenizer"));
        }
        let tokens = vocabulary.len();
        set(&mut self.metadata, "tokenizer.ggml.model", "llama");
        set(&mut self.metadata, "tokenizer.ggml.pre", "default");
        vocabulary.write(true, &mut self.metadata)?;
        self.special(files, false, Some(tokens))?;
        Ok(("llama", Pre { name: "default", source: PreSource::Fixed, hash: None }))
    }

    fn bpe(&mut self, files: &mut Files, request: &Request, given: Option<&'static str>) -> Result<Names, TokenizerError> {
        let found = bpe::vocabulary(files, request.vocab_size, given, &mut self.warnings)?;
        set(&mut self.metadata, "tokenizer.ggml.model", "gpt2");
        set(&mut self.metadata, "tokenizer.ggml.pre", found.pre.name);
        found.vocabulary.write(false, &mut self.metadata)?;
        self.special(files, true, None)?;
        Ok(("gpt2", found.pre))
    }

    fn special(&mut self, files: &mut Files, merges: bool, tokens: Option<usize>) -> Result<(), TokenizerError> {
        let mut special = SpecialVocab::load(files, special::KINDS, merges, tokens)?;
        self.warnings.append(&mut special.warnings);
        special.write(&mut self.metadata);
        Ok(())
    }

    /// Special tokens by number; what the files say of these kinds comes first.
    fn fixed_ids(&mut self, files: &mut Files, ids: Ids, of: &'static str) -> Result<(), TokenizerError> {
        let kinds: Vec<&'static str> = ids.iter().map(|(kind, _)| *kind).collect();
        let mut special = SpecialVocab::load(files, &kinds, false, None)?;
        for (kind, id) in ids {
            special.set_id(kind, &(*id).into(), None, of, kind)?;
        }
        special.write(&mut self.metadata);
        Ok(())
    }

    /// Gemma puts no space in front of a text.
    fn without_space(&mut self, names: Names) -> Result<Names, TokenizerError> {
        if names.0 == "llama" {
            set(&mut self.metadata, "tokenizer.ggml.add_space_prefix", false);
        }
        Ok(names)
    }
}
