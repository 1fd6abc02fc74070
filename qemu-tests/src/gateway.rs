//! The wire between QEMU and the real server: a [`netsim::link::Link`] each
//! way, driven in real time, with the [far end](crate::far_end) behind it.
//!
//! ```text
//!  QEMU  -- unix datagrams, one frame each -->  up link  -->  far end  -- UDP -->  netdumpd
//!        <--         backlog (bounded)     <-- down link <--           <-- UDP --
//! ```
//!
//! One thread polls both sockets. It never blocks on QEMU: what QEMU's socket
//! does not take waits in a bounded backlog, and what does not fit there is a
//! counted drop, so that a guest that is not reading cannot stop a guest that
//! is writing. The capture shows the guest's end of the link: frames before
//! the up link's losses and after the down link's.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use debugnet_core::time::Instant;
use netsim::link::{Counters, Frame, Link, LinkConfig};
use netsim::pcap::Capture;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::far_end::{Action, CLIENT_PORT, FarEnd, HERALD_PORT, Network};
use crate::frame::{self, Received};
use crate::traffic::{Tracker, Traffic};

/// What a gateway connects, and how badly.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Unix datagram socket of our end; must not exist yet.
    pub host_path: PathBuf,
    /// QEMU's end; it appears when QEMU starts.
    pub guest_path: PathBuf,
    /// Addresses on the guest's link.
    pub network: Network,
    /// Loopback address that the guest's datagrams come from, port 20024.
    pub relay_ip: Ipv4Addr,
    /// Where the real server listens for heralds.
    pub herald: SocketAddrV4,
    /// What each direction of the link does.
    pub link: LinkConfig,
    /// Seed of the link.
    pub seed: u64,
    /// Capture file, if one is wanted.
    pub pcap: Option<PathBuf>,
    /// Broadcast frames a second sent to the guest, 0 for none; see [`Gateway::set_noise`].
    pub noise_per_s: u32,
}

/// Counts of a gateway so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Guest to server.
    pub up: Counters,
    /// Server to guest, noise included.
    pub down: Counters,
    /// Frames that QEMU's full socket did not take.
    pub socket_full: u64,
    /// Frames that arrived at the far end broken: bad checksum or length.
    pub malformed: u64,
    /// Datagrams to ports that the server had not opened, or from strangers.
    pub unroutable: u64,
    /// Datagrams that the relay socket refused.
    pub relay_errors: u64,
    /// Datagrams of the guest without a UDP checksum.
    pub unsummed: u64,
    /// Noise frames offered.
    pub noise: u64,
    /// Frames that were not written to the capture because it was full or failed.
    pub uncaptured: u64,
    /// The dump as seen at the guest's end.
    pub traffic: Traffic,
}

impl Stats {
    /// Frames lost on the way to the server.
    pub const fn drops_up(&self) -> u64 {
        self.up.dropped()
    }

    /// Frames lost on the way to the guest.
    pub const fn drops_down(&self) -> u64 {
        self.down.dropped() + self.socket_full
    }
}

/// A running gateway. It stops when it is dropped.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    link_up: AtomicBool,
    noise_per_s: AtomicU32,
    stats: Mutex<Stats>,
}

/// Frames that wait for QEMU's socket. The kernel's own queue for unix
/// datagrams may be as short as 10, less than one burst of acks.
const BACKLOG_MAX: usize = 512;
/// Frames handled in one go from one socket, so that the other has its turn.
const BATCH: usize = 64;
/// Largest datagram a socket can give, with room to spare.
const BUFFER_LEN: usize = 70_000;
/// Longest sleep: how late a stop or a change is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(10);
/// Captured bytes at most: a long run must not fill the disk.
const CAPTURE_MAX: u64 = 2 << 30;

