//! Tensors against their source: files of the real library and of the reference, and files with one thing wrong.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::{Edit, Source, convert, convert_with, fixture, plain_types};
use ggufsmith_convert::plan::Via;
use ggufsmith_core::{Rows, Words, formats};
use ggufsmith_gguf::{Limits, Shards, SplitLimits};
use ggufsmith_verify::report::{Check, Status, TensorFigures, TensorVerdict};
use ggufsmith_verify::tensors;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const TINY: [&str; 5] = ["llama", "llama-256", "llama3-rope", "llama-spm", "mistral"];

fn verdict(figures: &[TensorFigures], name: &str) -> TensorVerdict {
    figures.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no figures of {name}")).verdict
}

/// One problem, which names the tensor and has the words.
fn assert_problem(check: &Check, tensor: &str, words: &str) {
    assert_eq!(check.status, Status::Failed, "{}", check.summary);
    let of: Vec<_> = check.problems.iter().filter(|p| p.split([' ', ':', ',']).any(|word| word == tensor)).collect();
    assert!(of.iter().any(|problem| problem.contains(words)), "{words:?} is not said of {tensor}: {:#?}", check.problems);
}

#[test]
fn what_the_library_makes_is_exact_in_every_type() {
    for model in ["bard".to_owned()].into_iter().chain(TINY.map(|name| format!("tiny/{name}/hf"))) {
        let source = Source::open(&model);
        let types = plain_types(&model);
        let (_out, files) = convert_with(&model, &types, Via::Auto, SplitLimits::default());
        for (name, file) in types.iter().zip(files) {
            let (check, figures) = source.check(&file);
            assert_eq!((check.status, check.problems.len()), (Status::Passed, 0), "{model} {name}: {check:#?}");
            let good = |f: &TensorFigures| matches!(f.verdict, TensorVerdict::Lossless | TensorVerdict::Exact);
            assert!(figures.iter().all(good), "{model} {name}");
            assert!(figures.iter().all(|f| f.via.is_none()), "{model} {name}: {}", check.summary);
            // One or two bits keep the direction only.
            let least = if ["Q1_0", "Q2_0", "TQ1_0", "TQ2_0"].contains(name) { 0.6 } else { 0.95 };
            assert!(figures.iter().all(|f| f.cosine > least && f.non_finite == 0), "{model} {name}");
            if *name == "F32" {
                assert!(figures.iter().all(|f| f.verdict == TensorVerdict::Lossless && f.rmse == 0.0), "{model}");
            }
        }
    }
}

#[test]
fn files_of_the_reference_converter_are_lossless() {
    for name in TINY {
        let source = Source::open(&format!("tiny/{name}/hf"));
        let (check, figures) = source.check(&fixture(&format!("tiny/{name}/f32.gguf")));
        assert_eq!(check.status, Status::Passed, "{name}: {check:#?}");
        let computed = |f: &&TensorFigures| f.name == "rope_freqs.weight";
        assert!(figures.iter().all(|f| f.verdict == TensorVerdict::Lossless || computed(&f)), "{name}");
        assert_eq!(check.summary, format!("{0} of {0} tensors are lossless", figures.len()), "{name}");
    }
}

#[test]
fn the_intermediate_type_is_found() {
    let model = "dtypes/llama-256-f32/hf";
    let source = Source::open(model);
    for (words, name) in [(Words::BF16, "BF16"), (Words::F16, "F16")] {
        let (_out, files) = convert_with(model, &["Q4_0", "Q6_K"], Via::Words(words), SplitLimits::default());
        for file in files {
            let (check, figures) = source.check(&file);
            assert_eq!(check.status, Status::Passed, "{check:#?}");
            assert!(check.summary.ends_with(&format!("through a {name} file on the way")), "{}", check.summary);
            let matrix = figures.iter().find(|f| f.name == "blk.0.ffn_up.weight").unwrap();
            assert_eq!((matrix.verdict, matrix.via.as_deref()), (TensorVerdict::Exact, Some(name)));
        }
    }
    // Rounded from F32: exact, not lossless.
    let (_out, file) = convert(model, "F16");
    let (check, figures) = source.check(&file);
    assert_eq!(check.status, Status::Passed);
    assert_eq!(verdict(&figures, "blk.0.ffn_up.weight"), TensorVerdict::Exact);
    assert_eq!(verdict(&figures, "output_norm.weight"), TensorVerdict::Lossless);
}

