//! One dump over a NIC that does almost nothing, to be run under a profiler
//! that counts instructions: `cargo xtask bench` takes away what the NIC, the
//! clock and the source below cost, and divides by the messages printed.
//!
//! `cost SLOTS LOSS_PERCENT NIC`, where NIC is `sums`, `fetches` (and does not
//! sum) or `bytes` (the core hands it copies). Prints one JSON object.

use std::collections::VecDeque;
use std::env;

use debugnet_core::addr::{MacAddr, PhysAddr, PhysRange};
use debugnet_core::dump::{DumpInfo, DumpSource, Extent, ReadFault, ReadRam, Stability, Verdict};
use debugnet_core::nic::{
    Capabilities, ChecksumOffload, Link, Nic, NicError, PayloadKind, RxError, Start, TxError,
    TxFrame, TxTicket,
};
use debugnet_core::observer::Blind;
use debugnet_core::pool::Cells;
use debugnet_core::time::{Clock, Instant};
use debugnet_core::wire::checksum::Sum;
use debugnet_core::{Config, Io, Limits, Memory, Progress, Slot, arm, memory_needed};
use netsim::host::{Host, Input};
use netsim::rng::Rng;
use netsim::world::{CLIENT_IP, SERVER_IP};

const IMAGE_LEN: u64 = 32 << 20;
/// Where the sequence number is in a frame, and in an ack's frame.
const SEQNO_AT: usize = 14 + 20 + 8 + 4;
const ACK_AT: usize = 14 + 20 + 8;
/// With a length the compiler knows, so that copying one is no call to be counted.
type AckFrame = [u8; ACK_AT + 4];

struct CountingClock {
    now_us: u64,
}

impl Clock for CountingClock {
    fn now(&mut self) -> Instant {
        Instant::from_micros(self.now_us)
    }

    fn relax(&mut self) {
        self.now_us += 20;
    }
}

/// RAM of one page, seen all over the image: none of it is zero.
struct Page {
    given: bool,
    bytes: [u8; 4096],
}

impl DumpSource for Page {
    fn next(&mut self) -> Option<Extent> {
        let range = PhysRange::new(PhysAddr(0), IMAGE_LEN)?;
        let extent = Extent { offset: 0, range, stability: Stability::Frozen };
        (!std::mem::replace(&mut self.given, true)).then_some(extent)
    }

    fn rewind(&mut self) {
        self.given = false;
    }
}

impl ReadRam for Page {
    fn read(&mut self, _: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        into.copy_from_slice(&self.bytes[..into.len()]);
        Ok(())
    }

    fn sum(&mut self, range: PhysRange) -> Result<u16, ReadFault> {
        Ok(Sum::of(&self.bytes[..range.len() as usize]).folded())
    }

    fn zero_prefix(&mut self, _: PhysRange) -> Result<u64, ReadFault> {
        Ok(0)
    }
}

/// In bytes 12 and 13 of a frame.
const ETHERTYPE_ARP: [u8; 2] = [8, 6];

/// Acks what is sent after some frames, or loses it.
struct EchoNic {
    host: Host,
    answers: VecDeque<u32>,
    arp: Option<Vec<u8>>,
    template: AckFrame,
    /// Acks held back, as a path holds them.
    held: usize,
    idle: u32,
    loss: f64,
    rng: Rng,
    last: TxTicket,
    payload: PayloadKind,
    checksum: ChecksumOffload,
}

