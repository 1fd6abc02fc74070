//! UDP sockets: many datagrams a call each way, answers from the address that was asked.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use debugnet_core::wire::debugnet::{Ack, MessageHeader};
use mio::net::UdpSocket;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};
use zerocopy::IntoBytes;

use super::memory::{BUFFER_LEN, Share};
use crate::core::Series;

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

/// What came in: messages in sequence with their payload, or a datagram that is no message.
pub(super) struct Incoming {
    pub(super) from: SocketAddr,
    /// The address it was sent to, if the system says.
    pub(super) to: Option<IpAddr>,
    pub(super) messages: Option<(Series, Bytes)>,
}

/// The same before its payload is where it stays.
struct Head {
    from: SocketAddr,
    to: Option<IpAddr>,
    series: Option<Series>,
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

    /// One for a session: bound to one address, so that none is told with each
    /// datagram, nor anything else that costs time and is of no use.
    pub(super) fn bind_session(address: SocketAddr) -> io::Result<Self> {
        let socket = Self::bind(address)?;
        #[cfg(target_os = "linux")]
        {
            use nix::sys::socket::{setsockopt, sockopt};
            // What cannot be switched off goes on costing time.
            let _ = setsockopt(&socket.io, sockopt::ReceiveTimestampns, &false);
            let _ = if address.is_ipv4() {
                setsockopt(&socket.io, sockopt::IpRecvTos, &false)
                    .and_then(|()| setsockopt(&socket.io, sockopt::Ipv4PacketInfo, &false))
            } else {
                setsockopt(&socket.io, sockopt::Ipv6RecvTClass, &false)
                    .and_then(|()| setsockopt(&socket.io, sockopt::Ipv6RecvPacketInfo, &false))
            };
        }
        Ok(socket)
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
        mut take: impl FnMut(Incoming),
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
        // The payloads one behind the other, in one allocation of the right size:
        // one that waits to be written takes its own length, not that of the
        // largest possible datagram, and those in sequence are one piece.
        let received = || metas.iter().zip(buffers.bytes.chunks_exact(BUFFER_STRIDE)).take(count);
        let mut bytes = share.buffer(received().map(|(meta, _)| meta.len).sum());
        for (meta, buffer) in received() {
            let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            let to = meta.dst_ip.map(|ip| ip.to_canonical());
            // Several of one sender may share a buffer. An empty one has no stride.
            let mut rest = buffer.get(..meta.len).unwrap_or_default();
            loop {
                let (datagram, after) = rest.split_at(meta.stride.max(1).min(rest.len()));
                sort(&mut buffers.heads, Head { from, to, series: None }, datagram, &mut bytes);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
        }
        let mut bytes = share.charge(bytes);
        for Head { from, to, series } in buffers.heads.drain(..) {
            let messages =
                series.map(|series| (series, bytes.split_to(series.payload_len() as usize)));
            take(Incoming { from, to, messages });
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

/// Puts a datagram's payload to `bytes` and its header to `heads`, or to the one
/// before if it follows that.
fn sort(heads: &mut Vec<Head>, mut head: Head, datagram: &[u8], bytes: &mut Vec<u8>) {
    if let Ok((header, payload)) = MessageHeader::parse(datagram) {
        bytes.extend_from_slice(payload);
        if let Some(Head { from, to, series: Some(before) }) = heads.last_mut()
            && (*from, *to) == (head.from, head.to)
            && before.take(&header)
        {
            return;
        }
        head.series = Some(Series::new(header));
    }
    heads.push(head);
}

/// Buffers for one receive call, shared by all sockets; 2.1 MiB. Each takes a
/// datagram of any size, or several of one sender that the kernel joined.
pub(super) struct Buffers {
    bytes: Box<[u8]>,
    heads: Vec<Head>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; BATCH_SIZE * BUFFER_STRIDE].into_boxed_slice(), heads: Vec::new() }
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
    fn receive_all(socket: &Socket, count: usize) -> Vec<Incoming> {
        let (mut buffers, mut found, mut datagrams) = (Buffers::new(), Vec::new(), 0);
        let share = Memory::new(64 << 20).share();
        for _ in 0..2000 {
            let take = |incoming: Incoming| {
                datagrams += incoming.messages.as_ref().map_or(1, |(series, _)| series.count());
                found.push(incoming);
            };
            socket.receive(&mut buffers, &share, take).unwrap();
            if datagrams as usize >= count {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        found
    }

    fn message(seqno: u32, offset: u64, payload: &[u8]) -> Vec<u8> {
        let header = MessageHeader {
            kind: debugnet_core::wire::debugnet::VMCORE.into(),
            seqno: seqno.into(),
            offset: offset.into(),
            len: (payload.len() as u32).into(),
            aux2: 0.into(),
        };
        [header.as_bytes(), payload].concat()
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
        // None follows the one before.
        let sizes = [Some(0), Some(1448), Some(1448), None, Some(65_000), Some(3)];
        for (n, size) in sizes.iter().enumerate() {
            let datagram = size.map(|size| message(7, 0, &vec![n as u8; size]));
            client.send_to(&datagram.unwrap_or_default(), ("127.0.0.9", port)).unwrap();
        }
        let found = receive_all(&ours, sizes.len());
        let lens = found.iter().map(|it| it.messages.as_ref().map(|(_, payload)| payload.len()));
        assert_eq!(lens.collect::<Vec<_>>(), sizes);
        for (n, incoming) in found.iter().enumerate() {
            if let Some((series, payload)) = &incoming.messages {
                assert_eq!(series.count(), 1);
                assert!(payload.iter().all(|byte| *byte == n as u8));
            }
            assert_eq!(incoming.from, client.local_addr().unwrap());
            assert_eq!(incoming.to, Some("127.0.0.9".parse().unwrap()));
        }
    }

    #[test]
    fn messages_in_sequence_are_one_piece() {
        let ours = Socket::bind_session(loopback()).unwrap();
        let [one, other] = [(), ()].map(|()| std::net::UdpSocket::bind(loopback()).unwrap());
        let to = ours.local_addr().unwrap();
        for n in 0..4u32 {
            one.send_to(&message(n, u64::from(n) * 1000, &[n as u8; 1000]), to).unwrap();
        }
        // The next number, but somebody else's.
        other.send_to(&message(4, 4000, &[9; 1000]), to).unwrap();
        one.send_to(b"no message", to).unwrap();
        let (mut bytes, mut counts) = (Vec::new(), Vec::new());
        for incoming in receive_all(&ours, 6) {
            let Some((series, payload)) = incoming.messages else {
                counts.push(0);
                continue;
            };
            let from = if series.count() == 1 && payload[0] == 9 { &other } else { &one };
            assert_eq!(incoming.from, from.local_addr().unwrap());
            assert_eq!(payload.len() as u64, series.payload_len());
            counts.push(series.count());
            bytes.extend_from_slice(&payload);
        }
        // They may have come by several calls; in one they are one.
        assert_eq!(counts.iter().sum::<u32>(), 5);
        assert_eq!(counts[counts.len() - 2..], [1, 0]);
        let expected = [0, 1, 2, 3, 9].map(|n| [n; 1000]).concat();
        assert!(bytes == expected);
    }
}
