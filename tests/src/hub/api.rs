//! The Hub's own addresses.

use super::message::{Reply, Request, decode};
use super::repo::{Commit, File, Repo, git_blob, is_large, pointer};
use super::{Action, Shared, cas, large, refusal};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Whoever asks.
fn knows(shared: &Shared, request: &Request<'_, '_>) -> bool {
    request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")) == Some(shared.settings.token.as_str())
}

pub(super) fn answer(shared: &Shared, request: &mut Request<'_, '_>, fault: Option<&Action>) -> Reply {
    let path = request.path.clone();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let known = knows(shared, request);
    let unknown = || refusal(401, "InvalidToken", "Invalid user token.");
    match (request.method.as_str(), parts.as_slice()) {
        (_, ["v1" | "v2", ..] | ["simulation", "xorb-uploads", _]) if request.elsewhere && shared.settings.cas.is_some() => {
            cas::forward(shared, shared.settings.cas.as_deref().unwrap_or_default(), request)
        }
        (_, ["_objects", rest @ ..]) => large::store(shared, request, rest),
        ("GET", ["api", "whoami-v2"]) if known => whoami(&shared.settings.user),
        ("GET", ["api", "whoami-v2"]) => unknown(),
        ("POST", ["api", "validate-yaml"]) => {
            request.body();
            Reply::json(200, &json!({ "errors": [], "warnings": [] }))
        }
        ("POST", ["api", "repos", "create"]) if known => create(shared, &request.json()),
        ("POST", ["api", "repos", "create"]) => unknown(),
        ("POST", [owner, name, "info", "lfs", "objects", "batch"]) if known => {
            let id = format!("{owner}/{}", name.trim_end_matches(".git"));
            large::batch(shared, &id, &request.json())
        }
        ("POST", [_, _, "info", "lfs", "verify"]) => large::verify(shared, &request.json()),
        ("GET" | "HEAD", [owner, name, "resolve", revision, file @ ..]) => {
            let (id, name) = (format!("{owner}/{name}"), decode(&file.join("/")));
            match visible(shared, &id, known, true) {
                Ok(repo) => resolve(shared, request, &repo, &decode(revision), &name, fault),
                Err(reply) => reply,
            }
        }
        (_, ["api", "models", owner, name, rest @ ..]) => {
            let id = format!("{owner}/{name}");
            match visible(shared, &id, known, false) {
                Ok(repo) => model(shared, request, &repo, rest, known, fault),
                Err(reply) => {
                    request.body();
                    reply
                }
            }
        }
        _ => {
            request.body();
            refusal(404, "NotFound", "there is nothing at this address")
        }
    }
}

fn whoami(user: &str) -> Reply {
    let token = json!({ "displayName": "test", "role": "write", "createdAt": "2026-01-01T00:00:00.000Z" });
    Reply::json(
        200,
        &json!({
            "type": "user", "id": "1", "name": user, "fullname": user, "email": "t@example.org", "emailVerified": true, "isPro": false,
            "orgs": [], "auth": { "type": "access_token", "accessToken": token }
        }),
    )
}

