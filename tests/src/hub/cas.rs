//! Xet's storage: Hugging Face's own simulator of it (`local_cas_server` of the crate xet-client), behind the server of this module,
//! which counts what passes, lets it go wrong, and learns which sha256 belongs to which of Xet's hashes.

use super::message::{Reply, Request};
use super::repo::{Body, hex, sha256_hex};
use super::{Shared, refusal};
use serde_json::json;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A running simulator; dropped, it stops.
#[derive(Debug)]
pub struct Cas {
    process: Child,
    endpoint: String,
}

impl Cas {
    /// Start one that keeps everything in memory.
    ///
    /// # Panics
    /// Where it does not start within a minute.
    pub fn start(program: &Path) -> Cas {
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        let port = free.expect("loopback can be listened to").port().to_string();
        let mut command = Command::new(program);
        command.args(["--in-memory", "--port", &port]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("the simulator can be run");
        let cas = Cas { process, endpoint: format!("http://127.0.0.1:{port}") };
        let end = Instant::now() + Duration::from_secs(60);
        while reqwest::blocking::get(format!("{}/health", cas.endpoint)).is_err() {
            assert!(Instant::now() < end, "{} does not answer", program.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        cas
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Cas {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The permission to write to it, or to read: a token, and its address as seen from outside.
pub(super) fn permit(shared: &Shared) -> Reply {
    if shared.settings.cas.is_none() {
        return refusal(404, "NotFound", "Xet is not for this repository");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (token, expires) = ("xet_ofatest", now + 3600);
    Reply::json(200, &json!({ "accessToken": token, "exp": expires, "casUrl": shared.other }))
        .with("X-Xet-Cas-Url", &shared.other)
        .with("X-Xet-Access-Token", token)
        .with("X-Xet-Token-Expiration", &expires.to_string())
}

/// Carry a request over to the simulator.
pub(super) fn forward(shared: &Shared, cas: &str, request: &mut Request<'_, '_>) -> Reply {
    let body = request.body();
    if !request.is_done() {
        return refusal(400, "IncompleteBody", "the body ended early");
    }
    if request.header("authorization") != Some("Bearer xet_ofatest") && !is_signed(&request.path) {
        return refusal(401, "InvalidToken", "it wants the token that the Hub gave");
    }
    let shard = (request.method == "POST" && request.path.ends_with("/shards")).then(|| body.clone());
    match carry(cas, request, body) {
        Ok(reply) => {
            if let Some(shard) = shard.filter(|_| reply.status == 200) {
                shared.lock().xet.extend(files_of(&shard));
            }
            reply
        }
        Err(error) => refusal(502, "BadGateway", &error.to_string()),
    }
}

/// Addresses that are a permission themselves.
fn is_signed(path: &str) -> bool {
    path.contains("fetch_term") || path.contains("/xorb-uploads/")
}

fn carry(cas: &str, request: &Request<'_, '_>, body: Vec<u8>) -> Result<Reply, Box<dyn std::error::Error>> {
    let query: Vec<_> = request.query.iter().collect();
    let method = reqwest::Method::from_bytes(request.method.as_bytes())?;
    let mut url = reqwest::Url::parse(&format!("{cas}{}", request.path))?;
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query.iter().map(|(name, value)| (name, value)));
    }
    let mut ask = reqwest::blocking::Client::new().request(method, url).body(body);
    for name in ["range", "content-type"] {
        if let Some(value) = request.header(name) {
            ask = ask.header(name, value);
        }
    }
    // Addresses in its answers lead back here.
    let host = request.header("host").unwrap_or_default();
    let answer = ask.header("host", host).send()?;
    let (status, kind) = (answer.status().as_u16(), answer.headers().get("content-type").cloned());
    let reply = Reply::new(status, answer.bytes()?.to_vec());
    Ok(match kind.as_ref().and_then(|kind| kind.to_str().ok()) {
        Some(kind) => reply.with("Content-Type", kind),
        None => reply,
    })
}

/// A large file whose sha256 a shard names, put together from what was stored: its bytes and Xet's hash.
pub(super) fn object(shared: &Shared, cas: &str, sha256: &str) -> Option<(Body, String)> {
    let hash = shared.lock().xet.get(sha256)?.clone();
    let mut answer = reqwest::blocking::get(format!("{cas}/simulation/files/{hash}/data")).ok()?.error_for_status().ok()?;
    let mut bytes = Vec::new();
    answer.read_to_end(&mut bytes).ok()?;
    // What was stored is what was promised.
    (sha256_hex(&bytes) == sha256).then_some((bytes.into(), hash))
}

/// Bytes of an entry of a shard, and of its header.
const ENTRY: usize = 48;

/// From sha256 to Xet's hash, of the files of a shard (xet-core, `MDBFileInfo`: a header, then per file one entry, its segments, as
/// many entries to verify them, and one with the sha256).
fn files_of(shard: &[u8]) -> Vec<(String, String)> {
    let (mut at, mut files) = (ENTRY, Vec::new());
    while let Some(entry) = shard.get(at..at + ENTRY) {
        let (hash, number) = (&entry[..32], |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap_or_default()));
        if hash == [0xff; 32] {
            break;
        }
        let (flags, segments) = (number(32), number(36) as usize);
        at += ENTRY * (1 + segments * if flags >> 31 == 1 { 2 } else { 1 });
        if flags >> 30 & 1 == 1 {
            let Some(sha256) = shard.get(at..at + 32) else { break };
            files.push((words(sha256), words(hash)));
            at += ENTRY;
        }
    }
    files
}

/// A hash as Xet writes it: four words, each with its bytes turned around.
fn words(hash: &[u8]) -> String {
    hash.chunks(8).map(|word| hex(&word.iter().rev().copied().collect::<Vec<_>>())).collect()
}
