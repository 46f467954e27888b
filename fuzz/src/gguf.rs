//! A GGUF file from its first to its last byte.

use ggufsmith_gguf::{Header, Limits};
use ggufsmith_tokenizer::GgufTokenizer;
use std::io::Cursor;
use std::path::Path;

/// The input is a whole GGUF file. What is accepted is strict: every tensor lies inside the file, behind the one before.
pub fn gguf_reader(data: &[u8]) {
    let Ok(header) = Header::read(Cursor::new(data), Path::new("x.gguf"), &Limits::default()) else { return };
    assert_eq!(header.file_size(), data.len() as u64);
    let mut end = header.data_offset();
    for tensor in header.tensors() {
        assert!(tensor.offset >= end && tensor.offset.is_multiple_of(header.alignment()), "{tensor:?}");
        end = tensor.offset + tensor.bytes;
        assert!(end <= data.len() as u64, "{tensor:?}");
        assert!(header.tensor(&tensor.name).is_some());
    }
    // What the metadata is used for; both refuse most of it.
    let _ = ggufsmith_arch::decoder_of_gguf(header.metadata(), &|name| header.tensor(name).is_some());
    if let Ok(tokenizer) = GgufTokenizer::new(header.metadata())
        && let Ok(ids) = tokenizer.encode("A sentence, 12 of them: <s> \u{e9}\n", true)
    {
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.len()));
        tokenizer.decode(&ids, true);
    }
}