fn create(shared: &Shared, asked: &Value) -> Reply {
    let owner = asked["organization"].as_str().unwrap_or(&shared.settings.user);
    let name = asked["name"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let id = format!("{owner}/{name}");
    let url = format!("{}/{id}", shared.endpoint);
    let mut state = shared.lock();
    if state.repos.contains_key(&id) {
        return Reply::json(409, &json!({ "error": "You already created this model repo", "url": url }));
    }
    let mut repo = Repo::new(&id);
    repo.private = asked["private"] == true || asked["visibility"] == "private";
    state.repos.insert(id.clone(), repo);
    Reply::json(200, &json!({ "url": url, "name": id, "id": "1" }))
}

fn visible(shared: &Shared, id: &str, known: bool, bytes: bool) -> Result<Repo, Reply> {
    let repo = shared.lock().repos.get(id).cloned();
    match repo {
        Some(repo) if repo.gated && bytes => {
            let status = if known { 403 } else { 401 };
            Err(refusal(status, "GatedRepo", &format!("Access to model {id} is restricted. You must have access to it.")))
        }
        Some(repo) if known || !repo.private => Ok(repo),
        _ => Err(refusal(if known { 404 } else { 401 }, "RepoNotFound", "Repository not found")),
    }
}

fn model(
    shared: &Shared,
    request: &mut Request<'_, '_>,
    repo: &Repo,
    rest: &[&str],
    known: bool,
    fault: Option<&Action>,
) -> Reply {
    let (verb, revision) = (rest.first().copied().unwrap_or_default(), rest.get(1).map_or("main".into(), |text| decode(text)));
    if matches!(verb, "preupload" | "commit" | "xet-write-token") && !known {
        request.body();
        return refusal(401, "InvalidToken", "Invalid user token.");
    }
    let writes = matches!(verb, "preupload" | "commit" | "xet-write-token" | "branch");
    if repo.read_only && writes && request.query("create_pr") != Some("1") {
        request.body();
        return refusal(403, "Forbidden", "pass `create_pr=1` as a query parameter to create a Pull Request");
    }
    if (request.method.as_str(), verb) == ("POST", "branch") {
        request.body();
        if let Some(repo) = shared.lock().repos.get_mut(&repo.id) {
            repo.branches.push(revision);
        }
        return Reply::json(200, &json!({}));
    }
    let Some(commit) = repo.at(&revision) else {
        request.body();
        return refusal(404, "RevisionNotFound", &format!("Invalid rev id: {revision}"));
    };
    match (request.method.as_str(), verb) {
        ("GET", "" | "revision") => info(repo, commit),
        ("GET", "tree") => tree(shared, request, commit, &decode(&rest[2.min(rest.len())..].join("/")), fault),
        ("POST", "paths-info") => {
            let asked = request.body();
            let paths: Vec<String> = match serde_json::from_slice::<Value>(&asked) {
                Ok(value) => {
                    value["paths"].as_array().into_iter().flatten().filter_map(|p| p.as_str().map(str::to_owned)).collect()
                }
                Err(_) => form(&asked, "paths"),
            };
            let found = paths.iter().filter_map(|path| commit.files.get(path).map(|file| node(path, file)));
            Reply::json(200, &found.collect::<Value>())
        }
        ("GET", "xet-write-token" | "xet-read-token") => cas::permit(shared),
        ("POST", "preupload") => preupload(commit, &request.json()),
        ("POST", "commit") => {
            let create_pr = request.query("create_pr") == Some("1");
            let body = request.body();
            make_commit(shared, repo, &body, create_pr, matches!(fault, Some(Action::CommitForgotten)))
        }
        ("GET", "refs") => {
            let main = json!({ "name": "main", "ref": "refs/heads/main", "targetCommit": repo.head().id });
            Reply::json(200, &json!({ "branches": [main], "tags": [], "converts": [] }))
        }
        ("GET", "discussions") => {
            let pull = |number: usize| {
                json!({ "num": number, "title": "", "status": "open", "isPullRequest": true, "author": { "name": shared.settings.user },
                        "repo": { "name": repo.id }, "createdAt": "2026-01-01T00:00:00.000Z" })
            };
            let pulls: Value = (1..=repo.pulls.len()).map(pull).collect();
            Reply::json(200, &json!({ "discussions": pulls, "count": repo.pulls.len(), "start": 0 }))
        }
        ("GET", "commits") => {
            let commit = |c: &Commit| json!({ "id": c.id, "title": c.summary, "message": "", "date": "2026-01-01T00:00:00.000Z", "authors": [] });
            Reply::json(200, &repo.commits.iter().rev().map(commit).collect::<Value>())
        }
        _ => {
            request.body();
            refusal(404, "NotFound", "there is nothing at this address")
        }
    }
}

/// The values of a key of `application/x-www-form-urlencoded`.
fn form(body: &[u8], key: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(body).into_owned();
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| *name == key).map(|(_, value)| decode(&value.replace('+', " "))).collect()
}

fn info(repo: &Repo, commit: &Commit) -> Reply {
    let siblings: Value = commit.files.keys().map(|name| json!({ "rfilename": name })).collect();
    Reply::json(
        200,
        &json!({
            "_id": "1", "id": repo.id, "modelId": repo.id, "author": repo.id.split('/').next(), "sha": commit.id, "private": repo.private,
            "disabled": false, "gated": if repo.gated { json!("manual") } else { json!(false) }, "downloads": 0, "likes": 0, "tags": [],
            "createdAt": "2026-01-01T00:00:00.000Z", "lastModified": "2026-01-01T00:00:00.000Z", "siblings": siblings
        }),
    )
}

fn node(path: &str, file: &File) -> Value {
    let (size, mut node) = (file.body.len(), json!({ "type": "file", "path": path, "oid": file.git() }));
    node["size"] = size.into();
    if let Some(hash) = &file.xet {
        node["xetHash"] = hash.as_str().into();
    }
    if let Some(sha256) = &file.sha256 {
        node["lfs"] = json!({ "oid": sha256, "size": size, "pointerSize": pointer(sha256, size).len() });
    }
    node
}

/// One page of a list: few entries, so that there are several.
const PAGE: usize = 20;

