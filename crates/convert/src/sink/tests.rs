use super::*;

fn file(dir: &Path) -> SinkFile {
    SinkFile { path: dir.join("a.gguf"), bytes: 20, header: b"head".to_vec(), data: vec![6..10, 12..16] }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn complete_files_appear_with_their_hash() {
    let dir = tempfile::tempdir().unwrap();
    let sink = FileSink::create(vec![file(dir.path())], false, &[]).unwrap();
    assert_eq!(names(dir.path()), [".a.gguf.partial"]);
    sink.put(0, 12, b"cdef").unwrap();
    sink.put(0, 6, b"abcd").unwrap();
    let finished = sink.finish().unwrap();
    let expected = b"head\0\0abcd\0\0cdef\0\0\0\0";
    assert_eq!(std::fs::read(dir.path().join("a.gguf")).unwrap(), expected);
    let hash = crate::manifest::sha256(expected);
    assert_eq!(finished, [FinishedFile { path: dir.path().join("a.gguf"), bytes: 20, sha256: hash }]);
    assert_eq!(names(dir.path()), ["a.gguf"]);
}

#[test]
fn replaced_bytes_are_in_the_file_and_in_the_hash() {
    let dir = tempfile::tempdir().unwrap();
    let sink = FileSink::create(vec![file(dir.path())], false, &[]).unwrap();
    assert!(matches!(sink.replace(0, 6, b"abcd"), Err(SinkError::Outside { .. })), "not put yet");
    sink.put(0, 6, b"xxxx").unwrap();
    sink.put(0, 12, b"cdef").unwrap();
    sink.replace(0, 6, b"abcd").unwrap();
    let finished = sink.finish().unwrap();
    let expected = b"head\0\0abcd\0\0cdef\0\0\0\0";
    assert_eq!(std::fs::read(dir.path().join("a.gguf")).unwrap(), expected);
    assert_eq!(finished[0].sha256, crate::manifest::sha256(expected));
}

#[test]
fn gaps_overlaps_and_strays_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let create = || FileSink::create(vec![file(dir.path())], false, &[]).unwrap();
    let sink = create();
    sink.put(0, 6, b"abcd").unwrap();
    assert!(matches!(sink.put(0, 9, b"x"), Err(SinkError::Overlap { start: 9, end: 10, .. })));
    assert!(matches!(sink.put(0, 2, b"x"), Err(SinkError::Overlap { .. })), "the header");
    assert!(matches!(sink.put(0, 10, b"x"), Err(SinkError::Overlap { .. })), "padding");
    assert!(matches!(sink.put(0, 19, b"xx"), Err(SinkError::Outside { .. })));
    assert!(matches!(sink.finish(), Err(SinkError::Missing { offset: 12, .. })));
    assert!(names(dir.path()).is_empty());
    drop(create());
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_leftover_of_a_crash_is_replaced_but_a_running_writer_is_not() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".a.gguf.partial"), [1; 100]).unwrap();
    let sink = FileSink::create(vec![file(dir.path())], false, &[]).unwrap();
    let second = FileSink::create(vec![file(dir.path())], false, &[]);
    assert!(matches!(second, Err(SinkError::Busy { .. })));
    sink.put(0, 12, b"cdef").unwrap();
    sink.put(0, 6, b"abcd").unwrap();
    sink.finish().unwrap();
    assert_eq!(std::fs::read(dir.path().join("a.gguf")).unwrap(), b"head\0\0abcd\0\0cdef\0\0\0\0");
}

#[test]
fn names_are_checked_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.gguf");
    std::fs::write(&path, "old").unwrap();
    let create = |files, force, inputs: &[PathBuf]| FileSink::create(files, force, inputs).err();
    assert!(matches!(create(vec![file(dir.path())], false, &[]), Some(SinkError::Exists { .. })));
    assert!(matches!(create(vec![file(dir.path())], true, std::slice::from_ref(&path)), Some(SinkError::IsInput { .. })));
    assert!(matches!(create(vec![file(dir.path()), file(dir.path())], true, &[]), Some(SinkError::Twice { .. })));
    let lost = SinkFile { path: dir.path().join("no/a.gguf"), ..file(dir.path()) };
    assert!(matches!(create(vec![lost], true, &[]), Some(SinkError::NoDirectory { .. })));
    let huge = SinkFile { bytes: 1 << 60, ..file(dir.path()) };
    assert!(matches!(create(vec![huge], true, &[]), Some(SinkError::NoSpace { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(names(dir.path()), ["a.gguf"]);
}
