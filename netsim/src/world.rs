//! A client machine, a wire and a server in virtual time.
//!
//! Nothing waits: time jumps to the next event. The client runs the real
//! [`Armed::dump`](debugnet_core::Armed::dump) loop; its clock's `relax` is
//! what lets the world go on.

use std::cell::RefCell;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use debugnet_core::addr::{MacAddr, PhysAddr};
use debugnet_core::dump::{DumpInfo, DumpSource, Outcome, Transform, Verdict};
use debugnet_core::observer::{Blind, Observer};
use debugnet_core::pool::Cells;
use debugnet_core::time::{Clock, Instant};
use debugnet_core::wire::debugnet::NETDUMP_CLIENT_PORT;
use debugnet_core::{Config, Io, Limits, Memory, Progress, Slot, arm, memory_needed};

use crate::host::{Host, Input};
use crate::link::Link;
use crate::nic::{CellWindow, Device, NicConfig, SharedDevice, SimNic};
use crate::pcap::Capture;
use crate::ram::{RamSource, SharedRam};
use crate::server::Server;
use crate::witness::{Listener, Witness};

/// The server's address in every simulated world.
pub const SERVER_IP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The client's.
pub const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The gateway's, where there is one.
pub const GATEWAY_IP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 254);
/// Where devices see the cells.
const CELLS_PHYS: u64 = 0x4000_0000_0000;

/// Everything but the client.
pub struct World<S: Server + 'static> {
    now: Instant,
    /// Client to server.
    pub up: Link,
    /// Server to client.
    pub down: Link,
    device: Option<SharedDevice>,
    /// When the device has put its last frame on the line, in nanoseconds.
    device_free_ns: u64,
    /// The server's host.
    pub host: Host,
    /// What runs on it.
    pub server: S,
    capture: Option<Capture<Box<dyn Write>>>,
    /// Done at these instants, earliest last.
    schedule: Vec<(Instant, Change<S>)>,
    /// Events handled; a run that never ends shows here.
    events: u64,
    /// What passed on the wire, unless time is precious (a release build is for measuring).
    witness: Option<Witness>,
    /// Address and port of the client whose acks count, and the server they count from.
    ends: ((Ipv4Addr, u16), Ipv4Addr),
}

/// Something that happens to the world at a set time.
pub type Change<S> = Box<dyn FnOnce(&mut World<S>)>;

/// Preamble, FCS and gap of a frame, in bytes.
const LINE_OVERHEAD_LEN: u64 = 24;

/// Events after which a run is taken to be endless.
const EVENTS_MAX: u64 = 400_000_000;