#[test]
fn shards_and_thread_counts_give_the_same_figures() {
    let source = Source::open("bard");
    let split = SplitLimits { max_tensors: 10, ..Default::default() };
    let (_out, shards) = convert_with("bard", &["Q4_1"], Via::Auto, split);
    let (_out1, whole) = convert("bard", "Q4_1");
    assert!(shards.len() > 1);
    let expected = source.check_with(&whole, None, 1);
    assert_eq!(source.check_with(&whole, None, 3), expected);
    assert_eq!(source.check_with(&shards[1], None, 2), expected);
    assert!(expected.1.iter().filter(|f| f.format == "Q4_1").all(|f| f.relative_rmse > 0.01 && f.relative_rmse < 0.2));
}

/// A bard of some type, changed by `edit`, and what the check says of it.
fn sabotaged(file_type: &str, edit: impl FnOnce(&mut Edit)) -> (Check, Vec<TensorFigures>) {
    let (out, file) = convert("bard", file_type);
    let mut gguf = Edit::read(&file);
    edit(&mut gguf);
    let bad = out.path().join("bad.gguf");
    gguf.write(&bad);
    Source::open("bard").check(&bad)
}

#[test]
fn an_edit_that_changes_nothing_is_no_finding() {
    let (check, _) = sabotaged("Q8_0", |_| ());
    assert_eq!(check.status, Status::Passed, "{check:#?}");
}

#[test]
fn rows_that_were_not_permuted_are_told() {
    for file_type in ["BF16", "Q4_0"] {
        let (check, figures) = sabotaged(file_type, |gguf| {
            // 4 heads of 64 rows each: neighbouring pairs back to halves.
            let rows = gguf.data("blk.2.attn_q.weight");
            let size = rows.len() / 256;
            let old = rows.clone();
            for row in 0..256 {
                let (head, half, i) = (row / 64, row % 64 / 32, row % 32);
                let from = head * 64 + i * 2 + half;
                rows[row * size..(row + 1) * size].copy_from_slice(&old[from * size..(from + 1) * size]);
            }
        });
        assert_problem(&check, "blk.2.attn_q.weight", "its rows are in the checkpoint's order");
        assert_eq!(check.problems.len(), 1);
        assert_eq!(verdict(&figures, "blk.2.attn_q.weight"), TensorVerdict::Wrong);
        assert_eq!(verdict(&figures, "blk.1.attn_q.weight"), verdict(&figures, "blk.3.attn_q.weight"));
    }
}

#[test]
fn a_zeroed_norm_is_told() {
    let (check, _) = sabotaged("Q4_0", |gguf| gguf.data("blk.1.ffn_norm.weight").fill(0));
    assert_problem(&check, "blk.1.ffn_norm.weight", "all its values are 0");
}

#[test]
fn swapped_layers_are_told() {
    for file_type in ["F32", "Q5_0"] {
        let (check, _) = sabotaged(file_type, |gguf| {
            gguf.swap("blk.0.attn_v.weight", "blk.3.attn_v.weight");
            gguf.swap("blk.1.attn_norm.weight", "blk.2.attn_norm.weight");
            gguf.swap("blk.1.ffn_gate.weight", "blk.1.ffn_up.weight");
        });
        for (a, b) in [
            ("blk.0.attn_v.weight", "blk.3.attn_v.weight"),
            ("blk.1.attn_norm.weight", "blk.2.attn_norm.weight"),
            ("blk.1.ffn_gate.weight", "blk.1.ffn_up.weight"),
        ] {
            assert_problem(&check, a, &format!("its content is that of {b}"));
            assert_problem(&check, b, &format!("its content is that of {a}"));
        }
        assert_eq!(check.problems.len(), 6);
    }
}

#[test]
fn one_flipped_bit_in_a_scale_is_found_with_its_place() {
    // The upper exponent bit of the scale of row 5's block 3 (Q8_0: 34 bytes per block, 8 blocks per row).
    let at = (5 * 8 + 3) * 34;
    let mut offset = 0;
    let (check, figures) = sabotaged("Q8_0", |gguf| {
        gguf.data("blk.0.attn_output.weight")[at + 1] ^= 0x10;
        offset = at;
    });
    assert_eq!(verdict(&figures, "blk.0.attn_output.weight"), TensorVerdict::Wrong);
    assert_problem(&check, "blk.0.attn_output.weight", "1 of 2048 blocks differ from what the source gives, the first in row 5");
    assert_problem(&check, "blk.0.attn_output.weight", "times the usual error");
    assert_eq!(check.problems.len(), 1);
}

