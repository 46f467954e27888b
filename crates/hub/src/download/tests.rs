use super::*;
use crate::info::Hash;
use crate::names::hex;
use crate::settings::Cancel;
use crate::testing::{Asked, Reply, Server, reply, settings};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Bytes that repeat nowhere nearby.
fn weights(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn entry(name: &str, data: &[u8]) -> Entry {
    Entry { name: name.parse().unwrap(), size: data.len() as u64, hash: Hash::Sha256(hex(&Sha256::digest(data))) }
}

/// The answer of a server that knows ranges.
fn ranged(asked: &Asked, data: &[u8]) -> Reply {
    match asked.from() {
        Some(from) if from >= data.len() => reply(416, &[("Content-Range", &format!("bytes */{}", data.len()))], ""),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", data.len() - 1, data.len());
            reply(206, &[("Content-Range", &range)], &data[from..])
        }
        None => reply(200, &[], data),
    }
}

struct Case {
    cache: tempfile::TempDir,
    listing: Listing,
}

impl Case {
    fn of(files: Vec<Entry>) -> Case {
        let listing = Listing { repo: "org/name".parse().unwrap(), commit: COMMIT.to_owned(), files };
        Case { cache: tempfile::tempdir().unwrap(), listing }
    }

    fn run(&self, server: &Server) -> Result<Snapshot, HubError> {
        let files: Vec<&Entry> = self.listing.files.iter().collect();
        server.client(self.cache.path()).download(&self.listing, &files, &Revision::main(), &())
    }

    fn incomplete(&self) -> PathBuf {
        RepoCache::new(self.cache.path(), &self.listing.repo).incomplete(&self.listing.files[0].blob())
    }

    /// The names below `blobs`.
    fn blobs(&self) -> Vec<String> {
        let folder = self.cache.path().join("models--org--name/blobs");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    }
}

#[test]
fn files_come_once_and_are_seen_under_their_names() {
    let (a, b) = (weights(300_000), b"{}".to_vec());
    // `printf '{}' | git hash-object --stdin`
    let small = Hash::Git("9e26dfeeb6e641a33dae4961196235bdb965b21b".to_owned());
    let small = Entry { name: "config.json".parse().unwrap(), size: 2, hash: small };
    let empty = Hash::Git("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391".to_owned());
    let empty = Entry { name: "sub/empty.jinja".parse().unwrap(), size: 0, hash: empty };
    let case = Case::of(vec![entry("model.safetensors", &a), small, empty]);
    let server = Server::start({
        let a = a.clone();
        move |asked, _| ranged(asked, if asked.path.ends_with("config.json") { &b } else { &a })
    });
    let snapshot = case.run(&server).unwrap();
    assert_eq!((snapshot.received, server.asked().len()), (300_002, 2));
    assert_eq!(std::fs::read(snapshot.directory.join("model.safetensors")).unwrap(), a);
    assert_eq!(std::fs::read(snapshot.directory.join("sub/empty.jinja")).unwrap(), b"");
    assert!(server.asked().iter().all(|asked| asked.path.starts_with(&format!("/org/name/resolve/{COMMIT}/"))));
    assert_eq!(case.run(&server).unwrap().received, 0);
    assert_eq!(server.asked().len(), 2, "nothing is asked for again");

    let client = server.client(case.cache.path());
    let cached = client.cached(&case.listing.repo, &Revision::main()).unwrap();
    assert_eq!(cached.directory, snapshot.directory);
    std::fs::remove_file(snapshot.directory.join("model.safetensors")).unwrap();
    assert!(matches!(client.cached(&case.listing.repo, &Revision::main()), Err(HubError::Offline { .. })));
    assert!(matches!(client.cached(&"a/b".parse().unwrap(), &Revision::main()), Err(HubError::Offline { .. })));
}