impl<S: Server + 'static> World<S> {
    /// A wire with this server at its end.
    pub fn new(up: Link, down: Link, server: S) -> Self {
        Self {
            now: Instant::from_micros(1_000_000),
            up,
            down,
            device: None,
            device_free_ns: 0,
            host: Host::new(MacAddr([2, 0, 0, 0, 0, 2]), SERVER_IP),
            server,
            capture: None,
            schedule: Vec::new(),
            events: 0,
            witness: None,
            ends: ((CLIENT_IP, NETDUMP_CLIENT_PORT), SERVER_IP),
        }
    }

    /// Records every frame that arrives, at either end.
    pub fn record(&mut self, capture: Capture<Box<dyn Write>>) {
        self.capture = Some(capture);
    }

    /// The recording, if there is one, finished.
    pub fn take_capture(&mut self) -> Option<Capture<Box<dyn Write>>> {
        self.capture.take()
    }

    /// Lets `change` happen at `at`.
    pub fn at(&mut self, at: Instant, change: Change<S>) {
        self.schedule.push((at, change));
        self.schedule.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    }

    /// A client of this configuration is about to dump.
    fn begin(&mut self, config: &Config) {
        if let Some(target) = config.targets.first()
            && let (Some(IpAddr::V4(client)), IpAddr::V4(server)) = (target.client, target.server)
        {
            self.ends = ((client, target.client_port), server);
            self.witness = cfg!(debug_assertions).then(Witness::default);
        }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Plugs a device into the wire, or none.
    pub fn device_is(&mut self, device: Option<SharedDevice>) {
        self.device = device;
    }

    /// The client's device.
    pub fn device(&self) -> Option<&SharedDevice> {
        self.device.as_ref()
    }

    fn next_event(&self) -> Option<Instant> {
        let has_backlog = self.device.as_ref().is_some_and(|d| d.borrow().backlog() != 0);
        let free_at = Instant::from_micros(self.device_free_ns / 1000);
        [
            has_backlog.then(|| free_at.max(self.now)),
            self.up.next_delivery(),
            self.down.next_delivery(),
            self.server.poll_timeout(),
            self.schedule.last().map(|(at, _)| *at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn log(&mut self, at: Instant, frame: &[u8]) {
        if let Some(capture) = &mut self.capture {
            capture.frame(at, frame).expect("the capture can be written");
        }
    }

    /// Moves what the device has kicked onto the wire, no faster than the line takes it.
    fn drain_device(&mut self) {
        let Some(device) = self.device.clone() else { return };
        let now_ns = self.now.as_micros() * 1000;
        while self.device_free_ns < now_ns + 1000 {
            let Some(frame) = device.borrow_mut().take_frame() else { return };
            let bits = (frame.len() as u64 + LINE_OVERHEAD_LEN) * 8;
            let line_ns = match self.up.config().rate_bps {
                0 => 0,
                rate_bps => (bits * 1_000_000_000).div_ceil(rate_bps),
            };
            self.device_free_ns = self.device_free_ns.max(now_ns) + line_ns;
            if let Some(witness) = &mut self.witness {
                witness.sent(&frame);
            }
            self.up.send(self.now, &frame);
        }
    }

    fn drain_server(&mut self) {
        while let Some(reply) = self.server.poll_reply(self.now) {
            if let Some(frame) = self.host.datagram(reply.from_port, reply.to, &reply.payload) {
                self.down.send(self.now, &frame);
            }
        }
    }

    /// Lets the world run until `until`, or to the next frame for the client if that is sooner.
    pub fn advance(&mut self, until: Instant) {
        loop {
            self.events += 1;
            self.drain_device();
            assert!(self.events < EVENTS_MAX, "the run does not end");
            let next = self.next_event().unwrap_or(Instant::NEVER);
            if next > until {
                self.now = self.now.max(until);
                return;
            }
            self.now = self.now.max(next);
            if self.schedule.last().is_some_and(|(at, _)| *at <= self.now)
                && let Some((_, change)) = self.schedule.pop()
            {
                change(self);
            }
            while let Some(frame) = self.up.deliver(self.now) {
                self.log(frame.at, &frame.bytes);
                match self.host.receive(&frame.bytes) {
                    Input::Dropped => {}
                    Input::Reply(reply) => self.down.send(self.now, &reply),
                    Input::Datagram(datagram) => self.server.datagram(self.now, datagram),
                }
                self.up.recycle(frame);
                self.drain_server();
            }
            if self.server.poll_timeout().is_some_and(|at| at <= self.now) {
                self.server.handle_timeout(self.now);
                self.drain_server();
            }
            let mut received = false;
            while let Some(frame) = self.down.deliver(self.now) {
                self.log(frame.at, &frame.bytes);
                if let Some(witness) = &mut self.witness {
                    let (client, server) = self.ends;
                    witness.delivered(&frame.bytes, client, server);
                }
                if let Some(device) = &self.device {
                    device.borrow_mut().deliver(frame.bytes);
                }
                received = true;
            }
            if received {
                return;
            }
        }
    }
}

/// The client's clock: steps of a given size, and time passes in `relax`.
pub struct SimClock<S: Server + 'static> {
    world: Rc<RefCell<World<S>>>,
    step_us: u64,
    idle_us: u64,
}

impl<S: Server + 'static> SimClock<S> {
    /// A clock that shows multiples of `step_us`; one `relax` lasts `idle_us`
    /// at most, less if a frame comes.
    pub fn new(world: Rc<RefCell<World<S>>>, step_us: u64, idle_us: u64) -> Self {
        Self { world, step_us, idle_us }
    }
}

impl<S: Server + 'static> SimClock<S> {
    /// Lets the world run until `until`, or to the next frame for the client.
    pub fn advance(&mut self, until: Instant) {
        self.world.borrow_mut().advance(until);
    }
}

impl<S: Server + 'static> Clock for SimClock<S> {
    fn now(&mut self) -> Instant {
        let now = self.world.borrow().now.as_micros();
        Instant::from_micros(now - now % self.step_us)
    }

    fn relax(&mut self) {
        let mut world = self.world.borrow_mut();
        let until = world.now.after(self.idle_us);
        world.advance(until);
    }
}

