//! Requests and answers of HTTP/1.1.

use super::repo::Body;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A request; its body is read by who wants it.
pub(crate) struct Request<'a, 'b> {
    pub method: String,
    /// Percent-encoded, without the query.
    pub path: String,
    pub query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    pub keep: bool,
    pub elsewhere: bool,
    reader: &'a mut BufReader<&'b TcpStream>,
    left: Left,
    received: u64,
    rate: Rate,
}

/// What is still to come of a body.
enum Left {
    Bytes(u64),
    Chunks(u64),
}

impl<'a, 'b> Request<'a, 'b> {
    /// The next request of a connection; none at its end.
    pub fn read(reader: &'a mut BufReader<&'b TcpStream>, rate: u64) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(io::ErrorKind::InvalidData.into()) };
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let chunked = header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let left = match header("content-length").and_then(|value| value.parse().ok()) {
            Some(bytes) => Left::Bytes(bytes),
            None if chunked => Left::Chunks(0),
            None => Left::Bytes(0),
        };
        let keep = !header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if header("expect").is_some() {
            let mut stream: &TcpStream = reader.get_ref();
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name), decode(value))
        };
        let query = query.split('&').filter(|part| !part.is_empty()).map(pair).collect();
        let path = path.to_owned();
        Ok(Some(Request {
            method,
            path,
            query,
            headers,
            keep,
            elsewhere: false,
            reader,
            left,
            received: 0,
            rate: Rate::new(rate),
        }))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The whole body.
    pub fn body(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // One that is cut is no JSON.
        let _ = self.read_to_end(&mut bytes);
        bytes
    }

    /// The whole body as JSON, null where it is none.
    pub fn json(&mut self) -> Value {
        serde_json::from_slice(&self.body()).unwrap_or(Value::Null)
    }

    /// Read what is left of the body.
    pub fn skip(&mut self) -> io::Result<u64> {
        io::copy(self, &mut io::sink())
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the body was read to its end.
    pub fn is_done(&self) -> bool {
        matches!(self.left, Left::Bytes(0))
    }
}

impl Read for Request<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Left::Chunks(0) = self.left {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            if size == 0 {
                while line.trim() != "" {
                    line.clear();
                    self.reader.read_line(&mut line)?;
                }
                self.left = Left::Bytes(0);
                return Ok(0);
            }
            self.left = Left::Chunks(size);
        }
        let (Left::Bytes(left) | Left::Chunks(left)) = &mut self.left;
        let wanted = (*left).min(out.len() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.reader.read(&mut out[..wanted])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *left -= read as u64;
        if matches!(self.left, Left::Chunks(0)) {
            self.reader.read_line(&mut String::new())?;
        }
        self.received += read as u64;
        self.rate.wait(self.received);
        Ok(read)
    }
}

/// An answer.
pub(crate) struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Body,
    /// Of the body.
    start: u64,
    length: u64,
    /// What the length says, where it is not that of the body.
    said: Option<u64>,
    pub flip: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Body>) -> Reply {
        let body = body.into();
        let length = body.len();
        Reply { status, headers: Vec::new(), body, start: 0, length, said: None, flip: false }
    }

    pub fn json(status: u16, value: &Value) -> Reply {
        Reply::new(status, value.to_string().into_bytes()).with("Content-Type", "application/json")
    }

    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A part of the body.
    pub fn part(mut self, start: u64, length: u64) -> Reply {
        (self.start, self.length) = (start, length);
        self
    }

    /// Say another length.
    pub fn saying(mut self, length: u64) -> Reply {
        self.said = Some(length);
        self
    }

    /// Send it, at most `limit` bytes of the body; the bytes of the body that went, as an error where they were not all.
    pub fn write(self, mut stream: &TcpStream, head: bool, limit: Option<u64>, rate: u64) -> Result<u64, u64> {
        let mut text = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", self.status, self.said.unwrap_or(self.length));
        for (name, value) in self.headers.iter().chain([&("X-Request-Id".to_owned(), "test-1".to_owned())]) {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        stream.write_all(text.as_bytes()).map_err(|_| 0u64)?;
        if head {
            return Ok(0);
        }
        let mut body = self.body.open(self.start).map_err(|_| 0u64)?;
        let (mut sent, mut piece, rate) = (0, vec![0; 256 << 10], Rate::new(rate));
        while sent < self.length {
            let end = limit.unwrap_or(u64::MAX).min(self.length);
            let wanted = (end - sent).min(piece.len() as u64) as usize;
            let read = if wanted == 0 { 0 } else { body.read(&mut piece[..wanted]).map_err(|_| sent)? };
            if read == 0 {
                return Err(sent);
            }
            if self.flip && sent == 0 {
                piece[read / 2] ^= 1;
            }
            stream.write_all(&piece[..read]).map_err(|_| sent)?;
            sent += read as u64;
            rate.wait(sent);
        }
        if self.said.is_some_and(|said| said > self.length) { Err(sent) } else { Ok(sent) }
    }
}

/// Slows a body down.
struct Rate {
    bytes: u64,
    started: Instant,
}

impl Rate {
    fn new(bytes: u64) -> Rate {
        Rate { bytes, started: Instant::now() }
    }

    fn wait(&self, done: u64) {
        if self.bytes > 0 {
            let due = Duration::from_secs_f64(done as f64 / self.bytes as f64);
            std::thread::sleep(due.saturating_sub(self.started.elapsed()));
        }
    }
}

/// Percent-encoding undone.
pub(crate) fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        let hex = rest.clone().take(2).collect::<Vec<_>>();
        match std::str::from_utf8(&hex)
            .ok()
            .filter(|hex| byte == b'%' && hex.len() == 2)
            .and_then(|h| u8::from_str_radix(h, 16).ok())
        {
            Some(decoded) => {
                bytes.push(decoded);
                rest.nth(1);
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
