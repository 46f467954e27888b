//! The older form of importance matrices. `crates/verify/tests/imatrix.rs` has the GGUF form.
#![allow(missing_docs, reason = "tests")]

use ggufsmith_gguf::imatrix::{Imatrix, ImatrixError};
use std::path::Path;

type Entry<'a> = (&'a str, i32, &'a [f32]);

fn bytes(entries: &[Entry<'_>], tail: Option<(i32, &str)>) -> Vec<u8> {
    let mut out = (entries.len() as i32).to_le_bytes().to_vec();
    for (name, calls, values) in entries {
        out.extend((name.len() as i32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(calls.to_le_bytes());
        out.extend((values.len() as i32).to_le_bytes());
        out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    if let Some((chunks, dataset)) = tail {
        out.extend(chunks.to_le_bytes());
        out.extend((dataset.len() as i32).to_le_bytes());
        out.extend(dataset.as_bytes());
    }
    out
}

fn open(bytes: &[u8]) -> Result<Imatrix, ImatrixError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Imatrix::open(file.path())
}

#[test]
fn sums_are_divided_by_calls() {
    let entries: &[Entry<'_>] = &[("b", 4, &[1.0, 2.0, 3.0]), ("a", 0, &[5.0])];
    let imatrix = open(&bytes(entries, Some((7, "text.txt")))).unwrap();
    assert_eq!(imatrix.of("b", &[9, 3]).unwrap(), Some(&[0.25, 0.5, 0.75][..]));
    assert_eq!(imatrix.of("a", &[9, 1]).unwrap(), Some(&[5.0][..]), "no calls: as it is");
    assert_eq!((imatrix.chunks, imatrix.datasets.as_slice()), (7, &["text.txt".to_owned()][..]));
    assert_eq!(imatrix.names().collect::<Vec<_>>(), ["a", "b"]);
    let oldest = open(&bytes(entries, None)).unwrap();
    assert_eq!((oldest.chunks, oldest.datasets.len()), (0, 0));
}

#[test]
fn both_forms_of_one_matrix_agree() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let [new, old] = ["bard.imatrix.gguf", "bard.imatrix.dat"].map(|name| Imatrix::open(&fixtures.join(name)).unwrap());
    assert!(new.names().eq(old.names()) && new.names().len() == 28);
    assert_eq!((new.chunks, old.chunks), (40, 40));
    // Values are sums of 40 calls there: equal but for the rounding of two operations.
    let mut compared = 0;
    for name in new.names() {
        let cols = [256, 512, 768, 1024].into_iter().find(|&cols| new.of(name, &[cols]).is_ok()).unwrap();
        let (new, old) = (new.of(name, &[cols]).unwrap().unwrap(), old.of(name, &[cols]).unwrap().unwrap());
        for (a, b) in new.iter().zip(old) {
            assert!((a - b).abs() <= a.abs() * 3.0 * f32::EPSILON, "{name}: {a} {b}");
            compared += 1;
        }
    }
    assert!(compared > 28 * 256);
}

#[test]
fn every_cut_and_every_bad_length_is_refused() {
    let whole = bytes(&[("name", 1, &[1.0, 2.0]), ("other", 1, &[3.0])], Some((1, "t")));
    assert!(open(&whole).is_ok());
    let end_of_entries = whole.len() - 9;
    for len in (0..whole.len()).filter(|&len| len != end_of_entries && len != end_of_entries + 4) {
        assert!(matches!(open(&whole[..len]), Err(ImatrixError::Legacy { .. })), "cut to {len} bytes");
    }
    for (at, what) in [(0, "number of entries"), (4, "length of a name"), (16, "number of values")] {
        for number in [0i32, -1, i32::MIN] {
            let mut bad = whole.clone();
            bad[at..at + 4].copy_from_slice(&number.to_le_bytes());
            let error = open(&bad).unwrap_err();
            assert!(matches!(&error, ImatrixError::Legacy { what: found, .. } if found.contains(what)), "{error}");
        }
        let mut bad = whole.clone();
        bad[at..at + 4].copy_from_slice(&i32::MAX.to_le_bytes());
        assert!(matches!(open(&bad), Err(ImatrixError::Legacy { .. })));
    }
    let infinite = bytes(&[("w", 1, &[0.0, f32::INFINITY])], None);
    assert!(matches!(open(&infinite), Err(ImatrixError::NotFinite { column: 1, .. })));
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let error = Imatrix::open(dir.path()).unwrap_err();
    assert!(matches!(&error, ImatrixError::Gguf(ggufsmith_gguf::GgufError::NotAFile { .. })), "{error}");
    #[cfg(unix)]
    {
        let fifo = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let error = Imatrix::open(&fifo).unwrap_err();
        assert!(matches!(&error, ImatrixError::Gguf(ggufsmith_gguf::GgufError::NotAFile { .. })), "{error}");
    }
}
