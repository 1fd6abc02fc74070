//! What the living kernel sends and receives: frames in every shape a driver
//! has to cope with, and the two rates that a dump is held against.

use core::net::Ipv4Addr;

use debugnet_core::addr::{MacAddr, PhysRange};
use debugnet_core::nic::{Checksum, Nic, NicError, Payload, TxError, TxFrame, TxTicket};
use debugnet_core::time::{Budget, Clock, Instant};
use debugnet_core::wire::arp::{self, ArpPacket};
use debugnet_core::wire::ethernet::{ETHERTYPE_ARP, EthernetHeader};
use guest::live_frame::{self, HEADER_MAX, HEADER_MIN, Header, Kind, MARK};
use guest::memory::Ranges;
use guest::report::Bench;
use heapless::Vec;
use zerocopy::IntoBytes;
use zerocopy::network_endian::U16;

use super::arch;

/// Longest frame the live kernel receives, in bytes.
const RECEIVED_MAX: usize = 1514;
/// Bytes of the smallest Ethernet frame, less its FCS.
const FRAME_MIN: usize = 60;
/// Bytes of an Ethernet header.
const ETHERNET_LEN: u16 = 14;
/// The beginning of the image: code, which does not change between its sum
/// being taken and the device fetching it.
const CODE_LEN: u64 = 32 << 10;
/// Unanswered frames while the echo rate is measured.
const WINDOW: u64 = 64;
/// Payload of a measured frame: what a dump's message carries at an MTU of 1500.
const BENCH_PAYLOAD_LEN: u64 = 1448;
/// Longest wait for one thing to happen, and looks in it.
const PATIENCE_US: u64 = 60_000_000;
const LOOKS_MAX: u32 = u32::MAX;
/// No answer for so long: those that are missing were lost. QEMU's 8254x hears
/// nothing for a second after it was set up.
const SILENCE_US: u64 = 2_000_000;

/// Counts of the live kernel's traffic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Frames that have to arrive, ARP aside.
    pub(super) sent: u64,
    /// Frames received, of any kind.
    pub(super) received: u64,
    /// Those of them that answered.
    pub(super) answers: u64,
}

/// One user of a driver, with its counts.
pub(super) struct Talk<'a, N> {
    pub(super) nic: &'a mut N,
    pub(super) clock: &'a mut dyn Clock,
    pub(super) counts: &'a mut Counts,
}

