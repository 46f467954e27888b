use super::*;
use crate::testing::{Asked as Heard, Reply, Server, reply};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Mutex;

struct Silent;

impl UploadWatch for Silent {
    fn begin(&self, _: usize, _: u64, _: u64) {}
    fn advance(&self, _: u64) {}
}

fn watch() -> Arc<dyn UploadWatch> {
    Arc::new(Silent)
}

/// A repository of which the server keeps names with sizes and hashes.
#[derive(Default)]
struct Hub {
    commits: Vec<Vec<Value>>,
    /// Parents that commits named.
    parents: Vec<String>,
}

fn id(number: usize) -> String {
    format!("{number:040x}")
}

fn large(name: &str, bytes: &[u8]) -> Value {
    let local = Local::of_bytes(name.parse().unwrap(), bytes.to_vec());
    json!({ "type": "file", "path": name, "size": bytes.len(), "oid": "0".repeat(40), "lfs": { "oid": local.sha256, "size": bytes.len() } })
}

impl Hub {
    fn commit(&mut self, body: &[u8]) {
        let lines: Vec<Value> =
            body.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
        self.parents.push(lines[0]["value"]["parentCommit"].as_str().unwrap().to_owned());
        let mut files = self.commits.last().cloned().unwrap_or_default();
        for line in &lines[1..] {
            let value = &line["value"];
            files.retain(|file| file["path"] != value["path"]);
            assert_eq!(line["key"], "lfsFile");
            files.push(json!({ "type": "file", "path": value["path"], "size": value["size"], "oid": "0".repeat(40),
                "lfs": { "oid": value["oid"], "size": value["size"] } }));
        }
        self.commits.push(files);
    }

    fn made(&self) -> Reply {
        reply(
            200,
            &[],
            json!({ "success": true, "commitOid": id(self.commits.len()), "commitUrl": "http://elsewhere/x" }).to_string(),
        )
    }

    /// Everything but storage and commits.
    fn answer(&self, heard: &Heard) -> Reply {
        let head = self.commits.len();
        let json = |value: Value| reply(200, &[], value.to_string());
        match heard.path.as_str() {
            "/api/whoami-v2" => json(json!({ "name": "a" })),
            "/api/models/a/b/revision/main" => json(json!({ "sha": id(head) })),
            path if path.starts_with("/api/models/a/b/tree/") => {
                let asked = usize::from_str_radix(path[21..61].trim_start_matches('0'), 16).unwrap_or(0);
                json(Value::from(asked.checked_sub(1).map(|at| self.commits[at].clone()).unwrap_or_default()))
            }
            "/api/models/a/b/preupload/main" => {
                let asked: Value = serde_json::from_slice(&heard.body).unwrap();
                let modes = asked["files"].as_array().unwrap().iter();
                json(json!({ "files": modes.map(|f| json!({ "path": f["path"], "uploadMode": "lfs" })).collect::<Vec<_>>() }))
            }
            path => panic!("{path}"),
        }
    }
}

/// Puts `x.gguf` with these bytes; `storage` answers batch, uploads and commits.
fn publish(
    file: Local,
    storage: impl Fn(&Heard, &mut Hub, &str) -> Option<Reply> + Send + Sync + 'static,
) -> (Result<Published, HubError>, Server, Arc<Mutex<Hub>>) {
    let hub = Arc::new(Mutex::new(Hub { commits: vec![vec![large("old.gguf", b"old")]], ..Hub::default() }));
    let state = hub.clone();
    let url = Arc::new(Mutex::new(String::new()));
    let here = url.clone();
    let server = Server::start(move |heard, _| {
        let mut hub = state.lock().unwrap();
        match storage(heard, &mut hub, &here.lock().unwrap().clone()) {
            Some(reply) => reply,
            None => hub.answer(heard),
        }
    });
    *url.lock().unwrap() = server.url.clone();
    let client = server.client(Path::new("/"));
    let wish = Wish::new("a/b".parse().unwrap(), "Upload");
    let before = client.state(&wish.repo, &wish.revision).unwrap();
    let published = client.publish(&wish, &[file], before.as_ref(), &watch());
    (published, server, hub)
}

fn local() -> Local {
    Local::of_bytes("x.gguf".parse().unwrap(), b"GGUF and more".to_vec())
}

