use super::request::Open;
use super::*;
use crate::testing::{Server, reply, settings};
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn get(server: &Server, path: &str) -> Result<Vec<u8>, HubError> {
    let client = server.client(Path::new("/nowhere"));
    client.send(&Request::get(client.url(path).unwrap()))?.whole(1 << 20)
}

#[test]
fn faults_that_pass_are_repeated() {
    for status in [408, 429, 500, 502, 503, 504] {
        let server = Server::start(move |_, before| match before {
            0 | 1 => reply(status, &[("Retry-After", "0")], "{\"error\": \"busy\"}"),
            _ => reply(200, &[], "fine"),
        });
        assert_eq!(get(&server, "/a").unwrap(), b"fine", "{status}");
        assert_eq!(server.asked().len(), 3, "{status}");
    }
}

#[test]
fn faults_that_stay_are_told_with_the_number_of_attempts() {
    let server = Server::start(|_, _| reply(503, &[("X-Request-Id", "r7")], "<html>down</html>"));
    let error = get(&server, "/a").unwrap_err();
    assert!(matches!(&error, HubError::Server { status: 503, attempts: 6, .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("GET {}/a (request r7): the server failed with status 503 (6 attempts): a page of HTML", server.url)
    );
    assert_eq!(server.asked().len(), 6);

    let gone = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let client = Client::new(settings(&format!("http://{gone}"), Path::new("/")), Cancel::never()).unwrap();
    let error = client.send(&Request::get(client.url("/").unwrap())).unwrap_err();
    assert!(matches!(&error, HubError::Unreachable { attempts: 6, why, .. } if why.contains("refused")), "{error:?}");
}

#[test]
fn refusals_are_not_repeated_and_are_typed() {
    let codes: &[(u16, &str, &str)] = &[
        (400, "", "Refused"),
        (401, "", "BadToken"),
        (401, "RepoNotFound", "RepoNotFound"),
        (401, "GatedRepo", "Gated"),
        (403, "", "Forbidden"),
        (403, "GatedRepo", "Gated"),
        (404, "", "Refused"),
        (404, "RepoNotFound", "RepoNotFound"),
        (404, "RevisionNotFound", "RevisionNotFound"),
        (404, "EntryNotFound", "EntryNotFound"),
        (409, "", "Conflict"),
        (412, "", "Conflict"),
        (413, "", "TooLarge"),
        (501, "", "Refused"),
    ];
    for (status, code, expected) in codes {
        let server = Server::start(|_, _| reply(*status, &[("X-Error-Code", code)], "{\"error\":\"no\\u001b[1m\"}"));
        let error = get(&server, "/api/models/a/b/tree/main").unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{status} {code}: {error:?}");
        assert_eq!(server.asked().len(), 1, "{status}");
        let text = format!("{error} {error:?} {:?}", error.advice());
        assert!(!text.contains("secret") && !text.contains('\u{1b}'), "{text}");
        if let HubError::Gated { repo, url, .. } = error {
            assert_eq!((repo.as_str(), url), ("a/b", format!("{}/a/b", server.url)));
        }
    }
}

#[test]
fn without_a_token_a_login_is_advised() {
    let server = Server::start(|asked, _| {
        assert!(!asked.headers.contains_key("authorization"));
        reply(401, &[("X-Error-Code", "RepoNotFound")], "")
    });
    let mut settings = settings(&server.url, Path::new("/"));
    settings.token = None;
    let client = Client::new(settings, Cancel::never()).unwrap();
    let error = client.send(&Request::get(client.url("/a/b").unwrap())).unwrap_err();
    assert!(matches!(error, HubError::NoToken { .. }) && error.advice().unwrap().contains("hf auth login"), "{error:?}");
}

#[test]
fn a_server_is_waited_for_as_it_asks_within_patience() {
    let server = Server::start(|_, before| match before {
        0 => reply(429, &[("Retry-After", "1")], ""),
        _ => reply(200, &[], ""),
    });
    let started = Instant::now();
    get(&server, "/").unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));

    for late in ["3600", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        let server = Server::start(move |_, _| reply(429, &[("Retry-After", late)], ""));
        let error = get(&server, "/").unwrap_err();
        assert!(matches!(error, HubError::RateLimited { retry_after: Some(after), .. } if after.as_secs() >= 3600), "{error:?}");
        assert_eq!(server.asked().len(), 1);
    }
    let client = server.client(Path::new("/"));
    let (at, message) = (At::default(), String::new());
    let error = HubError::Server { at, status: 500, attempts: 1, retry_after: None, message };
    let waits: Vec<u128> = (1..=9).map(|made| client.backoff(made, &error).as_millis()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
}

#[test]
fn what_must_not_happen_twice_is_sent_once() {
    for cut in [true, false] {
        let server = Server::start(move |_, _| {
            let mut answer = reply(503, &[], "down");
            answer.status = if cut { 200 } else { 503 };
            answer.cut = cut.then_some(0);
            answer
        });
        let client = server.client(Path::new("/"));
        let request = Request::post(client.url("/commit").unwrap(), Content::json(&json!({"a": 1})).unwrap());
        assert!(client.json::<Value>(&request).unwrap_err().is_transient());
        assert_eq!(server.asked().len(), 1);
        assert_eq!(server.asked()[0].body, b"{\"a\":1}");
        client.json::<Value>(&request.repeat(Repeat::Harmless)).unwrap_err();
        assert_eq!(server.asked().len(), 7);
    }
}

#[test]
fn bodies_are_opened_anew_for_every_attempt() {
    let server = Server::start(|_, before| reply(if before == 0 { 500 } else { 200 }, &[], ""));
    let client = server.client(Path::new("/"));
    let open: Open = Arc::new(|| Ok(Box::new(io::Cursor::new(vec![7; 100_000]))));
    client.send(&Request::put(client.url("/part").unwrap(), Content::Reader { length: 100_000, open })).unwrap();
    assert!(server.asked().len() == 2 && server.asked().iter().all(|asked| asked.body == vec![7; 100_000]));
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let store = Server::start(|asked, _| {
        assert!(!asked.headers.contains_key("authorization"), "{asked:?}");
        reply(200, &[], "weights")
    });
    let to = format!("{}/blob?Signature=presigned", store.url);
    let hub = Server::start(move |asked, _| match asked.path.as_str() {
        "/a/b" => reply(307, &[("Location", "/c/d?x=1")], ""),
        _ => reply(302, &[("Location", &to), ("X-Linked-Size", "7")], ""),
    });
    assert_eq!(get(&hub, "/a/b").unwrap(), b"weights");
    assert!(hub.asked().iter().all(|asked| asked.headers["authorization"] == "Bearer secret"));
    assert_eq!((hub.asked().len(), store.asked().len()), (2, 1));
    assert_eq!(store.asked()[0].path, "/blob?Signature=presigned");

    let client = hub.client(Path::new("/"));
    let answer = client.send(&Request::head(client.url("/a/b").unwrap()).stay()).unwrap();
    assert_eq!((answer.status(), answer.header("x-linked-size")), (302, Some("7")));
    assert_eq!(store.asked().len(), 1, "the store was not asked");
}

/// A store that sends us back to the Hub chose the address, not the user: it is asked without the token.
#[test]
fn a_token_once_dropped_is_gone() {
    let hub_url = Arc::new(std::sync::OnceLock::<String>::new());
    let back = hub_url.clone();
    let store = Server::start(move |_, _| reply(302, &[("Location", &format!("{}/secrets", back.get().unwrap()))], ""));
    let to = store.url.clone();
    let hub = Server::start(move |asked, _| match asked.path.as_str() {
        "/secrets" => reply(200, &[], "x"),
        _ => reply(302, &[("Location", &to)], ""),
    });
    hub_url.set(hub.url.clone()).unwrap();
    get(&hub, "/a").unwrap();
    assert_eq!(hub.asked().iter().map(|asked| asked.headers.contains_key("authorization")).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn redirects_that_lead_nowhere_good() {
    let circle = Server::start(|_, _| reply(302, &[("Location", "/a")], ""));
    assert!(matches!(get(&circle, "/a"), Err(HubError::Protocol { .. })));
    let file = Server::start(|_, _| reply(302, &[("Location", "file:///etc/passwd")], ""));
    assert!(matches!(get(&file, "/a"), Err(HubError::Redirect { .. })));
    let url = |text: &str| Url::parse(text).unwrap();
    assert_eq!(no_way(&url("https://a/"), &url("http://a/")), Some("which is not encrypted any more"));
    assert_eq!(no_way(&url("http://a/"), &url("https://b/")), None);
    let elsewhere = Server::start(|_, _| reply(307, &[("Location", "http://localhost:1/x")], ""));
    let client = elsewhere.client(Path::new("/"));
    let error = client.send(&Request::post(client.url("/a").unwrap(), Content::None)).unwrap_err();
    assert!(matches!(error, HubError::Redirect { .. }), "{error:?}");
}

#[test]
fn what_is_no_json() {
    let cases: &[(&str, &str, &str)] = &[
        ("text/html", "<!DOCTYPE html><h1>Log in</h1>", "HTML"),
        ("application/json", "<html>", "HTML"),
        ("application/json", "{\"a\": [1, 2", "cut off"),
        ("application/json", "", "cut off"),
        ("application/json", "hello", "text"),
    ];
    for (media, body, expected) in cases {
        let server = Server::start(move |_, _| reply(200, &[("Content-Type", media)], *body));
        let client = server.client(Path::new("/"));
        let error = client.json::<Value>(&Request::get(client.url("/api").unwrap())).unwrap_err();
        assert!(matches!(&error, HubError::NotJson { kind, .. } if kind == expected), "{body}: {error:?}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn cut_bodies_of_json_are_asked_for_again() {
    let server = Server::start(|_, before| {
        let mut answer = reply(200, &[], "[1, 2, 3]");
        answer.cut = (before == 0).then_some(4);
        answer
    });
    let client = server.client(Path::new("/"));
    assert_eq!(client.json::<Vec<u8>>(&Request::get(client.url("/api").unwrap())).unwrap(), [1, 2, 3]);
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn lists_come_in_pages() {
    let server = Server::start(|asked, _| match asked.path.as_str() {
        "/list" => reply(200, &[("Link", "<http://x/>; rel=\"prev\", </list?cursor=2>; rel=\"next\"")], "[1, 2]"),
        _ => reply(200, &[], "[3]"),
    });
    let client = server.client(Path::new("/"));
    assert_eq!(client.pages::<u8>(client.url("/list").unwrap()).unwrap(), [1, 2, 3]);
    let foreign = Server::start(|_, _| reply(200, &[("Link", "<http://localhost:1/>; rel=\"next\"")], "[1]"));
    let client = foreign.client(Path::new("/"));
    assert!(matches!(client.pages::<u8>(client.url("/list").unwrap()), Err(HubError::Protocol { .. })));
}

#[test]
fn ranges_are_what_was_asked_for() {
    let data: Vec<u8> = (0..100).collect();
    let body = data.clone();
    let server = Server::start(move |asked, _| {
        let from = asked.from().unwrap();
        match asked.path.as_str() {
            "/good" if from >= 100 => reply(416, &[], ""),
            "/good" => reply(206, &[("Content-Range", &format!("bytes {from}-99/100"))], &body[from..]),
            "/ignores" => reply(200, &[], &body[..]),
            "/other" => reply(206, &[("Content-Range", "bytes 0-99/100")], &body[..]),
            "/short" => reply(206, &[("Content-Range", &format!("bytes {from}-99/100"))], &body[..3]),
            "/beyond" => reply(206, &[("Content-Range", &format!("bytes {from}-150/100"))], &body[..]),
            _ => reply(206, &[], &body[..]),
        }
    });
    let client = server.client(Path::new("/"));
    let ask = |path: &str, from| client.range(Request::get(client.url(path).unwrap()), from, None);
    match ask("/good", 40).unwrap() {
        Range::Part { mut answer, length: 60, total: Some(100) } => assert_eq!(answer.whole(1000).unwrap(), data[40..]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(ask("/good", 100), Ok(Range::Beyond)));
    assert!(matches!(ask("/ignores", 40), Ok(Range::Whole(_))));
    for path in ["/other", "/short", "/beyond", "/none"] {
        assert!(matches!(ask(path, 40), Err(HubError::Protocol { .. })), "{path}");
    }
}

#[test]
fn waits_end_when_the_user_wants_to_stop() {
    let server = Server::start(|_, _| reply(503, &[("Retry-After", "60")], ""));
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let client = Client::new(settings(&server.url, Path::new("/")), Cancel::new(move || asked.load(Ordering::Relaxed))).unwrap();
    let client = client.with_notice(move |_, wait| {
        assert_eq!(wait.as_secs(), 60);
        stop.store(true, Ordering::Relaxed);
    });
    let started = Instant::now();
    assert!(matches!(client.send(&Request::get(client.url("/").unwrap())), Err(HubError::Interrupted)));
    assert!(started.elapsed() < Duration::from_secs(5) && server.asked().len() == 1);
}

#[test]
fn addresses_are_shown_without_their_secrets() {
    let url = Url::parse("https://user:password@host/path?X-Amz-Signature=abc#f").unwrap();
    assert_eq!(shown(&url), "https://host/path");
    for bad in ["ftp://x", "x", "", "file:///x"] {
        let mut settings = Settings::new("/");
        settings.endpoint = bad.to_owned();
        assert!(matches!(Client::new(settings, Cancel::never()), Err(HubError::BadName { .. })), "{bad}");
    }
}