impl<N: Nic> Talk<'_, N> {
    fn mac(&self) -> MacAddr {
        self.nic.capabilities().mac
    }

    fn patience(&mut self) -> Budget {
        Budget::new(self.clock.now().after(PATIENCE_US), LOOKS_MAX)
    }

    /// Queues one frame with `segments` behind a header of `header_len` bytes.
    fn queue(
        &mut self,
        kind: Kind,
        header_len: usize,
        segments: &[PhysRange],
        hold_ms: u16,
    ) -> Result<TxTicket, TxError> {
        let number = if kind == Kind::Doomed || kind == Kind::Hold { 0 } else { self.counts.sent };
        let header = Header {
            kind,
            number: number as u32,
            header_len: header_len as u16,
            payload_len: segments.iter().map(|range| range.len()).sum::<u64>() as u16,
            sum: sum(segments),
            hold_ms,
        };
        let bytes = header.encode(self.mac());
        self.nic.transmit(&TxFrame {
            header: &bytes[..header_len],
            payload: if segments.is_empty() { Payload::None } else { Payload::Dma(segments) },
            checksum: Checksum::Complete,
        })
    }

    /// Sends one frame that has to arrive.
    fn send(
        &mut self,
        kind: Kind,
        header_len: usize,
        segments: &[PhysRange],
    ) -> Result<(), TxError> {
        self.queue_in_time(kind, header_len, segments, 0)?;
        self.counts.sent += 1;
        Ok(())
    }

    /// Queues a frame, however long the ring is full.
    fn queue_in_time(
        &mut self,
        kind: Kind,
        header_len: usize,
        segments: &[PhysRange],
        hold_ms: u16,
    ) -> Result<TxTicket, TxError> {
        let mut budget = self.patience();
        loop {
            match self.queue(kind, header_len, segments, hold_ms) {
                Err(TxError::Full) if budget.spend(self.clock.now()) => {
                    self.nic.kick();
                    self.nic.poll_tx().map_err(TxError::Device)?;
                    self.receive()?;
                    self.clock.relax();
                }
                result => return result,
            }
        }
    }

    /// Takes every frame that is there.
    fn receive(&mut self) -> Result<(), TxError> {
        let mut frame = [0; RECEIVED_MAX];
        loop {
            match self.nic.receive(&mut frame) {
                Ok(Some(len)) => {
                    self.counts.received += 1;
                    let answer = frame.get(..len).and_then(live_frame::answer);
                    self.counts.answers += u64::from(answer.is_some());
                }
                Ok(None) => return Ok(()),
                // A frame too long or in pieces: the network's, not ours.
                Err(debugnet_core::nic::RxError::Device(error)) => {
                    return Err(TxError::Device(error));
                }
                Err(_) => self.counts.received += 1,
            }
        }
    }

    /// Waits until every frame has left the device.
    pub(super) fn drain(&mut self, last: TxTicket) -> Result<(), TxError> {
        let mut budget = self.patience();
        while self.nic.poll_tx().map_err(TxError::Device)? < last {
            if !budget.spend(self.clock.now()) {
                return Err(TxError::Device(NicError::Timeout("live transmit")));
            }
            self.receive()?;
            self.clock.relax();
        }
        Ok(())
    }

    /// ARP requests for the server, four of them; their padding bears the mark.
    pub(super) fn ask(&mut self, client: Ipv4Addr, server: Ipv4Addr) -> Result<(), TxError> {
        const QUESTIONS: u64 = 4;
        let question = question(self.mac(), client, server);
        for _ in 0..QUESTIONS {
            let frame =
                TxFrame { header: &question, payload: Payload::None, checksum: Checksum::Complete };
            self.nic.transmit(&frame)?;
            self.nic.kick();
        }
        let end = self.clock.now().after(SILENCE_US);
        let mut budget = Budget::new(end, LOOKS_MAX);
        while self.counts.received < QUESTIONS && budget.spend(self.clock.now()) {
            self.receive()?;
            self.clock.relax();
        }
        Ok(())
    }

    /// Sends `count` frames of every shape in batches of every size, every
    /// second one to be answered, so that both rings go round.
    pub(super) fn work(&mut self, count: u64, pads: bool) -> Result<(), TxError> {
        let part = |at: u64, len: u64| arch::image().split_at(at % CODE_LEN).1.split_at(len).0;
        let whole = self.nic.capabilities().ip_mtu + ETHERNET_LEN;
        for number in 0..count {
            let kind = if number % 2 == 0 { Kind::Plain } else { Kind::Ask };
            let at = number * 1000;
            // Not every driver fills up what is too short for Ethernet.
            let short = if pads { HEADER_MIN } else { FRAME_MIN };
            match number % 7 {
                0 => self.send(kind, short, &[])?,
                1 => self.send(kind, FRAME_MIN, &[part(at, 1)])?,
                2 => self.send(kind, HEADER_MAX, &[part(at, 1000), part(at + 5000, 77)])?,
                3 => self.send(kind, HEADER_MAX, &[PhysRange::EMPTY, part(at, 100)])?,
                4 => self.send(kind, HEADER_MAX, &[part(at, 101), PhysRange::EMPTY])?,
                5 => {
                    self.send(kind, HEADER_MAX, &[part(at, u64::from(whole) - HEADER_MAX as u64)])?
                }
                _ => self.send(kind, HEADER_MIN, &[part(at | 1, 24)])?,
            }
            // Batches of 1, 2, 3 and so on.
            if number % 9 >= number / 9 % 9 {
                self.nic.kick();
                self.nic.poll_tx().map_err(TxError::Device)?;
                self.receive()?;
            }
        }
        self.nic.kick();
        let (mut answers, mut heard_at) = (self.counts.answers, self.clock.now());
        while self.counts.answers < count / 2 && self.clock.now().since_us(heard_at) < SILENCE_US {
            self.nic.poll_tx().map_err(TxError::Device)?;
            self.receive()?;
            if self.counts.answers != answers {
                (answers, heard_at) = (self.counts.answers, self.clock.now());
            }
            self.clock.relax();
        }
        Ok(())
    }

    /// Queues `count` frames that need not arrive. Stops early at a full ring. The last ticket.
    pub(super) fn doom(&mut self, count: u64) -> TxTicket {
        let payload = [arch::image().split_at(1000).0];
        let mut last = TxTicket::NONE;
        for _ in 0..count {
            // Full, or the device is in no state to be given anything: that is the point.
            let Ok(ticket) = self.queue(Kind::Doomed, HEADER_MAX, &payload, 0) else { break };
            last = ticket;
        }
        last
    }

    /// Asks the network to take nothing for `hold_ms`, and fills the ring until
    /// it does not move any more. The last ticket.
    pub(super) fn get_stuck(&mut self, hold_ms: u16) -> Result<TxTicket, TxError> {
        let mut last = self.queue_in_time(Kind::Hold, FRAME_MIN, &[], hold_ms)?;
        self.nic.kick();
        self.drain(last)?;
        let end = self.clock.now().after(u64::from(hold_ms) * 250);
        let mut budget = Budget::new(end, LOOKS_MAX);
        while budget.spend(self.clock.now()) {
            last = last.max(self.doom(u64::MAX));
            self.nic.kick();
            self.nic.poll_tx().map_err(TxError::Device)?;
            self.clock.relax();
        }
        Ok(last)
    }

    /// Measures both rates over `mib` MiB each of `ram`, which does not change.
    pub(super) fn measure(&mut self, mib: u64, ram: &Ranges) -> Result<Bench, TxError> {
        let total = (mib << 20) / BENCH_PAYLOAD_LEN;
        let mut bench = Bench { frame_len: 0, payload_len: BENCH_PAYLOAD_LEN, ..Bench::default() };
        bench.frame_len = BENCH_PAYLOAD_LEN + HEADER_MAX as u64;

        let begin = self.clock.now();
        bench.echo_frames = self.exchange(total, WINDOW, ram, Kind::Ask)?;
        bench.echo_us = since(self.clock, begin);

        let begin = self.clock.now();
        bench.send_frames = self.exchange(total, u64::MAX, ram, Kind::Plain)?;
        bench.send_us = since(self.clock, begin);
        Ok(bench)
    }

    /// Sends `total` frames like those of a dump, `window` of them unanswered
    /// at most. All have left the device, and been answered, when it returns.
    fn exchange(
        &mut self,
        total: u64,
        window: u64,
        ram: &Ranges,
        kind: Kind,
    ) -> Result<u64, TxError> {
        let mut payloads = Walk { ram, run: 0, at: 0 };
        let answered = self.counts.answers;
        let (mut sent, mut last) = (0, TxTicket::NONE);
        let mut next = payloads.next();
        let mut budget = self.patience();
        loop {
            let before = (sent, self.counts.answers);
            let answers = self.counts.answers - answered;
            if sent == total && (kind != Kind::Ask || answers == total) {
                break;
            }
            while sent < total && (kind != Kind::Ask || sent - answers < window) {
                match self.queue(kind, HEADER_MAX, &[next], 0) {
                    Ok(ticket) => last = ticket,
                    Err(TxError::Full) => break,
                    Err(error) => return Err(error),
                }
                self.counts.sent += 1;
                sent += 1;
                next = payloads.next();
            }
            self.nic.kick();
            self.nic.poll_tx().map_err(TxError::Device)?;
            self.receive()?;
            if before == (sent, self.counts.answers) {
                self.clock.relax();
            }
            if !budget.spend(self.clock.now()) {
                return Err(TxError::Device(NicError::Timeout("an answer of the far end")));
            }
        }
        self.drain(last)?;
        Ok(total)
    }
}

