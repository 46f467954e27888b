//! Importance matrices with one defect each, in llama.cpp's older form (`.dat`: 32-bit counts and lengths, names, floats) and as GGUF.

use crate::source::{fifo, link};
use crate::{bad, demand, judge, limited, text, trial};
use ggufsmith_tests::bytes::RawFile;
use ggufsmith_tests::bytes::kind::STRING;
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::Trial;
use std::path::Path;

const TENSOR: &str = "blk.0.ffn_up.weight";
const MINUS_ONE: u32 = u32::MAX;
const LARGE: u32 = i32::MAX as u32;

/// Name, how the file is made, and the words of the refusal.
struct Case(&'static str, fn(&Path), &'static [&'static str]);

const CASES: &[Case] = &[
    Case("empty", |path| write(path, RawFile::default()), &["byte 0", "the number of entries takes 4 bytes, 0 are left"]),
    Case("entries_of_minus_one", |path| write(path, RawFile::default().u32(MINUS_ONE)), &["byte 4", "number of entries"]),
    Case("entries_2^31-1", |path| write(path, RawFile::default().u32(LARGE)), &["byte 4", "the length of a name"]),
    Case("name_of_minus_one", |path| write(path, RawFile::default().u32(1).u32(MINUS_ONE)), &["byte 8", "length of a name"]),
    Case(
        "name_2^31-1",
        |path| write(path, RawFile::default().u32(1).u32(LARGE).zeros(9)),
        &["byte 8", "2147483647 bytes, 9 are left"],
    ),
    Case("name_not_utf8", |path| write(path, entry(b"\xff", 1).u32(0)), &["a name is not UTF-8"]),
    Case("values_of_minus_one", |path| write(path, entry(b"x", MINUS_ONE)), &["a number of values is not positive"]),
    Case("values_2^31-1", |path| write(path, entry(b"x", LARGE)), &["8589934588 bytes, 0 are left"]),
    Case("values_of_another_model", |path| write(path, values(3, 1.0)), &[TENSOR, "3 values", "another model"]),
    Case("tensor_of_another_model", |path| write(path, entry(b"x", 1).u32(0)), &["no tensor that Q4_0 quantizes"]),
    Case("value_nan", |path| write(path, values(64, f32::NAN)), &[TENSOR, "not finite at column 0"]),
    Case("value_infinite", |path| write(path, values(64, f32::INFINITY)), &[TENSOR, "not finite at column 0"]),
    Case("gguf_of_a_model", model, &["no importance matrix"]),
    Case("gguf_cut_short", |path| write(path, RawFile::default().raw(b"GGUF")), &["byte 4", "the file ends inside the version"]),
    Case("fifo", fifo, &["is not a regular file"]),
    Case("dev_zero", |path| link("/dev/zero", path), &["is not a regular file"]),
    Case("directory", |path| std::fs::create_dir(path).unwrap(), &["is not a regular file"]),
];

pub fn trials() -> Vec<Trial> {
    CASES.iter().map(|case| trial(format!("imatrix::{}", case.0), || check(case))).collect()
}

/// `convert` and `quantize` refuse it and write nothing.
fn check(Case(_, make, words): &Case) -> Result<(), String> {
    let folder = scratch();
    let (path, out) = (folder.path().join("importance"), folder.path().join("out"));
    std::fs::create_dir(&out).map_err(|e| e.to_string())?;
    make(&path);
    let (model, gguf, target) = (fixture("tiny/llama/hf"), fixture("tiny/llama/f32.gguf"), out.join("out.gguf"));
    for args in [
        &["convert", text(&model)?, "--out", text(&out)?, "--type", "Q4_0", "--imatrix", text(&path)?][..],
        &["quantize", "--imatrix", text(&path)?, text(&gguf)?, text(&target)?, "Q4_0"],
    ] {
        judge(&limited(args), &bad(words))?;
        demand(outputs::names(&out).is_empty(), || format!("{:?} was left", outputs::names(&out)))?;
    }
    Ok(())
}

fn write(path: &Path, file: RawFile) {
    std::fs::write(path, file.0).unwrap();
}

/// One entry up to its values, of which there are said to be `count`.
fn entry(name: &[u8], count: u32) -> RawFile {
    RawFile::default().u32(1).u32(name.len() as u32).raw(name).u32(1).u32(count)
}

/// The importance of [`TENSOR`], the same for every column.
fn values(count: u32, value: f32) -> RawFile {
    (0..count).fold(entry(TENSOR.as_bytes(), count), |file, _| file.raw(&value.to_le_bytes()))
}

fn model(path: &Path) {
    write(path, RawFile::head(0, 1).key("general.type", STRING).text("model"));
}
