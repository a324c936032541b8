//! Ports that stay ours for as long as the test process lives.
//!
//! The one rule: a port number is leased, not looked up. Asking the kernel for port 0 and closing the socket leaves a
//! gap in which another test process gets the same number; here every number below the ephemeral range is a lock file,
//! held by the process that leased it and let go by the kernel when that process is gone.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;

/// Below Linux' ephemeral range (32768–60999), so that no outgoing connection takes a leased port.
const RANGE: Range<u16> = 18000..32000;

static LEASED: Mutex<Option<HashMap<u16, File>>> = Mutex::new(None);

/// A free TCP port on every address of this machine, leased until this process ends.
pub fn free() -> u16 {
    let mut guard = LEASED.lock().unwrap();
    let leased = guard.get_or_insert_default();
    let directory = directory();
    let start = start();
    let size = RANGE.end - RANGE.start;
    for step in 0..size {
        let port = RANGE.start + (start + step) % size;
        if leased.contains_key(&port) {
            continue;
        }
        let Ok(lock) = File::create(directory.join(port.to_string())) else { continue };
        if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            leased.insert(port, lock);
            return port;
        }
    }
    panic!("no free port in {RANGE:?}");
}

/// A leased port on 127.0.0.1.
pub fn address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free()))
}

/// As many leased ports as the array is long.
pub fn several<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free())
}

/// Binds a listener that can be bound again at once after it was closed.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?; // std sets SO_REUSEADDR
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn directory() -> PathBuf {
    let directory = std::env::temp_dir().join("keelgate-test-ports");
    fs::create_dir_all(&directory).expect("the folder of port locks");
    directory
}

/// Two processes that start together look in different places first.
fn start() -> u16 {
    let size = u32::from(RANGE.end - RANGE.start);
    u16::try_from(std::process::id().wrapping_mul(31) % size).expect("less than the size of the range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn never_twice() {
        let ports: HashSet<u16> = (0..200).map(|_| free()).collect();
        assert_eq!(ports.len(), 200);
    }

    #[test]
    fn a_port_in_use_is_not_leased() {
        let [taken] = several();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).unwrap();
        assert!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, taken)).is_err(), "the check sees a listener");
    }
}
