//! The PROXY protocol, versions 1 and 2: what a load balancer in front of us says of its client.
//!
//! The rule to know: the header comes before anything else and not a byte beyond it is read, so that TLS and HTTP
//! begin where it ends. A connection that does not begin with one is closed: nothing can be said of its client.

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// Begins a header of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a header has at least, whatever its version: `PROXY UNKNOWN` with its line end.
const SHORTEST: usize = 15;
/// No line of version 1 is longer.
const LONGEST_LINE: usize = 107;
/// What we read of version 2, with its extensions; nginx's limit.
const LONGEST: usize = 4096;
/// What comes before addresses and extensions in version 2.
const FIXED: usize = 16;

/// The connection as the load balancer has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}

/// Why a connection has no header.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the connection ended or broke within the header: {0}")]
    Io(#[from] io::Error),
    #[error("it does not begin with a header: {0}")]
    Malformed(&'static str),
}

/// Reads the header. None where the load balancer speaks for itself, or of something that has no address.
pub async fn read(stream: &mut TcpStream) -> Result<Option<Addresses>, Error> {
    let mut header = vec![0; SHORTEST];
    stream.read_exact(&mut header).await?;
    if header.starts_with(SIGNATURE) {
        read_more(stream, &mut header, FIXED).await?;
        let length = FIXED + usize::from(u16::from_be_bytes([header[14], header[15]]));
        if length > LONGEST {
            return Err(Error::Malformed("it is too long"));
        }
        read_more(stream, &mut header, length).await?;
    } else {
        while !header.ends_with(b"\n") && header.len() < LONGEST_LINE && header.starts_with(b"PROXY ") {
            let mut ahead = [0; LONGEST_LINE];
            let seen = stream.peek(&mut ahead[header.len()..]).await?;
            let ahead = &ahead[header.len()..][..seen];
            let line = ahead.iter().position(|&b| b == b'\n').map_or(seen, |end| end + 1);
            let whole = header.len() + line.max(1);
            read_more(stream, &mut header, whole).await?;
        }
    }
    parse(&header)
}

async fn read_more(stream: &mut TcpStream, header: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let from = header.len();
    header.resize(length, 0);
    stream.read_exact(&mut header[from..]).await?;
    Ok(())
}

/// Understands a whole header.
pub fn parse(header: &[u8]) -> Result<Option<Addresses>, Error> {
    match header.strip_prefix(SIGNATURE) {
        Some(rest) => parse_binary(rest).map_err(Error::Malformed),
        None => parse_line(header).map_err(Error::Malformed),
    }
}

fn parse_line(header: &[u8]) -> Result<Option<Addresses>, &'static str> {
    let line = header.strip_prefix(b"PROXY ").ok_or("it has another beginning")?;
    let line = line.strip_suffix(b"\r\n").ok_or("its line has no end")?;
    if header.len() > LONGEST_LINE {
        return Err("its line is too long");
    }
    let line = std::str::from_utf8(line).map_err(|_| "its line is not text")?;
    let mut words = line.split(' ');
    let is_ipv4 = match words.next() {
        Some("TCP4") => true,
        Some("TCP6") => false,
        Some("UNKNOWN") => return Ok(None),
        _ => return Err("its protocol is none of TCP4, TCP6, UNKNOWN"),
    };
    let mut address = || words.next().and_then(|word| word.parse::<IpAddr>().ok());
    let (source, destination) = (address(), address());
    let (Some(source), Some(destination)) = (source, destination) else {
        return Err("its addresses are not ones");
    };
    if source.is_ipv4() != is_ipv4 || destination.is_ipv4() != is_ipv4 {
        return Err("its addresses are not of its protocol");
    }
    let mut port = || words.next().filter(|word| word.bytes().all(|b| b.is_ascii_digit()))?.parse().ok();
    let (Some(from), Some(to)) = (port(), port()) else { return Err("its ports are not ones") };
    if words.next().is_some() {
        return Err("there is more on its line");
    }
    Ok(Some(Addresses {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    }))
}

/// What follows the signature.
fn parse_binary(rest: &[u8]) -> Result<Option<Addresses>, &'static str> {
    let [command, family, high, low, body @ ..] = rest else { return Err("it ends early") };
    if usize::from(u16::from_be_bytes([*high, *low])) != body.len() {
        return Err("its length is not what it says");
    }
    match command {
        // LOCAL: the load balancer itself, looking whether we live.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err("its version or command is not known"),
    }
    let address = |at: usize, size: usize| -> Option<IpAddr> {
        let bytes = body.get(at..at + size)?;
        match size {
            4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
            _ => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        }
    };
    let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let size = match family >> 4 {
        0x1 => 4,
        0x2 => 16,
        // Unspecified, or a socket in the file system.
        0x0 | 0x3 => return Ok(None),
        _ => return Err("its address family is not known"),
    };
    let end = |at: usize, port_at: usize| Some(SocketAddr::new(address(at, size)?, port(port_at)?));
    match (end(0, 2 * size), end(size, 2 * size + 2)) {
        (Some(source), Some(destination)) => Ok(Some(Addresses { source, destination })),
        _ => Err("it has no room for its addresses"),
    }
}

