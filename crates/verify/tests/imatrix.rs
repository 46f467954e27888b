//! Importance matrices: the real one of the reference, and defective ones.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::{Edit, Source, convert, fixture};
use ggufsmith_core::{Rows, Words, formats};
use ggufsmith_gguf::{Layout, Metadata, TensorSpec};
use ggufsmith_verify::imatrix::{Imatrix, ImatrixError};
use ggufsmith_verify::report::{Status, TensorVerdict};
use sha2::{Digest, Sha256};
use std::path::Path;

/// What `llama-quantize --imatrix bard.imatrix.gguf` makes of bard's BF16 file, remade with our reader and encoders.
fn with_importance(file_type: &str, imatrix: &Imatrix, out: &Path) {
    let (_dir, file) = convert("bard", file_type);
    let (_dir, plain) = convert("bard", "BF16");
    let (mut gguf, source) = (Edit::read(&file), Edit::read(&plain));
    for (spec, data) in gguf.tensors.iter_mut().filter(|(spec, _)| spec.format.is_quantized()) {
        let cols = *spec.shape.last().unwrap() as usize;
        let rows = Rows { words: Words::BF16, cols, bytes: &source.tensors[source.at(&spec.name)].1 };
        let importance = imatrix.of(&spec.name, &spec.shape).unwrap();
        formats::encoder_of(spec.format).unwrap().encode(rows, importance, data).unwrap();
    }
    gguf.metadata.set("quantize.imatrix.file", "bard.imatrix.gguf");
    gguf.metadata.set("quantize.imatrix.dataset", imatrix.datasets[0].as_str());
    gguf.metadata.set("quantize.imatrix.entries_count", imatrix.names().len() as u32);
    gguf.metadata.set("quantize.imatrix.chunks_count", 40u32);
    gguf.write(out);
}

