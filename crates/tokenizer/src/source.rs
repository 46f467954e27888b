//! The source's own tokenizer, as transformers 4.57.6 loads it, for encoding text.

use super::auto::AutoTokenizer;
use super::files::Files;
use super::json::{Merges, Model, TokenizerJson, Vocab};
use super::sentencepiece::{self, Piece, PieceType};
use super::{Request, TokenizerError, Unsupported, bpe, classes};
use ggufsmith_arch::VocabRoute;
use ggufsmith_checkpoint::ModelDir;
use serde_json::json;
use std::collections::HashMap;

/// Bytes of the longest piece of a tokenizer.model that is encoded by; every way to cut it is looked at.
const MAX_PIECE: usize = 512;

/// What encodes where there is no tokenizer.json.
const PIECES: &str = "tokenizer.model, converted as transformers does";

/// Text to tokens by the tokenizer files of a model.
pub struct SourceTokenizer {
    auto: AutoTokenizer,
    kind: &'static str,
    bos: Option<u32>,
    add_bos: bool,
    warnings: Vec<String>,
}

impl SourceTokenizer {
    /// The tokenizer of the model in `dir`: tokenizer.json, else the BPE pieces of tokenizer.model, which are made a tokenizer as
    /// transformers' `LlamaConverter` and `GemmaConverter` do.
    ///
    /// # Errors
    /// [`TokenizerError`]: files are missing or damaged, or ([`TokenizerError::Unsupported`]) of a kind that is not encoded by.
    pub fn new(dir: &ModelDir, request: &Request) -> Result<Self, TokenizerError> {
        let mut files = Files::read(dir, request)?;
        let mut warnings = Vec::new();
        let mut kind = "tokenizer.json";
        if files.tokenizer_json.is_none()
            && !matches!(request.route, VocabRoute::Bpe)
            && let Some(model) = dir.bytes("tokenizer.model")?
        {
            kind = PIECES;
            files.tokenizer_json = Some(converted(&files, &model)?);
        }
        let tokens = bpe::take_tokens(&mut files)?;
        let json = files.tokenizer_json.as_ref().ok_or(TokenizerError::Missing { looked_for: &["tokenizer.json"] })?;
        let auto = AutoTokenizer::load(&files, json, &tokens, true, &mut warnings)?;

        let bos = auto.bos.or_else(|| {
            let id = request.config.get("bos_token_id")?.as_u64()?;
            u32::try_from(id).ok().filter(|&id| auto.token(id).is_some())
        });
        let (plain, framed) = (auto.ids("a", false)?, auto.encode("a")?);
        let add_bos = framed.len() > plain.len() && bos.is_some() && framed.first().copied() == bos;
        Ok(SourceTokenizer { auto, kind, bos, add_bos, warnings })
    }

    /// `tokenizer.encode(text, add_special_tokens=add_special)`. Special tokens that the text spells out are recognised.
    ///
    /// # Errors
    /// [`TokenizerError::Library`], [`TokenizerError::Panicked`]: the library cannot encode the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        if add_special { self.auto.encode(text) } else { self.auto.ids(text, false) }
    }

    /// What encodes: `tokenizer.json`, or how tokenizer.model does.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Begin of sequence: the id of the tokenizer's `bos_token`, else config.json's `bos_token_id`.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Whether the tokenizer puts BOS in front of a text.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// The text of a token.
    pub fn token(&self, id: u32) -> Option<String> {
        self.auto.token(id)
    }

    /// Notes for the summary.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl std::fmt::Debug for SourceTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceTokenizer").field("kind", &self.kind).field("bos", &self.bos).finish_non_exhaustive()
    }
}

