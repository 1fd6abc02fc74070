//! Whole dumps through an Embassy driver that works, and calls on one that lies. At the far end
//! is netdumpd's core behind lossy links, which reads frames with smoltcp.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::task::Context;

use debugnet_core::addr::MacAddr;
use debugnet_core::dump::{DumpInfo, FailureKind, Outcome, Stability, Verdict};
use debugnet_core::nic::{
    Checksum, Link as LinkWord, Nic, NicError, Payload, PayloadKind, RxError, Start, TxError,
    TxFrame,
};
use debugnet_core::observer::Blind;
use debugnet_core::time::{Clock, Instant};
use debugnet_core::{Cells, Config, Io, Limits, Memory, Progress, Slot, arm, memory_needed};
use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use netsim::host::{Host, Input};
use netsim::link::{Link, LinkConfig};
use netsim::ram::{Ram, RamSource, SharedRam};
use netsim::server::{CoreServer, Server as _};
use nic_embassy::EmbassyNic;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// What the driver says or does that it should not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    None,
    /// Its frames are no Ethernet frames.
    NoEthernet,
    /// Its address is a group's.
    GroupAddress,
    /// Its frames are too short for IP.
    ShortFrames,
    /// It never has a buffer.
    NoTxToken,
    /// It has one every third time.
    SeldomTxToken,
    /// Its buffers are a byte shorter, or longer, than was asked for.
    ShortBuffer,
    LongBuffer,
    /// It gives nothing that it received.
    Deaf,
    /// It gives frames of this length in between.
    Receives(usize),
    /// It claims a link that it does not have: nothing it sends arrives.
    LinkClaimed,
    /// It says that it has no link.
    LinkDown,
}

/// The ring of a driver: what it was given to send, and what it received.
struct Rings {
    tx: VecDeque<Vec<u8>>,
    rx: VecDeque<Vec<u8>>,
}

struct Fake {
    rings: Rc<RefCell<Rings>>,
    lie: Lie,
    asked: u32,
}

struct Received(Vec<u8>);
struct Sending {
    rings: Rc<RefCell<Rings>>,
    lie: Lie,
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, f: F) -> R {
        f(&mut self.0)
    }
}

impl TxToken for Sending {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let len = match self.lie {
            Lie::ShortBuffer => len - 1,
            Lie::LongBuffer => len + 1,
            _ => len,
        };
        let mut frame = vec![0xee; len];
        let result = f(&mut frame);
        self.rings.borrow_mut().tx.push_back(frame);
        result
    }
}

/// Frames that the driver holds.
const ROOM: usize = 4;

impl Driver for Fake {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending;

    fn receive(&mut self, _: &mut Context<'_>) -> Option<(Received, Sending)> {
        self.asked += 1;
        let frame = match self.lie {
            Lie::Deaf => return None,
            Lie::Receives(len) if self.asked.is_multiple_of(2) => vec![0xee; len],
            _ => self.rings.borrow_mut().rx.pop_front()?,
        };
        Some((Received(frame), Sending { rings: self.rings.clone(), lie: self.lie }))
    }

    fn transmit(&mut self, context: &mut Context<'_>) -> Option<Sending> {
        // What a driver does with the waker: it must be one that may be kept and called.
        let kept = context.waker().clone();
        kept.wake();
        self.asked += 1;
        let has_room = match self.lie {
            Lie::NoTxToken => false,
            Lie::SeldomTxToken => self.asked.is_multiple_of(3),
            _ => self.rings.borrow().tx.len() < ROOM,
        };
        has_room.then(|| Sending { rings: self.rings.clone(), lie: self.lie })
    }

    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        if self.lie == Lie::LinkDown { LinkState::Down } else { LinkState::Up }
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = if self.lie == Lie::ShortFrames { 81 } else { 1514 };
        capabilities.max_burst_size = Some(ROOM);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        match self.lie {
            Lie::NoEthernet => HardwareAddress::Ip,
            Lie::GroupAddress => HardwareAddress::Ethernet([1, 0, 0x5e, 0, 0, 1]),
            _ => HardwareAddress::Ethernet(CLIENT_MAC),
        }
    }
}

fn fake(lie: Lie) -> (Fake, Rc<RefCell<Rings>>) {
    let rings = Rc::new(RefCell::new(Rings { tx: VecDeque::new(), rx: VecDeque::new() }));
    (Fake { rings: rings.clone(), lie, asked: 0 }, rings)
}

/// Wires, a host and a server, which go on while the client waits.
struct World {
    now_us: u64,
    rings: Rc<RefCell<Rings>>,
    is_cut: bool,
    there: Link,
    back: Link,
    host: Host,
    server: CoreServer,
}

