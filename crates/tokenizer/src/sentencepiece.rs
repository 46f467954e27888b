//! `tokenizer.model`: the pieces of a SentencePiece `ModelProto`, read from protocol-buffer wire format.

use super::error::SentencePieceDefect as Defect;
use super::{MAX_TOKENS, TokenizerError};
use std::collections::HashSet;

/// `SentencePiece.Type` of sentencepiece_model.proto.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl PieceType {
    fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => PieceType::Normal,
            2 => PieceType::Unknown,
            3 => PieceType::Control,
            4 => PieceType::UserDefined,
            5 => PieceType::Unused,
            6 => PieceType::Byte,
            _ => return None,
        })
    }
}

/// One entry of the vocabulary; its id is its position.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: PieceType,
}

/// The pieces of a model, under the conditions that SentencePiece puts to a model when it loads one: texts are there and differ,
/// exactly one piece stands for the unknown.
///
/// # Errors
/// [`TokenizerError::SentencePiece`] with the byte where the file stops making sense.
pub(super) fn pieces(bytes: &[u8]) -> Result<Vec<Piece>, TokenizerError> {
    // ModelProto: `repeated SentencePiece pieces = 1`; trainer, normalizer and test data (2 to 5) do not enter the metadata.
    let mut pieces = Vec::new();
    let mut fields = Fields { bytes, start: 0, at: 0 };
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            let message = field.message()?;
            if pieces.len() == MAX_TOKENS {
                let (count, limit) = (MAX_TOKENS as u64 + 1, MAX_TOKENS as u64);
                return Err(TokenizerError::Limit { what: "pieces in tokenizer.model", count, limit });
            }
            let piece = piece(message, pieces.len())?;
            pieces.push(piece);
        }
    }
    check(&pieces, bytes.len())?;
    Ok(pieces)
}

/// `TrainerSpec.model_type` (field 3 of ModelProto's field 2): the algorithm that the pieces are for.
///
/// # Errors
/// As [`pieces`].
pub(super) fn algorithm(bytes: &[u8]) -> Result<&'static str, TokenizerError> {
    let mut algorithm = 1;
    let mut fields = Fields { bytes, start: 0, at: 0 };
    while let Some(field) = fields.next()? {
        if field.number == 2 {
            let mut spec = field.message()?;
            while let Some(field) = spec.next()? {
                if field.number == 3 {
                    algorithm = field.varint()?;
                }
            }
        }
    }
    Ok(match algorithm {
        1 => "Unigram",
        2 => "BPE",
        3 => "Word",
        4 => "Char",
        _ => "not known",
    })
}

/// SentencePiece: `optional string piece = 1; optional float score = 2; optional Type type = 3 [default = NORMAL]`.
fn piece(mut fields: Fields, id: usize) -> Result<Piece, TokenizerError> {
    let start = fields.start;
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceType::Normal };
    while let Some(field) = fields.next()? {
        match field.number {
            1 => {
                let text = field.message()?;
                piece.text = std::str::from_utf8(text.bytes)
                    .map_err(|e| fail(text.start + e.valid_up_to(), Defect::NotUtf8 { id }))?
                    .to_owned();
            }
            2 => piece.score = f32::from_bits(field.fixed32()?),
            3 => {
                let number = field.varint()?;
                piece.kind =
                    PieceType::from_number(number).ok_or_else(|| fail(field.offset, Defect::PieceType { id, found: number }))?;
            }
            _ => {}
        }
    }
    if piece.text.is_empty() {
        return Err(fail(start, Defect::Empty { id }));
    }
    Ok(piece)
}

fn check(pieces: &[Piece], end: usize) -> Result<(), TokenizerError> {
    if pieces.is_empty() {
        return Err(fail(end, Defect::NoPieces));
    }
    let unknowns = pieces.iter().filter(|p| p.kind == PieceType::Unknown).count();
    if unknowns != 1 {
        return Err(fail(end, Defect::Unknowns(unknowns)));
    }
    let mut seen = HashSet::with_capacity(pieces.len());
    match pieces.iter().find(|p| !seen.insert(p.text.as_str())) {
        Some(twice) => Err(fail(end, Defect::Duplicate { piece: twice.text.clone() })),
        None => Ok(()),
    }
}

fn fail(offset: usize, defect: Defect) -> TokenizerError {
    TokenizerError::SentencePiece { offset, defect }
}

/// The fields of a message, one after the other.
#[derive(Debug, Clone, Copy)]
struct Fields<'a> {
    bytes: &'a [u8],
    /// Where the message starts in the file.
    start: usize,
    /// Position within the message.
    at: usize,
}

/// One field; `offset` is where its key stands in the file.
#[derive(Debug, Clone, Copy)]
struct Field<'a> {
    number: u64,
    offset: usize,
    value: Wire<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64,
    Bytes(Fields<'a>),
    Fixed32(u32),
}

