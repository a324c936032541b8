//! A door before a server: it can answer in the server's place, or check who comes in as Amazon's S3 does, which the
//! servers that run here do not.

use std::net::SocketAddr;

use chrono::{NaiveDateTime, TimeDelta, Utc};
use testkit::ports;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Stops with its handle.
pub struct Door {
    address: SocketAddr,
    rule: watch::Sender<Rule>,
}

/// What becomes of who knocks.
#[derive(Clone, Copy)]
enum Rule {
    Open,
    Answers(u16),
    /// Signatures must be for this region and of now.
    Checks(&'static str),
}

impl Door {
    /// Opens one, on a port of its own; everything passes.
    pub fn before(target: SocketAddr) -> Self {
        let (address, rule) = (ports::address(), watch::Sender::new(Rule::Open));
        let listener = TcpListener::from_std(ports::listen(address).unwrap()).unwrap();
        let watched = rule.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(attend(client, target, watched.clone()));
            }
        });
        Self { address, rule }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on everything is answered with this status; with none, everything passes.
    pub fn answers(&self, status: impl Into<Option<u16>>) {
        self.rule.send_replace(status.into().map_or(Rule::Open, Rule::Answers));
    }

    /// From now on signatures of another region, or more than 15 minutes off, are refused.
    pub fn checks_signatures_of(&self, region: &'static str) {
        self.rule.send_replace(Rule::Checks(region));
    }
}

async fn attend(mut client: TcpStream, target: SocketAddr, mut rule: watch::Receiver<Rule>) {
    let now = *rule.borrow_and_update();
    let begun = match now {
        Rule::Open => Vec::new(),
        _ => head(&mut client).await,
    };
    let refusal = match now {
        Rule::Open => None,
        Rule::Answers(status) => Some((status, String::new())),
        Rule::Checks(region) => refusal(&String::from_utf8_lossy(&begun), region),
    };
    if let Some((status, body)) = refusal {
        return Box::pin(answer(client, status, &body)).await;
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    if server.write_all(&begun).await.is_err() {
        return;
    }
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        // A connection that was let in must not go on past a closed door.
        _ = rule.changed() => {}
    }
}

/// A request's head, and what came with it.
async fn head(client: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        if !matches!(client.read_buf(&mut read).await, Ok(1..)) {
            break;
        }
    }
    read
}

/// Amazon's answers to a signature of another region, and to one of another time ("Error responses" of the S3 API).
fn refusal(head: &str, region: &str) -> Option<(u16, String)> {
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    };
    let signed_for = field("authorization").split('/').nth(2).unwrap_or_default();
    if signed_for != region {
        let more = format!("<Region>{region}</Region>");
        return Some((400, error("AuthorizationHeaderMalformed", &more)));
    }
    let signed_at = NaiveDateTime::parse_from_str(field("x-amz-date"), "%Y%m%dT%H%M%SZ").unwrap_or_default();
    let off = (Utc::now() - signed_at.and_utc()).abs();
    (off > TimeDelta::minutes(15)).then(|| (403, error("RequestTimeTooSkewed", "")))
}

fn error(code: &str, more: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message>{more}</Error>")
}

async fn answer(mut client: TcpStream, status: u16, body: &str) {
    let date = Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
    let head = format!(
        "HTTP/1.1 {status} No\r\nDate: {date}\r\nContent-Length: {}\r\nConnection: close",
        body.len()
    );
    let _ = client.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
    let _ = client.shutdown().await;
    // What is still on its way is read, or the answer would be lost to a reset.
    let mut waste = vec![0; 65_536];
    while client.read(&mut waste).await.is_ok_and(|read| read > 0) {}
}
