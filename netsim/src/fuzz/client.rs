//! Frames of any kind into a dump, with smoltcp as the judge of what each one was worth.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;

use debugnet_core::addr::PhysAddr;
use debugnet_core::dump::{DumpInfo, Outcome, Stability, Verdict};
use debugnet_core::nic::{ChecksumOffload, PayloadKind};
use debugnet_core::observer::{Event, Observer};
use debugnet_core::pool::Cells;
use debugnet_core::time::{Clock, Instant};
use debugnet_core::wire::debugnet::{FINISHED, MessageHeader, NETDUMP_CLIENT_PORT, VMCORE};
use debugnet_core::{Armed, Config, Io, Limits, Memory, Progress, Slot, Step, arm, memory_needed};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use super::Input;
use crate::nic::{CellWindow, Device, NicConfig, SharedDevice, SimNic};
use crate::ram::{Ram, RamSource};
use crate::world::{CLIENT_IP, SERVER_IP};

const SERVER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);
const CLIENT_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const SESSION_PORT: u16 = 4000;
const CELLS_PHYS: u64 = 0x4000_0000_0000;
const RAM_LEN: usize = 12 << 10;
/// What the clock moves by at least, once the story is over.
const TICK_US: u64 = 5_000;
/// Steps of a dump: more than a story has, and than fit in the deadline after it.
const STEPS_MAX: u32 = 20_000;
/// Microseconds that the dump may last, as configured.
const DEADLINE_US: u64 = 60_000_000;

/// A clock that is moved from outside.
struct Hand(Rc<Cell<u64>>);

impl Clock for Hand {
    fn now(&mut self) -> Instant {
        Instant::from_micros(self.0.get())
    }

    fn relax(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// What the client says meanwhile.
#[derive(Default)]
struct Ears {
    finished: Option<Verdict>,
    done: u64,
}

impl Observer for Ears {
    fn event(&mut self, _: Instant, event: &Event) {
        assert!(self.finished.is_none(), "{event:?} after the end");
        match *event {
            Event::Progress { done, total, .. } => {
                assert!(self.done <= done && done <= total, "{event:?} after {}", self.done);
                self.done = done;
            }
            Event::Finished(verdict) => self.finished = Some(verdict),
            _ => {}
        }
    }
}

/// A message that was on the wire.
#[derive(Clone, Copy, Debug)]
struct Sent {
    kind: u32,
    len: u32,
    /// A frame that may count as its ack was delivered.
    is_acked: bool,
}

/// The wire, and what may be concluded from what passed on it.
struct Wire {
    device: SharedDevice,
    now: Rc<Cell<u64>>,
    sent: BTreeMap<u32, Sent>,
    port: u16,
}

impl Wire {
    /// Takes what the client sent: each frame is sound.
    fn drain(&mut self) {
        while let Some(frame) = take(&self.device) {
            let ethernet = EthernetFrame::new_checked(&frame[..]).expect("an Ethernet frame");
            assert_eq!(ethernet.src_addr(), CLIENT_MAC);
            if ethernet.ethertype() == EthernetProtocol::Arp {
                let packet = ArpPacket::new_checked(ethernet.payload()).expect("an ARP packet");
                ArpRepr::parse(&packet).expect("ARP for IPv4");
                continue;
            }
            let ip = Ipv4Packet::new_checked(ethernet.payload()).expect("an IPv4 packet");
            assert!(ip.verify_checksum() && ip.src_addr() == CLIENT_IP);
            let udp = UdpPacket::new_checked(ip.payload()).expect("a UDP datagram");
            assert!(
                udp.verify_checksum(&CLIENT_IP.into(), &SERVER_IP.into()) && udp.checksum() != 0
            );
            let (header, _) = MessageHeader::parse(udp.payload()).expect("a message");
            self.sent.entry(header.seqno.get()).or_insert(Sent {
                kind: header.kind.get(),
                len: header.len.get(),
                is_acked: false,
            });
        }
    }

    /// Delivers a frame to the client; notes what it may take for an ack.
    fn deliver(&mut self, frame: &[u8]) {
        if let Some(seqno) = acks(frame)
            && let Some(sent) = self.sent.get_mut(&seqno)
        {
            sent.is_acked = true;
        }
        self.device.borrow_mut().deliver(frame.to_vec());
    }
}

fn take(device: &SharedDevice) -> Option<Vec<u8>> {
    device.borrow_mut().take_frame()
}

/// The number in a sound datagram of four bytes from the server to the client.
fn acks(frame: &[u8]) -> Option<u32> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.dst_addr() != CLIENT_MAC || ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    let is_ours = ip.src_addr() == SERVER_IP && ip.dst_addr() == CLIENT_IP;
    let is_whole = !ip.more_frags() && ip.frag_offset() == 0;
    if !is_ours || !is_whole || !ip.verify_checksum() || ip.next_header() != IpProtocol::Udp {
        return None;
    }
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    let sums = udp.verify_checksum(&SERVER_IP.into(), &CLIENT_IP.into());
    if !sums || udp.dst_port() != NETDUMP_CLIENT_PORT {
        return None;
    }
    Some(u32::from_be_bytes(udp.payload().try_into().ok()?))
}

fn ethernet(protocol: EthernetProtocol, len: usize, emit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let repr = EthernetRepr { src_addr: SERVER_MAC, dst_addr: CLIENT_MAC, ethertype: protocol };
    let mut bytes = vec![0; (14 + len).max(60)];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    repr.emit(&mut frame);
    emit(&mut frame.payload_mut()[..len]);
    bytes
}

fn arp_reply(sender: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: SERVER_MAC,
        source_protocol_addr: sender,
        target_hardware_addr: CLIENT_MAC,
        target_protocol_addr: CLIENT_IP,
    };
    ethernet(EthernetProtocol::Arp, repr.buffer_len(), |bytes| {
        repr.emit(&mut ArpPacket::new_unchecked(bytes));
    })
}

fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: port, dst_port: NETDUMP_CLIENT_PORT };
    let ip = Ipv4Repr {
        src_addr: SERVER_IP,
        dst_addr: CLIENT_IP,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    let sums = ChecksumCapabilities::default();
    ethernet(EthernetProtocol::Ipv4, ip.buffer_len() + ip.payload_len, |bytes| {
        let mut packet = Ipv4Packet::new_unchecked(bytes);
        ip.emit(&mut packet, &sums);
        udp.emit(
            &mut UdpPacket::new_unchecked(packet.payload_mut()),
            &SERVER_IP.into(),
            &CLIENT_IP.into(),
            payload.len(),
            |room| room.copy_from_slice(payload),
            &sums,
        );
    })
}

/// Up to three bytes of a frame changed, its end cut off or drawn out.
fn bent(mut frame: Vec<u8>, input: &mut Input<'_>) -> Vec<u8> {
    let how = input.byte().unwrap_or(0);
    for _ in 0..how & 3 {
        let (at, value) = (input.byte().unwrap_or(0), input.byte().unwrap_or(0));
        let at = usize::from(at) % frame.len();
        frame[at] = value;
    }
    if how & 4 > 0 {
        frame.resize(usize::from(input.byte().unwrap_or(60)), 0xa5);
    }
    frame
}

/// Runs the story of these bytes.
///
/// # Panics
/// A promise of the client is broken.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let how = input.byte().unwrap_or(0);
    let mut ram = Ram::new();
    let bytes: Vec<u8> =
        (0..RAM_LEN).map(|i| if i / 4096 == 1 { 0 } else { i as u8 | 1 }).collect();
    ram.add(0, bytes[..RAM_LEN - 512].to_vec(), Stability::Frozen);
    ram.add((RAM_LEN - 512) as u64, bytes[RAM_LEN - 512..].to_vec(), Stability::Volatile);
    let ram = Rc::new(RefCell::new(ram));
    let nic = NicConfig {
        tx_slots: [64, 3, 16, 1][usize::from(how & 3)],
        payload: if how & 4 > 0 { PayloadKind::Bytes } else { PayloadKind::Dma },
        checksum: if how & 8 > 0 { ChecksumOffload::Insert } else { ChecksumOffload::None },
        start_steps: 0,
        ..NicConfig::default()
    };
    let text = format!("server={SERVER_IP} client={CLIENT_IP} gateway=10.99.0.254 deadline=60");
    let config = Config::parse(&text).expect("a sound configuration");
    let payload_len = config.payload_len(1500).into();
    let cells_count = if how & 16 > 0 { 1 } else { 4 };
    let needs = memory_needed(&Limits { payload_len, slots: 16, cells: cells_count });
    let (mut slots, mut index) = (vec![Slot::EMPTY; needs.slots], vec![0; needs.index]);
    let (mut cells, mut rx) = (vec![0u8; needs.cell_bytes], vec![0; needs.rx]);
    // SAFETY: `cells` lives to the end of this function, and the device does not leave it.
    let window = unsafe { CellWindow::new(cells.as_ptr(), cells.len(), PhysAddr(CELLS_PHYS)) };
    let device = Device::new(nic, ram.clone(), Some(window));
    let memory = Memory {
        slots: &mut slots,
        index: &mut index,
        cells: Cells { bytes: &mut cells, phys: Some(PhysAddr(CELLS_PHYS)) },
        rx: &mut rx,
    };
    let mut armed = arm(config, memory).expect("sound limits");
    let now = Rc::new(Cell::new(1_000_000));
    let mut wire = Wire { device: device.clone(), now, sent: BTreeMap::new(), port: SESSION_PORT };
    let mut source = RamSource::new(ram);
    let (outcome, ears) = dump(&mut armed, &mut source, &mut wire, &mut input);
    wire.drain();
    judge(&outcome, &ears, &wire);
}

