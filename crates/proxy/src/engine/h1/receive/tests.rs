use super::*;

fn read(wire: &str, method: &Method) -> Result<Option<(Head, Framing)>, Error> {
    parse(&mut BytesMut::from(wire), method)
}

#[test]
fn the_end_of_a_body_is_where_the_rfc_says() {
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Framing::Length(5), true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n", Framing::Length(5), true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", Framing::Chunked(Chunked::Size), true),
        ("HTTP/1.1 200 OK\r\n\r\n", Framing::Close, true),
        ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", Framing::Length(0), false),
        ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", Framing::Length(0), true),
        ("HTTP/1.1 200\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", Framing::Length(0), false),
        ("HTTP/1.1 304 X\r\ncontent-length: 9\r\n\r\n", Framing::Empty, true),
        ("HTTP/1.1 204 X\r\n\r\n", Framing::Empty, true),
        ("HTTP/1.1 204 X\r\ncontent-length: 0\r\n\r\n", Framing::Empty, true),
        ("HTTP/1.1 204 X\r\ncontent-length: 5\r\n\r\n", Framing::Empty, false),
        ("HTTP/1.1 204 X\r\ntransfer-encoding: chunked\r\n\r\n", Framing::Empty, false),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 X\r\ncontent-length: 1\r\n\r\n",
            Framing::Length(1),
            true,
        ),
    ];
    for (wire, framing, keep_alive) in cases {
        let (head, found) = read(wire, &Method::GET).unwrap().unwrap();
        assert_eq!((found, head.keep_alive), (framing, keep_alive), "{wire}");
    }
    let (head, framing) = read(cases[0].0, &Method::HEAD).unwrap().unwrap();
    assert_eq!(framing, Framing::Empty);
    assert_eq!(head.headers[header::CONTENT_LENGTH], "5");
    assert!(read("HTTP/1.1 100 Continue\r\n\r\n", &Method::GET).unwrap().is_none());
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for fields in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 5",
        "content-length: +5",
        "content-length: ",
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "bad name: 1",
        "bad\u{0}: 1",
        "a: 1\r b: 2",
        "a: 1\r\n b: 2",
        "content-length : 5",
        "content-length\t: 5",
        "transfer-encoding : chunked",
        ": 1",
        "a: \u{0}",
    ] {
        let wire = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        assert!(matches!(read(&wire, &Method::GET), Err(Error::Malformed(_))), "{wire}");
    }
}

#[test]
fn a_status_line_is_one_from_its_first_byte() {
    for line in
        ["\r\nHTTP/1.1 200 OK", "HTTP/2.0 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000", "ICY 200 OK", " ", "h"]
    {
        assert!(read(&format!("{line}\r\n\r\n"), &Method::GET).is_err(), "{line:?}");
    }
    for line in ["", "H", "HTTP/1", "HTTP/1.", "HTTP/1.1 2"] {
        assert!(read(line, &Method::GET).unwrap().is_none(), "{line:?}");
    }
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    assert!(read(&long, &Method::GET).is_err());
    assert!(read(&long[..long.len() - 4], &Method::GET).is_err());
}

/// RFC 9112, section 5.1.
#[test]
fn a_space_before_a_colon_is_taken_away() {
    let (head, _) = read("HTTP/1.1 200 OK\r\nX-F : a\r\nX-G\t: b\r\n\r\n", &Method::GET).unwrap().unwrap();
    assert!(head.headers["x-f"] == "a" && head.headers["x-g"] == "b", "{head:?}");
}

#[test]
fn what_is_said_to_the_gateway_goes_no_further() {
    let fields = "X-Accel-Redirect: /a\r\nX-Accel-Buffering: no\r\nX-Accel-Expires: 1\r\nX-Accel-Limit-Rate: 1\r\n\
                  X-Accel-Charset: x\r\nX-Pad: avoid browser bug\r\nX-Accel-Own: 1";
    let (head, _) = read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"), &Method::GET).unwrap().unwrap();
    assert_eq!(head.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-accel-own"]);
    let head = Head::new(StatusCode::OK, head.headers);
    assert_eq!(head.headers.len(), 1);
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-pad"), HeaderValue::from_static("a"))]);
    assert!(Head::new(StatusCode::OK, headers).headers.is_empty());
    let (head, _) = read("HTTP/1.1 426 X\r\nUpgrade: TLS/1.0\r\n\r\n", &Method::GET).unwrap().unwrap();
    assert_eq!(head.headers["upgrade"], "TLS/1.0");
}

#[test]
fn fields_of_the_connection_go_no_further() {
    let wire = "HTTP/1.1 200 OK\r\nConnection: X-Own, close\r\nConnection: X-Two\r\nX-Own: 1\r\nX-Two: 1\r\n\
                Keep-Alive: x\r\nUpgrade: h2c\r\n\
                X-Other: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n";
    let (head, _) = read(wire, &Method::GET).unwrap().unwrap();
    let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "set-cookie", "x-other"]);
    assert_eq!(head.headers.get_all("set-cookie").iter().count(), 2);
}

fn body(framing: Framing, wire: &[u8], step: usize) -> Result<(Vec<u8>, usize), Error> {
    let (mut framing, mut buffer) = (framing, BytesMut::new());
    let (mut data, mut trailers) = (Vec::new(), 0);
    let mut wire = wire.chunks(step);
    loop {
        match framing.next(&mut buffer)? {
            Piece::Frame(frame) => match frame.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(frame) => trailers += frame.into_trailers().map_or(0, |t| t.len()),
            },
            Piece::End => return Ok((data, trailers)),
            Piece::More(_) => match wire.next() {
                Some(more) => buffer.extend_from_slice(more),
                None => return Err(Error::Malformed("it ends early")),
            },
        }
    }
}

#[test]
fn chunks_are_read_however_they_are_cut() {
    let wire = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
    for step in 1..wire.len() {
        let read = body(Framing::Chunked(Chunked::Size), wire, step).unwrap();
        assert_eq!(read, (b"hello world".to_vec(), 1), "{step}");
    }
    for wire in [
        &b"5\r\nhelloX\r\n0\r\n\r\n"[..],
        b"x\r\n",
        b"5\r\nhel",
        b"-1\r\n",
        b"0\r\nbad\r\n\r\n",
        // No size is not a size of nothing.
        b"\r\n\r\n",
        b";a\r\n\r\n",
        b" 0\r\n\r\n",
        b"0x0\r\n\r\n",
        b"0\n\n",
        b"0\r\n\n",
        b"0;a\rb\r\n\r\n",
        b"0;\0\r\n\r\n",
        b"0 a\r\n\r\n",
        b"10000000000000000\r\n",
        b"5\r\nhello\n0\r\n\r\n",
    ] {
        assert!(body(Framing::Chunked(Chunked::Size), wire, 3).is_err(), "{wire:?}");
    }
}

#[test]
fn trailers_that_would_change_the_head_are_left_out() {
    let wire = b"0\r\nContent-Length: 5\r\nX-Sum: 1\r\nSet-Cookie: a\r\nX-Forwarded-For: b\r\n\r\n";
    assert_eq!(body(Framing::Chunked(Chunked::Size), wire, wire.len()).unwrap().1, 1);
    let wire = b"0\r\nHost: a\r\n\r\n";
    assert_eq!(body(Framing::Chunked(Chunked::Size), wire, wire.len()).unwrap().1, 0);
}
