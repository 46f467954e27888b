//! A Hugging Face Hub on loopback: repositories, large files (LFS, in one piece or in parts), commits, downloads, and every fault that a
//! test may want.
//!
//! It speaks as much of the Hub's protocol as huggingface_hub and ggufsmith use. A thread serves each connection.

mod api;
mod cas;
mod fault;
mod large;
mod message;
mod repo;

pub use cas::Cas;
pub use fault::{Action, Fault};
pub use repo::{Body, Commit, File, Repo, sha256_hex};

use message::{Reply, Request};
use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// How a server behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The one token that it knows.
    pub token: String,
    /// Whose token that is.
    pub user: String,
    /// Larger files are uploaded in parts.
    pub multipart_over: u64,
    /// Bytes of a part.
    pub part: u64,
    /// Files are sent by another server, to which downloads are redirected.
    pub elsewhere: bool,
    /// Bytes a second of every body, both ways; 0: as fast as it goes.
    pub rate: u64,
    /// The port; 0: any.
    pub port: u16,
    /// Where Xet's storage is ([`Cas::endpoint`]); none: there is plain storage alone.
    pub cas: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            token: "hf_ofatest".into(),
            user: "tester".into(),
            multipart_over: 16 << 20,
            part: 8 << 20,
            elsewhere: false,
            rate: 0,
            port: 0,
            cas: None,
        }
    }
}

/// A request that was answered, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// `GET` and the like.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// Whether there was an `Authorization` header.
    pub authorized: bool,
    /// The status; 0 where the connection was cut.
    pub status: u16,
    /// Bytes of the body that came.
    pub received: u64,
    /// Bytes of the body that went.
    pub sent: u64,
    /// Whether it came to the other server ([`Settings::elsewhere`]).
    pub elsewhere: bool,
}

/// What all connections share.
pub(crate) struct Shared {
    settings: Settings,
    state: Mutex<State>,
    /// Where uploaded objects lie.
    folder: TempDir,
    stop: AtomicBool,
    endpoint: String,
    other: String,
}

#[derive(Default)]
struct State {
    repos: BTreeMap<String, Repo>,
    /// By sha256.
    objects: BTreeMap<String, PathBuf>,
    /// From sha256 to Xet's hash, of the files that its storage was told of.
    xet: BTreeMap<String, String>,
    faults: Vec<Fault>,
    log: Vec<Logged>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server; dropped, it stops.
pub struct HubServer {
    shared: Arc<Shared>,
}

impl HubServer {
    /// Start one.
    ///
    /// # Panics
    /// Where loopback cannot be listened to.
    pub fn start(settings: Settings) -> HubServer {
        let main = TcpListener::bind(("127.0.0.1", settings.port)).expect("loopback can be listened to");
        let other = TcpListener::bind(("127.0.0.1", 0)).expect("loopback can be listened to");
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("it listens"));
        let shared = Arc::new(Shared {
            endpoint: url(&main),
            other: url(&other),
            settings,
            state: Mutex::default(),
            folder: TempDir::new().expect("a temporary directory"),
            stop: AtomicBool::new(false),
        });
        for (listener, elsewhere) in [(main, false), (other, true)] {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if shared.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || serve(&shared, &stream, elsewhere));
                }
            });
        }
        HubServer { shared }
    }

    /// With the defaults.
    pub fn new() -> HubServer {
        HubServer::start(Settings::default())
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.shared.endpoint
    }

    /// The token that it knows.
    pub fn token(&self) -> &str {
        &self.shared.settings.token
    }

    /// Add a repository of these files.
    pub fn add(&self, repo: Repo) {
        self.shared.lock().repos.insert(repo.id.clone(), repo);
    }

    /// A repository as it is now.
    pub fn repo(&self, id: &str) -> Option<Repo> {
        self.shared.lock().repos.get(id).cloned()
    }

    /// Go wrong.
    pub fn fail(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Everything that was asked so far, in the order of the answers.
    pub fn log(&self) -> Vec<Logged> {
        self.shared.lock().log.clone()
    }

    /// Forget what was asked, and all faults.
    pub fn forget(&self) {
        let mut state = self.shared.lock();
        state.log.clear();
        state.faults.clear();
    }
}

impl Default for HubServer {
    fn default() -> Self {
        HubServer::new()
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the threads that listen.
        for url in [&self.shared.endpoint, &self.shared.other] {
            let _ = TcpStream::connect(url.trim_start_matches("http://"));
        }
    }
}

/// Answer the requests of one connection.
fn serve(shared: &Shared, stream: &TcpStream, elsewhere: bool) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
    let mut reader = std::io::BufReader::new(stream);
    while let Ok(Some(mut request)) = Request::read(&mut reader, shared.settings.rate) {
        request.elsewhere = elsewhere;
        let fault = fault::take(shared, &request);
        let mut entry = Logged {
            method: request.method.clone(),
            path: request.path.clone(),
            range: request.header("range").map(str::to_owned),
            authorized: request.header("authorization").is_some(),
            status: 0,
            received: 0,
            sent: 0,
            elsewhere,
        };
        if fault.as_ref().is_some_and(|action| matches!(action, Action::Cut)) {
            shared.lock().log.push(entry);
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
        if request.path == "/_log" {
            let log: Vec<_> = shared
                .lock()
                .log
                .iter()
                .map(|e| format!("{} {} {:?} {} +{} -{}\n", e.method, e.path, e.range, e.status, e.received, e.sent))
                .collect();
            let _ = Reply::new(200, log.concat().into_bytes()).write(stream, false, None, 0);
            continue;
        }
        let reply = match fault::instead(fault.as_ref()) {
            Some(reply) => {
                // What was sent is read all the same, so that the connection can go on.
                let _ = request.skip();
                reply
            }
            None => api::answer(shared, &mut request, fault.as_ref()),
        };
        entry.received = request.received();
        let lost = matches!(fault, Some(Action::AnswerLost));
        let (keep, status, limit) = (request.keep && request.is_done(), reply.status, fault::limit(fault.as_ref()));
        let sent = if lost { Err(0) } else { reply.write(stream, request.method == "HEAD", limit, shared.settings.rate) };
        entry.status = if lost { 0 } else { status };
        entry.sent = sent.unwrap_or_else(|sent| sent);
        shared.lock().log.push(entry);
        if sent.is_err() || !keep {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// An answer with an error as the Hub words it.
fn refusal(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(status, &serde_json::json!({ "error": message })).with("X-Error-Code", code).with("X-Error-Message", message)
}