#[test]
fn a_scale_that_is_not_finite_is_found() {
    for (file_type, scale) in [("Q4_0", 0), ("Q4_1", 2), ("Q5_0", 0), ("Q5_1", 2), ("Q8_0", 0), ("Q6_K", 208)] {
        let (check, figures) = sabotaged(file_type, |gguf| {
            gguf.data("blk.0.attn_output.weight")[scale..scale + 2].copy_from_slice(&0x7c00u16.to_le_bytes());
        });
        assert_problem(&check, "blk.0.attn_output.weight", "NaN or infinite");
        assert_eq!(verdict(&figures, "blk.0.attn_output.weight"), TensorVerdict::Wrong, "{file_type}");
    }
}

#[test]
fn one_flipped_bit_in_a_code_is_never_exact() {
    for bit in 0..8 {
        for (file_type, code) in [("Q4_0", 5), ("Q4_1", 9), ("Q5_0", 11), ("Q5_1", 12), ("Q8_0", 7), ("Q6_K", 40)] {
            let (check, figures) = sabotaged(file_type, |gguf| gguf.data("blk.0.ffn_down.weight")[code] ^= 1 << bit);
            let found = verdict(&figures, "blk.0.ffn_down.weight");
            match found {
                // A search may find a block that is as good.
                TensorVerdict::Bounded if file_type == "Q6_K" => {
                    assert!(check.summary.contains("blk.0.ffn_down.weight (in 1 of "), "{}", check.summary)
                }
                found => assert_eq!(found, TensorVerdict::Wrong, "{file_type} bit {bit}"),
            }
        }
        for file_type in ["F32", "F16", "BF16"] {
            let (check, figures) = sabotaged(file_type, |gguf| gguf.data("blk.0.ffn_down.weight")[101] ^= 1 << bit);
            assert_eq!(verdict(&figures, "blk.0.ffn_down.weight"), TensorVerdict::Wrong, "{file_type} bit {bit}");
            assert_problem(&check, "blk.0.ffn_down.weight", "1 of 131072 values differ");
        }
    }
}

#[test]
fn another_rounding_is_bounded_and_another_matrix_wrong() {
    let name = "blk.2.ffn_up.weight";
    let encode = |values: &[f32], importance: Option<&[f32]>, out: &mut [u8]| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let rows = Rows { words: Words::F32, cols: 256, bytes: &bytes };
        formats::q4_0::ENCODER.encode(rows, importance, out).unwrap();
    };
    let (_out, plain) = convert("bard", "F32");
    let source: Vec<f32> = {
        let mut gguf = Edit::read(&plain);
        gguf.data(name).as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
    };
    // Every column as important as every other: the scale is searched for, and is better.
    let (check, figures) = sabotaged("Q4_0", |gguf| encode(&source, Some(&[1.0; 256]), gguf.data(name)));
    assert_eq!((check.status, verdict(&figures, name)), (Status::Passed, TensorVerdict::Bounded), "{check:#?}");
    assert!(check.summary.ends_with(name), "{}", check.summary);

    // Weights of the same size that are no relatives.
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let other: Vec<f32> = source.iter().map(|_| random() * 0.1).collect();
    let (check, figures) = sabotaged("Q4_0", |gguf| encode(&other, None, gguf.data(name)));
    assert_eq!(verdict(&figures, name), TensorVerdict::Wrong);
    assert_problem(&check, name, "is not what the source gives");
    let figures = figures.iter().find(|f| f.name == name).unwrap();
    assert!(figures.relative_rmse > 0.5 && figures.cosine.abs() < 0.05, "{figures:?}");
    // Slightly worse than allowed: every value a little smaller.
    let shrunk: Vec<f32> = source.iter().map(|value| value * 0.95).collect();
    let (check, figures) = sabotaged("Q4_0", |gguf| encode(&shrunk, None, gguf.data(name)));
    assert_eq!(verdict(&figures, name), TensorVerdict::Wrong);
    assert_problem(&check, name, "it resembles the source");
    // The bounded one with a scale that lost its upper exponent bit: the block is far from anything an encoder makes.
    let (check, figures) = sabotaged("Q4_0", |gguf| {
        encode(&source, Some(&[1.0; 256]), gguf.data(name));
        gguf.data(name)[18 * 77 + 1] ^= 0x40;
    });
    assert_eq!(verdict(&figures, name), TensorVerdict::Wrong);
    assert_problem(&check, name, "times the usual error");
}