fn tree(shared: &Shared, request: &Request<'_, '_>, commit: &Commit, folder: &str, fault: Option<&Action>) -> Reply {
    let deep = matches!(request.query("recursive"), Some("1" | "true" | "True"));
    let inside = if folder.is_empty() { String::new() } else { format!("{}/", folder.trim_end_matches('/')) };
    let (mut nodes, mut folders) = (Vec::new(), BTreeSet::new());
    for (path, file) in &commit.files {
        let Some(rest) = path.strip_prefix(&inside) else { continue };
        let ends: Vec<usize> = rest.match_indices('/').map(|(at, _)| at).collect();
        folders.extend(ends.iter().take(if deep { usize::MAX } else { 1 }).map(|end| format!("{inside}{}", &rest[..*end])));
        if deep || ends.is_empty() {
            nodes.push(node(path, file));
        }
    }
    if let Some(Action::EvilName(name)) = fault {
        nodes.push(node(name, &File::new("x", b"evil".to_vec().into())));
    }
    nodes.extend(
        folders.iter().map(|path| json!({ "type": "directory", "path": path, "oid": git_blob(path.as_bytes()), "size": 0 })),
    );
    if nodes.is_empty() && !folder.is_empty() {
        return refusal(404, "EntryNotFound", "no such folder");
    }
    let from: usize = request.query("cursor").and_then(|text| text.parse().ok()).unwrap_or(0);
    let page: Value = nodes.iter().skip(from).take(PAGE).cloned().collect();
    let reply = Reply::json(200, &page);
    if from + PAGE >= nodes.len() {
        return reply;
    }
    let others = request.query.iter().filter(|(name, _)| name != "cursor").map(|(name, value)| format!("{name}={value}&"));
    let query: String = others.collect();
    reply.with("Link", &format!("<{}{}?{query}cursor={}>; rel=\"next\"", shared.endpoint, request.path, from + PAGE))
}

fn preupload(commit: &Commit, asked: &Value) -> Reply {
    let answer = |file: &Value| {
        let path = file["path"].as_str().unwrap_or_default();
        let large = is_large(path) || file["size"].as_u64().unwrap_or(0) > 10 << 20;
        let mode = if large && file["size"] != 0 { "lfs" } else { "regular" };
        let mut answer = json!({ "path": path, "uploadMode": mode, "shouldIgnore": false });
        if let Some(old) = commit.files.get(path) {
            answer["oid"] = old.etag().into();
        }
        answer
    };
    let files: Value = asked["files"].as_array().into_iter().flatten().map(answer).collect();
    Reply::json(200, &json!({ "files": files, "commitOid": commit.id }))
}

fn make_commit(shared: &Shared, repo: &Repo, body: &[u8], create_pr: bool, forgotten: bool) -> Reply {
    let lines: Result<Vec<Value>, _> =
        body.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()).map(serde_json::from_slice).collect();
    let bad = |what: &str| refusal(400, "BadRequest", what);
    let Ok(lines) = lines else { return bad("the commit is no JSON") };
    let Some((header, changes)) = lines.split_first().filter(|(first, _)| first["key"] == "header") else {
        return bad("the first line is no header");
    };
    let stored = stored(shared, changes);
    let mut state = shared.lock();
    let Some(repo) = state.repos.get_mut(&repo.id) else { return bad("it is gone") };
    let parent = &header["value"]["parentCommit"];
    if !parent.is_null() && *parent != repo.head().id.as_str() {
        return refusal(412, "PreconditionFailed", "A commit has happened since. Please refresh and try again.");
    }
    let mut files = repo.head().files.clone();
    for change in changes {
        let (key, value) = (change["key"].as_str().unwrap_or_default(), &change["value"]);
        let path = value["path"].as_str().unwrap_or_default();
        if path.split('/').any(|part| matches!(part, "" | "." | ".." | ".git")) {
            return bad(&format!("invalid path {path}"));
        }
        if let Err(reply) = apply(&mut files, &stored, key, path, value) {
            return reply;
        }
    }
    let commit = repo.commit_of(files, header["value"]["summary"].as_str().unwrap_or_default());
    let (id, mut answer) = (commit.id.clone(), json!({ "success": true, "hookOutput": "" }));
    if create_pr {
        repo.pulls.push(commit);
        answer["pullRequestUrl"] = format!("{}/{}/discussions/{}", shared.endpoint, repo.id, repo.pulls.len()).into();
    } else if !forgotten {
        repo.commits.push(commit);
    }
    answer["commitOid"] = id.clone().into();
    answer["commitUrl"] = format!("{}/{}/commit/{id}", shared.endpoint, repo.id).into();
    Reply::json(200, &answer)
}