fn dump(
    armed: &mut Armed<'_>,
    source: &mut RamSource,
    wire: &mut Wire,
    input: &mut Input<'_>,
) -> (Outcome, Ears) {
    let mut nic = SimNic::new(wire.device.clone());
    let mut ears = Ears::default();
    let mut clock = Hand(wire.now.clone());
    let progress = Progress::new();
    let mut dump = armed.begin(0);
    for _ in 0..STEPS_MAX {
        let mut io = Io {
            clock: &mut clock,
            source,
            transform: None,
            info: &DumpInfo::default(),
            observer: &mut ears,
            progress: &progress,
        };
        let until = match dump.poll(&mut nic, &mut io) {
            Step::Done(outcome) => {
                assert_eq!(progress.acked_bytes() >> 12, outcome.acked_bytes >> 12);
                return (outcome, ears);
            }
            Step::Again { until } => until.as_micros(),
        };
        wire.drain();
        if !tell(input, wire) {
            // Silence to the end, by a coarse clock.
            wire.now.set(until.max(wire.now.get() + TICK_US));
        }
    }
    panic!("the dump does not end");
}

/// Lets the next thing happen. `false` when the story is over.
fn tell(input: &mut Input<'_>, wire: &mut Wire) -> bool {
    let Some(what) = input.byte() else { return false };
    match what % 8 {
        0 => wire.now.set(wire.now.get() + (1 << (input.byte().unwrap_or(0) % 24))),
        1 => {
            let len = input.word().unwrap_or(0) % 1600;
            let frame = input.bytes(len.into()).to_vec();
            wire.deliver(&frame);
        }
        2 => wire.deliver(&arp_reply(SERVER_IP)),
        3 => wire.deliver(&bent(arp_reply(SERVER_IP), input)),
        // An ack of what was sent and not answered.
        4 | 5 => {
            let nth = usize::from(input.byte().unwrap_or(0) % 32);
            let waiting: Vec<u32> =
                wire.sent.iter().filter(|(_, s)| !s.is_acked).map(|(n, _)| *n).collect();
            let seqno = waiting.get(nth % waiting.len().max(1)).copied().unwrap_or(nth as u32);
            let frame = datagram(wire.port, &seqno.to_be_bytes());
            let frame = if what % 8 == 5 { bent(frame, input) } else { frame };
            wire.deliver(&frame);
        }
        // Everything that was sent is acknowledged.
        6 => {
            let waiting: Vec<u32> =
                wire.sent.iter().filter(|(_, s)| !s.is_acked).map(|(n, _)| *n).collect();
            for seqno in waiting {
                wire.deliver(&datagram(wire.port, &seqno.to_be_bytes()));
            }
        }
        _ => {
            let len = usize::from(input.byte().unwrap_or(0));
            let frame = datagram(wire.port, input.bytes(len));
            wire.deliver(&bent(frame, input));
        }
    }
    true
}

/// What the client says is what was on the wire.
fn judge(outcome: &Outcome, ears: &Ears, wire: &Wire) {
    assert_eq!(ears.finished, Some(outcome.verdict), "the observer was told something else");
    assert!(outcome.nic_stopped && outcome.elapsed_us <= DEADLINE_US + (1 << 24), "{outcome:?}");
    let data = |is_acked: bool| {
        let messages =
            wire.sent.values().filter(|sent| sent.kind == VMCORE && sent.is_acked >= is_acked);
        messages.map(|sent| u64::from(sent.len)).sum::<u64>()
    };
    assert!(outcome.acked_bytes <= data(true), "{} acked of {}", outcome.acked_bytes, data(true));
    assert!(outcome.sent_bytes >= data(false), "{} on the wire: {outcome:?}", data(false));
    let missing = outcome.holes.bytes() + outcome.not_sent.bytes() + outcome.zero_bytes;
    match outcome.verdict {
        Verdict::Confirmed => {
            assert!(wire.sent.values().all(|sent| sent.is_acked), "{outcome:?}, {:?}", wire.sent);
            assert_eq!(wire.sent.values().last().map(|sent| sent.kind), Some(FINISHED));
            assert!(outcome.holes.is_empty() && outcome.failure.is_none());
        }
        Verdict::Unconfirmed => {
            let others = wire.sent.values().filter(|sent| sent.kind != FINISHED);
            assert!(others.clone().all(|sent| sent.is_acked) && outcome.holes.is_empty());
        }
        _ => assert!(outcome.failure.is_some() && !outcome.is_complete(), "{outcome:?}"),
    }
    assert_eq!(outcome.acked_bytes + missing, outcome.dump_bytes, "{outcome:?}");
    assert_eq!(outcome.dump_bytes, RAM_LEN as u64);
}
