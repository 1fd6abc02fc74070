//! Clients with a window each, all in one thread: a datagram for an ack.
//!
//! What a window allows at once is sent at once. Over a network, the server's
//! kernel then gets several datagrams with one look at the NIC, and joins them
//! for a socket that asked for it (GRO, without help of the NIC). Loopback does
//! not join; a client that hands over a row of datagrams in one call
//! (`UDP_SEGMENT`) has the same effect. For a socket that did not ask, the
//! kernel takes them apart again, at the client's cost.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use debugnet_core::wire::debugnet::{FINISHED, HERALD, MessageHeader, VMCORE};
use zerocopy::IntoBytes;

const PAYLOAD_LEN: usize = 1448;
const DATAGRAM_LEN: usize = MessageHeader::LEN + PAYLOAD_LEN;
/// Messages in flight: what a stock server takes in one burst.
const WINDOW: usize = 64;
/// Without a word for so long, what is in flight is sent again.
const SILENCE: Duration = Duration::from_millis(500);
/// A run that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(300);

/// Datagrams joined, at most: 64 KiB.
const MAX_JOINED: usize = 44;

/// How datagrams of one window come to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// Joined, as the kernel does with what comes from a NIC in a row.
    Joined,
    /// Each by itself.
    Single,
}

/// The address of the n-th client: the server names files by it.
pub(crate) fn ip(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 3, n as u8 + 1)
}

pub(crate) struct Clients(Vec<Client>);

struct Client {
    socket: UdpSocket,
    next: u32,
    /// Numbers of messages in flight, oldest first.
    flight: VecDeque<u32>,
    heard: Instant,
    sent: u64,
    arrival: Arrival,
}

/// The herald's number.
const FIRST: u32 = 1;

impl Clients {
    /// Opens `count` sessions.
    pub(crate) fn herald(server: SocketAddr, count: usize, arrival: Arrival) -> io::Result<Self> {
        let clients =
            (0..count).map(|n| Client::herald(server, n, arrival)).collect::<io::Result<_>>()?;
        Ok(Self(clients))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Sends the image from each; returns when all is acked, with the number of datagrams.
    pub(crate) fn send(&mut self, image: &[u8]) -> io::Result<u64> {
        let end = Instant::now() + LIMIT;
        let last = FIRST + image.len().div_ceil(PAYLOAD_LEN) as u32;
        let mut datagrams = Vec::with_capacity(MAX_JOINED * DATAGRAM_LEN);
        loop {
            let mut is_over = true;
            let mut is_idle = true;
            for client in &mut self.0 {
                is_idle &= client.take_acks()? == 0;
                client.send_again_after_silence(image, &mut datagrams)?;
                let room = (WINDOW - client.flight.len()) as u32;
                let end = client.next.saturating_add(room).min(last + 1);
                is_idle &= client.next == end;
                client.flight.extend(client.next..end);
                client.send(client.next..end, image, &mut datagrams)?;
                client.next = end;
                is_over &= client.flight.is_empty();
            }
            if is_over {
                return Ok(self.0.iter().map(|client| client.sent).sum());
            }
            if is_idle {
                if Instant::now() > end {
                    return Err(ErrorKind::TimedOut.into());
                }
                self.wait()?;
            }
        }
    }

    /// Ends all dumps.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        for client in &mut self.0 {
            let datagram = message(FINISHED, client.next, 0, b"");
            client.reliably(&datagram)?;
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut waited: Vec<_> =
            self.0.iter().map(|client| PollFd::new(&client.socket, PollFlags::IN)).collect();
        let patience = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        poll(&mut waited, Some(&patience))?;
        Ok(())
    }
}

impl Client {
    fn herald(server: SocketAddr, n: usize, arrival: Arrival) -> io::Result<Self> {
        let socket = UdpSocket::bind((ip(n), 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.send_to(&message(HERALD, FIRST, 0, b""), server)?;
        let mut ack = [0; 8];
        let (_, from) = socket.recv_from(&mut ack)?;
        socket.connect(from)?;
        socket.set_nonblocking(true)?;
        if arrival == Arrival::Joined {
            use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
            setsockopt(&socket, UdpGsoSegment, &(DATAGRAM_LEN as i32))?;
        }
        let (flight, heard) = (VecDeque::new(), Instant::now());
        Ok(Self { socket, next: FIRST + 1, flight, heard, sent: 0, arrival })
    }

    fn take_acks(&mut self) -> io::Result<usize> {
        let mut count = 0;
        let mut ack = [0; 8];
        loop {
            match self.socket.recv(&mut ack) {
                Ok(4) => {
                    let seqno = u32::from_be_bytes([ack[0], ack[1], ack[2], ack[3]]);
                    if let Some(at) = self.flight.iter().position(|sent| *sent == seqno) {
                        self.flight.remove(at);
                    }
                    count += 1;
                    self.heard = Instant::now();
                }
                Ok(len) => return Err(io::Error::other(format!("an ack of {len} bytes"))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends these messages; `datagrams` is room for them.
    fn send(
        &mut self,
        mut seqnos: Range<u32>,
        image: &[u8],
        datagrams: &mut Vec<u8>,
    ) -> io::Result<()> {
        let most = if self.arrival == Arrival::Joined { MAX_JOINED } else { 1 };
        while !seqnos.is_empty() {
            datagrams.clear();
            let joined = seqnos.start..seqnos.end.min(seqnos.start + most as u32);
            for seqno in joined.clone() {
                let offset = (seqno - FIRST - 1) as usize * PAYLOAD_LEN;
                let payload = &image[offset..image.len().min(offset + PAYLOAD_LEN)];
                datagrams
                    .extend_from_slice(header(VMCORE, seqno, offset, payload.len()).as_bytes());
                datagrams.extend_from_slice(payload);
            }
            match self.socket.send(datagrams) {
                // A full queue loses them, as any network may.
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => self.sent += joined.len() as u64,
            }
            seqnos.start = joined.end;
        }
        Ok(())
    }

    fn send_again_after_silence(
        &mut self,
        image: &[u8],
        datagrams: &mut Vec<u8>,
    ) -> io::Result<()> {
        if !self.flight.is_empty() && self.heard.elapsed() > SILENCE {
            self.heard = Instant::now();
            for seqno in self.flight.clone() {
                self.send(seqno..seqno + 1, image, datagrams)?;
            }
        }
        Ok(())
    }

    fn reliably(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.socket.set_nonblocking(false)?;
        self.socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        self.socket.send(datagram)?;
        self.socket.recv(&mut [0; 8])?;
        Ok(())
    }
}

fn header(kind: u32, seqno: u32, offset: usize, len: usize) -> MessageHeader {
    MessageHeader {
        kind: kind.into(),
        seqno: seqno.into(),
        offset: (offset as u64).into(),
        len: (len as u32).into(),
        aux2: 0.into(),
    }
}

fn message(kind: u32, seqno: u32, offset: usize, payload: &[u8]) -> Vec<u8> {
    [header(kind, seqno, offset, payload.len()).as_bytes(), payload].concat()
}