/// The large files that changes name, where they are in either storage.
fn stored(shared: &Shared, changes: &[Value]) -> BTreeMap<String, File> {
    let mut stored = BTreeMap::new();
    for oid in changes.iter().filter_map(|change| change["value"]["oid"].as_str()) {
        let plain = shared.lock().objects.get(oid).map(|path| (super::Body::File(path.clone()), None));
        let by_xet = || {
            let (body, hash) = cas::object(shared, shared.settings.cas.as_deref()?, oid)?;
            Some((body, Some(hash)))
        };
        if let Some((body, xet)) = plain.or_else(by_xet) {
            stored.insert(oid.to_owned(), File { body, sha256: Some(oid.to_owned()), xet });
        }
    }
    stored
}

fn apply(
    files: &mut BTreeMap<String, File>,
    stored: &BTreeMap<String, File>,
    key: &str,
    path: &str,
    value: &Value,
) -> Result<(), Reply> {
    let bad = |what: String| Err(refusal(400, "BadRequest", &what));
    match key {
        "file" => {
            let text = value["content"].as_str().unwrap_or_default();
            let bytes = if value["encoding"] == "base64" { base64(text) } else { Some(text.as_bytes().to_vec()) };
            let Some(bytes) = bytes else { return bad(format!("the content of {path} is no base64")) };
            if is_large(path) && !bytes.is_empty() {
                return bad(format!("Your push was rejected because it contains binary files: {path}"));
            }
            files.insert(path.to_owned(), File { body: bytes.into(), sha256: None, xet: None });
        }
        "lfsFile" => {
            let oid = value["oid"].as_str().unwrap_or_default();
            let Some(file) = stored.get(oid) else {
                return Err(refusal(400, "LfsMissing", &format!("LFS pointer pointed to a file that does not exist: {oid}")));
            };
            if value["size"].as_u64() != Some(file.body.len()) {
                return bad(format!("the size of {path} is not that of its object"));
            }
            files.insert(path.to_owned(), file.clone());
        }
        "deletedFile" => {
            files.remove(path);
        }
        _ => return bad(format!("unknown key {key}")),
    }
    Ok(())
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

fn resolve(shared: &Shared, request: &Request<'_, '_>, repo: &Repo, revision: &str, name: &str, fault: Option<&Action>) -> Reply {
    let Some(commit) = repo.at(revision) else { return refusal(404, "RevisionNotFound", &format!("Invalid rev id: {revision}")) };
    let Some(file) = commit.files.get(name) else {
        return refusal(404, "EntryNotFound", "Entry not found").with("X-Repo-Commit", &commit.id);
    };
    let size = file.body.len();
    let etag = match fault {
        Some(Action::WrongEtag) => "\"00000000000000000000000000000000\"".to_owned(),
        _ => format!("\"{}\"", file.etag()),
    };
    let dressed = |reply: Reply| {
        let reply = reply.with("ETag", &etag).with("X-Repo-Commit", &commit.id).with("Accept-Ranges", "bytes");
        match file.sha256 {
            Some(_) => reply.with("X-Linked-Etag", &etag).with("X-Linked-Size", &size.to_string()),
            None => reply,
        }
    };
    let dressed = |reply: Reply| match (&file.xet, dressed(reply)) {
        (Some(hash), reply) => {
            let refresh = format!("{}/api/models/{}/xet-read-token/{}", shared.endpoint, repo.id, commit.id);
            let link = format!("<{refresh}>; rel=\"xet-auth\"");
            reply.with("X-Xet-Hash", hash).with("X-Xet-Refresh-Route", &refresh).with("Link", &link)
        }
        (None, reply) => reply,
    };
    if shared.settings.elsewhere && !request.elsewhere && file.sha256.is_some() {
        let location = format!("{}{}", shared.other, request.path);
        return dressed(Reply::new(302, Vec::new()).with("Location", &location));
    }
    if request.method == "HEAD" {
        return dressed(Reply::new(200, Vec::new()).saying(size));
    }
    let range = request.header("range").and_then(|text| text.strip_prefix("bytes=")).and_then(|text| text.split_once('-'));
    let range = range.and_then(|(from, last)| {
        let last = if last.is_empty() { size.saturating_sub(1) } else { last.parse().ok()? };
        Some((from.parse::<u64>().ok()?, last.min(size.saturating_sub(1))))
    });
    let mut reply = match range {
        Some((from, _)) if from >= size => {
            return dressed(Reply::new(416, Vec::new()).with("Content-Range", &format!("bytes */{size}")));
        }
        Some((from, last)) if !matches!(fault, Some(Action::IgnoreRange)) => {
            let said = if matches!(fault, Some(Action::WrongContentRange)) { from + 1 } else { from };
            let part = Reply::new(206, file.body.clone()).part(from, last + 1 - from);
            part.with("Content-Range", &format!("bytes {said}-{last}/{size}"))
        }
        _ => Reply::new(200, file.body.clone()),
    };
    reply.flip = matches!(fault, Some(Action::ChangedBytes));
    dressed(reply.with("Content-Type", "application/octet-stream"))
}
