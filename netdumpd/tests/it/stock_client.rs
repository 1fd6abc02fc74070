//! A model of the stock client over real loopback sockets, against the real loop.
//!
//! Like the original it sends up to 64 KiB in one burst, waits for every ack,
//! and sends what is missing again after a second; unlike it, it does not give
//! up after twelve of them: no clock is to decide a test.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use debugnet_core::wire::debugnet::{FINISHED, HERALD, KDH, VMCORE};
use netdumpd::core::Verdict;
use netdumpd::net::{Event, Server, ServerConfig, Stopper};
use serde_json::Value;
use zerocopy::IntoBytes;

use crate::support::{dump_header, message, pattern};

const CHUNK_LEN: usize = 64 << 10;
/// A server that gives no ack for so long hangs.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct StockClient {
    socket: UdpSocket,
    server: SocketAddr,
    seqno: u32,
    pub(crate) payload_len: usize,
    pub(crate) chunk_len: usize,
    pub(crate) retransmit: Duration,
    /// Every n-th first transmission is not sent.
    pub(crate) lose_every: Option<u32>,
}

impl StockClient {
    pub(crate) fn new(address: &str) -> Self {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        Self {
            socket,
            server: "127.0.0.1:1".parse().unwrap(),
            seqno: 1,
            payload_len: 1448,
            chunk_len: CHUNK_LEN,
            retransmit: Duration::from_secs(1),
            lose_every: None,
        }
    }

    pub(crate) fn herald(&mut self, server: SocketAddr, path: &[u8]) {
        self.server = server;
        self.reliably(HERALD, 0, path, true);
    }

    pub(crate) fn dump(&mut self, image: &[u8]) {
        for (n, chunk) in image.chunks(self.chunk_len).enumerate() {
            self.reliably(VMCORE, (n * self.chunk_len) as u64, chunk, false);
        }
        let header = dump_header(image.len() as u64);
        self.reliably(KDH, 0, header.as_bytes(), false);
    }

    /// A range of the image, and no header.
    pub(crate) fn dump_part(&mut self, image: &[u8], range: std::ops::Range<usize>) {
        for (n, chunk) in image[range.clone()].chunks(self.chunk_len).enumerate() {
            self.reliably(VMCORE, (range.start + n * self.chunk_len) as u64, chunk, false);
        }
    }

    /// Sends blocks of 4096 bytes until the server `is_over` with it; returns how many bytes were acked.
    pub(crate) fn dump_until(&mut self, image: &[u8], is_over: impl Fn() -> bool) -> usize {
        self.payload_len = 4096;
        let refused = image.chunks(4096).enumerate().position(|(n, block)| {
            self.try_reliably(VMCORE, n as u64 * 4096, block, false, &is_over).is_err()
        });
        refused.map_or(image.len(), |blocks| blocks * 4096)
    }

    pub(crate) fn finish(&mut self) {
        self.reliably(FINISHED, 0, b"", false);
    }

    /// Sends one message again, as if its ack had been lost; waits for the ack.
    pub(crate) fn finish_again(&mut self) {
        self.seqno -= 1;
        self.finish();
    }

    /// Counts a message that is never sent.
    pub(crate) fn skip_message(&mut self) {
        self.seqno += 1;
    }

    fn reliably(&mut self, kind: u32, offset: u64, bytes: &[u8], teaches_port: bool) {
        let begin = Instant::now();
        let is_over = || begin.elapsed() > PATIENCE;
        if let Err(unacked) = self.try_reliably(kind, offset, bytes, teaches_port, is_over) {
            panic!("message {kind} at {offset}: {unacked} fragments unacked");
        }
    }

    /// Gives up once `is_over`, with the number of fragments that were not acked.
    fn try_reliably(
        &mut self,
        kind: u32,
        offset: u64,
        bytes: &[u8],
        teaches_port: bool,
        is_over: impl Fn() -> bool,
    ) -> Result<(), usize> {
        let fragments: Vec<_> = match bytes {
            [] => vec![&bytes[..0]],
            _ => bytes.chunks(self.payload_len).collect(),
        };
        let mut missing: BTreeSet<u32> = (0..fragments.len() as u32).collect();
        for tries in 0.. {
            if tries > 0 && is_over() {
                break;
            }
            for &index in &missing {
                let at = offset + u64::from(index) * self.payload_len as u64;
                let seqno = self.seqno + index;
                let is_lost = self.lose_every.is_some_and(|n| seqno.is_multiple_of(n));
                if tries > 0 || !is_lost {
                    let datagram = message(kind, seqno, at, fragments[index as usize]);
                    self.socket.send_to(&datagram, self.server).unwrap();
                }
            }
            let until = Instant::now() + self.retransmit;
            while let left = until.saturating_duration_since(Instant::now())
                && !left.is_zero()
            {
                self.socket.set_read_timeout(Some(left)).unwrap();
                let mut ack = [0; 64];
                let Ok((len, from)) = self.socket.recv_from(&mut ack) else { continue };
                assert_eq!(len, 4, "an ack has four bytes");
                if teaches_port {
                    assert_eq!(from.ip(), self.server.ip(), "from the address that was asked");
                    self.server = from;
                }
                assert_eq!(from, self.server);
                let seqno = u32::from_be_bytes([ack[0], ack[1], ack[2], ack[3]]);
                missing.remove(&seqno.wrapping_sub(self.seqno));
                if missing.is_empty() {
                    self.seqno += fragments.len() as u32;
                    return Ok(());
                }
            }
        }
        Err(missing.len())
    }
}

