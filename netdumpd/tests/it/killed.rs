//! The real daemon, killed at random points of real dumps. The truth is each
//! client's own list of the acks it got.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use debugnet_core::wire::debugnet::{EKCD_KEY, FINISHED, HERALD, KDH, VMCORE};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use zerocopy::IntoBytes;

use crate::support::{dump_header, message, pattern};

const PROGRAM: &str = env!("CARGO_BIN_EXE_netdumpd");
const CLIENTS: usize = 3;
const IMAGE_LEN: usize = 300_000;

/// What a client knows when the server is gone.
#[derive(Default)]
struct Known {
    /// Ranges of the image that were acked.
    acked: Vec<std::ops::Range<usize>>,
    key_acked: bool,
    was_opened: bool,
    was_finished: bool,
}

/// Sends messages a few at a time, some again and some in another order, until
/// all is acked or the server is gone.
struct Client {
    socket: UdpSocket,
    seed: u64,
    acks: Arc<AtomicU64>,
    is_killed: Arc<AtomicU64>,
}

impl Client {
    fn random(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below
    }

    fn run(mut self, server: SocketAddr, image: &[u8], known: &mut Known) {
        self.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut key = vec![0u8; 4096];
        key[0] = 2;
        let mut messages = vec![(EKCD_KEY, 0, key.clone())];
        let mut at = 0;
        while at < image.len() {
            // Pages that are not sent now and then.
            if self.random(20) == 0 && at + 8192 < image.len() {
                at += 4096;
            }
            let len = (self.random(3000) as usize + 1).min(image.len() - at);
            messages.push((VMCORE, at as u64, image[at..at + len].to_vec()));
            at += len;
        }
        let mut header = dump_header(image.len() as u64);
        header.dump_key_size = 4096.into();
        header.compression = (self.random(3) as u8).min(2);
        header.seal();
        messages.push((KDH, 0, header.as_bytes().to_vec()));
        messages.push((FINISHED, 0, Vec::new()));

        let Some(session) = self.exchange(server, &[(1, message(HERALD, 1, 0, b""))], &mut |_| {})
        else {
            return;
        };
        known.was_opened = true;
        let (first, last) = (2u32, messages.len() as u32 + 1);
        let mut next = first;
        while next <= last {
            let window = match messages[(next - first) as usize].0 {
                VMCORE => 1 + self.random(24) as u32,
                _ => 1,
            };
            let mut batch: Vec<_> = (next..=last.min(next + window - 1))
                .filter(|seqno| window == 1 || messages[(seqno - first) as usize].0 == VMCORE)
                .collect();
            next = batch.iter().max().map_or(next, |seqno| seqno + 1);
            if batch.len() > 2 {
                let (a, b) = (self.random(batch.len() as u64), self.random(batch.len() as u64));
                batch.swap(a as usize, b as usize);
                batch.push(batch[0]);
            }
            let batch: Vec<_> = batch
                .into_iter()
                .map(|seqno| {
                    let (kind, offset, payload) = &messages[(seqno - first) as usize];
                    (seqno, message(*kind, seqno, *offset, payload))
                })
                .collect();
            let mut note = |seqno: u32| match &messages[(seqno - first) as usize] {
                (VMCORE, offset, payload) => {
                    known.acked.push(*offset as usize..*offset as usize + payload.len());
                }
                (EKCD_KEY, ..) => known.key_acked = true,
                (FINISHED, ..) => known.was_finished = true,
                _ => {}
            };
            if self.exchange(session, &batch, &mut note).is_none() {
                return;
            }
        }
    }

    /// Until all are acked; `None` if the server is gone. `note` is told of each ack.
    fn exchange(
        &mut self,
        to: SocketAddr,
        batch: &[(u32, bytes::Bytes)],
        note: &mut dyn FnMut(u32),
    ) -> Option<SocketAddr> {
        let mut missing: std::collections::BTreeSet<u32> =
            batch.iter().map(|(seqno, _)| *seqno).collect();
        let give_up = Instant::now() + Duration::from_secs(120);
        let mut sent = None::<Instant>;
        loop {
            if sent.is_none_or(|at| at.elapsed() > Duration::from_millis(300)) {
                for (_, datagram) in batch.iter().filter(|(seqno, _)| missing.contains(seqno)) {
                    let _ = self.socket.send_to(datagram, to);
                }
                sent = Some(Instant::now());
            }
            let mut ack = [0; 8];
            match self.socket.recv_from(&mut ack) {
                Ok((4, from)) => {
                    let seqno = u32::from_be_bytes([ack[0], ack[1], ack[2], ack[3]]);
                    if missing.remove(&seqno) {
                        note(seqno);
                        self.acks.fetch_add(1, Ordering::Relaxed);
                    }
                    if missing.is_empty() {
                        return Some(from);
                    }
                }
                // Acks that were on their way when it was killed are in by then.
                _ if self.is_killed.load(Ordering::Acquire) != 0 => return None,
                _ => assert!(Instant::now() < give_up, "neither an ack nor a death"),
            }
        }
    }
}

struct Daemon {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Daemon {
    fn start(dir: &Path) -> (Self, SocketAddr) {
        let mut child = Command::new(PROGRAM)
            .args(["-D", "--json", "-a", "127.0.0.1", "--port", "0", "-d"])
            .arg(dir)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut daemon = Self { child, output };
        let listening = daemon.event("listening");
        let address = listening["address"].as_str().unwrap().parse().unwrap();
        (daemon, address)
    }