impl Nic for EchoNic {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            ip_mtu: 1500,
            tx_slots: 256,
            max_segments: 1,
            payload: self.payload,
            checksum: self.checksum,
        }
    }

    fn poll_start(&mut self, _: &mut dyn Clock) -> Result<Start, NicError> {
        Ok(Start::Ready)
    }

    fn link(&mut self) -> Link {
        Link::Up
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError> {
        self.last = self.last.next();
        self.idle = 0;
        if frame.header[12..14] == ETHERTYPE_ARP {
            if let Input::Reply(reply) = self.host.receive(frame.header) {
                self.arp = Some(reply);
            }
        } else if !self.rng.chance(self.loss) {
            let mut seqno = [0; 4];
            seqno.copy_from_slice(&frame.header[SEQNO_AT..SEQNO_AT + 4]);
            self.answers.push_back(u32::from_be_bytes(seqno));
        }
        Ok(self.last)
    }

    fn kick(&mut self) {}

    fn poll_tx(&mut self) -> Result<TxTicket, NicError> {
        Ok(self.last)
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        let frame = match self.arp.take() {
            Some(reply) => reply,
            None => {
                // The path holds some; it empties when nothing new comes in.
                if self.answers.len() <= self.held && self.idle < 3 {
                    self.idle += 1;
                    return Ok(None);
                }
                let Some(seqno) = self.answers.pop_front() else { return Ok(None) };
                let mut ack = self.template;
                ack[ACK_AT..].copy_from_slice(&seqno.to_be_bytes());
                // The template is the sound ack of 0: the number is added to its sum.
                let mut sum = u32::from(!u16::from_be_bytes([ack[ACK_AT - 2], ack[ACK_AT - 1]]))
                    + (seqno >> 16)
                    + (seqno & 0xffff);
                sum = (sum & 0xffff) + (sum >> 16);
                sum = (sum & 0xffff) + (sum >> 16);
                ack[ACK_AT - 2..ACK_AT].copy_from_slice(&(!sum as u16).to_be_bytes());
                buf[..ack.len()].copy_from_slice(&ack);
                return Ok(Some(ack.len()));
            }
        };
        buf[..frame.len()].copy_from_slice(&frame);
        Ok(Some(frame.len()))
    }

    fn stop(&mut self) -> Result<(), NicError> {
        Ok(())
    }
}

fn main() {
    let mut args = env::args().skip(1);
    let slots: usize = args.next().and_then(|text| text.parse().ok()).unwrap_or(1024);
    let percent: f64 = args.next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let nic = args.next().unwrap_or("sums".into());
    assert!(["sums", "fetches", "bytes"].contains(&nic.as_str()), "no such NIC: {nic}");
    let needs = memory_needed(&Limits { slots, ..Limits::DEFAULT });
    let mut memory = (
        vec![Slot::EMPTY; needs.slots],
        vec![0; needs.index],
        vec![0; needs.cell_bytes],
        vec![0; needs.rx],
    );
    let text = format!("server={SERVER_IP} client={CLIENT_IP}");
    let config = Config::parse(&text).expect("a sound configuration");
    let memory = Memory {
        slots: &mut memory.0,
        index: &mut memory.1,
        cells: Cells { bytes: &mut memory.2, phys: Some(PhysAddr(1 << 40)) },
        rx: &mut memory.3,
    };
    let mut host = Host::new(MacAddr([2, 0, 0, 0, 0, 2]), SERVER_IP);
    host.meet(CLIENT_IP, MacAddr([2, 0, 0, 0, 0, 1]));
    let to = std::net::SocketAddrV4::new(CLIENT_IP, 20024);
    let ack = host.datagram(40_000, to, &[0; 4]).expect("a known neighbour");
    let template = *ack.first_chunk().expect("a whole frame");
    let mut nic = EchoNic {
        host,
        answers: VecDeque::new(),
        arp: None,
        template,
        held: slots / 2,
        idle: 0,
        loss: percent / 100.0,
        rng: Rng::new(1),
        last: TxTicket::NONE,
        payload: if nic == "bytes" { PayloadKind::Bytes } else { PayloadKind::Dma },
        checksum: if nic == "sums" { ChecksumOffload::Insert } else { ChecksumOffload::None },
    };
    let mut armed = arm(config, memory).expect("sound limits");
    let mut io = Io {
        clock: &mut CountingClock { now_us: 1000 },
        source: &mut Page { given: false, bytes: [1; 4096] },
        transform: None,
        info: &DumpInfo::default(),
        observer: &mut Blind,
        progress: &Progress::new(),
    };
    let outcome = armed.dump(&mut [&mut nic], &mut io);
    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
    println!(
        "{{\"messages\":{},\"dump_bytes\":{},\"bytes_read\":{},\"bytes_copied\":{},\
         \"slot_bytes\":{}}}",
        outcome.messages,
        outcome.dump_bytes,
        outcome.bytes_read,
        outcome.bytes_copied,
        size_of::<Slot>() + needs.index / needs.slots * size_of::<u16>(),
    );
}