#[test]
fn a_cut_connection_goes_on_where_it_ended() {
    let data = weights(1_000_000);
    let case = Case::of(vec![entry("model.safetensors", &data)]);
    let server = Server::start({
        let data = data.clone();
        move |asked, before| {
            let mut answer = ranged(asked, &data);
            answer.cut = (before < 9).then_some(100_000);
            answer
        }
    });
    let snapshot = case.run(&server).unwrap();
    assert_eq!(std::fs::read(snapshot.directory.join("model.safetensors")).unwrap(), data);
    let from: Vec<_> = server.asked().iter().map(|asked| asked.from().unwrap()).collect();
    assert_eq!(from, (0..10).map(|i| i * 100_000).collect::<Vec<_>>());
    assert_eq!(snapshot.received, 1_000_000, "nothing came twice");
}

#[test]
fn a_connection_that_brings_nothing_is_given_up() {
    let data = weights(1000);
    let case = Case::of(vec![entry("model.safetensors", &data)]);
    let server = Server::start(move |asked, _| Reply { cut: Some(0), ..ranged(asked, &data) });
    assert!(matches!(case.run(&server), Err(HubError::Cut { .. })));
    assert_eq!(server.asked().len(), 6);
    assert!(case.blobs().iter().all(|name| name.ends_with(".incomplete")));
}

#[test]
fn an_earlier_attempt_is_continued() {
    let data = weights(500_000);
    let case = Case::of(vec![entry("model.safetensors", &data)]);
    let server = Server::start({
        let data = data.clone();
        move |asked, _| ranged(asked, &data)
    });
    for (begun, received) in [(&data[..400_000], 100_000), (&data[..], 0)] {
        let _ = std::fs::remove_dir_all(case.cache.path().join("models--org--name"));
        std::fs::create_dir_all(case.incomplete().parent().unwrap()).unwrap();
        std::fs::write(case.incomplete(), begun).unwrap();
        let snapshot = case.run(&server).unwrap();
        assert_eq!(snapshot.received, received);
        assert_eq!(std::fs::read(snapshot.directory.join("model.safetensors")).unwrap(), data);
    }
    // A beginning that is another file's, or longer than the file: it comes anew.
    for begun in [weights(100_000).into_iter().map(|byte| !byte).collect(), weights(600_000)] {
        std::fs::remove_dir_all(case.cache.path().join("models--org--name")).unwrap();
        std::fs::create_dir_all(case.incomplete().parent().unwrap()).unwrap();
        std::fs::write(case.incomplete(), begun).unwrap();
        let snapshot = case.run(&server).unwrap();
        assert_eq!(std::fs::read(snapshot.directory.join("model.safetensors")).unwrap(), data);
        assert_eq!(case.blobs(), [case.listing.files[0].hash.hex()]);
    }
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let data = weights(500_000);
    let case = Case::of(vec![entry("model.safetensors", &data)]);
    let server = Server::start({
        let data = data.clone();
        move |_, before| Reply { cut: (before == 0).then_some(200_000), ..reply(200, &[], &data[..]) }
    });
    let snapshot = case.run(&server).unwrap();
    assert_eq!((snapshot.received, server.asked().len()), (700_000, 2));
    assert_eq!(std::fs::read(snapshot.directory.join("model.safetensors")).unwrap(), data);
}

#[test]
fn changed_bytes_get_no_name() {
    let data = weights(100_000);
    let case = Case::of(vec![entry("model.safetensors", &data)]);
    let mut changed = data.clone();
    changed[50_000] ^= 1;
    let server = Server::start(move |asked, _| ranged(asked, &changed));
    let error = case.run(&server).unwrap_err();
    assert!(
        matches!(&error, HubError::BadHash { file, expected, .. } if file == "model.safetensors" && *expected == case.listing.files[0].hash.hex())
    );
    assert_eq!(server.asked().len(), 1, "the same bytes would come again");
    assert_eq!(case.blobs(), [""; 0]);
    assert!(
        !case.cache.path().join("models--org--name/snapshots").exists()
            && !case.cache.path().join("models--org--name/refs").exists()
    );
}

