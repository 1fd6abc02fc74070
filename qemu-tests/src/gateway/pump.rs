//! The gateway's thread: one loop over two sockets and two links.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use debugnet_core::time::Instant;
use netsim::link::{Frame, Link};
use netsim::pcap::Capture;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::answerer::Answerer;
use super::relay::Relay;
use super::wire::{Sent, Wire};
use super::{GatewayConfig, Shared, Stats};
use crate::far_end::{Action, CLIENT_PORT, FarEnd, HERALD_PORT, Network};
use crate::frame::{self, Datagram, Received};
use crate::live::Census;
use crate::traffic::{self, Tracker};

/// Frames that wait for QEMU's socket. The kernel's own queue for unix
/// datagrams may be as short as 10, less than one burst of acks.
const BACKLOG_MAX: usize = 512;
/// Frames handled in one go from one socket, so that the other has its turn.
const BATCH: usize = 64;
/// Largest datagram a socket can give, with room to spare.
const BUFFER_LEN: usize = 70_000;
/// Longest sleep: how late a stop or a change is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(10);
/// How long it stays awake with nothing to do: less than what a thread in a virtual machine
/// may need to be woken up, which would be a part of every round trip. Others go first.
const AWAKE_US: u64 = 200;
/// Longest time that the guest's frames are left where they are.
const HOLD_MAX_MS: u16 = 1000;
/// Captured bytes at most: a long run must not fill the disk.
const CAPTURE_MAX: u64 = 2 << 30;

/// The two ends that the thread reads, already bound and not blocking.
pub(super) struct Sockets {
    pub(super) guest: Wire,
    pub(super) relay: Relay,
    pub(super) answerer: Answerer,
}

/// What the thread owns.
pub(super) struct Pump {
    start: std::time::Instant,
    shared: Arc<Shared>,
    far_end: FarEnd,
    network: Network,
    guest: Wire,
    relay: Relay,
    answerer: Answerer,
    up: Link,
    down: Link,
    backlog: VecDeque<Frame>,
    tracker: Tracker,
    live: Census,
    /// Until when the guest's frames are left where they are.
    held_until: Instant,
    decoys: bool,
    capture: Option<Capture<BufWriter<File>>>,
    captured_len: u64,
    next_noise: Instant,
    stats: Stats,
    scratch: Vec<u8>,
}

impl Pump {
    /// A loop that has not begun; the link's time starts now.
    pub(super) fn new(
        config: GatewayConfig,
        sockets: Sockets,
        capture: Option<Capture<BufWriter<File>>>,
        shared: Arc<Shared>,
    ) -> Self {
        let (up, down) = Link::pair(&config.link, config.seed);
        Self {
            start: std::time::Instant::now(),
            shared,
            far_end: FarEnd::new(config.network, config.herald),
            network: config.network,
            guest: sockets.guest,
            relay: sockets.relay,
            answerer: sockets.answerer,
            up,
            down,
            backlog: VecDeque::new(),
            tracker: Tracker::default(),
            live: Census::default(),
            held_until: Instant::ZERO,
            decoys: config.decoys,
            capture,
            captured_len: 0,
            next_noise: Instant::ZERO,
            stats: Stats::default(),
            scratch: Vec::new(),
        }
    }

