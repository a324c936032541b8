//! An upstream that reads as RFC 9112 says, takes nothing that could be read in another way, and keeps what it saw.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A request, byte by byte.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub head: String,
    pub body: String,
    pub trailers: String,
}

pub struct Strict {
    pub node: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Strict {
    /// Answers every request with `ok`.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = listener.local_addr().unwrap().to_string();
        let (seen, wrong) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let strict = Self { node, seen: Arc::clone(&seen), wrong: Arc::clone(&wrong) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, wrong) = (Arc::clone(&seen), Arc::clone(&wrong));
                std::thread::spawn(move || serve(stream.unwrap(), &seen, &wrong));
            }
        });
        strict
    }

    /// All whole requests so far; none of them ambiguous.
    pub fn seen(&self) -> Vec<Seen> {
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
        self.seen.lock().unwrap().clone()
    }

    /// The last one, of at least one.
    pub fn last(&self) -> Seen {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(last) = self.seen().pop() {
                return last;
            }
            assert!(Instant::now() < until, "no request came");
            std::thread::yield_now();
        }
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Seen>>, wrong: &Mutex<Vec<String>>) {
    loop {
        match request(&mut stream) {
            Ok(Some(request)) => seen.lock().unwrap().push(request),
            // Cut off: nothing has been asked.
            Ok(None) => return,
            Err(why) => return wrong.lock().unwrap().push(why),
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

/// One request; none where the connection ends before it does.
fn request(stream: &mut TcpStream) -> Result<Option<Seen>, String> {
    let Some(head) = section(stream)? else { return Ok(None) };
    let (line, fields) = head.split_once("\r\n").ok_or("no fields at all")?;
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err(format!("a request line: {line:?}")) };
    if !method.bytes().all(is_token) || !target.starts_with('/') {
        return Err(format!("a request line: {line:?}"));
    }
    let fields = checked(fields)?;
    let all = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value).collect()
    };
    let framing = (&all("content-length")[..], &all("transfer-encoding")[..]);
    if all("host").len() != 1 {
        return Err(format!("so many hosts: {head:?}"));
    }
    let mut seen = Seen { head: head.clone(), ..Seen::default() };
    match framing {
        ([], []) => {}
        ([length], []) if length.bytes().all(|b| b.is_ascii_digit()) => {
            let Some(body) = exactly(stream, length.parse().map_err(|_| "a length")?)? else {
                return Ok(None);
            };
            seen.body = body;
        }
        ([], ["chunked"]) => loop {
            let Some(size) = line_of(stream)? else { return Ok(None) };
            let size = usize::from_str_radix(&size, 16).map_err(|_| format!("a size: {size:?}"))?;
            if size == 0 {
                let Some(trailers) = section(stream)? else { return Ok(None) };
                checked(trailers.strip_suffix("\r\n").unwrap_or_default())?;
                seen.trailers = trailers.strip_suffix("\r\n").unwrap_or_default().to_owned();
                break;
            }
            let Some(data) = exactly(stream, size + 2)? else { return Ok(None) };
            seen.body += data.strip_suffix("\r\n").ok_or("a chunk without its end")?;
        },
        other => return Err(format!("two ways to end: {other:?}")),
    }
    Ok(Some(seen))
}

/// Lines until an empty one, which is part of it.
fn section(stream: &mut TcpStream) -> Result<Option<String>, String> {
    let mut all = String::new();
    loop {
        let Some(line) = line_of(stream)? else { return Ok(None) };
        all += &line;
        all += "\r\n";
        if line.is_empty() {
            return Ok(Some(all));
        }
    }
}

/// One line, with nothing in it but text.
fn line_of(stream: &mut TcpStream) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => line.push(byte[0]),
            _ => return Ok(None),
        }
        if line.ends_with(b"\n") && !line.ends_with(b"\r\n") {
            return Err(format!("a bare line feed: {:?}", String::from_utf8_lossy(&line)));
        }
    }
    line.truncate(line.len() - 2);
    if line.iter().any(|&b| b < b' ' && b != b'\t' || b == 0x7f) {
        return Err(format!("not text: {:?}", String::from_utf8_lossy(&line)));
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

fn exactly(stream: &mut TcpStream, length: usize) -> Result<Option<String>, String> {
    let mut body = vec![0; length];
    match stream.read_exact(&mut body) {
        Ok(()) => Ok(Some(String::from_utf8_lossy(&body).into_owned())),
        Err(_) => Ok(None),
    }
}

fn checked(fields: &str) -> Result<Vec<(&str, &str)>, String> {
    let fields = fields.strip_suffix("\r\n").unwrap_or(fields);
    fields
        .split("\r\n")
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no field: {line:?}"))?;
            let good = !name.is_empty() && name.bytes().all(is_token);
            good.then_some((name, value.trim_matches([' ', '\t']))).ok_or_else(|| format!("a name: {line:?}"))
        })
        .collect()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
