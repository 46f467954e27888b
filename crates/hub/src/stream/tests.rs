use super::*;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Files in memory; every transfer ends after `cut` bytes.
struct Memory {
    files: Vec<(String, Vec<u8>)>,
    cut: u64,
    requests: Arc<AtomicU32>,
    sent: Arc<AtomicU64>,
    /// From this request on other bytes are sent.
    turns_bad: u32,
}

impl Fetch for Memory {
    fn open(&self, name: &str, range: Range<u64>) -> io::Result<Box<dyn Read + Send>> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let (_, bytes) = self.files.iter().find(|(known, _)| known == name).unwrap();
        let end = range.end.min(range.start.saturating_add(self.cut));
        let mut part = bytes[range.start as usize..end as usize].to_vec();
        if request >= self.turns_bad {
            part[0] ^= 1;
        }
        self.sent.fetch_add(part.len() as u64, Ordering::Relaxed);
        Ok(Box::new(io::Cursor::new(part)))
    }

    fn pause(&self, _: u32) -> Duration {
        Duration::ZERO
    }
}

/// Bytes that are nowhere alike.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state ^ state >> 32).to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

struct Case {
    stream: Stream,
    files: Vec<(String, Vec<u8>)>,
    sent: Arc<AtomicU64>,
}

fn case(lens: &[usize], cut: u64, turns_bad: u32) -> Case {
    let files: Vec<_> = lens.iter().enumerate().map(|(i, len)| (format!("{i}.safetensors"), bytes(*len, i as u64))).collect();
    let described = files.iter().map(|(name, bytes)| StreamFile {
        name: name.clone(),
        bytes: bytes.len() as u64,
        sha256: hex(&Sha256::digest(bytes)),
    });
    let sent = Arc::new(AtomicU64::new(0));
    let fetch = Memory { files: files.clone(), cut, requests: Arc::default(), sent: Arc::clone(&sent), turns_bad };
    Case { stream: Stream::new(described.collect(), Box::new(fetch)), files, sent }
}

impl Case {
    fn open(&self) {
        for (name, _) in &self.files {
            self.stream.read_exact_at(name, &mut [0; 8], 0).unwrap();
        }
    }

    fn check(&self, file: usize, range: Range<usize>) {
        let mut out = vec![0; range.len()];
        let (name, bytes) = &self.files[file];
        self.stream.read_exact_at(name, &mut out, range.start as u64).unwrap();
        assert!(out == bytes[range.clone()], "{name} {range:?}");
    }
}

const MIB: usize = 1 << 20;

#[test]
fn only_beginnings_are_fetched_before_it_begins() {
    let case = case(&[3 * MIB, 2 * MIB], u64::MAX, u32::MAX);
    case.open();
    assert_eq!(case.sent.load(Ordering::Relaxed), 2 * PREFIX);
    case.check(0, 8..100_000);
    assert_eq!(case.sent.load(Ordering::Relaxed), 100_000 + PREFIX);
}

#[test]
fn everything_is_read_once_in_order_however_often_it_is_cut() {
    let case = case(&[3 * MIB + 17, 9, 2 * MIB], 700_001, u32::MAX);
    case.open();
    case.stream.begin();
    for (file, len) in [3 * MIB + 17, 9, 2 * MIB].into_iter().enumerate() {
        for start in (0..len).step_by(300_000) {
            case.check(file, start..len.min(start + 300_000));
        }
    }
    assert_eq!(case.stream.finish().unwrap().len(), 3);
    assert_eq!(case.stream.fetched_again(), 0);
    let once: usize = case.files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(case.sent.load(Ordering::Relaxed), once as u64 + 2 * PREFIX + 9);
}

#[test]
fn what_nobody_asked_for_is_hashed_all_the_same() {
    let case = case(&[90 * MIB, MIB], u64::MAX, u32::MAX);
    case.open();
    case.stream.begin();
    assert_eq!(case.stream.finish().unwrap(), case.stream.files());
}

#[test]
fn what_has_left_the_window_is_fetched_again_and_compared() {
    let (len, far) = (400 * MIB, 399 * MIB);
    // Requests: one for the beginning, one for the pass, then those that come back.
    for (turns_bad, good) in [(u32::MAX, true), (2, false)] {
        let case = case(&[len], u64::MAX, turns_bad);
        case.open();
        case.stream.begin();
        case.check(0, far..len);
        let mut out = vec![0; MIB];
        let read = case.stream.read_exact_at("0.safetensors", &mut out, 2 * MIB as u64);
        assert_eq!(read.is_ok() && out == case.files[0].1[2 * MIB..3 * MIB], good);
        if !good {
            assert!(read.unwrap_err().to_string().contains("differ from the first"));
        }
        assert_eq!(case.stream.fetched_again(), if good { MIB as u64 } else { 0 });
    }
}

#[test]
fn a_wrong_hash_or_a_changed_header_is_found() {
    // The pass is the second request: its first byte differs from the header's.
    let case = case(&[MIB], u64::MAX, 1);
    case.open();
    case.stream.begin();
    assert!(case.stream.finish().unwrap_err().to_string().contains("fetched a second time, differ"));
    let files = vec![StreamFile { name: "a".into(), bytes: 3, sha256: "00".repeat(32) }];
    let fetch =
        Memory { files: vec![("a".into(), vec![1, 2, 3])], cut: 9, requests: Arc::default(), sent: Arc::default(), turns_bad: 9 };
    let stream = Stream::new(files, Box::new(fetch));
    stream.read_exact_at("a", &mut [0; 3], 0).unwrap();
    stream.begin();
    let error = stream.finish().unwrap_err().to_string();
    assert!(error.contains("has the sha256 039058c6f2c0cb492c533b0a4d14ef77") && error.contains("the Hub says 0000"), "{error}");
}

#[test]
fn a_transfer_that_never_gets_on_is_an_error_for_all() {
    let case = case(&[4 * MIB], 0, u32::MAX);
    let error = case.stream.read_exact_at("0.safetensors", &mut [0; 8], 0).unwrap_err().to_string();
    assert!(error.contains("cut off at byte 0 of 4194304, 5 times"), "{error}");
    assert!(case.stream.read_exact_at("1.safetensors", &mut [0; 8], 0).unwrap_err().to_string().contains("no file"));
    assert!(case.stream.read_exact_at("0.safetensors", &mut [0; 8], u64::MAX).unwrap_err().to_string().contains("asked for"));
}

#[test]
fn many_readers_may_read_anywhere() {
    let case = case(&[20 * MIB, 20 * MIB], 5_000_000, u32::MAX);
    case.open();
    case.stream.begin();
    std::thread::scope(|scope| {
        for reader in 0..4 {
            let case = &case;
            scope.spawn(move || {
                for step in 0..40 {
                    let at = (step * 7 + reader * 5) % 39 * MIB / 2;
                    case.check(step % 2, at..at + MIB / 2 + 1);
                }
            });
        }
    });
    case.stream.finish().unwrap();
}

#[test]
fn dropping_ends_the_pass() {
    let case = case(&[200 * MIB], u64::MAX, u32::MAX);
    case.open();
    case.stream.begin();
    case.check(0, MIB..2 * MIB);
    drop(case);
}
