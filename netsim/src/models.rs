//! Models of the stock server's limits and of the stock client, for
//! comparisons in virtual time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::rc::Rc;

use debugnet_core::addr::{MacAddr, PhysAddr, PhysRange};
use debugnet_core::nic::{Checksum, Nic, Payload, PayloadKind, TxFrame};
use debugnet_core::time::{Clock, Instant};
use debugnet_core::wire::debugnet::{
    Ack, FINISHED, HERALD, MessageHeader, NETDUMP_CLIENT_PORT, NETDUMP_HERALD_PORT, VMCORE,
};
use zerocopy::IntoBytes;

use crate::host::{Datagram, Host, Input};
use crate::nic::{Device, NicConfig, SimNic};
use crate::ram::SharedRam;
use crate::server::{Reply, Server};
use crate::world::{CLIENT_IP, SERVER_IP, SimClock, World};

/// How fast a server is.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Packets its socket holds; more are dropped.
    pub socket_packets: usize,
    /// Nanoseconds it takes over one packet.
    pub packet_ns: u64,
}

impl Service {
    /// The stock server on FreeBSD: about 88 packets of 1448 bytes, and about
    /// 170 MB/s one packet at a time.
    pub const STOCK: Self = Self { socket_packets: 88, packet_ns: 1448 * 1000 / 170 };
}

/// A server that writes and acks, and nothing else: as fast as the wire, or
/// with the limits of a [`Service`].
#[derive(Debug)]
pub struct PlainServer {
    service: Option<Service>,
    image: Vec<u8>,
    socket: VecDeque<(SocketAddrV4, u16, Vec<u8>)>,
    busy_until_ns: u64,
    replies: VecDeque<Reply>,
    /// Packets its full socket dropped.
    pub drops: u64,
    finished: bool,
}

const SESSION_PORT: u16 = 40_000;

impl PlainServer {
    /// A server with these limits, or none.
    pub fn new(service: Option<Service>) -> Self {
        Self {
            service,
            image: Vec::new(),
            socket: VecDeque::new(),
            busy_until_ns: 0,
            replies: VecDeque::new(),
            drops: 0,
            finished: false,
        }
    }

    fn handle(&mut self, from: SocketAddrV4, bytes: &[u8]) {
        let Ok((header, payload)) = MessageHeader::parse(bytes) else { return };
        match header.kind.get() {
            VMCORE => {
                let start = header.offset.get() as usize;
                let end = start + payload.len();
                if self.image.len() < end {
                    self.image.resize(end, 0);
                }
                self.image[start..end].copy_from_slice(payload);
            }
            FINISHED => self.finished = true,
            _ => {}
        }
        self.replies.push_back(Reply {
            from_port: SESSION_PORT,
            to: from,
            payload: Ack::new(header.seqno.get()).as_bytes().to_vec(),
        });
    }

    /// Works off what is due by `now`.
    fn work(&mut self, now: Instant) {
        let Some(service) = self.service else { return };
        while !self.socket.is_empty() && self.busy_until_ns <= now.as_micros() * 1000 {
            if let Some((from, _, bytes)) = self.socket.pop_front() {
                self.handle(from, &bytes);
            }
            self.busy_until_ns += service.packet_ns;
        }
    }
}

impl Server for PlainServer {
    fn datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        if ![NETDUMP_HERALD_PORT, SESSION_PORT].contains(&datagram.to_port) {
            return;
        }
        let Some(service) = self.service else {
            return self.handle(datagram.from, datagram.payload);
        };
        self.work(now);
        if self.socket.len() >= service.socket_packets {
            self.drops += 1;
            return;
        }
        if self.socket.is_empty() {
            self.busy_until_ns = self.busy_until_ns.max(now.as_micros() * 1000 + service.packet_ns);
        }
        self.socket.push_back((datagram.from, datagram.to_port, datagram.payload.to_vec()));
    }

    fn poll_reply(&mut self, _: Instant) -> Option<Reply> {
        self.replies.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (!self.socket.is_empty()).then(|| Instant::from_micros(self.busy_until_ns.div_ceil(1000)))
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.work(now);
    }

    fn image(&self) -> Option<(&[u8], bool)> {
        Some((&self.image, self.finished))
    }
}

/// The stock client: 64 KiB at a time, all of it at once, then polls of 500 us
/// until every packet is acked or a second has passed. Its ack bitmap aliases.
#[derive(Clone, Copy, Debug)]
pub struct StockClient {
    /// Payload bytes of a packet.
    pub payload_len: usize,
    /// CPU time it takes over one chunk besides waiting, in microseconds:
    /// copying, checksums, draining the NIC.
    pub chunk_cpu_us: u64,
}

/// What became of a stock client's dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StockOutcome {
    /// Every send was acknowledged, as far as the client could tell.
    pub success: bool,
    /// Packets sent again.
    pub retransmits: u64,
    /// From the first data packet to the last ack.
    pub data_us: u64,
}

const CHUNK_LEN: usize = 65_536;
const POLLS: u32 = 2000;
const POLL_US: u64 = 500;
const RETRIES: u32 = 10;

impl StockClient {
    /// At an MTU of 1500.
    pub const MTU_1500: Self = Self { payload_len: 1448, chunk_cpu_us: 1160 };

