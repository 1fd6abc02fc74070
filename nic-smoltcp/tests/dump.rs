//! Whole dumps, and whole conversations, through the adapters: at the far end
//! is smoltcp's IP stack, not a thing of ours.

#[path = "../../debugnet-core/examples/warm.rs"]
mod warm;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;

use debugnet_core::addr::MacAddr;
use debugnet_core::dump::{DumpInfo, Outcome, Stability, Verdict};
use debugnet_core::nic::{Nic, NicError, RxError, Start};
use debugnet_core::observer::Blind;
use debugnet_core::time::{Clock, Instant};
use debugnet_core::{Cells, Config, Io, Limits, Memory, Progress, Slot, arm, memory_needed};
use netsim::host::Datagram;
use netsim::ram::{Ram, RamSource, SharedRam};
use netsim::server::{CoreServer, Server as _};
use nic_smoltcp::{NicDevice, PhyNic, TxMemory};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Loopback, Medium, RxToken, TxToken};
use smoltcp::socket::udp;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const HERALD_PORT: u16 = 20_023;

/// A cable: frames on their way to each end.
type Cable = Rc<RefCell<[VecDeque<Vec<u8>>; 2]>>;

/// One end of it as a smoltcp device.
#[derive(Clone)]
struct End {
    cable: Cable,
    side: usize,
    medium: Medium,
}

struct Received(Vec<u8>);
struct Sending(Cable, usize);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0xee; len];
        let result = f(&mut frame);
        self.0.borrow_mut()[1 - self.1].push_back(frame);
        result
    }
}

/// Frames that a direction of the cable holds.
const ROOM: usize = 256;

impl Device for End {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Sending)> {
        let frame = self.cable.borrow_mut()[self.side].pop_front()?;
        Some((Received(frame), Sending(self.cable.clone(), self.side)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Sending> {
        let has_room = self.cable.borrow()[1 - self.side].len() < ROOM;
        has_room.then(|| Sending(self.cable.clone(), self.side))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.medium;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

fn cable() -> (End, End) {
    let cable = Cable::default();
    let end = |side| End { cable: cable.clone(), side, medium: Medium::Ethernet };
    (end(0), end(1))
}

/// smoltcp's IP stack with UDP ports that are opened as they are needed.
struct Stack<D> {
    device: D,
    interface: Interface,
    sockets: SocketSet<'static>,
    ports: BTreeMap<u16, SocketHandle>,
}

impl<D: Device> Stack<D> {
    fn new(mut device: D, mac: MacAddr, ip: Ipv4Addr) -> Self {
        let address = HardwareAddress::Ethernet(EthernetAddress(mac.0));
        let config = smoltcp::iface::Config::new(address);
        let mut interface = Interface::new(config, &mut device, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|list| list.push(IpCidr::new(ip.into(), 24)).unwrap());
        Self { device, interface, sockets: SocketSet::new(vec![]), ports: BTreeMap::new() }
    }

    fn open(&mut self, port: u16) -> SocketHandle {
        *self.ports.entry(port).or_insert_with(|| {
            let buffer =
                || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 1024], vec![0; 2 << 20]);
            let mut socket = udp::Socket::new(buffer(), buffer());
            socket.bind(port).unwrap();
            self.sockets.add(socket)
        })
    }

    fn poll(&mut self, now: Instant) {
        let now = smoltcp::time::Instant::from_micros(now.as_micros() as i64);
        self.interface.poll(now, &mut self.device, &mut self.sockets);
    }

    fn send(&mut self, from_port: u16, to: SocketAddrV4, payload: &[u8]) {
        let handle = self.open(from_port);
        let endpoint = (*to.ip(), to.port());
        self.sockets.get_mut::<udp::Socket<'_>>(handle).send_slice(payload, endpoint).unwrap();
    }

    /// Everything that came, with the port it came to and whence.
    fn take(&mut self) -> Vec<(u16, SocketAddrV4, Vec<u8>)> {
        let mut taken = Vec::new();
        for (port, handle) in &self.ports {
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(*handle);
            while let Ok((payload, meta)) = socket.recv() {
                #[allow(irrefutable_let_patterns, reason = "another crate may switch IPv6 on")]
                let smoltcp::wire::IpAddress::Ipv4(from) = meta.endpoint.addr else { continue };
                taken.push((*port, SocketAddrV4::new(from, meta.endpoint.port), payload.to_vec()));
            }
        }
        taken
    }
}

/// netdumpd's core on a smoltcp stack.
struct Server {
    stack: Stack<End>,
    core: CoreServer,
}

impl Server {
    fn new(end: End) -> Self {
        let mut stack = Stack::new(end, MacAddr([2, 0, 0, 0, 0, 2]), SERVER);
        stack.open(HERALD_PORT);
        Self { stack, core: CoreServer::default() }
    }

    fn poll(&mut self, now: Instant) {
        self.stack.poll(now);
        for (to_port, from, payload) in self.stack.take() {
            self.core.datagram(now, Datagram { from, to_port, payload: &payload });
        }
        if self.core.poll_timeout().is_some_and(|at| at <= now) {
            self.core.handle_timeout(now);
        }
        while let Some(reply) = self.core.poll_reply(now) {
            self.stack.open(reply.from_port);
            self.stack.send(reply.from_port, reply.to, &reply.payload);
        }
        self.stack.poll(now);
    }
}

/// Time that passes by waiting, and lets `world` go on.
struct StepClock<'a> {
    now_us: u64,
    world: &'a mut dyn FnMut(Instant),
}

impl Clock for StepClock<'_> {
    fn now(&mut self) -> Instant {
        Instant::from_micros(self.now_us)
    }