impl World {
    fn step(&mut self, now: Instant) {
        let sent: Vec<_> = self.rings.borrow_mut().tx.drain(..).collect();
        for frame in sent.iter().filter(|_| !self.is_cut) {
            self.there.send(now, frame);
        }
        while let Some(frame) = self.there.deliver(now) {
            match self.host.receive(&frame.bytes) {
                Input::Reply(reply) => self.back.send(now, &reply),
                Input::Datagram(datagram) => self.server.datagram(now, datagram),
                Input::Dropped => {}
            }
        }
        if self.server.poll_timeout().is_some_and(|at| at <= now) {
            self.server.handle_timeout(now);
        }
        while let Some(reply) = self.server.poll_reply(now) {
            let frame = self.host.datagram(reply.from_port, reply.to, &reply.payload);
            self.back.send(now, &frame.expect("a neighbour that spoke before"));
        }
        while let Some(frame) = self.back.deliver(now) {
            self.rings.borrow_mut().rx.push_back(frame.bytes);
        }
    }
}

impl Clock for World {
    fn now(&mut self) -> Instant {
        Instant::from_micros(self.now_us)
    }

    fn relax(&mut self) {
        self.now_us += 20;
        self.step(Instant::from_micros(self.now_us));
    }
}

fn ram() -> SharedRam {
    let mut state = 0x9e37_79b9_u32;
    let mut noise = |len: usize| -> Vec<u8> {
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(len)
        .collect()
    };
    let mut ram = Ram::new();
    ram.add(0, noise(300_000), Stability::Frozen);
    ram.add(0x10_0000, noise(50_001), Stability::Volatile);
    Rc::new(RefCell::new(ram))
}

/// A dump over lines that lose one frame in a hundred, through a driver with this lie.
fn dump(lie: Lie) -> (Outcome, World, SharedRam) {
    let (driver, rings) = fake(lie);
    let mut nic = EmbassyNic::new(driver).unwrap();
    let config = Config::parse(&format!("server={SERVER} client={CLIENT} link-wait=1")).unwrap();
    let needs = memory_needed(&Limits::SMALLEST);
    let mut slots = vec![Slot::EMPTY; needs.slots];
    let (mut index, mut rx) = (vec![0; needs.index], vec![0; needs.rx]);
    let mut cells = vec![0; needs.cell_bytes];
    let cells = Cells { bytes: &mut cells, phys: None };
    let memory = Memory { slots: &mut slots, index: &mut index, cells, rx: &mut rx };
    let mut armed = arm(config, memory).unwrap();
    let line = LinkConfig { loss: 0.01, ..LinkConfig::new(100_000_000, 200) };
    let (there, back) = Link::pair(&line, 7);
    let mut world = World {
        now_us: 1_000_000,
        rings,
        is_cut: lie == Lie::LinkClaimed,
        there,
        back,
        host: Host::new(MacAddr([2, 0, 0, 0, 0, 2]), SERVER),
        server: CoreServer::default(),
    };
    // A driver that sends rubbish is not the client's fault.
    world.host.tolerates_damage = lie != Lie::None;
    let ram = ram();
    let mut io = Io {
        clock: &mut world,
        source: &mut RamSource::new(ram.clone()),
        transform: None,
        info: &DumpInfo::default(),
        observer: &mut Blind,
        progress: &Progress::new(),
    };
    let outcome = armed.dump(&mut [&mut nic], &mut io);
    (outcome, world, ram)
}

fn assert_identical((outcome, world, ram): (Outcome, World, SharedRam)) {
    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
    assert!(outcome.failure.is_none(), "{outcome:?}");
    let (image, finished) = world.server.image().expect("a dump");
    assert!(finished);
    assert!(image == ram.borrow().truth(), "the image differs");
}

#[test]
fn a_dump_over_lines_that_lose() {
    let dumped = dump(Lie::None);
    assert!(dumped.1.there.counters().lost > 0, "the line lost nothing");
    assert_identical(dumped);
}

#[test]
fn a_driver_short_of_buffers_is_waited_for() {
    assert_identical(dump(Lie::SeldomTxToken));
}

#[test]
fn frames_of_any_length_in_between_do_no_harm() {
    for len in [0, 1, 13, 14, 59, 1514, 1515, 1537, 70_000] {
        assert_identical(dump(Lie::Receives(len)));
    }
}

#[test]
fn a_driver_that_does_not_do_its_work_ends_the_dump_with_the_reason() {
    for (lie, expected) in [
        (Lie::NoTxToken, FailureKind::NoNextHop),
        (Lie::Deaf, FailureKind::NoNextHop),
        (Lie::LinkClaimed, FailureKind::NoNextHop),
        (Lie::LinkDown, FailureKind::NoLink),
    ] {
        let (outcome, ..) = dump(lie);
        assert_eq!(outcome.verdict, Verdict::Failed, "{lie:?}");
        assert_eq!(outcome.failure.unwrap().kind, expected, "{lie:?}");
    }
    for lie in [Lie::ShortBuffer, Lie::LongBuffer] {
        let (outcome, ..) = dump(lie);
        let kind = outcome.failure.unwrap().kind;
        assert!(matches!(kind, FailureKind::Nic(NicError::Protocol(_))), "{lie:?}: {kind:?}");
    }
}

