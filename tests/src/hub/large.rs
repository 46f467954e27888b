//! Large files: Git LFS's batch, in one piece or in parts.

use super::message::{Reply, Request};
use super::repo::hex;
use super::{Shared, refusal};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

const MEDIA: &str = "application/vnd.git-lfs+json";

pub(super) fn batch(shared: &Shared, id: &str, asked: &Value) -> Reply {
    let base = &shared.endpoint;
    let wanted = |kind: &str| asked["transfers"].as_array().into_iter().flatten().any(|name| name == kind);
    if shared.settings.cas.is_some() && wanted("xet") {
        let object = |object: &Value| json!({ "oid": object["oid"], "size": object["size"], "authenticated": true });
        let objects: Value = asked["objects"].as_array().into_iter().flatten().map(object).collect();
        return Reply::json(200, &json!({ "transfer": "xet", "objects": objects })).with("Content-Type", MEDIA);
    }
    let mut transfer = "basic";
    let mut objects = Vec::new();
    for object in asked["objects"].as_array().into_iter().flatten() {
        let (oid, size) = (object["oid"].as_str().unwrap_or_default(), object["size"].as_u64().unwrap_or(0));
        let mut answer = json!({ "oid": oid, "size": size, "authenticated": true });
        if !shared.lock().objects.contains_key(oid) {
            let verify = json!({ "href": format!("{base}/{id}.git/info/lfs/verify") });
            let upload = if wanted("multipart") && size > shared.settings.multipart_over {
                transfer = "multipart";
                let parts = size.div_ceil(shared.settings.part);
                let mut header = json!({ "chunk_size": shared.settings.part.to_string() });
                for part in 1..=parts {
                    header[format!("{part:05}")] = format!("{base}/_objects/part/{oid}/{part}?signature=secret").into();
                }
                json!({ "href": format!("{base}/_objects/complete/{oid}/{parts}?signature=secret"), "header": header })
            } else {
                json!({ "href": format!("{base}/_objects/whole/{oid}?signature=secret") })
            };
            answer["actions"] = json!({ "upload": upload, "verify": verify });
        }
        objects.push(answer);
    }
    Reply::json(200, &json!({ "transfer": transfer, "objects": objects })).with("Content-Type", MEDIA)
}

pub(super) fn verify(shared: &Shared, asked: &Value) -> Reply {
    let object = shared.lock().objects.get(asked["oid"].as_str().unwrap_or_default()).cloned();
    let size = object.and_then(|path| fs::metadata(path).ok()).map(|metadata| metadata.len());
    match size.is_some() && size == asked["size"].as_u64() {
        true => Reply::json(200, &json!({ "message": "ok" })),
        false => Reply::json(404, &json!({ "message": "it is not there" })),
    }
}

/// What the storage is sent.
pub(super) fn store(shared: &Shared, request: &mut Request<'_, '_>, rest: &[&str]) -> Reply {
    let part = |oid: &str, number: &str| shared.folder.path().join(format!("{oid}.{number}"));
    match (request.method.as_str(), rest) {
        ("PUT", ["whole", oid]) => match receive(shared, request) {
            Some((path, found)) if found == *oid => {
                keep(shared, oid, path);
                Reply::new(200, Vec::new())
            }
            Some(_) => refusal(400, "BadDigest", "the sha256 is another one"),
            None => refusal(400, "IncompleteBody", "the body ended early"),
        },
        ("PUT", ["part", oid, number]) => match receive(shared, request) {
            Some((path, found)) => match fs::rename(path, part(oid, number)) {
                Ok(()) => Reply::new(200, Vec::new()).with("ETag", &format!("\"{found}\"")),
                Err(_) => refusal(500, "InternalError", "it cannot be kept"),
            },
            None => refusal(400, "IncompleteBody", "the body ended early"),
        },
        ("POST", ["complete", oid, parts]) => {
            let asked = request.json();
            let parts: u64 = parts.parse().unwrap_or(0);
            let listed = asked["parts"].as_array().map_or(0, Vec::len) as u64;
            let path = shared.folder.path().join(format!("{oid}.all"));
            let mut bytes = Vec::new();
            for (index, entry) in asked["parts"].as_array().into_iter().flatten().enumerate() {
                let Ok(piece) = fs::read(part(oid, &(index + 1).to_string())) else {
                    return refusal(400, "InvalidPart", "a part is missing");
                };
                let etag = entry["etag"].as_str().unwrap_or_default().trim_matches('"');
                if entry["partNumber"].as_u64() != Some(index as u64 + 1) || etag != hex(&Sha256::digest(&piece)) {
                    return refusal(400, "InvalidPart", "a part is another one");
                }
                bytes.extend(piece);
            }
            if listed != parts || hex(&Sha256::digest(&bytes)) != **oid || fs::write(&path, &bytes).is_err() {
                return refusal(400, "BadDigest", "the sha256 is another one");
            }
            keep(shared, oid, path);
            Reply::json(200, &json!({}))
        }
        _ => {
            request.body();
            refusal(404, "NotFound", "there is nothing at this address")
        }
    }
}

/// A body in a file, and its sha256; none where it ended early.
fn receive(shared: &Shared, request: &mut Request<'_, '_>) -> Option<(PathBuf, String)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let path = shared.folder.path().join(format!("{}.body", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let mut file = fs::File::create(&path).ok()?;
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        let read = request.read(&mut piece).ok()?;
        if read == 0 {
            break;
        }
        hasher.update(&piece[..read]);
        file.write_all(&piece[..read]).ok()?;
    }
    Some((path, hex(&hasher.finalize())))
}

fn keep(shared: &Shared, oid: &str, path: PathBuf) {
    shared.lock().objects.insert(oid.to_owned(), path);
}