    /// Runs until it is told to stop.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut buf = vec![0; BUFFER_LEN];
        let mut last = self.now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let link_up = self.shared.link_up.load(Ordering::Relaxed);
            self.up.set_up(link_up);
            self.down.set_up(link_up);
            let any = self.read_guest(&mut buf)? | self.read_server()?;
            self.noise();
            self.at_far_end();
            self.at_guest();
            self.drain_backlog();
            self.publish();
            if any {
                last = self.now();
            } else if self.now().since_us(last) < AWAKE_US {
                std::thread::yield_now();
            } else {
                self.sleep()?;
                last = self.now();
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

    /// Frames from QEMU go into the up link. `true` if there were any.
    fn read_guest(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        for n in 0..BATCH {
            if self.is_held() {
                return Ok(n > 0);
            }
            let Some(len) = self.guest.receive(buf)? else { return Ok(n > 0) };
            let now = self.now();
            self.capture(now, &buf[..len]);
            match frame::parse(&buf[..len]) {
                Received::Udp(datagram) if datagram.from_port == CLIENT_PORT => {
                    self.tracker.guest_sent(now, datagram.payload);
                    self.decoy(now, datagram);
                }
                Received::Live(live) => self.live.saw(&live),
                _ => {}
            }
            self.up.send(now, &buf[..len]);
        }
        Ok(true)
    }

    fn is_held(&self) -> bool {
        self.now() < self.held_until
            || self.tracker.traffic().data_bytes >= self.shared.hold_at.load(Ordering::Relaxed)
    }

    /// Shows the guest an ack of one message in sixteen that is not for it.
    fn decoy(&mut self, now: Instant, datagram: Datagram<'_>) {
        let Some(seqno) = traffic::data_seqno(datagram.payload).filter(|_| self.decoys) else {
            return;
        };
        if seqno.is_multiple_of(16)
            && self.far_end.decoy(datagram.to_port, seqno, &mut self.scratch)
        {
            self.stats.decoys += 1;
            self.down.send(now, &self.scratch);
        }
    }

    /// Datagrams of the server become frames on the down link. `true` if there were any.
    fn read_server(&mut self) -> io::Result<bool> {
        let now = self.now();
        let Self { relay, answerer, far_end, down, scratch, stats, .. } = self;
        relay.receive(|from, datagram| {
            if from == answerer.address() {
                down.send(now, datagram);
            } else if far_end.wrap(from, datagram, scratch) {
                down.send(now, scratch);
            } else {
                stats.unroutable += 1;
            }
        })
    }

    /// Frames that have crossed the up link reach the far end.
    fn at_far_end(&mut self) {
        let now = self.now();
        while let Some(frame) = self.up.deliver(now) {
            match self.far_end.handle(&frame.bytes, &mut self.scratch) {
                Action::Reply => self.down.send(now, &self.scratch),
                Action::Relay { to, payload } => self.relay.queue(to, payload),
                Action::Answer => self.relay.queue(self.answerer.address(), &frame.bytes),
                Action::Hold(ms) => {
                    self.held_until = now.after(u64::from(ms.min(HOLD_MAX_MS)) * 1000);
                }
                Action::Ignore => {}
                Action::NoSession => self.stats.unroutable += 1,
                Action::Malformed => self.stats.malformed += 1,
            }
            self.up.recycle(frame);
        }
        self.relay.flush();
        self.stats.relay_errors = self.relay.errors();
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

    fn drain_backlog(&mut self) {
        while let Some(frame) = self.backlog.pop_front() {
            match self.guest.send(&frame.bytes) {
                Sent::Yes => {
                    let now = self.now();
                    self.capture(now, &frame.bytes);
                    if let Received::Udp(datagram) = frame::parse(&frame.bytes)
                        && datagram.from_port != HERALD_PORT
                    {
                        self.tracker.guest_received(now, datagram.payload);
                    }
                    self.down.recycle(frame);
                }
                Sent::Full => {
                    self.backlog.push_front(frame);
                    break;
                }
                Sent::Nobody => self.stats.socket_full += 1,
            }
        }
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
        // Also shorter than Ethernet allows, and longer than a receive buffer.
        let len = (self.stats.noise * 97 % 3000) as usize;
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
        self.stats.live = self.live.counts();
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
        let waiting = if self.is_held() { PollFlags::empty() } else { PollFlags::IN };
        let guest_events = if self.guest.is_connected() && !self.backlog.is_empty() {
            waiting | PollFlags::OUT
        } else {
            waiting
        };
        let mut fds = [
            PollFd::from_borrowed_fd(self.guest.fd(), guest_events),
            PollFd::new(&self.relay, PollFlags::IN),
        ];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// `None` when a socket has nothing (more) to give. An error that a datagram
/// socket reports for an earlier datagram ends nothing either.
pub(super) fn ready<T>(result: io::Result<T>) -> io::Result<Option<T>> {
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
