//! UDP sockets that tell which of our addresses a datagram came to, and answer from it.
//!
//! The rule to know: a socket that listens on every address must be told which one to answer from, or the kernel
//! chooses, and a client takes no answer from somebody it did not ask.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd as _,
};

use nix::{
    libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use tokio::io::Interest;

/// A listening socket.
pub struct Socket {
    inner: tokio::net::UdpSocket,
    local: SocketAddr,
}

/// One datagram, apart from its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    pub length: usize,
    pub from: SocketAddr,
    /// Our address it came to.
    pub to: SocketAddr,
}

impl Socket {
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        match local {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        Ok(Self { inner: tokio::net::UdpSocket::from_std(socket)?, local })
    }

    /// Waits until there may be a datagram.
    pub async fn readable(&self) -> io::Result<()> {
        self.inner.readable().await
    }

    /// The next datagram, if there is one.
    pub fn try_receive(&self, buffer: &mut [u8], space: &mut [u8]) -> io::Result<Arrived> {
        self.inner.try_io(Interest::READABLE, || {
            let mut parts = [IoSliceMut::new(buffer)];
            let fd = self.inner.as_raw_fd();
            let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(space), MsgFlags::MSG_DONTWAIT)?;
            let from = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
            let to = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    Some(IpAddr::from(u32::from_be(info.ipi_addr.s_addr).to_be_bytes()))
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
                _ => None,
            });
            let to = SocketAddr::new(to.unwrap_or(self.local.ip()), self.local.port());
            Ok(Arrived { length: message.bytes, from, to })
        })
    }

    /// Sends a datagram from `from` to `to`, if the kernel takes it now: nobody waits for a datagram.
    pub fn try_send(&self, datagram: &[u8], from: IpAddr, to: SocketAddr) -> io::Result<usize> {
        let parts = [IoSlice::new(datagram)];
        let (fd, to) = (self.inner.as_raw_fd(), storage(to));
        let send = |control: &[ControlMessage<'_>]| {
            sendmsg(fd, &parts, control, MsgFlags::MSG_DONTWAIT, Some(&to)).map_err(io::Error::from)
        };
        if !self.local.ip().is_unspecified() {
            return send(&[]);
        }
        match from {
            IpAddr::V4(ip) => send(&[ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_be_bytes(ip.octets()).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            })]),
            IpAddr::V6(ip) => send(&[ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
                ipi6_ifindex: 0,
            })]),
        }
    }
}

/// Room for what the kernel says beside a datagram.
pub fn space() -> Vec<u8> {
    nix::cmsg_space!(libc::in6_pktinfo)
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| SocketAddr::V4(SocketAddrV4::from(*address)));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| SocketAddr::V6(SocketAddrV6::from(*address))))
}

fn storage(address: SocketAddr) -> SockaddrStorage {
    match address {
        SocketAddr::V4(v4) => SockaddrStorage::from(v4),
        SocketAddr::V6(v6) => SockaddrStorage::from(v6),
    }
}