fn is_batch(heard: &Heard) -> bool {
    heard.path.ends_with("/objects/batch")
}

fn is_commit(heard: &Heard) -> bool {
    heard.path.contains("/commit/")
}

/// Everything is there already.
fn there(heard: &Heard) -> Reply {
    let asked: Value = serde_json::from_slice(&heard.body).unwrap();
    let objects: Vec<_> =
        asked["objects"].as_array().unwrap().iter().map(|o| json!({ "oid": o["oid"], "size": o["size"] })).collect();
    reply(200, &[], json!({ "transfer": "basic", "objects": objects }).to_string())
}

#[test]
fn what_the_storage_has_is_not_sent() {
    let (published, server, hub) = publish(local(), |heard, hub, _| match () {
        () if is_batch(heard) => Some(there(heard)),
        () if is_commit(heard) => {
            hub.commit(&heard.body);
            Some(hub.made())
        }
        () => None,
    });
    let published = published.unwrap();
    assert_eq!((published.sent, published.files, published.changed), (0, 1, true));
    // An address that is not the Hub's own is not shown.
    assert_eq!(published.url, format!("{}/a/b/commit/{}", server.url, id(2)));
    assert_eq!(hub.lock().unwrap().parents, [id(1)]);
}

#[test]
fn a_lost_answer_makes_no_second_commit() {
    let (published, server, hub) = publish(local(), |heard, hub, _| match () {
        () if is_batch(heard) => Some(there(heard)),
        () if is_commit(heard) => {
            hub.commit(&heard.body);
            Some(reply(504, &[], "<html>"))
        }
        () => None,
    });
    assert_eq!(published.unwrap().commit, id(2));
    assert_eq!(hub.lock().unwrap().commits.len(), 2);
    assert_eq!(server.asked().iter().filter(|heard| is_commit(heard)).count(), 1);
}

#[test]
fn a_commit_that_did_not_arrive_is_repeated() {
    let (published, server, hub) = publish(local(), |heard, hub, _| match () {
        () if is_batch(heard) => Some(there(heard)),
        () if is_commit(heard) && hub.parents.is_empty() => {
            hub.parents.push("none".to_owned());
            Some(reply(503, &[], ""))
        }
        () if is_commit(heard) => {
            hub.commit(&heard.body);
            Some(hub.made())
        }
        () => None,
    });
    assert_eq!(published.unwrap().commit, id(2));
    assert_eq!(hub.lock().unwrap().commits.len(), 2);
    assert_eq!(server.asked().iter().filter(|heard| is_commit(heard)).count(), 2);
}

/// Somebody else commits `theirs` just before.
fn overtaken(theirs: &'static str) -> (Result<Published, HubError>, Arc<Mutex<Hub>>) {
    let (published, _, hub) = publish(local(), move |heard, hub, _| match () {
        () if is_batch(heard) => Some(there(heard)),
        () if is_commit(heard) && hub.commits.len() == 1 => {
            let mut files = hub.commits[0].clone();
            files.push(large(theirs, b"theirs"));
            hub.commits.push(files);
            Some(reply(412, &[], "{\"error\": \"A commit has happened since\"}"))
        }
        () if is_commit(heard) => {
            hub.commit(&heard.body);
            Some(hub.made())
        }
        () => None,
    });
    (published, hub)
}

#[test]
fn a_commit_of_others_in_between_is_built_upon() {
    let (published, hub) = overtaken("y.gguf");
    assert_eq!(published.unwrap().commit, id(3));
    let hub = hub.lock().unwrap();
    assert_eq!(hub.parents, [id(2)]);
    assert_eq!(hub.commits[2].len(), 3, "theirs is still there");
}

#[test]
fn a_commit_of_others_about_the_same_file_is_a_conflict() {
    let (published, hub) = overtaken("x.gguf");
    assert!(matches!(&published, Err(HubError::Conflict { message, .. }) if message.contains("x.gguf")), "{published:?}");
    assert_eq!(hub.lock().unwrap().commits.len(), 2);
}

