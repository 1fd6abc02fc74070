//! A socket between gateway and server: many datagrams a call each way, as
//! a NIC of today takes and gives them, so that the relay is not what is measured.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};

use super::pump::ready;

/// Bytes that leave in one call: less than the largest datagram of IP.
const OUT_MAX: usize = 60_000;
/// Largest datagram, or run of joined ones, that the system gives.
const IN_MAX: usize = 1 << 16;
/// Runs taken in one call.
const RUNS: usize = 8;
/// Acks must find room; what the system grants is enough.
const RECEIVE_BUFFER_LEN: usize = 4 << 20;

/// A bound socket with what waits to leave from it.
pub(super) struct Relay {
    socket: UdpSocket,
    state: UdpSocketState,
    waiting: Vec<u8>,
    to: SocketAddrV4,
    /// Bytes of each waiting datagram; the last one may have less, and then it is the last.
    segment_len: usize,
    segments: u64,
    received: Box<[u8]>,
    errors: u64,
}

impl Relay {
    /// Binds `address`.
    pub(super) fn bind(address: SocketAddrV4) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_LEN)?;
        Ok(Self {
            state: UdpSocketState::new(UdpSockRef::from(&socket))?,
            socket,
            waiting: Vec::with_capacity(OUT_MAX),
            to: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
            segment_len: 0,
            segments: 0,
            received: vec![0; RUNS * IN_MAX].into_boxed_slice(),
            errors: 0,
        })
    }

    /// The address it is bound to.
    pub(super) fn address(&self) -> io::Result<SocketAddrV4> {
        match self.socket.local_addr()? {
            SocketAddr::V4(address) => Ok(address),
            SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    /// Puts a datagram behind those waiting. It leaves with the next [`Relay::flush`] at the latest.
    pub(super) fn queue(&mut self, to: SocketAddrV4, payload: &[u8]) {
        let is_full = self.segments >= self.state.max_gso_segments() as u64
            || self.waiting.len() + payload.len() > OUT_MAX;
        let is_closed = !self.waiting.len().is_multiple_of(self.segment_len.max(1));
        if self.segments != 0
            && (is_full
                || is_closed
                || to != self.to
                || payload.is_empty()
                || payload.len() > self.segment_len)
        {
            self.flush();
        }
        if self.segments == 0 {
            (self.to, self.segment_len) = (to, payload.len());
        }
        self.waiting.extend_from_slice(payload);
        self.segments += 1;
        if payload.is_empty() {
            // Leaves no trace in a run.
            self.flush();
        }
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) {
        if self.segments == 0 {
            return;
        }
        let transmit = Transmit {
            destination: self.to.into(),
            ecn: None,
            contents: &self.waiting,
            segment_size: (self.segments > 1).then_some(self.segment_len),
            src_ip: None,
        };
        if self.state.try_send(UdpSockRef::from(&self.socket), &transmit).is_err() {
            self.errors += self.segments;
        }
        self.waiting.clear();
        self.segments = 0;
    }

    /// Datagrams that the socket refused.
    pub(super) fn errors(&self) -> u64 {
        self.errors
    }

    /// Shows `take` what one call gives. `true` if that is any.
    pub(super) fn receive(
        &mut self,
        mut take: impl FnMut(SocketAddrV4, &[u8]),
    ) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); RUNS];
        let mut buffers = self.received.chunks_exact_mut(IN_MAX);
        let mut slices: [_; RUNS] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        let result = self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas);
        let Some(count) = ready(result)? else { return Ok(false) };
        for (meta, run) in metas.iter().zip(self.received.chunks_exact(IN_MAX)).take(count) {
            let (SocketAddr::V4(from), run) = (meta.addr, &run[..meta.len]) else { continue };
            if run.is_empty() {
                take(from, run);
            }
            run.chunks(meta.stride.max(1)).for_each(|datagram| take(from, datagram));
        }
        Ok(true)
    }
}

impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::far_end::CLIENT_PORT;
    use crate::gateway::free_loopback;

    #[test]
    fn datagrams_keep_their_bounds_order_and_destination() {
        let mut relay = Relay::bind(SocketAddrV4::new(free_loopback(7701).unwrap(), 0)).unwrap();
        let ends = [0; 2].map(|_| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket
        });
        let port = |end: &UdpSocket| end.local_addr().unwrap().port();
        let to = ends.each_ref().map(|end| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port(end)));
        // Runs of one size, a shorter one behind them, a longer one, an empty one, two destinations.
        let mut sent: [Vec<Vec<u8>>; 2] = [vec![], vec![]];
        for n in 0..400_usize {
            let len = match n {
                _ if n % 97 == 0 => 0,
                _ if n % 50 == 0 => 9000,
                _ if n % 31 == 0 => 100,
                _ => 1472,
            };
            let end = usize::from(n % 40 > 33);
            sent[end].push(vec![n as u8; len]);
            relay.queue(to[end], &vec![n as u8; len]);
            if n % 64 == 63 {
                relay.flush();
                let mut buf = [0; 10_000];
                for (end, sent) in ends.iter().zip(&mut sent) {
                    for expected in sent.drain(..) {
                        let (len, _) = end.recv_from(&mut buf).unwrap();
                        assert!(buf[..len] == *expected, "{n}: {len} of {}", expected.len());
                    }
                }
            }
        }
        assert_eq!(relay.errors(), 0);
    }

    #[test]
    fn joined_datagrams_are_taken_apart() {
        let ip = free_loopback(7702).unwrap();
        let mut relay = Relay::bind(SocketAddrV4::new(ip, CLIENT_PORT)).unwrap();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let state = UdpSocketState::new(UdpSockRef::from(&sender)).unwrap();
        let contents: Vec<u8> = (0..50_u8).flat_map(|n| [n; 4]).collect();
        let transmit = Transmit {
            destination: SocketAddr::new(ip.into(), CLIENT_PORT),
            ecn: None,
            contents: &contents,
            segment_size: Some(4),
            src_ip: None,
        };
        state.try_send(UdpSockRef::from(&sender), &transmit).unwrap();
        sender.send_to(&[], (ip, CLIENT_PORT)).unwrap();
        let mut found = Vec::new();
        for _ in 0..2000 {
            relay.receive(|_, datagram| found.push(datagram.to_vec())).unwrap();
            if found.len() > 50 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let expected: Vec<Vec<u8>> = (0..50_u8).map(|n| vec![n; 4]).chain([vec![]]).collect();
        assert_eq!(found, expected);
    }
}
