//! What servers answer when they refuse, and what is made of it.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// Answers every request with these bytes; nothing at all where there are none.
async fn server(answer: String) -> (Bucket, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 64 * 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            if answer.is_empty() {
                open.push(stream);
            }
        }
    });
    (s3(&endpoint), task)
}

fn s3(endpoint: &str) -> Bucket {
    let s3 = S3 {
        access_key: Some("AKIA".to_owned()),
        secret_key: Some("very-secret".to_owned()),
        region: Some("us-east-1".to_owned()),
        config_bucket: Some("conf".to_owned()),
        endpoint: Some(endpoint.to_owned()),
        ..S3::default()
    };
    let limits = Limits { request: Duration::from_millis(500), ..Limits::default() };
    Buckets::open(Config::AwsS3(s3)).unwrap().config.with_limits(limits)
}

fn answer(status: &str, headers: &str, code: &str, more: &str) -> String {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message>{more}</Error>");
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
}

async fn refused(status: &str, headers: &str, code: &str, more: &str) -> Error {
    let (bucket, _task) = server(answer(status, headers, code, more)).await;
    let error = bucket.put("k", Bytes::from_static(b"x")).await.unwrap_err();
    let read = bucket.get("k", 10).await;
    if let Err(read) = read {
        assert_eq!(read.kind, error.kind, "{read}");
    }
    assert!(!error.to_string().contains("very-secret"));
    assert!(error.to_string().starts_with("aws_s3 bucket `conf`, `k`: "), "{error}");
    error
}

#[tokio::test]
async fn each_refusal_says_what_to_change() {
    let cases = [
        ("403 Forbidden", "InvalidAccessKeyId", Kind::Credentials, "check `access_key`"),
        ("403 Forbidden", "SignatureDoesNotMatch", Kind::Credentials, "check the secret key"),
        ("400 Bad Request", "ExpiredToken", Kind::Credentials, "session token"),
        (
            "403 Forbidden",
            "AccessDenied",
            Kind::Denied,
            "may not write here: their policy lacks s3:PutObject",
        ),
        ("404 Not Found", "NoSuchBucket", Kind::NoSuchBucket, "there is no bucket `conf`"),
        ("400 Bad Request", "AuthorizationHeaderMalformed", Kind::WrongRegion, "check `region`"),
        (
            "500 Internal Server Error",
            "InternalError",
            Kind::Server,
            "the server failed (status 500, InternalError: no)",
        ),
        ("503 Slow Down", "SlowDown", Kind::Server, "asks to slow down"),
        ("405 Method Not Allowed", "MethodNotAllowed", Kind::Other, "can't write (status 405"),
    ];
    for (status, code, kind, words) in cases {
        let error = refused(status, "", code, "").await;
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.reason.contains(words), "{error}");
    }
}

#[tokio::test]
async fn the_right_region_is_named() {
    let error =
        refused("301 Moved Permanently", "x-amz-bucket-region: eu-west-1\r\n", "PermanentRedirect", "").await;
    assert_eq!(error.kind, Kind::WrongRegion);
    assert!(error.reason.contains("set `region` to it") && error.reason.contains("`eu-west-1`"), "{error}");
    let more = "<Region>eu-west-2</Region>";
    let error = refused("400 Bad Request", "", "AuthorizationHeaderMalformed", more).await;
    assert!(error.reason.contains("`eu-west-2`"), "{error}");
}

#[tokio::test]
async fn a_clock_that_is_off_is_told_by_how_much() {
    let server = chrono::Utc::now() + chrono::TimeDelta::minutes(20);
    let date = format!("Date: {}\r\n", server.format("%a, %d %b %Y %H:%M:%S GMT"));
    for code in ["RequestTimeTooSkewed", "AccessDenied"] {
        let error = refused("403 Forbidden", &date, code, "").await;
        assert_eq!(error.kind, Kind::ClockSkew, "{error}");
        let off: i64 = error.reason.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
        assert!((1195..=1200).contains(&off), "{error}");
        assert!(error.reason.contains("behind the server's"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_not_waited_for() {
    let (bucket, _task) = server(String::new()).await;
    let error = bucket.get("k", 10).await.unwrap_err();
    assert_eq!((error.kind, error.reason.as_str()), (Kind::TimedOut, "no answer within 500ms"));
    // The head comes, the body does not.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nETag: \"e\"\r\nLast-Modified: Mon, 01 Jan 2029 00:00:00 GMT\r\n\r\n1";
    let (bucket, _task) = server(head.to_owned()).await;
    let error = bucket.get("k", 10).await.unwrap_err();
    assert!(matches!(error.kind, Kind::TimedOut | Kind::Unreachable | Kind::Other), "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = s3(&endpoint).get("k", 10).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable);
    assert!(error.reason.contains("refused"), "{error}");
}

/// Ceph refuses every If-Match with a quoted tag.
#[tokio::test]
async fn a_server_that_knows_no_if_match_is_written_to_all_the_same() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let ceph = tokio::spawn(async move {
        let mut puts = 0;
        while puts < 1 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 64 * 1024];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            let dates = "Last-Modified: Mon, 01 Jan 2029 00:00:00 GMT\r\nConnection: close\r\n";
            let reply = if request.contains("if-match") {
                answer("412 Precondition Failed", "", "PreconditionFailed", "")
            } else if request.starts_with("head") {
                format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: \"e\"\r\n{dates}\r\n")
            } else {
                puts += 1;
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"f\"\r\nConnection: close\r\n\r\n".to_owned()
            };
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    let bucket = s3(&endpoint);
    let put = |tag| bucket.put_if_match("k", Bytes::from_static(b"x"), Some(tag));
    assert_eq!(put("\"other\"").await.unwrap(), Put::Refused);
    assert_eq!(put("\"e\"").await.unwrap(), Put::Done);
    ceph.await.unwrap();
}