#[test]
fn files_of_the_reference_are_exact_with_the_matrix_and_bounded_without() {
    let text = std::fs::read_to_string(fixture("bard.expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let imatrix = Imatrix::open(&fixture("bard.imatrix.gguf")).unwrap();
    assert_eq!(imatrix.names().len(), 28);
    let source = Source::open("bard");
    let out = tempfile::tempdir().unwrap();
    for file_type in ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K"] {
        let file = out.path().join(format!("{file_type}.gguf"));
        with_importance(file_type, &imatrix, &file);
        let sha256: String = Sha256::digest(std::fs::read(&file).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sha256, expected["sha256_llama_quantize_from_bf16_with_imatrix"][file_type], "{file_type}");

        let (check, figures) = source.check_with(&file, Some(&imatrix), 2);
        assert_eq!(check.status, Status::Passed, "{check:#?}");
        assert!(figures.iter().all(|f| matches!(f.verdict, TensorVerdict::Lossless | TensorVerdict::Exact)), "{file_type}");

        let (check, figures) = source.check(&file);
        assert_eq!(check.status, Status::Passed, "{check:#?}");
        let bounded = figures.iter().filter(|f| f.verdict == TensorVerdict::Bounded).map(|f| f.name.as_str());
        let mut bounded: Vec<&str> = bounded.collect();
        bounded.sort_unstable();
        assert!(bounded.iter().copied().eq(imatrix.names()), "{file_type}: {bounded:?}");
        assert!(check.summary.contains("28 have other bytes"), "{}", check.summary);
        assert!(check.summary.contains("quantize.imatrix.file is \"bard.imatrix.gguf\""), "{}", check.summary);
    }
}

/// An importance matrix with these tensors.
fn written(dir: &Path, kind: &str, tensors: &[(&str, &[f32])]) -> std::path::PathBuf {
    let mut metadata = Metadata::new();
    metadata.set("general.type", kind);
    let spec = |(name, values): &(&str, &[f32])| TensorSpec {
        name: (*name).into(),
        shape: vec![values.len() as u64],
        format: &formats::f32::FORMAT,
    };
    let layout = Layout::plan(&metadata, tensors.iter().map(spec).collect()).unwrap();
    let mut bytes = layout.header().to_vec();
    for (placed, (_, values)) in layout.tensors().iter().zip(tensors) {
        bytes.resize(placed.offset as usize, 0);
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes.resize(layout.file_size() as usize, 0);
    let path = dir.join("imatrix.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn sums_are_divided_by_counts_expert_by_expert() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), "imatrix", &[("e.weight.in_sum2", &[1.0, 2.0, 3.0, 4.0]), ("e.weight.counts", &[4.0, 0.0])]);
    let imatrix = Imatrix::open(&path).unwrap();
    assert_eq!(imatrix.of("e.weight", &[2, 7, 2]).unwrap(), Some(&[0.25, 0.5, 1.0, 1.0][..]));
    assert_eq!(imatrix.of("other.weight", &[7, 2]).unwrap(), None);
    let error = imatrix.of("e.weight", &[7, 2]).unwrap_err();
    assert!(matches!(&error, ImatrixError::Length { tensor, expected: 2, found: 4 } if tensor == "e.weight"), "{error}");
    assert!(error.to_string().contains("\"e.weight\""));
}

#[test]
fn a_matrix_of_another_model_is_refused_but_for_the_embedding() {
    let dir = tempfile::tempdir().unwrap();
    let (_out, file) = convert("bard", "Q4_0");
    let shards = ggufsmith_gguf::Shards::open(&file, &Default::default()).unwrap();
    let source = Source::open("bard");
    let check = |name: &str| {
        let (sums, counts) = (format!("{name}.in_sum2"), format!("{name}.counts"));
        let path = written(dir.path(), "imatrix", &[(&sums, &[1.0; 32]), (&counts, &[1.0])]);
        let imatrix = Imatrix::open(&path).unwrap();
        let cancel = std::sync::atomic::AtomicBool::new(false);
        let options =
            ggufsmith_verify::tensors::Options { threads: 1, imatrix: Some(&imatrix), cancel: &cancel, progress: &|_| () };
        ggufsmith_verify::tensors::check(&shards, &source.checkpoint, &source.model, &options).map(|(check, _)| check.status)
    };
    assert_eq!(check("token_embd.weight").unwrap(), Status::Passed);
    let error = check("blk.1.ffn_up.weight").unwrap_err().to_string();
    assert!(error.contains("\"blk.1.ffn_up.weight\"") && error.contains("256") && error.contains("32"), "{error}");
}

#[test]
fn defective_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = |kind: &str, tensors: &[(&str, &[f32])]| Imatrix::open(&written(dir.path(), kind, tensors)).unwrap_err();
    let good: &[(&str, &[f32])] = &[("w.in_sum2", &[1.0, 2.0]), ("w.counts", &[1.0])];
    assert!(Imatrix::open(&written(dir.path(), "imatrix", good)).is_ok());
    assert!(matches!(open("model", good), ImatrixError::NotAnImatrix { found, .. } if found == "model"));
    assert!(matches!(open("imatrix", &[]), ImatrixError::Empty { .. }));
    assert!(matches!(open("imatrix", &good[..1]), ImatrixError::NoPartner { partner, .. } if partner == "w.counts"));
    assert!(matches!(open("imatrix", &good[1..]), ImatrixError::NoPartner { partner, .. } if partner == "w.in_sum2"));
    assert!(
        matches!(open("imatrix", &[("w.weight", &[1.0])]), ImatrixError::UnknownTensor { tensor, .. } if tensor == "w.weight")
    );
    let odd: &[(&str, &[f32])] = &[("w.in_sum2", &[1.0; 3]), ("w.counts", &[1.0; 2])];
    assert!(matches!(open("imatrix", odd), ImatrixError::Counts { sums: 3, counts: 2, .. }));
    let nan: &[(&str, &[f32])] = &[("w.in_sum2", &[1.0, f32::NAN]), ("w.counts", &[1.0])];
    assert!(matches!(open("imatrix", nan), ImatrixError::NotFinite { column: 1, .. }));
    assert!(matches!(Imatrix::open(&fixture("bard/config.json")).unwrap_err(), ImatrixError::Legacy { .. }));
    let model = fixture("tiny/llama/f32.gguf");
    assert!(matches!(Imatrix::open(&model).unwrap_err(), ImatrixError::NotAnImatrix { .. }));
}
