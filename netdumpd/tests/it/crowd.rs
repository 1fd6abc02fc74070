//! A thousand clients at once.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use debugnet_core::wire::debugnet::{FINISHED, HERALD, VMCORE};

use crate::daemon::Daemon;
use crate::support::{message, pattern, skip};

const CLIENTS: usize = 1000;
const IMAGE_LEN: usize = 1 << 20;
const PAYLOAD_LEN: usize = 16_384;
/// Messages in flight, for each client.
const WINDOW: usize = 4;
/// Without an ack for so long, a client sends again what is in flight.
const PATIENCE: Duration = Duration::from_secs(10);
/// A machine that takes longer has hung.
const LIMIT: Duration = Duration::from_secs(400);

/// What the server may use: 64 MiB of payload that waits, 2 MiB of buffers,
/// 64 KiB for each session, and 32 MiB for the program.
const MEMORY_MAX_KIB: u64 = (64 + 2 + 32) * 1024 + CLIENTS as u64 * 64;

struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    number: usize,
    /// The next number to send; the herald's is 1.
    next: u32,
    flight: VecDeque<u32>,
    heard: Instant,
}

impl Client {
    fn ip(n: usize) -> String {
        format!("127.1.{}.{}", n / 250, n % 250 + 1)
    }

    fn new(n: usize, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Self::ip(n), 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let heard = Instant::now();
        Self { socket, server, number: n, next: 1, flight: VecDeque::new(), heard }
    }

    const LAST: u32 = (IMAGE_LEN / PAYLOAD_LEN) as u32 + 2;

    fn send(&self, seqno: u32, image: &[u8]) {
        let datagram = match seqno {
            1 => message(HERALD, seqno, 0, b""),
            Self::LAST => message(FINISHED, seqno, 0, b""),
            _ => {
                let at = (seqno as usize - 2) * PAYLOAD_LEN;
                let payload = &image_of(self.number, image)[at..at + PAYLOAD_LEN];
                message(VMCORE, seqno, at as u64, payload)
            }
        };
        // What the system does not take is sent again.
        let _ = self.socket.send_to(&datagram, self.server);
    }

    /// One turn; whether all is acked.
    fn turn(&mut self, image: &[u8]) -> bool {
        let mut ack = [0; 8];
        loop {
            match self.socket.recv_from(&mut ack) {
                Ok((4, from)) => {
                    let seqno = u32::from_be_bytes([ack[0], ack[1], ack[2], ack[3]]);
                    // The first ack teaches the port, as in every client.
                    if seqno == 1 && self.flight.front() == Some(&1) {
                        self.server = from;
                    }
                    self.flight.retain(|sent| *sent != seqno);
                    self.heard = Instant::now();
                }
                Ok((len, _)) => panic!("an ack of {len} bytes"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        if self.heard.elapsed() > PATIENCE {
            self.heard = Instant::now();
            self.flight.iter().for_each(|seqno| self.send(*seqno, image));
        }
        // Herald and FINISHED go alone.
        while self.next <= Self::LAST
            && self.flight.len() < WINDOW
            && (self.flight.is_empty() || self.next != Self::LAST)
            && self.flight.front() != Some(&1)
        {
            self.send(self.next, image);
            self.flight.push_back(self.next);
            self.next += 1;
        }
        self.next > Self::LAST && self.flight.is_empty()
    }
}

/// Each client's own: one byte further into the pattern than the last one's.
fn image_of(n: usize, pattern: &[u8]) -> &[u8] {
    &pattern[n..n + IMAGE_LEN]
}

#[test]
fn a_thousand_clients_of_one_mib() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    if maximum.is_some_and(|most| most < 6 * CLIENTS as u64) {
        return skip("a thousand clients", &format!("no more than {maximum:?} descriptors"));
    }
    let Some(dir) = scratch() else {
        return skip(
            "a thousand clients",
            "less than 2 GiB free in /dev/shm and for temporary files",
        );
    };
    let more = ["--max-heralds-per-second", "100000", "--linger", "1"];
    let mut daemon = Daemon::start(dir.path(), &more);
    let process = PathBuf::from(format!("/proc/{}", daemon.child.id()));
    let descriptors = || std::fs::read_dir(process.join("fd")).unwrap().count();
    let before = descriptors();
    let image = pattern(IMAGE_LEN + CLIENTS);
    let mut clients: Vec<_> = (0..CLIENTS).map(|n| Client::new(n, daemon.address)).collect();
    let address = daemon.address;
    // Its events have to be read all the time.
    let (sender, results) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for _ in 0..CLIENTS {
            sender.send(daemon.event("finished")["result"].clone()).unwrap();
        }
        daemon
    });
    let end = Instant::now() + LIMIT;
    let mut running: Vec<_> = clients.iter_mut().collect();
    while !running.is_empty() {
        assert!(Instant::now() < end, "{} clients of {address} are not served", running.len());
        running.retain_mut(|client| !client.turn(&image));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(results.iter().take(CLIENTS).all(|result| result == "complete"));
    let daemon = reader.join().unwrap();
    let peak = status(&process, "VmHWM:");
    println!("peak memory of the server: {peak} KiB");
    assert!(peak <= MEMORY_MAX_KIB, "{peak} KiB, more than {MEMORY_MAX_KIB}");
    for n in 0..CLIENTS {
        let vmcore = std::fs::read(dir.path().join(format!("vmcore.{}.0", Client::ip(n)))).unwrap();
        assert!(vmcore == image_of(n, &image), "{n}");
    }
    // Sessions linger for a second; afterwards nothing of them is left.
    while descriptors() > before {
        assert!(Instant::now() < end, "{} descriptors, {before} before", descriptors());
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(daemon);
}

/// In memory, if the system has a place for that: a thousand times fsync is a disk's test.
fn scratch() -> Option<tempfile::TempDir> {
    let places = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
    let has_room = |place: &PathBuf| {
        rustix::fs::statvfs(place).is_ok_and(|found| found.f_bavail * found.f_frsize >= 2 << 30)
    };
    places.iter().find(|place| has_room(place)).map(|place| tempfile::tempdir_in(place).unwrap())
}

/// A number of a process' status.
pub(crate) fn status(process: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(process.join("status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