#[test]
fn a_driver_that_cannot_be_a_nic_is_refused() {
    for lie in [Lie::NoEthernet, Lie::GroupAddress, Lie::ShortFrames] {
        let refused = EmbassyNic::new(fake(lie).0);
        assert!(matches!(refused, Err(NicError::Unsupported(_))), "{lie:?}");
    }
}

fn start(nic: &mut dyn Nic) {
    struct Still;
    impl Clock for Still {
        fn now(&mut self) -> Instant {
            Instant::ZERO
        }
        fn relax(&mut self) {}
    }
    assert_eq!(nic.poll_start(&mut Still), Ok(Start::Ready));
}

fn frame<'a>(header: &'a [u8], payload: Payload<'a>) -> TxFrame<'a> {
    TxFrame { header, payload, checksum: Checksum::Complete }
}

#[test]
fn frames_go_out_as_they_are_padded_and_no_longer_than_the_driver_takes() {
    let (driver, rings) = fake(Lie::None);
    let mut nic = EmbassyNic::new(driver).unwrap();
    let header = [0xaa; 42];
    let short = frame(&header, Payload::Bytes(&[0xbb; 2]));
    let not_started = NicError::NotStarted;
    assert_eq!(nic.transmit(&short), Err(TxError::Device(not_started)));
    assert_eq!(nic.receive(&mut [0; 1514]), Err(RxError::Device(not_started)));
    start(&mut nic);
    let capabilities = nic.capabilities();
    assert_eq!((capabilities.mac, capabilities.ip_mtu), (MacAddr(CLIENT_MAC), 1500));
    assert_eq!((capabilities.payload, capabilities.tx_slots), (PayloadKind::Bytes, 4));
    assert_eq!(nic.link(), LinkWord::Up);

    let first = nic.transmit(&short).unwrap();
    let bytes = [0xcc; 1514 - 42];
    assert_eq!(nic.transmit(&frame(&header, Payload::Bytes(&bytes))), Ok(first.next()));
    assert_eq!(nic.poll_tx(), Ok(first.next()));
    let long = [0; 1514 - 41];
    let too_long = Err(TxError::TooLong { len: 1515, max: 1514 });
    assert_eq!(nic.transmit(&frame(&header, Payload::Bytes(&long))), too_long);
    let sent: Vec<_> = rings.borrow_mut().tx.drain(..).collect();
    assert_eq!(sent[0], [&[0xaa; 42][..], &[0xbb; 2], &[0; 16]].concat());
    assert_eq!(sent[1], [&header[..], &bytes].concat());
    assert_eq!(sent.len(), 2);

    let fetched = nic.transmit(&frame(&header, Payload::Dma(&[])));
    assert!(matches!(fetched, Err(TxError::Device(NicError::Unsupported(_)))));
    let checksum = Checksum::Insert { start: 34, offset: 6 };
    let summed = nic.transmit(&TxFrame { checksum, ..short });
    assert!(matches!(summed, Err(TxError::Device(NicError::Unsupported(_)))));

    for _ in 0..ROOM {
        nic.transmit(&short).unwrap();
    }
    assert_eq!(nic.transmit(&short), Err(TxError::Full));
}

#[test]
fn frames_come_in_whole_or_not_at_all() {
    let (driver, rings) = fake(Lie::None);
    let mut nic = EmbassyNic::new(driver).unwrap();
    start(&mut nic);
    rings.borrow_mut().rx.extend([vec![1; 60], vec![2; 128], vec![3; 129], vec![]]);
    let mut buf = [0; 128];
    assert_eq!(nic.receive(&mut buf), Ok(Some(60)));
    assert_eq!((buf[59], buf[60]), (1, 0));
    assert_eq!(nic.receive(&mut buf), Ok(Some(128)));
    assert_eq!(nic.receive(&mut buf), Err(RxError::TooLong { len: 129 }));
    assert_eq!(buf, [2; 128], "nothing of what does not fit");
    assert_eq!(nic.receive(&mut buf), Ok(Some(0)));
    assert_eq!(nic.receive(&mut buf), Ok(None));
    nic.stop().unwrap();
    assert_eq!(nic.receive(&mut buf), Err(RxError::Device(NicError::NotStarted)));
}

#[test]
fn a_buffer_of_the_wrong_length_sends_nothing_that_was_in_it() {
    for lie in [Lie::ShortBuffer, Lie::LongBuffer] {
        let (driver, rings) = fake(lie);
        let mut nic = EmbassyNic::new(driver).unwrap();
        start(&mut nic);
        let sent = nic.transmit(&frame(&[0xaa; 42], Payload::Bytes(&[0xbb; 58])));
        assert!(matches!(sent, Err(TxError::Device(NicError::Protocol(_)))), "{lie:?}");
        assert!(rings.borrow().tx[0].iter().all(|byte| *byte == 0), "{lie:?}");
    }
}