/// A server in a thread of its own.
struct Running {
    address: SocketAddr,
    events: Receiver<Value>,
    stopper: Stopper,
    thread: Option<JoinHandle<Option<Verdict>>>,
}

impl Running {
    fn start(dir: &Path, listen: &str) -> Self {
        let config = ServerConfig::new(listen.parse().unwrap(), dir.to_owned());
        let server = Server::bind(config).unwrap();
        let (address, stopper) = (server.local_addrs()[0], server.stopper());
        let (sender, events) = channel();
        let thread = std::thread::spawn(move || {
            let observer = move |event: &Event| {
                // The test may have seen enough.
                let _ = sender.send(serde_json::to_value(event).unwrap());
            };
            server.run(Box::new(observer)).unwrap()
        });
        Self { address, events, stopper, thread: Some(thread) }
    }

    fn finished(&self) -> Value {
        loop {
            let event = self.events.recv_timeout(Duration::from_secs(60)).expect("an event");
            if event["event"] == "finished" {
                return event;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(result.is_ok() || std::thread::panicking(), "the server has panicked");
        }
    }
}

fn dump_and_compare(prepare: impl Fn(&mut StockClient), len: usize) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), "127.0.0.1:0");
    let mut client = StockClient::new("127.0.0.1");
    prepare(&mut client);
    let image = pattern(len);
    client.herald(server.address, b"");
    client.dump(&image);
    client.finish();
    let event = server.finished();
    let vmcore = event["vmcore"].as_str().unwrap();
    assert!(std::fs::read(vmcore).unwrap() == image);
    assert_eq!((&event["result"], &event["bytes"]), (&"complete".into(), &len.into()));
    client.finish_again();
    client.finish_again();
    event
}

#[test]
fn bursts_of_64_kib() {
    dump_and_compare(|_| {}, 4 << 20);
}

#[test]
fn one_packet_at_a_time() {
    dump_and_compare(|client| client.chunk_len = 1448, 1 << 20);
}

#[test]
fn jumbo_frames() {
    dump_and_compare(|client| client.payload_len = 8948, 4 << 20);
}

#[test]
fn datagrams_of_almost_64_kib() {
    dump_and_compare(|client| (client.payload_len, client.chunk_len) = (65_000, 65_000), 4 << 20);
}

#[test]
fn losses_and_retransmits() {
    let event = dump_and_compare(
        |client| {
            client.lose_every = Some(37);
            client.retransmit = Duration::from_millis(100);
        },
        1 << 20,
    );
    assert_eq!(event["missing_seqnos"], 0);
}

#[test]
fn many_clients_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), "0.0.0.0:0");
    let port = server.address.port();
    let clients: Vec<_> = (0..16u8)
        .map(|n| {
            std::thread::spawn(move || {
                let image: Vec<u8> = pattern(256 << 10).iter().map(|byte| byte ^ n).collect();
                let mut client = StockClient::new(&format!("127.0.1.{}", n + 1));
                // Each is answered from the address it asked.
                let asked = format!("127.0.2.{}:{port}", n + 1).parse().unwrap();
                client.herald(asked, b"");
                client.dump(&image);
                client.finish();
                image
            })
        })
        .collect();
    for (n, client) in clients.into_iter().enumerate() {
        let image = client.join().unwrap();
        let vmcore = dir.path().join(format!("vmcore.127.0.1.{}.last", n + 1));
        assert!(std::fs::read(vmcore).unwrap() == image);
        assert_eq!(server.finished()["result"], "complete");
    }
}

#[test]
fn a_garbage_flood_does_not_stop_a_dump() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), "127.0.0.1:0");
    let mut client = StockClient::new("127.0.0.1");
    client.herald(server.address, b"");
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (n, chunk) in pattern(1 << 20).chunks(700).enumerate() {
        let to = if n % 2 == 0 { server.address } else { client.server };
        noise.send_to(chunk, to).unwrap();
    }
    let image = pattern(1 << 20);
    client.dump(&image);
    client.finish();
    let event = server.finished();
    assert_eq!(event["result"], "complete");
    assert!(std::fs::read(event["vmcore"].as_str().unwrap()).unwrap() == image);
}

#[test]
fn a_stopped_server_leaves_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), "127.0.0.1:0");
    let mut client = StockClient::new("127.0.0.1");
    client.herald(server.address, b"");
    client.dump(&pattern(100_000));
    server.stopper.stop();
    let event = server.finished();
    assert_eq!((&event["result"], &event["end"]), (&"incomplete".into(), &"stopped".into()));
    let info = std::fs::read_to_string(event["info"].as_str().unwrap()).unwrap();
    assert!(info.ends_with("Dump incomplete: client timed out (server stopped)\n"), "{info}");
    assert!(std::fs::read(event["vmcore"].as_str().unwrap()).unwrap() == pattern(100_000));
}