#[test]
fn tensors_that_are_missing_too_many_or_of_another_shape() {
    let (check, _) = sabotaged("Q8_0", |gguf| gguf.remove("blk.3.ffn_norm.weight"));
    assert_problem(&check, "blk.3.ffn_norm.weight", "the file has no tensor");
    let (check, figures) = sabotaged("Q8_0", |gguf| {
        let mut copy = gguf.tensors[gguf.at("blk.3.ffn_norm.weight")].clone();
        copy.0.name = "rope_freqs.weight".into();
        gguf.tensors.push(copy);
    });
    assert_problem(&check, "rope_freqs.weight", "nothing in the source corresponds");
    assert_eq!(verdict(&figures, "rope_freqs.weight"), TensorVerdict::Wrong);
    let (check, figures) = sabotaged("F16", |gguf| {
        let at = gguf.at("blk.1.ffn_up.weight");
        gguf.tensors[at].0.shape.reverse();
    });
    assert_problem(&check, "blk.1.ffn_up.weight", "has the shape [256, 512], the source makes it [512, 256]");
    assert_eq!(verdict(&figures, "blk.1.ffn_up.weight"), TensorVerdict::Wrong);
    // A head written out although it is tied is the embedding again, or wrong.
    let head = |gguf: &mut Edit| {
        let mut copy = gguf.tensors[gguf.at("token_embd.weight")].clone();
        copy.0.name = "output.weight".into();
        gguf.tensors.push(copy);
    };
    let (check, figures) = sabotaged("Q8_0", head);
    assert_eq!((check.status, verdict(&figures, "output.weight")), (Status::Passed, TensorVerdict::Exact));
    let (check, _) = sabotaged("Q8_0", |gguf| {
        head(gguf);
        gguf.data("output.weight").rotate_left(34);
    });
    assert_problem(&check, "output.weight", "is not what the source gives");
}

#[test]
fn a_shift_of_a_row_is_wrong_even_where_layers_are_alike() {
    let (check, _) = sabotaged("Q6_K", |gguf| gguf.data("blk.0.ffn_gate.weight").rotate_right(210));
    assert_problem(&check, "blk.0.ffn_gate.weight", "512 of 512 blocks differ");
}

#[test]
fn progress_counts_the_source_and_cancelling_stops() {
    let (_out, file) = convert("bard", "Q4_0");
    let source = Source::open("bard");
    let shards = Shards::open(&file, &Limits::default()).unwrap();
    let done = AtomicU64::new(0);
    let progress = |bytes| _ = done.fetch_add(bytes, Ordering::Relaxed);
    let cancel = AtomicBool::new(false);
    let options = tensors::Options { threads: 2, imatrix: None, cancel: &cancel, progress: &progress };
    tensors::check(&shards, &source.checkpoint, &source.model, &options).unwrap();
    let expected = tensors::source_bytes(&shards, &source.model);
    assert_eq!((done.load(Ordering::Relaxed), expected), (expected, 2 * 2_623_744));
    cancel.store(true, Ordering::Relaxed);
    let stopped = tensors::check(&shards, &source.checkpoint, &source.model, &options);
    assert!(matches!(stopped, Err(tensors::Error::Cancelled)));
}

#[test]
fn a_file_that_shrinks_is_an_error_that_names_it() {
    let (_out, file) = convert("bard", "Q4_0");
    let source = Source::open("bard");
    let shards = Shards::open(&file, &Limits::default()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(100_000).unwrap();
    let options = tensors::Options { threads: 2, imatrix: None, cancel: &AtomicBool::new(false), progress: &|_| () };
    let error = tensors::check(&shards, &source.checkpoint, &source.model, &options).unwrap_err();
    assert!(error.to_string().contains(file.file_name().unwrap().to_str().unwrap()), "{error}");
}

#[test]
fn computed_tables_may_differ_by_another_machines_last_bits() {
    let model = "tiny/llama3-rope/hf";
    let source = Source::open(model);
    let (out, file) = convert(model, "F32");
    let changed = |factor: f32| {
        let mut gguf = Edit::read(&file);
        for word in gguf.data("rope_freqs.weight").as_chunks_mut().0 {
            *word = (f32::from_le_bytes(*word) * factor).to_le_bytes();
        }
        let path = out.path().join("changed.gguf");
        gguf.write(&path);
        verdict(&source.check(&path).1, "rope_freqs.weight")
    };
    assert_eq!(changed(1.0), TensorVerdict::Lossless);
    assert_eq!(changed(1.0 + f32::EPSILON), TensorVerdict::Bounded);
    assert_eq!(changed(1.001), TensorVerdict::Wrong);
}
