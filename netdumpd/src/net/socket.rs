//! UDP sockets: many datagrams a call each way, answers from the address that was asked.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use debugnet_core::wire::debugnet::Ack;
use mio::net::UdpSocket;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};
use zerocopy::IntoBytes;

use super::memory::{BUFFER_LEN, Share};

/// Receive buffer asked of the system, in bytes: what comes in during a slow fsync.
const RECEIVE_BUFFER_LEN: usize = 8 << 20;

/// Acks kept while the system takes none, in bytes; the client asks again for older ones.
const MAX_WAITING_LEN: usize = 4096 * Ack::LEN;

/// From one buffer to the next. Datagrams at the same place of equal pages would
/// push each other out of the processor's caches.
const BUFFER_STRIDE: usize = BUFFER_LEN + 1536;

/// A bound, non-blocking socket and the acks waiting to leave from it.
pub(super) struct Socket {
    pub(super) io: UdpSocket,
    state: UdpSocketState,
    waiting: Vec<u8>,
}

/// What a socket may have left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    /// Nothing: the next datagram is an event.
    All,
    /// Perhaps more.
    Some,
    /// Nothing was taken, because too much of this session waits to be written.
    NoRoom,
}

/// A received datagram.
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    /// The address it was sent to, if the system says.
    pub(super) to: Option<IpAddr>,
    pub(super) bytes: Bytes,
}

impl Socket {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking(),
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            // The same address of IPv4 can be listened on as well.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        Self::adopt(socket.into())
    }

    /// Takes a socket that is bound.
    pub(super) fn adopt(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        enlarge(&socket2::SockRef::from(&socket));
        let io = UdpSocket::from_std(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        Ok(Self { io, state, waiting: Vec::new() })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Takes what one system call gives, at most as much as the session's share allows.
    ///
    /// # Errors
    /// What the system says, other than that there is nothing.
    pub(super) fn receive(
        &self,
        buffers: &mut Buffers,
        share: &Share,
        mut take: impl FnMut(Datagram),
    ) -> io::Result<Received> {
        let most = (share.allowance() / BUFFER_LEN).min(BATCH_SIZE);
        if most == 0 {
            return Ok(Received::NoRoom);
        }
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut chunks = buffers.bytes.chunks_exact_mut(BUFFER_STRIDE);
        let mut slices: [_; BATCH_SIZE] = std::array::from_fn(|_| {
            let chunk = chunks.next().and_then(|chunk| chunk.get_mut(..BUFFER_LEN));
            IoSliceMut::new(chunk.unwrap_or_default())
        });
        let state = &self.state;
        let received =
            state.recv(UdpSockRef::from(&self.io), &mut slices[..most], &mut metas[..most]);
        let count = match received {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::All),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Received::Some),
            Err(error) => return Err(error),
        };
        // One allocation of the right size for all: a datagram that waits to be
        // written takes its own length, not that of the largest possible one.
        let received = || metas.iter().zip(buffers.bytes.chunks_exact(BUFFER_STRIDE)).take(count);
        let mut bytes = Vec::with_capacity(received().map(|(meta, _)| meta.len).sum());
        received().for_each(|(meta, buffer)| bytes.extend_from_slice(&buffer[..meta.len]));
        let bytes = share.charge(bytes);
        let mut start = 0;
        for meta in &metas[..count] {
            let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            let to = meta.dst_ip.map(|ip| ip.to_canonical());
            let end = start + meta.len;
            // An empty datagram has no stride; several of one sender share a buffer.
            let stride = meta.stride.max(1);
            loop {
                let next = (start + stride).min(end);
                take(Datagram { from, to, bytes: bytes.slice(start..next) });
                start = next;
                if start >= end {
                    break;
                }
            }
        }
        // A socket that gave less than was asked for is empty; its next datagram is an event.
        Ok(if count < most { Received::All } else { Received::Some })
    }

    /// Puts an ack behind those waiting.
    pub(super) fn queue(&mut self, ack: Ack) {
        if self.waiting.len() >= MAX_WAITING_LEN {
            self.waiting.drain(..MAX_WAITING_LEN / 2);
        }
        self.waiting.extend_from_slice(ack.as_bytes());
    }

    /// Sends the waiting acks, many in one call where the system can. `false`:
    /// some have to wait because it takes no more.
    pub(super) fn flush(&mut self, peer: SocketAddr) -> bool {
        while !self.waiting.is_empty() {
            let most = self.state.max_gso_segments().max(1) * Ack::LEN;
            let len = self.waiting.len().min(most);
            match self.send(peer, &self.waiting[..len]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    // A device without segmentation, or a client that cannot be
                    // reached: one by one, and what fails is asked for again.
                    tracing::debug!("acks to {peer}: {error}");
                    for ack in self.waiting[..len].chunks(Ack::LEN) {
                        let _ = self.send(peer, ack);
                    }
                }
            }
            self.waiting.drain(..len);
        }
        true
    }

    fn send(&self, peer: SocketAddr, contents: &[u8]) -> io::Result<()> {
        let segment_size = (contents.len() > Ack::LEN).then_some(Ack::LEN);
        let transmit =
            Transmit { destination: peer, ecn: None, contents, segment_size, src_ip: None };
        self.state.try_send(UdpSockRef::from(&self.io), &transmit)
    }
}