/// Writes a header of version 1, which is what nginx sends.
pub fn write(out: &mut Vec<u8>, addresses: Option<Addresses>) {
    let mut line = String::with_capacity(LONGEST_LINE);
    match addresses {
        Some(Addresses { source, destination }) if source.is_ipv4() == destination.is_ipv4() => {
            let family = if source.is_ipv4() { '4' } else { '6' };
            let (from, to) = (source.port(), destination.port());
            let _ = write!(line, "PROXY TCP{family} {} {} {from} {to}\r\n", source.ip(), destination.ip());
        }
        _ => line.push_str("PROXY UNKNOWN\r\n"),
    }
    out.extend_from_slice(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    fn addresses(source: &str, destination: &str) -> Addresses {
        Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, body].concat()
    }

    #[test]
    fn both_versions_are_understood() {
        let known = addresses("1.2.3.4:5", "6.7.8.9:65535");
        assert_eq!(parse(b"PROXY TCP4 1.2.3.4 6.7.8.9 5 65535\r\n").unwrap(), Some(known));
        let six = addresses("[::1]:1", "[2001:db8::2]:80");
        assert_eq!(parse(b"PROXY TCP6 ::1 2001:db8::2 1 80\r\n").unwrap(), Some(six));
        for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ::1 ::1 1 2\r\n"] {
            assert_eq!(parse(line.as_bytes()).unwrap(), None);
        }
        let body = [1, 2, 3, 4, 6, 7, 8, 9, 0, 5, 255, 255];
        assert_eq!(parse(&binary(0x21, 0x11, &body)).unwrap(), Some(known));
        let with_extension = [&body[..], &[4, 0, 1, 0]].concat();
        assert_eq!(parse(&binary(0x21, 0x11, &with_extension)).unwrap(), Some(known));
        assert_eq!(parse(&binary(0x20, 0x11, &body)).unwrap(), None);
        assert_eq!(parse(&binary(0x21, 0x31, &[0; 216])).unwrap(), None);
        assert!(parse(&binary(0x21, 0x21, &[0; 36])).unwrap().is_some());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 1.2.3.4 6.7.8.9 5 6\n",
            "PROXY TCP4 1.2.3.4 6.7.8.9 5 6 \r\n",
            "PROXY TCP4  1.2.3.4 6.7.8.9 5 6\r\n",
            "PROXY TCP4 1.2.3.4 6.7.8.9 5 65536\r\n",
            "PROXY TCP4 1.2.3.4 6.7.8.9 +5 6\r\n",
            "PROXY TCP4 ::1 ::1 5 6\r\n",
            "PROXY TCP6 1.2.3.4 6.7.8.9 5 6\r\n",
            "PROXY UDP4 1.2.3.4 6.7.8.9 5 6\r\n",
            "proxy TCP4 1.2.3.4 6.7.8.9 5 6\r\n",
            "",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line:?}");
        }
        let body = [1, 2, 3, 4, 6, 7, 8, 9, 0, 5, 255];
        assert!(parse(&binary(0x21, 0x11, &body)).is_err(), "too short for its addresses");
        assert!(parse(&binary(0x11, 0x11, &[0; 12])).is_err(), "version 1 in binary");
        assert!(parse(&binary(0x21, 0x41, &[0; 12])).is_err(), "an unknown family");
        assert!(parse(SIGNATURE).is_err());
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for known in [addresses("1.2.3.4:5", "6.7.8.9:6"), addresses("[::1]:5", "[::2]:6")] {
            let mut out = Vec::new();
            write(&mut out, Some(known));
            assert_eq!(parse(&out).unwrap(), Some(known));
        }
        let mut out = Vec::new();
        write(&mut out, None);
        assert_eq!(parse(&out).unwrap(), None);
    }

    /// However it is cut, nothing beyond the header is taken.
    #[tokio::test]
    async fn the_header_is_read_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = b"PROXY TCP4 1.2.3.4 6.7.8.9 5 6\r\n".to_vec();
        let body = [1, 2, 3, 4, 6, 7, 8, 9, 0, 5, 0, 6];
        for header in [line, binary(0x21, 0x11, &body)] {
            for cut in [1, 14, 15, 16, header.len() - 1, header.len()] {
                let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let (mut far, _) = listener.accept().await.unwrap();
                let sent = [&header[..], b"GET /\n"].concat();
                let (first, second) = sent.split_at(cut);
                near.write_all(first).await.unwrap();
                let reading = tokio::spawn(async move {
                    let read = read(&mut far).await.unwrap();
                    let mut rest = [0; 6];
                    far.read_exact(&mut rest).await.unwrap();
                    (read, rest)
                });
                tokio::task::yield_now().await;
                near.write_all(second).await.unwrap();
                let (read, rest) = reading.await.unwrap();
                assert_eq!(read, Some(addresses("1.2.3.4:5", "6.7.8.9:6")));
                assert_eq!(&rest, b"GET /\n");
            }
        }
    }
}