/// The client machine.
pub struct Machine {
    /// Its RAM.
    pub ram: SharedRam,
    /// Its NIC.
    pub nic: NicConfig,
    /// Its configuration.
    pub config: Config,
    /// Sizes of the library's memory.
    pub limits: Limits,
    /// What its clock shows multiples of, in microseconds.
    pub clock_step_us: u64,
    /// Longest wait of its clock's `relax`, in microseconds.
    pub idle_us: u64,
    /// Cells have a physical address.
    pub cells_reachable: bool,
}

impl Machine {
    /// A machine with this RAM, everything else at its default: microsecond
    /// clock, 1024 slots, 64 cells, DMA without checksum offload.
    pub fn new(ram: SharedRam) -> Self {
        let text = format!("server={SERVER_IP} client={CLIENT_IP}");
        Self {
            ram,
            nic: NicConfig::default(),
            config: Config::parse(&text).expect("a sound configuration"),
            limits: Limits::DEFAULT,
            clock_step_us: 1,
            idle_us: 20,
            cells_reachable: true,
        }
    }

    /// Dies, and dumps into the world. Returns what the client believes.
    pub fn crash<S: Server + 'static>(&self, world: &Rc<RefCell<World<S>>>) -> Outcome {
        self.crash_with(world, None, &mut Blind, &DumpInfo::default())
    }

    /// As [`Machine::crash`], with a transform, an observer and the machine's facts.
    pub fn crash_with<S: Server + 'static>(
        &self,
        world: &Rc<RefCell<World<S>>>,
        transform: Option<&mut dyn Transform>,
        observer: &mut dyn Observer,
        info: &DumpInfo<'_>,
    ) -> Outcome {
        let mut source = RamSource::new(self.ram.clone());
        let is_plain = transform.is_none();
        let before = self.ram.borrow().truth();
        let outcome = self.crash_from(world, &mut source, transform, observer, info);
        if outcome.verdict == Verdict::Confirmed && outcome.not_sent.is_empty() && is_plain {
            // The worst of all failures.
            let world = world.borrow();
            let (image, is_finished) = world.server.image().expect("an image, as is claimed");
            assert!(is_finished, "the server does not have it: {outcome:?}");
            let truth = self.ram.borrow().truth();
            assert!(image == truth || before != truth, "not the same image: {outcome:?}");
        }
        outcome
    }

    /// As [`Machine::crash_with`], with an image other than RAM at its physical address.
    pub fn crash_from<S: Server + 'static>(
        &self,
        world: &Rc<RefCell<World<S>>>,
        source: &mut dyn DumpSource,
        transform: Option<&mut dyn Transform>,
        observer: &mut dyn Observer,
        info: &DumpInfo<'_>,
    ) -> Outcome {
        let payload_len = usize::from(self.config.payload_len(u16::MAX));
        let needs = memory_needed(&Limits { payload_len, ..self.limits });
        let mut slots = vec![Slot::EMPTY; needs.slots];
        let mut index = vec![0; needs.index];
        let mut cells = vec![0u8; needs.cell_bytes];
        let mut rx = vec![0; needs.rx];
        // SAFETY: `cells` outlives the device, which is dropped from the world
        // below, before this function returns.
        let window = unsafe { CellWindow::new(cells.as_ptr(), cells.len(), PhysAddr(CELLS_PHYS)) };
        let device = Device::new(self.nic, self.ram.clone(), Some(window));
        world.borrow_mut().device = Some(device.clone());
        let memory = Memory {
            slots: &mut slots,
            index: &mut index,
            cells: Cells {
                bytes: &mut cells,
                phys: self.cells_reachable.then_some(PhysAddr(CELLS_PHYS)),
            },
            rx: &mut rx,
        };
        let mut armed = arm(self.config.clone(), memory).expect("sound limits");
        let idle_us = self.clock_step_us.max(self.idle_us);
        let mut clock = SimClock::new(world.clone(), self.clock_step_us, idle_us);
        let mut nic = SimNic::new(device);
        let progress = Progress::new();
        let mut observer = Listener::new(observer, &progress);
        world.borrow_mut().begin(&self.config);
        let mut io = Io {
            clock: &mut clock,
            source,
            transform: match transform {
                Some(transform) => Some(transform),
                None => None,
            },
            info,
            observer: &mut observer,
            progress: &progress,
        };
        let outcome = armed.dump(&mut [&mut nic], &mut io);
        observer.judge(&outcome);
        // What is still on the wire arrives; the server's linger is not waited for.
        let mut world = world.borrow_mut();
        let settle = world.now.after(200_000);
        while world.now < settle {
            world.advance(settle);
        }
        world.device = None;
        if let Some(witness) = world.witness.take() {
            witness.judge(&outcome);
        }
        outcome
    }
}