    /// The next event of this kind.
    fn event(&mut self, kind: &str) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "no {kind} before the end");
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == kind {
                return event;
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One life and death; returns how many acks there were and how many dumps were marked.
fn kill_once(seed: u64) -> (u64, usize) {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, address) = Daemon::start(dir.path());
    let (acks, is_killed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let image = Arc::new(pattern(IMAGE_LEN));
    let (done, over) = mpsc::channel();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            // One address each, and so one set of names each.
            let socket = UdpSocket::bind((format!("127.0.3.{}", n + 1).as_str(), 0)).unwrap();
            let mut client = Client {
                socket,
                seed: (seed * 31 + n as u64) | 1 << 40,
                acks: Arc::clone(&acks),
                is_killed: Arc::clone(&is_killed),
            };
            let (image, done) = (Arc::clone(&image), done.clone());
            client.random(2);
            std::thread::spawn(move || {
                let mut known = Known::default();
                client.run(address, &image, &mut known);
                let _ = done.send(());
                known
            })
        })
        .collect();
    // About 200 messages a client: the point is drawn from all of them, and beyond.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    state ^= state >> 29;
    let point = state % (CLIENTS as u64 * 210);
    let mut ended = 0;
    while acks.load(Ordering::Relaxed) < point && ended < CLIENTS {
        ended += usize::from(over.recv_timeout(Duration::from_micros(100)).is_ok());
    }
    std::thread::sleep(Duration::from_micros(state >> 20 & 0x3ff));
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    is_killed.store(1, Ordering::Release);
    let known: Vec<Known> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    drop(daemon);

    // The next server marks what it finds before it does anything else.
    let (mut next, _) = Daemon::start(dir.path());
    kill_process(Pid::from_child(&next.child), Signal::TERM).unwrap();
    let mut events = String::new();
    next.output.read_to_string(&mut events).unwrap();
    let marked = events.matches("\"event\":\"interrupted\"").count();
    assert!(!dir.path().join(".netdumpd").exists(), "a journal is left");
    for (n, known) in known.iter().enumerate() {
        check(dir.path(), n, known, &image, seed);
    }
    // One whose FINISHED was done and only not acked has nothing to be marked.
    let finished = known.iter().filter(|known| known.was_finished).count();
    assert!(marked + finished <= CLIENTS);
    (acks.load(Ordering::Relaxed), marked)
}

fn check(dir: &Path, n: usize, known: &Known, image: &[u8], seed: u64) {
    let host = format!("127.0.3.{}", n + 1);
    let json = dir.join(format!("info.{host}.0.json"));
    if !known.was_opened {
        return;
    }
    let record: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let whole = || format!("seed {seed}, client {n}: {record}");
    let vmcore = std::fs::read(dir.join(record["vmcore"].as_str().unwrap())).unwrap();
    for range in &known.acked {
        let found = vmcore.get(range.clone());
        assert!(found == Some(&image[range.clone()]), "{range:?} was acked; {}", whole());
    }
    if known.key_acked {
        let key = std::fs::read(dir.join(format!("key.{host}.0"))).unwrap();
        assert_eq!((key.len(), key[0]), (4096, 2));
    }
    let info = std::fs::read_to_string(dir.join(format!("info.{host}.0"))).unwrap();
    let last = info.lines().last().unwrap();
    if known.was_finished {
        assert_eq!((&record["result"], last), (&"complete".into(), "Dump complete"), "{}", whole());
        return;
    }
    // Its FINISHED may have been on the way: then all of it is there.
    if record["result"] == "complete" {
        assert_eq!((last, &record["holes"]["count"]), ("Dump complete", &0.into()), "{}", whole());
        return;
    }
    assert_eq!(record["end"], "interrupted", "{}", whole());
    assert_eq!(last, "Dump incomplete: server was interrupted", "{}", whole());
    // What was acked is in the record, too.
    let mut acked = known.acked.clone();
    acked.sort_by_key(|range| range.start);
    let bytes: usize = acked.iter().map(|range| range.len()).sum();
    assert!(record["received_bytes"].as_u64().unwrap() >= bytes as u64, "{}", whole());
    for list in ["holes", "not_sent"] {
        for missing in record[list]["ranges"].as_array().unwrap() {
            let start = missing["offset"].as_u64().unwrap() as usize;
            let end = start + missing["len"].as_u64().unwrap() as usize;
            let clash = acked.iter().find(|range| range.start < end && start < range.end);
            assert!(clash.is_none(), "{clash:?} was acked and is in {list}; {}", whole());
        }
    }
}

fn kill_many(seeds: std::ops::Range<u64>) {
    let (mut acks, mut marked, times) = (0, 0, seeds.end - seeds.start);
    for seed in seeds {
        let (more_acks, more_marked) = kill_once(seed);
        acks += more_acks;
        marked += more_marked;
    }
    println!("{times} deaths, {acks} acks, {marked} interrupted dumps marked");
    assert!(acks > times && marked as u64 > times / 2, "{acks} acks, {marked} marked");
}

#[test]
fn no_acked_byte_is_lost_in_20_deaths() {
    kill_many(1000..1020);
}

#[test]
#[ignore = "200 deaths take a minute or two: cargo xtask test --full"]
fn no_acked_byte_is_lost_in_200_deaths() {
    kill_many(0..200);
}
