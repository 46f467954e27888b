//! Safetensors files with one defect each: every one is refused for what is wrong with it, and what is legal is read. The library
//! reads some of the bad ones; its own verdict is noted beside those.

use ggufsmith_checkpoint::{CheckpointError, HeaderDefect as D, Limits, SafetensorsInfo, safetensors_info};
use proptest::prelude::*;
use std::io::Write;

/// A file of a header, a length for it where it is not its own, and data of so many bytes.
fn file(header: &[u8], length: Option<u64>, data: usize) -> Vec<u8> {
    let mut bytes = length.unwrap_or(header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn read(bytes: &[u8]) -> Result<SafetensorsInfo, CheckpointError> {
    let mut temp = tempfile::NamedTempFile::new().unwrap();
    temp.write_all(bytes).unwrap();
    safetensors_info(temp.path(), &Limits::default())
}

/// The defect of a file, and the offset that is named.
fn defect(header: impl AsRef<[u8]>, data: usize) -> (u64, D) {
    match read(&file(header.as_ref(), None, data)).map(|_| ()).unwrap_err() {
        CheckpointError::Header { offset, defect, .. } => (offset, defect),
        other => panic!("{other}"),
    }
}

/// A tensor's object.
fn t(shape: &str, start: &str, end: &str) -> String {
    format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

/// A header of named objects.
fn header(entries: &[(&str, String)]) -> String {
    let entries: Vec<String> = entries.iter().map(|(name, entry)| format!("\"{name}\":{entry}")).collect();
    format!("{{{}}}", entries.join(","))
}

macro_rules! defects {
    ($($name:ident: $header:expr, $data:expr => $pattern:pat $(if $guard:expr)? ,)*) => {$(
        #[test]
        fn $name() {
            let (offset, defect) = defect($header, $data);
            assert!(matches!(&defect, $pattern $(if $guard)?), "{defect}");
            assert!(offset <= 200_016);
            assert!(!defect.to_string().is_empty());
        }
    )*};
}

defects! {
    duplicate_name_same_offsets: header(&[("a", t("[2]", "0", "8")), ("a", t("[2]", "0", "8"))]), 8 // the library reads it
        => D::DuplicateName { tensor } if tensor == "a",
    duplicate_name_second_differs: header(&[("a", t("[2]", "0", "8")), ("a", t("[1]", "0", "4"))]), 4 // the library reads it
        => D::DuplicateName { tensor } if tensor == "a",
    duplicate_name_written_differently: header(&[("a", t("[1]", "0", "4")), ("\\u0061", t("[1]", "4", "8"))]), 8
        => D::DuplicateName { tensor } if tensor == "a",
    duplicate_metadata: format!(r#"{{"__metadata__":{{}},"__metadata__":{{}},"a":{}}}"#, t("[1]", "0", "4")), 4
        => D::DuplicateName { tensor } if tensor == "__metadata__",
    duplicate_key_in_metadata: format!(r#"{{"__metadata__":{{"x":"1","x":"2"}},"a":{}}}"#, t("[1]", "0", "4")), 4 => D::DuplicateMetadata { key } if key == "x",
    duplicate_field: r#"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4 => D::Entry { tensor, .. } if tensor == "a",
    overlap: header(&[("a", t("[2]", "0", "8")), ("b", t("[2]", "0", "8"))]), 8
        => D::Overlap { tensor, other, start: 0, end: 8 } if tensor == "b" && other == "a",
    overlap_by_half: header(&[("a", t("[2]", "0", "8")), ("b", t("[2]", "4", "12"))]), 12 => D::Overlap { start: 4, end: 8, .. },
    hole: header(&[("a", t("[1]", "0", "4")), ("b", t("[1]", "8", "12"))]), 12 => D::Hole { tensor, from: 4, to: 8 } if tensor == "b",
    hole_at_the_start: header(&[("a", t("[1]", "4", "8"))]), 8 => D::Hole { from: 0, to: 4, .. },
    trailing_bytes: header(&[("a", t("[1]", "0", "4"))]), 8 => D::TrailingBytes { bytes: 4 },
    trailing_bytes_without_a_tensor: "{}", 8 => D::TrailingBytes { bytes: 8 },
    truncated_data: header(&[("a", t("[2]", "0", "8"))]), 4 => D::Truncated { end: 8, available: 4, .. },
    end_before_start: header(&[("a", t("[0]", "8", "0"))]), 8 => D::EndBeforeStart { start: 8, end: 0, .. },
    bytes_against_shape: header(&[("a", t("[3]", "0", "8"))]), 8 => D::ByteCount { expected: 12, found: 8, .. },
    shape_overflow: header(&[("a", t("[4294967296,4294967296,4]", "0", "8"))]), 8 => D::ShapeOverflow { .. },
    zero_beside_a_huge_dimension: header(&[("a", t("[0,18446744073709551615]", "0", "0"))]), 0 => D::ShapeOverflow { .. }, // the library reads it
    overflow_then_zero: header(&[("a", t("[4294967296,4294967296,0]", "0", "0"))]), 0 => D::ShapeOverflow { .. },
    dimension_above_64_bits: header(&[("a", t("[18446744073709551616]", "0", "4"))]), 4 => D::Entry { .. },
    too_many_dimensions: header(&[("a", t("[1,1,1,1,1,1,1,1,1]", "0", "4"))]), 4 => D::TooManyDims { dims: 9, limit: 8, .. },
    not_utf8: b"{\"\xff\":1}".as_slice(), 0 => D::NotUtf8,
    leading_space: format!(" {}", header(&[("a", t("[1]", "0", "4"))])), 4 => D::NoBrace, // the library reads it
    zero_length_header: "", 0 => D::NoBrace,
    trailing_garbage: format!("{}xx", header(&[("a", t("[1]", "0", "4"))])), 4 => D::Json(_),
    deep_nesting: "[".repeat(200_000), 0 => D::NoBrace,
    deep_nesting_in_an_entry: format!("{{\"a\":{}", "[".repeat(200_000)), 0 => D::Json(_),
    unknown_dtype: header(&[("a", t("[1]", "0", "4").replace("F32", "Q4_0"))]), 4 => D::Dtype { dtype, .. } if dtype == "Q4_0",
    extra_field: r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}"#, 4 => D::Entry { tensor, .. } if tensor == "a", // the library reads it
    missing_field: r#"{"a":{"dtype":"F32","shape":[1]}}"#, 4 => D::Entry { tensor, .. } if tensor == "a",
    three_offsets: r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}"#, 4 => D::Entry { .. },
    metadata_that_is_no_string: format!(r#"{{"__metadata__":{{"a":1}},"a":{}}}"#, t("[1]", "0", "4")), 4 => D::Metadata(_),
    empty_name: header(&[("", t("[1]", "0", "4"))]), 4 => D::EmptyName, // the library reads it
    name_that_climbs: header(&[("../../x", t("[1]", "0", "4"))]), 4 => D::HostileName { .. }, // the library reads it
    name_with_nul: header(&[("x\\u0000", t("[1]", "0", "4"))]), 4 => D::HostileName { .. }, // the library reads it
    name_with_a_line_break: header(&[("x\\n", t("[1]", "0", "4"))]), 4 => D::HostileName { .. },
    long_name: header(&[(&"x".repeat(1025), t("[1]", "0", "4"))]), 4 => D::LongName { len: 1025, limit: 1024 },
    negative_offset: header(&[("a", t("[1]", "-4", "0"))]), 4 => D::Entry { .. },
    float_offset: header(&[("a", t("[1]", "0", "4.0"))]), 4 => D::Entry { .. },
}

#[test]
fn header_length_beyond_all_limits() {
    for (length, data) in [(1 << 63, 0), (u64::MAX, 0), (100_000_001, 0)] {
        let error = read(&file(b"{}", Some(length), data)).unwrap_err();
        assert!(matches!(error, CheckpointError::Header { offset: 0, defect: D::TooLong { len, .. }, .. } if len == length));
    }
}

#[test]
fn more_than_the_limits_allow() {
    let limits = Limits { tensors: 2, ..Limits::default() };
    let read = |header: String, data| {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(&file(header.as_bytes(), None, data)).unwrap();
        safetensors_info(temp.path(), &limits)
    };
    let tensors = |names: &[&str]| {
        names
            .iter()
            .enumerate()
            .map(|(i, n)| format!("\"{n}\":{}", t("[1]", &(4 * i).to_string(), &(4 * i + 4).to_string())))
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(
        read(format!(r#"{{"__metadata__":{{"x":"1","y":"2","z":"3"}},{}}}"#, tensors(&["a", "b"])), 8).unwrap().tensors.len(),
        2
    );
    for names in [["a", "b", "c"].as_slice(), &["a", "b", "c", "d", "e"]] {
        let error = read(format!("{{{}}}", tensors(names)), 4 * names.len()).unwrap_err();
        assert!(matches!(error, CheckpointError::Header { defect: D::TooManyTensors { limit: 2 }, .. }), "{error}");
    }
    let error = read(r#"{"__metadata__":{"w":"0","x":"1","y":"2","z":"3"}}"#.to_owned(), 0).unwrap_err();
    assert!(matches!(error, CheckpointError::Header { defect: D::TooMuchMetadata { .. }, .. }), "{error}");
    let error =
        read(format!(r#"{{"a":{{"dtype":"F32","shape":[{}1],"data_offsets":[0,4]}}}}"#, "1,".repeat(1 << 20)), 4).unwrap_err();
    assert!(matches!(error, CheckpointError::Header { defect: D::TooManyDims { dims: 1_048_577, .. }, .. }), "{error}");
}

#[test]
fn header_length_beyond_the_file() {
    let error = read(&file(b"{}", Some(1000), 0)).unwrap_err();
    assert!(matches!(error, CheckpointError::Header { defect: D::BeyondFile { len: 1000, available: 2 }, .. }));
}

#[test]
fn a_file_without_room_for_a_length() {
    for bytes in 0..8 {
        let error = read(&vec![0; bytes]).unwrap_err();
        assert!(matches!(error, CheckpointError::Header { defect: D::NoLength { .. }, .. }), "{bytes}");
    }
}

#[test]
fn a_defect_is_found_where_it_is() {
    let header = header(&[("a", t("[1]", "0", "4")), ("b", t("[1]", "0", "x"))]);
    let (offset, _) = defect(header.replace(",x]", ",\"x\"]"), 4);
    assert_eq!(offset, 8 + header.find("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,x").unwrap() as u64);
}

#[test]
fn what_is_legal_is_read() {
    let a = header(&[("a", t("[1]", "0", "4"))]);
    let empty =
        r#"{"b":{"dtype":"BF16","shape":[0,7],"data_offsets":[4,4]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
    for (what, header, data, tensors) in [
        ("ok", header(&[("a", t("[2]", "0", "8"))]), 8, 1),
        ("trailing spaces", format!("{a}    "), 4, 1),
        ("header of no multiple of 8", format!("{a} "), 4, 1),
        ("no tensor", "{}".to_owned(), 0, 0),
        ("an empty tensor and a scalar", empty.to_owned(), 4, 2),
    ] {
        let info = read(&file(header.as_bytes(), None, data)).unwrap();
        assert_eq!((info.tensors.len(), info.file_bytes), (tensors, 8 + header.len() as u64 + data as u64), "{what}");
    }
}

#[test]
fn metadata_and_sorted_tensors() {
    let header =
        format!(r#"{{"__metadata__":{{"z":"1","format":"pt"}},"b":{},"a":{}}}"#, t("[1]", "0", "4"), t("[2]", "4", "12"));
    let info = read(&file(header.as_bytes(), None, 12)).unwrap();
    assert_eq!(info.metadata, [("z".into(), "1".into()), ("format".into(), "pt".into())]);
    let tensors: Vec<_> = info.tensors.iter().map(|t| (t.name.as_str(), t.offset, t.bytes())).collect();
    let data = 8 + header.len() as u64;
    assert_eq!(tensors, [("a", data + 4, 8), ("b", data, 4)]);
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    use ggufsmith_checkpoint::NotAFile;
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (path, what) in
        [(fifo.as_path(), NotAFile::Fifo), ("/dev/zero".as_ref(), NotAFile::Device), (dir.path(), NotAFile::Directory)]
    {
        let error = safetensors_info(path, &Limits::default()).unwrap_err();
        assert!(matches!(error, CheckpointError::NotRegular { found, .. } if found == what), "{error}");
    }
    let error = safetensors_info(&dir.path().join("absent"), &Limits::default()).unwrap_err();
    assert!(matches!(error, CheckpointError::Io { .. }));
}

proptest! {
    /// Whatever one byte is changed to, the library never refuses what is read here.
    #[test]
    fn never_laxer_than_the_library(at in 0usize..400, to in any::<u8>(), cut in 0usize..3) {
        let header = header(&[("model.norm.weight", t("[2,3]", "0", "24")), ("b", t("[1]", "24", "28")), ("c", t("[0]", "28", "28"))]);
        let mut bytes = file(header.as_bytes(), None, 28);
        let at = at % bytes.len();
        bytes[at] = to;
        bytes.truncate(bytes.len() - cut);
        if read(&bytes).is_ok() {
            prop_assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok());
        }
    }

    #[test]
    fn arbitrary_headers_never_panic(header in ".{0,200}", data in 0usize..64) {
        let _ = read(&file(header.as_bytes(), None, data));
    }
}