impl Wire<'_> {
    fn number(&self) -> u8 {
        match self {
            Wire::Varint(_) => 0,
            Wire::Fixed64 => 1,
            Wire::Bytes(_) => 2,
            Wire::Fixed32(_) => 5,
        }
    }
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<Field<'a>>, TokenizerError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let offset = self.start + self.at;
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 {
            return Err(fail(offset, Defect::FieldZero));
        }
        // The mask leaves three bits.
        let value = match (key & 7) as u8 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                self.take(8, offset)?;
                Wire::Fixed64
            }
            2 => {
                let len = self.varint()?;
                let start = self.start + self.at;
                Wire::Bytes(Fields { bytes: self.take(len, offset)?, start, at: 0 })
            }
            5 => {
                let mut raw = [0; 4];
                raw.copy_from_slice(self.take(4, offset)?);
                Wire::Fixed32(u32::from_le_bytes(raw))
            }
            other => return Err(fail(offset, Defect::WireType(other))),
        };
        Ok(Some(Field { number, offset, value }))
    }

    fn varint(&mut self) -> Result<u64, TokenizerError> {
        let offset = self.start + self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or_else(|| fail(offset, Defect::CutVarint))?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return Err(fail(offset, Defect::LongVarint));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(fail(offset, Defect::LongVarint))
    }

    fn take(&mut self, len: u64, offset: usize) -> Result<&'a [u8], TokenizerError> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let taken = taken.ok_or_else(|| fail(offset, Defect::BeyondEnd { len, available: rest.len() }))?;
        self.at += taken.len();
        Ok(taken)
    }
}

impl<'a> Field<'a> {
    fn wrong(&self, expected: u8) -> TokenizerError {
        fail(self.offset, Defect::FieldType { field: self.number, expected, found: self.value.number() })
    }

    fn message(&self) -> Result<Fields<'a>, TokenizerError> {
        if let Wire::Bytes(fields) = self.value { Ok(fields) } else { Err(self.wrong(2)) }
    }

    fn fixed32(&self) -> Result<u32, TokenizerError> {
        if let Wire::Fixed32(bits) = self.value { Ok(bits) } else { Err(self.wrong(5)) }
    }

    fn varint(&self) -> Result<u64, TokenizerError> {
        if let Wire::Varint(value) = self.value { Ok(value) } else { Err(self.wrong(0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let mut body = vec![0x0a, text.len() as u8];
        body.extend(text.as_bytes());
        body.push(0x15);
        body.extend(score.to_le_bytes());
        body.extend([0x18, kind]);
        [vec![0x0a, body.len() as u8], body].concat()
    }

    fn model() -> Vec<u8> {
        let mut bytes = [entry("<unk>", 0.0, 2), entry("<s>", 0.0, 3), entry("▁the", -1.5, 1), entry("<0x0A>", 0.0, 6)].concat();
        // trainer_spec, and a field of a later version
        bytes.extend([0x12, 0x02, 0x08, 0x01, 0xf8, 0x06, 0x05]);
        bytes
    }

    #[test]
    fn reads_pieces() {
        let pieces = pieces(&model()).unwrap();
        assert_eq!(pieces.len(), 4);
        assert_eq!(pieces[2], Piece { text: "▁the".into(), score: -1.5, kind: PieceType::Normal });
        assert_eq!(pieces[3].kind, PieceType::Byte);
    }

    fn defect(bytes: &[u8]) -> (usize, Defect) {
        match pieces(bytes) {
            Err(TokenizerError::SentencePiece { offset, defect }) => (offset, defect),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_defect_has_its_error() {
        let good = model();
        assert_eq!(defect(&[]), (0, Defect::NoPieces));
        assert_eq!(defect(&[0x80]), (0, Defect::CutVarint));
        assert_eq!(defect(&[0xff; 11]), (0, Defect::LongVarint));
        assert_eq!(defect(&[0x00]), (0, Defect::FieldZero));
        assert_eq!(defect(&[0x0b]), (0, Defect::WireType(3)));
        assert_eq!(defect(&[0x08, 0x01]), (0, Defect::FieldType { field: 1, expected: 2, found: 0 }));
        assert_eq!(defect(&[0x0a, 0x05, 0x00]), (0, Defect::BeyondEnd { len: 5, available: 1 }));
        let huge = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(defect(&huge), (0, Defect::BeyondEnd { len: u64::MAX, available: 0 }));
        assert_eq!(defect(&[0x0a, 0x03, 0x0a, 0x01, 0xff]), (4, Defect::NotUtf8 { id: 0 }));
        assert_eq!(defect(&[0x0a, 0x00]), (2, Defect::Empty { id: 0 }));
        assert_eq!(defect(&entry("a", 0.0, 7)), (10, Defect::PieceType { id: 0, found: 7 }));
        assert_eq!(defect(&entry("a", 0.0, 1)), (12, Defect::Unknowns(0)));
        let twice = [good.clone(), entry("<s>", 0.0, 3)].concat();
        assert_eq!(defect(&twice).1, Defect::Duplicate { piece: "<s>".into() });
        // A text file (the tiktoken format that Llama 3 ships under this name) is none.
        assert!(pieces(b"IQ== 0\nIg== 1\n").is_err());
    }

    #[test]
    fn no_prefix_of_a_model_panics() {
        let good = model();
        for len in 0..good.len() {
            let _ = pieces(&good[..len]);
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let _ = pieces(&bad);
            }
        }
    }
}