    fn relax(&mut self) {
        self.now_us += 50;
        (self.world)(Instant::from_micros(self.now_us));
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
    ram.add(0, noise(700_000), Stability::Frozen);
    ram.add(0x20_0000, noise(50_001), Stability::Volatile);
    Rc::new(RefCell::new(ram))
}

/// Dumps through `nic` and lets `world` go on in between.
fn dump(nic: &mut dyn Nic, ram: &SharedRam, world: &mut dyn FnMut(Instant)) -> Outcome {
    let config = Config::parse(&format!("server={SERVER} client={CLIENT}")).unwrap();
    let payload_len = usize::from(config.payload_len(u16::MAX));
    let needs = memory_needed(&Limits { payload_len, ..Limits::DEFAULT });
    let mut slots = vec![Slot::EMPTY; needs.slots];
    let (mut index, mut rx) = (vec![0; needs.index], vec![0; needs.rx]);
    let mut cells = vec![0; needs.cell_bytes];
    let cells = Cells { bytes: &mut cells, phys: None };
    let memory = Memory { slots: &mut slots, index: &mut index, cells, rx: &mut rx };
    let mut armed = arm(config, memory).unwrap();
    let mut io = Io {
        clock: &mut StepClock { now_us: 1_000_000, world },
        source: &mut RamSource::new(ram.clone()),
        transform: None,
        info: &DumpInfo::default(),
        observer: &mut Blind,
        progress: &Progress::new(),
    };
    armed.dump(&mut [nic], &mut io)
}

fn assert_identical(server: &Server, ram: &SharedRam, outcome: &Outcome) {
    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
    assert!(outcome.failure.is_none(), "{outcome:?}");
    let (image, finished) = server.core.image().expect("a dump");
    assert!(finished);
    assert!(image == ram.borrow().truth(), "the image differs");
}

fn started<N: Nic>(mut nic: N) -> N {
    let mut clock = StepClock { now_us: 0, world: &mut |_| {} };
    for _ in 0..100_000 {
        if nic.poll_start(&mut clock).unwrap() == Start::Ready {
            return nic;
        }
        clock.relax();
    }
    panic!("the take-over does not end");
}

#[test]
fn a_frame_comes_back_from_smoltcps_loopback() {
    let device = Loopback::new(Medium::Ethernet);
    let mut nic = PhyNic::new(device, CLIENT_MAC).unwrap();
    let frame = |payload| debugnet_core::nic::TxFrame {
        header: &[0xaa; 42],
        payload: debugnet_core::nic::Payload::Bytes(payload),
        checksum: debugnet_core::nic::Checksum::Complete,
    };
    assert!(nic.transmit(&frame(&[1])).is_err(), "not started");
    let mut nic = started(nic);
    let last = nic.transmit(&frame(&[0xbb; 100])).unwrap();
    assert_eq!(nic.transmit(&frame(&[0xcc; 2])), Ok(last.next()));
    assert_eq!(nic.poll_tx(), Ok(last.next()));
    let mut buf = [0; 1514];
    assert_eq!(nic.receive(&mut buf), Ok(Some(142)));
    assert_eq!(buf[..142], [&[0xaa; 42][..], &[0xbb; 100]].concat());
    assert_eq!(nic.receive(&mut buf[..10]), Err(RxError::TooLong { len: 60 }));
    nic.transmit(&frame(&[0xcc; 2])).unwrap();
    assert_eq!(nic.receive(&mut buf), Ok(Some(60)));
    assert_eq!(buf[..60], [&[0xaa; 42][..], &[0xcc; 2], &[0; 16]].concat(), "padded");
    assert_eq!(nic.receive(&mut buf), Ok(None));
    nic.stop().unwrap();
    assert_eq!(nic.receive(&mut buf), Err(RxError::Device(NicError::NotStarted)));
}

#[test]
fn a_device_that_cannot_be_a_nic_is_refused() {
    let (mut end, _) = cable();
    end.medium = Medium::Ip;
    assert!(matches!(PhyNic::new(end, CLIENT_MAC), Err(NicError::Unsupported(_))));
}

#[test]
fn a_dump_through_a_smoltcp_device() {
    let (near, far) = cable();
    let mut server = Server::new(far);
    let mut nic = PhyNic::new(near, CLIENT_MAC).unwrap();
    let ram = ram();
    let outcome = dump(&mut nic, &ram, &mut |now| server.poll(now));
    assert_identical(&server, &ram, &outcome);
}

/// A live driver's ring of the plainest kind: buffers, an index each way.
struct PlainRing {
    wire: End,
    buffers: [[u8; 1514]; 8],
    /// Free-running: submitted, seen by the device, reported back.
    submitted: Vec<usize>,
    at_device: usize,
    reaped: usize,
    interrupts_on: bool,
}

impl warm::Ring for PlainRing {
    fn mac(&self) -> [u8; 6] {
        CLIENT_MAC.0
    }
    fn slots(&self) -> u16 {
        8
    }
    fn mask_interrupts(&mut self) {
        self.interrupts_on = false;
    }
    fn link_is_up(&mut self) -> bool {
        true
    }
    fn tx_buffer(&mut self) -> Option<&mut [u8]> {
        let is_full = self.submitted.len() - self.reaped == 8;
        (!is_full).then(|| &mut self.buffers[self.submitted.len() % 8][..])
    }
    fn tx_submit(&mut self, len: usize) {
        self.submitted.push(len);
    }
    /// The device sends all of it; what is sent is reported by `tx_reap`.
    fn doorbell(&mut self) {
        while let Some(len) = self.submitted.get(self.at_device) {
            let token = Sending(self.wire.cable.clone(), self.wire.side);
            let buffer = &self.buffers[self.at_device % 8][..*len];
            token.consume(*len, |frame| frame.copy_from_slice(buffer));
            self.at_device += 1;
        }
    }
    fn tx_reap(&mut self) -> u64 {
        let back = self.at_device - self.reaped;
        self.reaped = self.at_device;
        back as u64
    }
    fn rx_take(&mut self, into: &mut [u8]) -> Option<usize> {
        let (Received(frame), _) = self.wire.receive(smoltcp::time::Instant::ZERO)?;
        into.get_mut(..frame.len())?.copy_from_slice(&frame);
        Some(frame.len())
    }
}

#[test]
fn a_dump_through_a_live_driver_with_frames_of_the_kernels_in_flight() {
    use warm::Ring as _;
    let (near, far) = cable();
    let mut server = Server::new(far);
    let mut ring = PlainRing {
        wire: near,
        buffers: [[0; 1514]; 8],
        submitted: Vec::new(),
        at_device: 0,
        reaped: 0,
        interrupts_on: true,
    };
    for _ in 0..3 {
        ring.tx_buffer().unwrap()[..60].fill(0x11);
        ring.tx_submit(60);
    }
    let mut nic = warm::Warm::new(ring, 3);
    let ram = ram();
    let outcome = dump(&mut nic, &ram, &mut |now| server.poll(now));
    assert_identical(&server, &ram, &outcome);
    assert!(!nic.ring.interrupts_on);
}

/// Two datagrams of each length there and back between a smoltcp stack over `driver`
/// and one that owns the other end; `pump` is the device between driver and cable.
fn echo<N: Nic>(nic: N, memory: Option<TxMemory>, mut pump: impl FnMut(&Cable)) {
    let mac = nic.capabilities().mac;
    let (mut frame, mut rx) = ([0; 1514], [0; 1514]);
    let device: NicDevice<'_, N, 4> = NicDevice::new(nic, &mut frame, &mut rx, memory).unwrap();
    let (_, far) = cable();
    let cable = far.cable.clone();
    let mut near = Stack::new(device, mac, CLIENT);
    let mut far = Stack::new(far, MacAddr([2, 0, 0, 0, 0, 2]), SERVER);
    near.open(7000);
    far.open(7);
    let mut now_us = 1_000;
    for len in [0, 1, 60, 75, 500, 1472, 1471] {
        let payload = vec![len as u8 ^ 0x5a; len];
        let mut back = 0;
        for _ in 0..2 {
            near.send(7000, SocketAddrV4::new(SERVER, 7), &payload);
        }
        for _ in 0..2_000 {
            now_us += 1_000;
            let now = Instant::from_micros(now_us);
            near.poll(now);
            pump(&cable);
            far.poll(now);
            for (port, from, payload) in far.take() {
                far.send(port, from, &payload);
            }
            far.poll(now);
            pump(&cable);
            for (.., answer) in near.take() {
                assert_eq!(answer, payload);
                back += 1;
            }
            if back == 2 {
                break;
            }
        }
        assert_eq!(back, 2, "answers of {len} bytes");
    }
    assert_eq!(near.device.dropped(), 0);
}

#[test]
fn a_whole_ip_stack_on_the_virtio_driver() {
    use nic_virtio::fake::{Bus, FakeVirtio, Quirks, TX};
    use nic_virtio::{Sizes, fake};
    for bus in Bus::ALL {
        let device = FakeVirtio::with_sizes(Quirks::on(bus), Sizes::ANY);
        let nic = started(device.driver_with(nic_hal::Identity::new(), Sizes::ANY));
        let (region, phys) = device.payload_memory();
        echo(nic, Some(TxMemory { region, phys }), |cable| {
            for (head, _, frame) in device.fetch_frames() {
                cable.borrow_mut()[1].push_back(frame);
                device.push_used(TX, head.into(), 0);
            }
            let mut cable = cable.borrow_mut();
            while cable[0].front().is_some_and(|frame| device.deliver(frame)) {
                cable[0].pop_front();
            }
        });
        assert_eq!(device.violations(), Vec::<String>::new());
        let _: Option<fake::Chain> = device.fetch(TX);
    }
}

#[test]
fn a_whole_ip_stack_on_the_intel_driver() {
    use nic_e1000::fake::{FakeIntel, Quirks};
    for part in [0x100e, 0x10d3, 0x10c9] {
        let device = FakeIntel::new(part, Quirks::default());
        let mut nic = device.driver();
        let mut clock = device.clock();
        while nic.poll_start(&mut clock).unwrap() != Start::Ready {
            clock.relax();
        }
        // QEMU's e1000 receives nothing for a second.
        device.pass_us(1_100_000);
        let (region, phys) = device.payload_memory();
        echo(nic, Some(TxMemory { region, phys }), |cable| {
            cable.borrow_mut()[1].extend(device.take_frames());
            let mut cable = cable.borrow_mut();
            while cable[0].front().is_some_and(|frame| device.deliver(frame)) {
                cable[0].pop_front();
            }
        });
        assert_eq!(device.violations(), Vec::<String>::new());
    }
}

#[test]
fn a_device_without_memory_to_send_from_is_refused() {
    let device = nic_e1000::fake::FakeIntel::new(0x100e, nic_e1000::fake::Quirks::default());
    let (mut frame, mut rx) = ([0; 1514], [0; 1514]);
    let without: Result<NicDevice<'_, _, 4>, _> =
        NicDevice::new(device.driver(), &mut frame, &mut rx, None);
    assert!(matches!(without, Err(NicError::Memory { have: 0, .. })));
    let short: Result<NicDevice<'_, _, 4>, _> =
        NicDevice::new(device.driver(), &mut frame[1..], &mut rx, None);
    assert!(matches!(short, Err(NicError::Memory { need: 1514, have: 1513 })));
}
