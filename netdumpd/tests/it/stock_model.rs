//! FreeBSD's client in virtual time, with its ack bitmap, over a core.

use debugnet_core::wire::debugnet::{EKCD_KEY, FINISHED, HERALD, KDH, VMCORE};
use netdumpd::core::{Core, Limits, Record, Socket};
use netdumpd::store::MemStore;
use zerocopy::IntoBytes;

use crate::support::{Rig, dump_header, message};

pub(crate) const CLIENT: &str = "10.99.0.1:20024";

/// Polls of half a millisecond before it sends again, and times that it does.
const WAIT_US: u64 = 2001 * 500;
const ROUNDS: u32 = 12;

/// What the machine makes of `1 << index` beyond 31.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shift {
    /// x86-64, arm64: the count is taken modulo 32.
    Masked,
    /// 32-bit ARM: nothing is left.
    Zero,
}

impl Shift {
    /// A 32-bit one is shifted, then sign-extended.
    fn bit(self, index: u32) -> u64 {
        match self {
            Self::Zero if index >= 32 => 0,
            _ => 1i32.wrapping_shl(index) as i64 as u64,
        }
    }
}

/// Puts the indices of a burst in the order in which they are sent.
type Reorder<'a> = dyn FnMut(&mut Vec<u32>) + 'a;

/// A datagram on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hop {
    /// Offset of the message.
    pub(crate) offset: u64,
    /// Index in its burst.
    pub(crate) index: u32,
    /// 0 for the first transmission.
    pub(crate) round: u32,
    pub(crate) is_ack: bool,
    pub(crate) kind: u32,
}

pub(crate) struct StockModel<'a> {
    pub(crate) rig: Rig<MemStore>,
    pub(crate) payload_len: usize,
    pub(crate) shift: Shift,
    /// Says which datagrams are lost.
    pub(crate) lose: Box<dyn FnMut(Hop) -> bool + 'a>,
    /// Puts the packets of a burst in another order.
    pub(crate) reorder: Box<Reorder<'a>>,
    pub(crate) rounds: u32,
    /// How often the network delivers a packet.
    pub(crate) copies: usize,
    /// Says how long the line stands still before a packet.
    pub(crate) pause_us: Box<dyn FnMut(Hop) -> u64 + 'a>,
    seqno: u32,
    on: Socket,
}

impl<'a> StockModel<'a> {
    pub(crate) fn new(shield: bool) -> Self {
        let mut limits = Limits::default();
        limits.shield = shield;
        Self {
            rig: Rig::new(Core::new(limits), MemStore::default()),
            payload_len: 1448,
            shift: Shift::Masked,
            lose: Box::new(|_| false),
            reorder: Box::new(|_| {}),
            rounds: 0,
            copies: 1,
            pause_us: Box::new(|_| 0),
            seqno: 1,
            on: Socket::Herald,
        }
    }

    pub(crate) fn herald(&mut self) -> bool {
        (self.seqno, self.on) = (1, Socket::Herald);
        let opened = self.send(HERALD, 0, b"");
        if opened {
            self.on = Socket::Session(self.rig.last_session());
        }
        opened
    }

    /// In the order of FreeBSD 13 and later; each part is one burst.
    pub(crate) fn dump(&mut self, image: &[u8], bursts: &[usize], key: &[u8]) -> bool {
        let mut at = 0;
        let mut header = dump_header(image.len() as u64);
        header.dump_key_size = (key.len() as u32).into();
        header.seal();
        self.herald()
            && (key.is_empty() || self.send(EKCD_KEY, 0, key))
            && bursts.iter().all(|len| {
                at += len;
                self.send(VMCORE, (at - len) as u64, &image[at - len..at])
            })
            && self.send(KDH, 0, header.as_bytes())
            && self.send(FINISHED, 0, b"")
    }

    /// In the order of FreeBSD 12: the last burst comes after the header, and
    /// with the header in place of its first bytes.
    pub(crate) fn dump_as_12(&mut self, image: &[u8], bursts: &[usize]) -> bool {
        let header = dump_header(image.len() as u64);
        let (last, others) = bursts.split_last().expect("a burst");
        let mut at = 0;
        self.herald()
            && others.iter().all(|len| {
                at += len;
                self.send(VMCORE, (at - len) as u64, &image[at - len..at])
            })
            && self.send(KDH, 0, header.as_bytes())
            && {
                let mut piece = image[at..at + last].to_vec();
                piece[..512].copy_from_slice(header.as_bytes());
                self.send(VMCORE, at as u64, &piece)
            }
            && self.send(FINISHED, 0, b"")
    }

    /// One burst, until the client believes that all of it was acked.
    pub(crate) fn send(&mut self, kind: u32, offset: u64, bytes: &[u8]) -> bool {
        let count = bytes.len().div_ceil(self.payload_len).max(1) as u32;
        let want = (0..count).fold(0, |want, index| want | self.shift.bit(index));
        let mut got = 0;
        for round in 0..ROUNDS {
            self.rounds += u32::from(round > 0);
            let mut burst: Vec<_> =
                (0..count).filter(|index| got & self.shift.bit(*index) == 0).collect();
            (self.reorder)(&mut burst);
            let mut acks = Vec::new();
            for index in burst {
                let start = index as usize * self.payload_len;
                let piece = &bytes[start..bytes.len().min(start + self.payload_len)];
                let at = offset + start as u64;
                let hop = Hop { offset, index, round, is_ack: false, kind };
                let then = self.rig.now.after(12 + (self.pause_us)(hop));
                while let Some(due) = self.rig.core.poll_timeout().filter(|due| *due < then) {
                    self.rig.now = self.rig.now.max(due);
                    self.rig.core.handle_timeout(self.rig.now);
                    acks.extend(self.rig.settle());
                }
                self.rig.now = then;
                if !(self.lose)(hop) {
                    let datagram = message(kind, self.seqno + index, at, piece);
                    for _ in 0..self.copies {
                        acks.extend(self.rig.datagram(self.on, CLIENT, &datagram));
                    }
                }
            }
            let until = self.rig.now.after(WAIT_US);
            loop {
                for seqno in acks.drain(..) {
                    let index = seqno.wrapping_sub(self.seqno);
                    if index < 64 && !(self.lose)(Hop { offset, index, round, is_ack: true, kind })
                    {
                        got |= self.shift.bit(index);
                    }
                }
                if got == want {
                    self.seqno += count;
                    return true;
                }
                let next = self.rig.core.poll_timeout().filter(|next| *next < until);
                let Some(next) = next else { break };
                self.rig.now = self.rig.now.max(next);
                self.rig.core.handle_timeout(self.rig.now);
                acks = self.rig.settle();
            }
            self.rig.now = until;
        }
        false
    }

    /// A packet of an earlier burst, which the network kept back until now.
    pub(crate) fn late(&mut self, seqno: u32, offset: u64, payload: &[u8]) -> Vec<u32> {
        self.rig.datagram(self.on, CLIENT, &message(VMCORE, seqno, offset, payload))
    }

    pub(crate) fn record(&self) -> &Record {
        let (_, dump) = self.rig.store.dumps().last().expect("a dump");
        dump.record.as_ref().expect("an ended dump")
    }

    pub(crate) fn image(&self) -> &[u8] {
        &self.rig.store.dumps().last().expect("a dump").1.vmcore
    }
}