fn since(clock: &mut dyn Clock, begin: Instant) -> u64 {
    clock.now().since_us(begin)
}

/// RAM in pieces of a message, round and round.
struct Walk<'a> {
    ram: &'a Ranges,
    run: usize,
    at: u64,
}

impl Walk<'_> {
    fn next(&mut self) -> PhysRange {
        loop {
            let Some(run) = self.ram.get(self.run) else {
                self.run = 0;
                continue;
            };
            let (piece, _) = run.split_at(self.at).1.split_at(BENCH_PAYLOAD_LEN);
            if piece.len() == BENCH_PAYLOAD_LEN {
                self.at += BENCH_PAYLOAD_LEN;
                return piece;
            }
            self.run += 1;
            self.at = 0;
        }
    }
}

/// Sum of all segments; those before the last have even lengths.
fn sum(segments: &[PhysRange]) -> u16 {
    let total: u32 = segments
        .iter()
        // SAFETY: parts of the image or of the memory map, in the direct map.
        .map(|range| u32::from(unsafe { arch::sum(*range) }))
        .sum();
    let folded = (total & 0xffff) + (total >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

/// An ARP request for `server`, filled up to the smallest frame with the mark.
fn question(mac: MacAddr, client: Ipv4Addr, server: Ipv4Addr) -> Vec<u8, FRAME_MIN> {
    let header = EthernetHeader {
        destination: MacAddr::BROADCAST,
        source: mac,
        ethertype: U16::new(ETHERTYPE_ARP),
    };
    let packet = ArpPacket::new(arp::REQUEST, (mac, client), (MacAddr::ZERO, server));
    let mut frame = Vec::new();
    for part in [header.as_bytes(), packet.as_bytes(), &MARK] {
        // 14, 28 and 8 bytes: they fit.
        let _ = frame.extend_from_slice(part);
    }
    let _ = frame.resize(FRAME_MIN, 0);
    frame
}