#[test]
fn what_is_not_in_the_commit_is_an_error() {
    let (published, ..) = publish(local(), |heard, hub, _| match () {
        () if is_batch(heard) => Some(there(heard)),
        () if is_commit(heard) => {
            hub.commits.push(vec![large("x.gguf", b"GGUF and less")]);
            Some(hub.made())
        }
        () => None,
    });
    assert!(matches!(&published, Err(HubError::BadHash { file, .. }) if file == "x.gguf"), "{published:?}");
}

#[test]
fn a_file_that_changes_meanwhile_is_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    std::fs::write(&path, b"GGUF 1").unwrap();
    let file = Local::of_file("x.gguf".parse().unwrap(), &path, &crate::Cancel::never(), &|_| {}).unwrap();
    let (published, server, _) = publish(file, move |heard, _, url| match () {
        () if is_batch(heard) => {
            let asked: Value = serde_json::from_slice(&heard.body).unwrap();
            let upload = json!({ "upload": { "href": format!("{url}/put") } });
            let object = json!({ "oid": asked["objects"][0]["oid"], "size": 6, "actions": upload });
            Some(reply(200, &[], json!({ "objects": [object] }).to_string()))
        }
        () if heard.path == "/put" => {
            assert_eq!(heard.body, b"GGUF 1");
            std::fs::write(&path, b"GGUF 2").unwrap();
            Some(reply(200, &[], ""))
        }
        () => None,
    });
    assert!(matches!(published, Err(HubError::Changed { .. })), "{published:?}");
    assert!(!server.asked().iter().any(is_commit));
}

#[test]
fn answers_of_the_storage_that_make_no_sense_are_refused() {
    let oid = local().sha256;
    let parts = |header: Value| json!({ "objects": [{ "oid": oid, "actions": { "upload": { "href": "http://h/x", "header": header } } }] });
    for (answer, expected) in [
        (json!({ "objects": [] }), "says nothing of x.gguf"),
        (json!({ "objects": [{ "oid": oid, "error": { "code": 413, "message": "too large" } }] }), "too large"),
        (parts(json!({ "chunk_size": "0", "1": "http://h/1" })), "parts of no size"),
        (parts(json!({ "chunk_size": "5", "1": "http://h/1", "2": "http://h/2" })), "a part has no address"),
        (parts(json!({ "chunk_size": "20", "1": "http://h/1", "2": "http://h/2" })), "do not add up"),
        (parts(json!({ "chunk_size": "20", "1": "file:///etc/passwd" })), "no http address"),
    ] {
        let text = answer.to_string();
        let (published, server, _) = publish(local(), move |heard, _, _| is_batch(heard).then(|| reply(200, &[], text.clone())));
        assert!(!server.asked().iter().any(is_commit), "{answer}");
        let error = published.unwrap_err();
        assert!(error.to_string().contains(expected), "{answer}: {error}");
    }
}

#[test]
fn two_files_of_one_name_are_refused() {
    let client = Server::start(|heard, _| panic!("{}", heard.path)).client(Path::new("/"));
    let published = client.publish(&Wish::new("a/b".parse().unwrap(), "x"), &[local(), local()], None, &watch());
    assert!(matches!(published, Err(HubError::BadName { why: "two files have it", .. })), "{published:?}");
}

#[test]
fn hashes_are_those_of_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    std::fs::write(&path, b"hello\n").unwrap();
    let name: crate::FileName = "a".parse().unwrap();
    let file = Local::of_file(name.clone(), &path, &crate::Cancel::never(), &|_| {}).unwrap();
    let bytes = Local::of_bytes(name.clone(), b"hello\n".to_vec());
    assert_eq!(file.sha256, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
    // git hash-object
    assert_eq!(file.git.as_deref(), Some("ce013625030ba8dba906f756967f9e9ca394464a"));
    assert_eq!((&bytes.sha256, &bytes.git), (&file.sha256, &file.git));
    let hash = |hash| Entry { name: name.clone(), size: 6, hash };
    assert!(file.is(&hash(Hash::Sha256(file.sha256.clone()))) && file.is(&hash(Hash::Git(file.git.clone().unwrap()))));
    assert!(
        !file.is(&Entry { size: 7, ..hash(Hash::Sha256(file.sha256.clone())) }) && !file.is(&hash(Hash::Sha256("0".repeat(64))))
    );
    assert!(matches!(Local::of_file(name, folder.path(), &crate::Cancel::never(), &|_| {}), Err(HubError::Io { .. })));
}