impl Gateway {
    /// Binds both sockets and starts the thread.
    ///
    /// # Errors
    /// A socket or the capture file cannot be made.
    pub fn start(config: GatewayConfig) -> io::Result<Self> {
        let guest = UnixDatagram::bind(&config.host_path)?;
        guest.set_nonblocking(true)?;
        let relay = UdpSocket::bind(SocketAddrV4::new(config.relay_ip, CLIENT_PORT))?;
        relay.set_nonblocking(true)?;
        // A burst of acks must find room; what the system grants is enough.
        rustix::net::sockopt::set_socket_recv_buffer_size(&relay, 4 << 20)?;
        let capture = config.pcap.as_deref().map(Capture::create).transpose()?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            link_up: AtomicBool::new(true),
            noise_per_s: AtomicU32::new(config.noise_per_s),
            stats: Mutex::default(),
        });
        let (up, down) = Link::pair(&config.link, config.seed);
        let pump = Pump {
            start: std::time::Instant::now(),
            shared: Arc::clone(&shared),
            far_end: FarEnd::new(config.network, config.herald),
            network: config.network,
            guest_path: config.guest_path,
            connected: false,
            guest,
            relay,
            up,
            down,
            backlog: VecDeque::new(),
            tracker: Tracker::default(),
            capture,
            captured_len: 0,
            next_noise: Instant::ZERO,
            stats: Stats::default(),
            scratch: Vec::new(),
        };
        let thread =
            std::thread::Builder::new().name("gateway".into()).spawn(move || pump.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The counts, at most a few milliseconds old.
    pub fn stats(&self) -> Stats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends `per_s` broadcast frames a second to the guest from now on.
    pub fn set_noise(&self, per_s: u32) {
        self.shared.noise_per_s.store(per_s, Ordering::Relaxed);
    }

    /// Cuts the link in both directions, or joins it again.
    pub fn set_link_up(&self, up: bool) {
        self.shared.link_up.store(up, Ordering::Relaxed);
    }

    /// Stops the thread, closes the capture, and gives the final counts.
    ///
    /// # Errors
    /// What made the thread end early, or what the capture file said.
    pub fn finish(mut self) -> io::Result<Stats> {
        self.join()?;
        Ok(self.stats())
    }

    fn join(&mut self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the gateway's thread panicked")),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // `finish` has taken the thread, or nobody wants to know.
        let _ = self.join();
    }
}

/// What the thread owns.
struct Pump {
    start: std::time::Instant,
    shared: Arc<Shared>,
    far_end: FarEnd,
    network: Network,
    guest_path: PathBuf,
    connected: bool,
    guest: UnixDatagram,
    relay: UdpSocket,
    up: Link,
    down: Link,
    backlog: VecDeque<Frame>,
    tracker: Tracker,
    capture: Option<Capture<io::BufWriter<std::fs::File>>>,
    captured_len: u64,
    next_noise: Instant,
    stats: Stats,
    scratch: Vec<u8>,
}

impl Pump {
    fn run(mut self) -> io::Result<()> {
        let mut buf = vec![0; BUFFER_LEN];
        while !self.shared.stop.load(Ordering::Relaxed) {
            let link_up = self.shared.link_up.load(Ordering::Relaxed);
            self.up.set_up(link_up);
            self.down.set_up(link_up);
            let more = self.read_guest(&mut buf)? | self.read_server(&mut buf)?;
            self.noise();
            self.at_far_end();
            self.at_guest();
            self.drain_backlog()?;
            self.publish();
            if !more {
                self.sleep()?;
            }
        }
        if let Some(capture) = self.capture.take() {
            capture.finish()?;
        }
        self.publish();
        Ok(())
    }

    fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Frames from QEMU go into the up link. `true` if there may be more.
    fn read_guest(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        for _ in 0..BATCH {
            let Some(len) = ready(self.guest.recv(buf))? else { return Ok(false) };
            let now = self.now();
            self.capture(now, &buf[..len]);
            if let Received::Udp(datagram) = frame::parse(&buf[..len])
                && datagram.from_port == CLIENT_PORT
            {
                self.tracker.guest_sent(now, datagram.payload);
            }
            self.up.send(now, &buf[..len]);
        }
        Ok(true)
    }

    /// Datagrams of the server become frames on the down link.
    fn read_server(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        for _ in 0..BATCH {
            let Some((len, from)) = ready(self.relay.recv_from(buf))? else { return Ok(false) };
            let now = self.now();
            match from {
                SocketAddr::V4(from) if self.far_end.wrap(from, &buf[..len], &mut self.scratch) => {
                    self.down.send(now, &self.scratch);
                }
                _ => self.stats.unroutable += 1,
            }
        }
        Ok(true)
    }

    /// Frames that have crossed the up link reach the far end.
    fn at_far_end(&mut self) {
        let now = self.now();
        while let Some(frame) = self.up.deliver(now) {
            match self.far_end.handle(&frame.bytes, &mut self.scratch) {
                Action::Reply => self.down.send(now, &self.scratch),
                Action::Relay { to, payload } => {
                    if self.relay.send_to(payload, to).is_err() {
                        self.stats.relay_errors += 1;
                    }
                }
                Action::Ignore => {}
                Action::NoSession => self.stats.unroutable += 1,
                Action::Malformed => self.stats.malformed += 1,
            }
            self.up.recycle(frame);
        }
    }