/// The tokenizer.json that transformers makes of a tokenizer.model.
fn converted(files: &Files, model: &[u8]) -> Result<TokenizerJson, TokenizerError> {
    let supported = "BPE models of Llama's, Code Llama's and Gemma's tokenizer classes, and tokenizer.json";
    let algorithm = sentencepiece::algorithm(model)?;
    if algorithm != "BPE" {
        return Err(TokenizerError::Unsupported { what: Unsupported::SentencePiece(algorithm), supported });
    }
    let class = classes::pick(files.tokenizer_config.as_ref(), files.config).name;
    let flag = |key: &str, default: bool| {
        let value = files.tokenizer_config.as_ref().and_then(|config| config.get(key));
        value.and_then(serde_json::Value::as_bool).unwrap_or(default)
    };
    let (legacy, prefix) = match class {
        "LlamaTokenizer" | "CodeLlamaTokenizer" => (flag("legacy", true), flag("add_prefix_space", true)),
        "GemmaTokenizer" => (true, false),
        _ => return Err(TokenizerError::Unsupported { what: Unsupported::SentencePieceClass(class), supported }),
    };
    let pieces = sentencepiece::pieces(model)?;
    if let Some(long) = pieces.iter().map(|piece| piece.text.len()).find(|&len| len > MAX_PIECE) {
        let what = "bytes of a piece in tokenizer.model";
        return Err(TokenizerError::Limit { what, count: long as u64, limit: MAX_PIECE as u64 });
    }
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut out = TokenizerJson::default();
    if legacy {
        let mut steps = vec![replace];
        if prefix {
            steps.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        }
        out.normalizer = json!({"type": "Sequence", "normalizers": steps});
    } else {
        let scheme = if prefix { "first" } else { "never" };
        out.pre_tokenizer = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
    }
    let special = |(id, piece): (usize, &Piece)| {
        let control = id < 3 || piece.kind == PieceType::Control;
        let added = control || piece.kind == PieceType::UserDefined;
        added.then(|| json!({"id": id, "content": piece.text, "special": control, "normalized": false}))
    };
    out.added_tokens = pieces.iter().enumerate().filter_map(special).collect();
    let unknown = pieces.iter().find(|piece| piece.kind == PieceType::Unknown).map(|piece| piece.text.clone());
    let options = json!({"type": "BPE", "unk_token": unknown, "fuse_unk": true, "byte_fallback": true});
    out.model = Model {
        merges: Merges::Pairs(merges(&pieces)),
        vocab: Vocab::Tokens(pieces.into_iter().zip(0u32..).map(|(piece, id)| (piece.text, id)).collect()),
        options: options.as_object().cloned().unwrap_or_default(),
    };
    Ok(out)
}

/// `generate_merges` of transformers' convert_slow_tokenizer.py: every way to make a piece of two others, by descending score, then by
/// descending lengths of both; of one piece by ascending ids.
fn merges(pieces: &[Piece]) -> Vec<(String, String)> {
    let ids: HashMap<&str, usize> = pieces.iter().enumerate().map(|(id, piece)| (piece.text.as_str(), id)).collect();
    let mut found = Vec::new();
    for (id, piece) in pieces.iter().enumerate() {
        // The converter gives the first three pieces a score of 0.
        let score = if id < 3 { 0.0 } else { piece.score };
        let cuts = piece.text.char_indices().skip(1).map(|(at, _)| piece.text.split_at(at));
        let mut pairs: Vec<(usize, usize)> = cuts.filter_map(|(left, right)| Some((*ids.get(left)?, *ids.get(right)?))).collect();
        pairs.sort_unstable();
        found.extend(pairs.into_iter().map(|(left, right)| (score, left, right)));
    }
    let chars = |id: usize| pieces[id].text.chars().count();
    found.sort_by_cached_key(|&(score, left, right)| std::cmp::Reverse((Total(score), chars(left), chars(right))));
    found.into_iter().map(|(_, left, right)| (pieces[left].text.clone(), pieces[right].text.clone())).collect()
}

/// A score in its order.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Total(f32);

impl Eq for Total {}

impl Ord for Total {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // -0 and 0 are equal.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl PartialOrd for Total {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
