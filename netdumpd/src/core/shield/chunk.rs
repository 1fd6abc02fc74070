//! One burst of the stock client: up to 64 KiB of a file, in packets of one
//! size but for the last.

use crate::core::action::DumpFile;
use crate::core::seqnos::Place;

/// Bytes of a burst at most; its start and its length are multiples of [`BLOCK_LEN`].
const MAX_LEN: u64 = 64 << 10;

const BLOCK_LEN: u64 = 4096;

/// Packets whose index differs by this share a bit.
const ALIAS: u32 = 32;

/// So many packets in a row are not lost by chance.
const FEW: u32 = 4;

/// Payloads with which a burst has more packets than 32, and not more than 64:
/// with fewer there is nothing to shield from, and with more the client itself warns.
const PAYLOAD_LENS: std::ops::Range<u64> = 1024..2048;

/// This is not what a stock client sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Misfit;

#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) place: Place,
    pub(super) file: DumpFile,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// The payload of the packets of a burst, by the first of them that came, the
/// first burst being at `base`.
pub(super) fn guess_payload_len(base: Place, packet: &Packet) -> Option<u64> {
    let index = packet.place.checked_sub(base)?;
    let Packet { offset, len, .. } = *packet;
    let is_aligned = |len: u64| {
        let start = index.checked_mul(len).and_then(|ahead| offset.checked_sub(ahead));
        PAYLOAD_LENS.contains(&len) && start.is_some_and(|start| start.is_multiple_of(BLOCK_LEN))
    };
    if is_aligned(len) {
        return Some(len);
    }
    // The short last one came first, of a burst at the start of the file. If it
    // is none, the burst will refuse it.
    let other = offset.checked_div(index)?;
    is_aligned(other).then_some(other)
}

#[derive(Debug)]
pub(super) struct Chunk {
    base: Place,
    file: DumpFile,
    /// Of the first packet.
    offset: u64,
    payload_len: u64,
    /// Packets by index.
    stored: u64,
    withheld: u64,
    receptions: [u8; 64],
    /// Packets in all, once that is known.
    count: Option<u32>,
    /// Whether acks are given at once.
    is_open: bool,
}

impl Chunk {
    /// The burst at `base` that has this packet.
    pub(super) fn begin(base: Place, payload_len: u64, packet: &Packet) -> Result<Self, Misfit> {
        let index = packet.place.checked_sub(base).filter(|index| *index < 64).ok_or(Misfit)?;
        let offset = packet.offset.checked_sub(index * payload_len).ok_or(Misfit)?;
        if !offset.is_multiple_of(BLOCK_LEN) {
            return Err(Misfit);
        }
        Ok(Self {
            base,
            file: packet.file,
            offset,
            payload_len,
            stored: 0,
            withheld: 0,
            receptions: [0; 64],
            count: None,
            is_open: false,
        })
    }

    /// Whether the packet can be one of this burst.
    pub(super) fn takes(&self, packet: &Packet) -> bool {
        self.index(packet.place).is_some_and(|index| {
            index < self.count.unwrap_or(self.max_count())
                && packet.file == self.file
                && packet.offset == self.offset + u64::from(index) * self.payload_len
        })
    }

    /// Whether the packet has not come before.
    pub(super) fn is_new(&self, packet: &Packet) -> bool {
        self.index(packet.place).is_none_or(|index| self.stored >> index & 1 == 0)
    }

    /// Notes a packet that it [takes](Self::takes); its ack is withheld for now.
    pub(super) fn store(&mut self, packet: &Packet) -> Result<(), Misfit> {
        let index = self.index(packet.place).filter(|_| self.takes(packet)).ok_or(Misfit)?;
        let end = u64::from(index) * self.payload_len + packet.len;
        if packet.len == 0 || packet.len > self.payload_len || end > MAX_LEN {
            return Err(Misfit);
        }
        let is_last = packet.len < self.payload_len || end == MAX_LEN;
        if is_last {
            let is_highest = self.stored >> index <= 1;
            if !end.is_multiple_of(BLOCK_LEN) || !is_highest {
                return Err(Misfit);
            }
            self.count = Some(index + 1);
        }
        self.stored |= 1 << index;
        self.withheld |= 1 << index;
        self.receptions[index as usize] = 1;
        Ok(())
    }

