//! Files that were not made by a type's rules alone: with an importance matrix, or of tensors that were chosen.

use crate::families::copy;
use crate::{Test, check, convert, demand, plain, report, text};
use ggufsmith_tests::binary::ggufsmith;
use ggufsmith_tests::gguf::Gguf;
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::Trial;
use std::path::Path;

pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        ("chosen::files_of_importance_are_faithful_with_it", importance),
        ("chosen::importance_of_experts_and_of_transposed_matrices", small_models),
        ("chosen::another_importance_is_not_the_one", another),
        ("chosen::selections_are_faithful", selections),
        ("chosen::a_type_that_no_tensor_has_is_wrong", no_such_type),
    ];
    tests.iter().map(|(name, test)| plain(name, *test)).collect()
}

fn importance() -> Result<(), String> {
    let (bard, out) = (fixture("bard"), scratch());
    for (file_type, matrix) in [
        ("Q4_0", "bard.imatrix.gguf"),
        ("Q4_K_M", "bard.imatrix.dat"),
        ("Q2_K_S", "bard.imatrix.gguf"),
        ("IQ4_XS", "bard.imatrix.gguf"),
        ("Q8_0", "bard.imatrix.gguf"),
    ] {
        let (file, matrix) = (out.path().join(format!("{file_type}.gguf")), fixture(matrix));
        let given = ["--imatrix", text(&matrix)?, "--chunks", "1", "--no-latency", "--json"];
        let first = ["convert", text(&bard)?, "--type", file_type, "--out", text(&file)?, "--verify"];
        let all = ggufsmith(&[&first[..], &given[..]].concat());
        demand(all.code == Some(0), || all.describe("exit code 0"))?;
        let again = report(&ggufsmith(&[&["verify", text(&file)?, "--against", text(&bard)?][..], &given[..]].concat()), 0)?;
        let forward = check(&again, "forward")?["summary"].as_str().unwrap_or_default().to_owned();
        demand(forward.contains("at the same precision"), || format!("{file_type}: {forward}"))?;
        demand(again["tensors"].as_array().is_some_and(|all| all.iter().all(|t| t["verdict"] != "bounded")), || {
            again.to_string()
        })?;
    }
    Ok(())
}

/// An importance matrix in the old form: of every matrix of a file's blocks some numbers that differ from column to column.
fn matrix(file: &Path, out: &Path, seed: u32) -> Result<(), String> {
    let gguf = Gguf::load(file);
    let matrices: Vec<_> =
        gguf.tensors.iter().filter(|t| t.name.starts_with("blk.") && t.name.ends_with(".weight") && t.dims.len() > 1).collect();
    let mut bytes = (matrices.len() as u32).to_le_bytes().to_vec();
    let mut state = seed;
    for tensor in matrices {
        let columns = tensor.dims[0] * tensor.dims.get(2).copied().unwrap_or(1);
        bytes.extend((tensor.name.len() as u32).to_le_bytes());
        bytes.extend(tensor.name.as_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend((columns as u32).to_le_bytes());
        for _ in 0..columns {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.extend((0.01 + (state >> 8) as f32 / (1 << 20) as f32).to_le_bytes());
        }
    }
    std::fs::write(out, bytes).map_err(|e| e.to_string())
}

fn small_models() -> Result<(), String> {
    for name in ["mixtral", "qwen3moe", "gpt2", "phi3", "falcon"] {
        let out = scratch();
        let model = copy(name, out.path())?;
        convert(&model, out.path(), "F32")?;
        let matrix_file = out.path().join("imatrix.dat");
        matrix(&outputs::of_type(out.path(), "F32")?, &matrix_file, 1)?;
        let file = out.path().join("chosen.gguf");
        let given = ["--imatrix", text(&matrix_file)?, "--json"];
        let first = ["convert", text(&model)?, "--type", "Q4_0", "--out", text(&file)?];
        ggufsmith(&[&first[..], &given[..]].concat()).ok()?;
        let run =
            ["verify", text(&file)?, "--against", text(&model)?, "--chunks", "1", "--no-latency", "--max-ppl-ratio", "1000"];
        let report = report(&ggufsmith(&[&run[..], &given[..]].concat()), 0)?;
        let forward = check(&report, "forward")?["summary"].as_str().unwrap_or_default().to_owned();
        demand(forward.contains("at the same precision"), || format!("{name}: {forward}"))?;
        // Without it the bytes are not ours.
        let plain = ggufsmith(&[&run[..], &["--json"]].concat());
        demand(plain.stdout.contains("\"bounded\"") || plain.stdout.contains("\"wrong\""), || plain.describe(name))?;
    }
    Ok(())
}

fn another() -> Result<(), String> {
    let (bard, out) = (fixture("bard"), scratch());
    convert(&bard, out.path(), "F32")?;
    let plain = outputs::of_type(out.path(), "F32")?;
    let (right, wrong, file) = (out.path().join("a.dat"), out.path().join("b.dat"), out.path().join("chosen.gguf"));
    matrix(&plain, &right, 1)?;
    matrix(&plain, &wrong, 2)?;
    let first = ["convert", text(&bard)?, "--type", "Q4_0", "--out", text(&file)?, "--imatrix", text(&right)?];
    ggufsmith(&first).ok()?;
    let run =
        ggufsmith(&["verify", text(&file)?, "--against", text(&bard)?, "--no-forward", "--json", "--imatrix", text(&wrong)?]);
    let other = run.stdout.contains("\"bounded\"") || run.stdout.contains("\"wrong\"");
    demand(other, || run.describe("tensors that are not exact"))
}

fn selections() -> Result<(), String> {
    let (bard, out) = (fixture("bard"), scratch());
    for (number, options) in [
        "--type Q4_0 --only layers=0-1 --only ffn",
        "--type Q4_0 --only attn",
        "--type Q8_0 --only ffn",
        "--type Q4_0 --tensor-type ffn=q8_0",
        "--type Q4_K_M --only attn",
    ]
    .iter()
    .enumerate()
    {
        let file = out.path().join(format!("{number}.gguf"));
        let mut args = vec!["convert", text(&bard)?, "--out", text(&file)?, "--verify", "--chunks", "1", "--no-latency"];
        args.extend(options.split(' '));
        let run = ggufsmith(&args);
        demand(run.code == Some(0), || run.describe(&format!("exit code 0 with {options}")))?;
    }
    Ok(())
}

fn no_such_type() -> Result<(), String> {
    let (bard, out) = (fixture("bard"), scratch());
    convert(&bard, out.path(), "Q8_0")?;
    let file = outputs::of_type(out.path(), "Q8_0")?;
    let mut gguf = Gguf::load(&file);
    let entry = gguf.entries.iter_mut().find(|entry| entry.key == "general.file_type").ok_or("there is one")?;
    entry.raw = 2u32.to_le_bytes().to_vec();
    let changed = out.path().join("changed.gguf");
    gguf.write(&changed);
    let run = ggufsmith(&["verify", text(&changed)?, "--against", text(&bard)?, "--no-forward", "--json"]);
    let said = run.stdout.contains("most weights are Q8_0 and none is Q4_0");
    demand(run.code == Some(1) && said, || run.describe("exit code 1"))
}