    /// Frames that have crossed the down link queue for QEMU's socket.
    fn at_guest(&mut self) {
        let now = self.now();
        while let Some(frame) = self.down.deliver(now) {
            if self.backlog.len() < BACKLOG_MAX {
                self.backlog.push_back(frame);
            } else {
                self.stats.socket_full += 1;
                self.down.recycle(frame);
            }
        }
    }

    fn drain_backlog(&mut self) -> io::Result<()> {
        if !self.connected && !self.backlog.is_empty() {
            self.connected = self.guest.connect(&self.guest_path).is_ok();
        }
        while self.connected
            && let Some(frame) = self.backlog.pop_front()
        {
            match self.guest.send(&frame.bytes) {
                Ok(_) => {
                    let now = self.now();
                    self.capture(now, &frame.bytes);
                    if let Received::Udp(datagram) = frame::parse(&frame.bytes)
                        && datagram.from_port != HERALD_PORT
                    {
                        self.tracker.guest_received(now, datagram.payload);
                    }
                    self.down.recycle(frame);
                }
                Err(error) if is_full(&error) => {
                    self.backlog.push_front(frame);
                    break;
                }
                // QEMU has gone, or is not there yet: as a cable without an end.
                Err(_) => {
                    self.stats.socket_full += 1;
                    self.connected = false;
                }
            }
        }
        Ok(())
    }

    fn noise(&mut self) {
        let per_s = self.shared.noise_per_s.load(Ordering::Relaxed);
        let now = self.now();
        if per_s == 0 || now < self.next_noise {
            return;
        }
        // What was missed while asleep is not made up for.
        self.next_noise = now.after(1_000_000 / u64::from(per_s));
        let fill = self.stats.noise as u8;
        let len = 46 + (self.stats.noise * 97 % 1455) as usize;
        frame::build_noise(&mut self.scratch, self.network.gateway.mac, len, fill);
        self.stats.noise += 1;
        self.down.send(now, &self.scratch);
    }

    fn capture(&mut self, at: Instant, frame: &[u8]) {
        let Some(capture) = &mut self.capture else { return };
        let len = 16 + frame.len() as u64;
        if self.captured_len + len > CAPTURE_MAX || capture.frame(at, frame).is_err() {
            self.stats.uncaptured += 1;
        } else {
            self.captured_len += len;
        }
    }

    fn publish(&mut self) {
        self.stats.up = self.up.counters();
        self.stats.down = self.down.counters();
        self.stats.unsummed = self.far_end.unsummed();
        self.stats.traffic = self.tracker.traffic();
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.stats;
    }

    /// Sleeps until a socket is ready or a frame is due.
    fn sleep(&self) -> io::Result<()> {
        let now = self.now();
        let wait_us = [self.up.next_delivery(), self.down.next_delivery()]
            .into_iter()
            .flatten()
            .chain((self.shared.noise_per_s.load(Ordering::Relaxed) > 0).then_some(self.next_noise))
            .map(|due| due.since_us(now))
            .min()
            .unwrap_or(u64::MAX);
        let wait = Duration::from_micros(wait_us).min(SLEEP_MAX);
        let Ok(timeout) = Timespec::try_from(wait) else { return Ok(()) };
        let guest_events = if self.connected && !self.backlog.is_empty() {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        };
        let mut fds =
            [PollFd::new(&self.guest, guest_events), PollFd::new(&self.relay, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// `None` when a socket has nothing (more) to give. An error that a datagram
/// socket reports for an earlier datagram ends nothing either.
fn ready<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset => Ok(None),
            _ => Err(error),
        },
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}

/// A loopback address on which nobody holds the client's port: derived from
/// the process and `salt`, so that runs beside each other do not meet.
///
/// # Errors
/// None of 64 candidates is free.
pub fn free_loopback(salt: u32) -> io::Result<Ipv4Addr> {
    let mut rng = netsim::rng::Rng::stream(u64::from(std::process::id()), u64::from(salt));
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..64 {
        let [a, b, c, ..] = rng.next_u64().to_be_bytes();
        let ip = Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254));
        match UdpSocket::bind((ip, CLIENT_PORT)) {
            Ok(_) => return Ok(ip),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Both paths of a gateway's unix sockets in `dir`: ours, then QEMU's.
pub fn socket_paths(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("wire.host"), dir.join("wire.guest"))
}

#[cfg(test)]
mod tests;