    /// A copy of a packet came: how often that has come, if its ack is withheld.
    pub(super) fn again(&mut self, place: Place) -> Option<u8> {
        let index = self.index(place).filter(|index| self.withheld >> index & 1 != 0)?;
        let receptions = self.receptions.get_mut(index as usize)?;
        *receptions = receptions.saturating_add(1);
        Some(*receptions)
    }

    /// The packet's ack is no longer withheld.
    pub(super) fn acked(&mut self, place: Place) {
        if let Some(index) = self.index(place) {
            self.withheld &= !(1 << index);
        }
    }

    pub(super) fn is_withholding(&self) -> bool {
        self.withheld != 0
    }

    /// Whether all that came was acked, and not because the client was in doubt.
    pub(super) fn is_all_acked(&self) -> bool {
        self.withheld == 0 && !self.is_open
    }

    /// Whether the burst has packets that share bits, or would have if only
    /// the next few were lost.
    pub(super) fn is_near_aliases(&self) -> bool {
        self.stored >> (ALIAS - FEW) != 0
    }

    /// Whether the last packet that came can be the last of the burst, although it is not shorter.
    pub(super) fn may_be_over(&self) -> bool {
        let packets = self.stored.count_ones();
        self.count.is_none()
            && self.stored.trailing_ones() == packets
            && (u64::from(packets) * self.payload_len).is_multiple_of(BLOCK_LEN)
    }

    /// It is over with the last packet that came.
    pub(super) fn end_here(&mut self) {
        self.count = Some(64 - self.stored.leading_zeros());
    }

    /// Gives the acks that can be given.
    pub(super) fn release(&mut self, due: &mut Vec<Place>) {
        for index in 0..64 {
            if self.withheld >> index & 1 != 0 && self.may_be_acked(index) {
                self.withheld &= !(1 << index);
                due.push(self.base + u64::from(index));
            }
        }
    }

    /// Gives all acks, now and from now on.
    pub(super) fn open(&mut self, due: &mut Vec<Place>) {
        self.is_open = true;
        self.release(due);
    }

    /// Withholds acks again.
    pub(super) fn close(&mut self) {
        self.is_open = false;
    }

    /// The number after this burst, if all of it is here and acked.
    pub(super) fn complete(&self) -> Option<Place> {
        let count = self.count?;
        let all = u64::MAX >> (64 - count.clamp(1, 64));
        (self.stored == all && self.withheld == 0).then_some(self.base + u64::from(count))
    }

    /// Where the next burst begins, of which this packet is one.
    pub(super) fn next_base(&self, packet: &Packet) -> Option<Place> {
        if let Some(count) = self.count {
            let next = self.base + u64::from(count);
            return (packet.place >= next).then_some(next);
        }
        // The end was never seen. Bursts begin at a block: only one place fits.
        let beyond = self.base + u64::from(64 - self.stored.leading_zeros());
        (0..64)
            .filter_map(|index| {
                let base = packet.place.checked_sub(index)?;
                let start = packet.offset.checked_sub(index * self.payload_len)?;
                (base >= beyond && start.is_multiple_of(BLOCK_LEN)).then_some(base)
            })
            .next()
    }

    fn may_be_acked(&self, index: u32) -> bool {
        let has = |index: u32| self.stored >> index & 1 != 0;
        if self.is_open {
            return true;
        }
        match index.checked_sub(ALIAS) {
            Some(partner) => has(partner),
            None => {
                let partner = index + ALIAS;
                has(partner) || partner >= self.count.unwrap_or(self.max_count())
            }
        }
    }

    fn index(&self, place: Place) -> Option<u32> {
        place.checked_sub(self.base).filter(|index| *index < 64).map(|index| index as u32)
    }

    /// Packets that a burst can have.
    fn max_count(&self) -> u32 {
        MAX_LEN.div_ceil(self.payload_len).min(64) as u32
    }
}