#[test]
fn lengths_are_those_of_the_list() {
    let data = weights(1000);
    for got in [999, 1001] {
        let case = Case::of(vec![entry("model.safetensors", &data)]);
        for ranges in [true, false] {
            let other = weights(got);
            let server = Server::start(move |asked, _| if ranges { ranged(asked, &other) } else { reply(200, &[], &other[..]) });
            let error = case.run(&server).unwrap_err();
            assert!(matches!(error, HubError::BadSize { expected: 1000, got: found, .. } if found == got as u64), "{error:?}");
            assert_eq!(case.blobs(), [""; 0]);
        }
    }
}

#[test]
fn a_wrong_range_is_refused() {
    let data = weights(1000);
    let case = Case::of(vec![entry("model.safetensors", &data)]);
    let server = Server::start(move |_, _| reply(206, &[("Content-Range", "bytes 500-999/1000")], &data[500..]));
    assert!(matches!(case.run(&server), Err(HubError::Protocol { .. })));
}

#[test]
fn one_failure_stops_the_others() {
    let data = weights(100);
    let files = (0..50).map(|i| entry(&format!("model-{i}.safetensors"), &[data.as_slice(), &[i]].concat())).collect();
    let case = Case::of(files);
    let server = Server::start(|_, _| reply(404, &[("X-Error-Code", "EntryNotFound")], ""));
    assert!(matches!(case.run(&server), Err(HubError::EntryNotFound { .. })));
    assert!(server.asked().len() <= FILES, "{}", server.asked().len());
}

#[test]
fn a_full_disk_is_told_before_anything_is_asked_for() {
    let mut huge = entry("model.safetensors", b"");
    huge.size = 1 << 60;
    let case = Case::of(vec![huge]);
    let server = Server::start(|_, _| reply(200, &[], ""));
    assert!(matches!(case.run(&server), Err(HubError::NoSpace { need, .. }) if need > 1 << 60));
    assert!(server.asked().is_empty());
}

#[test]
fn a_damaged_blob_is_replaced() {
    let data = weights(1000);
    let case = Case::of(vec![entry("model.safetensors", &data)]);
    let server = Server::start({
        let data = data.clone();
        move |asked, _| ranged(asked, &data)
    });
    let snapshot = case.run(&server).unwrap();
    let blob = case.incomplete().with_extension("");
    std::fs::write(&blob, "short").unwrap();
    assert_eq!(case.run(&server).unwrap().received, 1000);
    assert_eq!(std::fs::read(snapshot.directory.join("model.safetensors")).unwrap(), data);
}

#[test]
fn two_processes_download_once() {
    let data = weights(2_000_000);
    let case = Arc::new(Case::of(vec![entry("model.safetensors", &data)]));
    let server = Server::start(move |asked, _| ranged(asked, &data));
    let received: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| case.run(&server).unwrap().received)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((received, server.asked().len()), (2_000_000, 1));
}

#[test]
fn an_interrupted_download_keeps_what_it_has() {
    let data = weights(400_000);
    let case = Case::of(vec![entry("model.safetensors", &data)]);
    let server = Server::start({
        let data = data.clone();
        move |asked, before| Reply { cut: (before == 0).then_some(200_000), ..ranged(asked, &data) }
    });
    let seen = Arc::new(AtomicU64::new(0));
    struct Count(Arc<AtomicU64>);
    impl Watch for Count {
        fn begin(&self, _: usize, _: u64) {}
        fn advance(&self, bytes: u64) {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
        fn waiting(&self, _: &str) {}
    }
    let asked = seen.clone();
    let stop = Cancel::new(move || asked.load(Ordering::Relaxed) >= 200_000);
    let client = Client::new(settings(&server.url, case.cache.path()), stop).unwrap();
    let files: Vec<&Entry> = case.listing.files.iter().collect();
    let result = client.download(&case.listing, &files, &Revision::main(), &Count(seen.clone()));
    assert!(matches!(result, Err(HubError::Interrupted)), "{result:?}");
    let kept = std::fs::metadata(case.incomplete()).unwrap().len();
    assert_eq!(kept, seen.load(Ordering::Relaxed));
    assert_eq!(case.run(&server).unwrap().received, 400_000 - kept);
}