    /// Dumps `len` bytes of RAM from address 0.
    pub fn dump<S: Server + 'static>(
        &self,
        world: &Rc<RefCell<World<S>>>,
        ram: &SharedRam,
        len: usize,
    ) -> StockOutcome {
        let config = NicConfig {
            payload: PayloadKind::Bytes,
            tx_slots: 512,
            start_steps: 0,
            ..NicConfig::default()
        };
        let device = Device::new(config, ram.clone(), None);
        world.borrow_mut().device_is(Some(device.clone()));
        let mut run = Run {
            host: Host::new(config.mac, CLIENT_IP),
            nic: SimNic::new(device),
            clock: SimClock::new(world.clone(), 1, POLL_US),
            port: NETDUMP_HERALD_PORT,
            established: false,
            seqno: 1,
            retransmits: 0,
        };
        run.host.meet(SERVER_IP, MacAddr([2, 0, 0, 0, 0, 2]));
        run.host.tolerates_damage = true;
        let outcome = self.run(&mut run, world, ram, len);
        let mut world = world.borrow_mut();
        let settle = world.now().after(200_000);
        while world.now() < settle {
            world.advance(settle);
        }
        world.device_is(None);
        outcome
    }

    fn run<S: Server + 'static>(
        &self,
        run: &mut Run<S>,
        world: &Rc<RefCell<World<S>>>,
        ram: &SharedRam,
        len: usize,
    ) -> StockOutcome {
        let failed = |run: &Run<S>, data_us| StockOutcome {
            success: false,
            retransmits: run.retransmits,
            data_us,
        };
        if run.nic.poll_start(&mut run.clock).is_err() {
            return failed(run, 0);
        }
        // The far end learns our station address from ARP as it would.
        let question = run.host.ask_for(SERVER_IP);
        run.send_frame(&question);
        if !run.reliably(HERALD, 0, &[], self.payload_len) {
            return failed(run, 0);
        }
        let began = world.borrow().now();
        let mut at = 0;
        while at < len {
            let chunk = CHUNK_LEN.min(len - at);
            let bytes = PhysRange::new(PhysAddr(at as u64), chunk as u64)
                .and_then(|range| ram.borrow().dma(range).map(<[u8]>::to_vec))
                .expect("RAM from 0");
            run.wait(self.chunk_cpu_us);
            if !run.reliably(VMCORE, at as u64, &bytes, self.payload_len) {
                let now = world.borrow().now();
                return failed(run, now.since_us(began));
            }
            at += chunk;
        }
        let data_us = world.borrow().now().since_us(began);
        let success = run.reliably(FINISHED, 0, &[], self.payload_len);
        StockOutcome { success, retransmits: run.retransmits, data_us }
    }
}

struct Run<S: Server + 'static> {
    host: Host,
    nic: SimNic,
    clock: SimClock<S>,
    port: u16,
    established: bool,
    seqno: u32,
    retransmits: u64,
}

impl<S: Server + 'static> Run<S> {
    fn send_frame(&mut self, frame: &[u8]) {
        let (header, payload) = frame.split_at(frame.len().min(66));
        let frame =
            TxFrame { header, payload: Payload::Bytes(payload), checksum: Checksum::Complete };
        for _ in 0..10_000 {
            if self.nic.transmit(&frame).is_ok() {
                break;
            }
            self.nic.kick();
            self.clock.relax();
        }
        self.nic.kick();
    }

    /// CPU time passes; frames gather in the NIC.
    fn wait(&mut self, wait_us: u64) {
        let until = self.clock.now().after(wait_us);
        while self.clock.now() < until {
            self.clock.advance(until);
        }
    }

    /// The bit the client's shift of a 32-bit one makes: 31 is sign-extended,
    /// and above it the count is taken modulo 32.
    fn bit(index: usize) -> u64 {
        (1i32.wrapping_shl(index as u32)) as i64 as u64
    }

    fn reliably(&mut self, kind: u32, offset: u64, bytes: &[u8], payload_len: usize) -> bool {
        let pieces: Vec<&[u8]> =
            if bytes.is_empty() { vec![&[]] } else { bytes.chunks(payload_len).collect() };
        let want = (0..pieces.len()).fold(0, |set, i| set | Self::bit(i));
        let mut got = 0u64;
        for retry in 0..=RETRIES + 1 {
            for (i, piece) in pieces.iter().enumerate() {
                if got & Self::bit(i) != 0 && retry != 0 {
                    continue;
                }
                self.retransmits += u64::from(retry != 0);
                self.send_message(kind, i, offset + (i * payload_len) as u64, piece);
            }
            for _ in 0..=POLLS {
                self.receive(pieces.len(), &mut got);
                if got == want {
                    self.seqno += pieces.len() as u32;
                    return true;
                }
                self.wait(POLL_US);
            }
        }
        false
    }

    fn send_message(&mut self, kind: u32, index: usize, offset: u64, payload: &[u8]) {
        let header = MessageHeader {
            kind: kind.into(),
            seqno: (self.seqno + index as u32).into(),
            offset: offset.into(),
            len: (payload.len() as u32).into(),
            aux2: 0.into(),
        };
        let bytes = [header.as_bytes(), payload].concat();
        let to = SocketAddrV4::new(SERVER_IP, self.port);
        let frame = self.host.datagram(NETDUMP_CLIENT_PORT, to, &bytes).expect("a known neighbour");
        self.send_frame(&frame);
    }

    fn receive(&mut self, pieces: usize, got: &mut u64) {
        let mut frame = [0; 1600];
        while let Ok(Some(len)) = self.nic.receive(&mut frame) {
            let Input::Datagram(datagram) = self.host.receive(&frame[..len]) else { continue };
            let Some(ack) = Ack::parse(datagram.payload) else { continue };
            if !self.established {
                self.established = true;
                self.port = datagram.from.port();
            }
            let index = ack.seqno.get().wrapping_sub(self.seqno) as usize;
            if index < pieces.min(64) {
                *got |= Self::bit(index);
            }
        }
    }
}