/// Buffers for one receive call, shared by all sockets; 2.1 MiB. Each takes a
/// datagram of any size, or several of one sender that the kernel joined.
pub(super) struct Buffers {
    bytes: Box<[u8]>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; BATCH_SIZE * BUFFER_STRIDE].into_boxed_slice() }
    }
}

/// As large as we are allowed to: root may go beyond the system's limit.
fn enlarge(socket: &socket2::Socket) {
    #[cfg(target_os = "linux")]
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER_LEN).is_ok() {
        return;
    }
    let mut len = RECEIVE_BUFFER_LEN;
    while len >= 1 << 17 && socket.set_recv_buffer_size(len).is_err() {
        len /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::memory::Memory;
    use std::time::Duration;

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// What comes in within a generous time, until `count` datagrams are here.
    fn receive_all(socket: &Socket, count: usize) -> Vec<Datagram> {
        let (mut buffers, mut found) = (Buffers::new(), Vec::new());
        let share = Memory::new(64 << 20).share();
        for _ in 0..2000 {
            socket.receive(&mut buffers, &share, |datagram| found.push(datagram)).unwrap();
            if found.len() >= count {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        found
    }

    #[test]
    fn every_ack_is_a_datagram_of_its_own() {
        let mut ours = Socket::bind(loopback()).unwrap();
        let client = std::net::UdpSocket::bind(loopback()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for seqno in 0..200 {
            ours.queue(Ack::new(seqno));
        }
        assert!(ours.flush(client.local_addr().unwrap()));
        let mut buffer = [0; 64];
        for seqno in 0..200u32 {
            let (len, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], seqno.to_be_bytes());
            assert_eq!(from, ours.local_addr().unwrap());
        }
    }

    #[test]
    fn datagrams_keep_their_bounds_and_tell_where_they_were_sent() {
        let ours = Socket::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = ours.local_addr().unwrap().port();
        let client = std::net::UdpSocket::bind("127.0.0.7:0").unwrap();
        let sizes = [24, 1472, 1472, 0, 65_000, 3];
        for (n, size) in sizes.iter().enumerate() {
            client.send_to(&vec![n as u8; *size], ("127.0.0.9", port)).unwrap();
        }
        let found = receive_all(&ours, sizes.len());
        let found_sizes: Vec<_> = found.iter().map(|datagram| datagram.bytes.len()).collect();
        assert_eq!(found_sizes, sizes);
        for (n, datagram) in found.iter().enumerate() {
            assert!(datagram.bytes.iter().all(|byte| *byte == n as u8));
            assert_eq!(datagram.from, client.local_addr().unwrap());
            assert_eq!(datagram.to, Some("127.0.0.9".parse().unwrap()));
        }
    }
}
