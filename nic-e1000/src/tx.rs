//! Frames on their way out.
//!
//! The ring is used in order, and so are the slots: slot *i* owns header cell
//! *i* and remembers the last descriptor of its frame, the only one that asks
//! for a completion. The tail moves over whole frames, and only in `publish`.

use debugnet_core::addr::PhysRange;
use debugnet_core::nic::{HEADER_MAX, NicError, Payload, TxError, TxFrame, TxTicket};
use nic_hal::{BadAccess, DmaMap, DmaRegion, fence};

use crate::configure::RingMemory;
use crate::descriptor::{self, Context, Piece, Place};
use crate::ids::{Family, Mac};
use crate::registers::lost;
use crate::sizes::{CELL_LEN, DESCRIPTOR_LEN, FRAME_MIN, PAD_AT, TX_DESCRIPTORS, TX_SLOTS};

/// Payload segments of one frame: a message may cross one border between runs of memory.
pub(crate) const SEGMENTS_MAX: usize = 2;
/// Pieces of one frame: its header, its padding, and 9000 bytes in two
/// segments, cut to descriptors of 4096 bytes.
const PIECES_MAX: usize = 6;
const ETHERNET_HEADER_LEN: usize = 14;
/// Longest frame header with its two tags.
pub(crate) const LINK_HEADER_MAX: u16 = 22;

/// The pieces of a frame, in order.
struct Pieces {
    list: [Option<Piece>; PIECES_MAX],
    count: usize,
}

impl Pieces {
    const EMPTY: Self = Self { list: [None; PIECES_MAX], count: 0 };

    /// Adds `piece`. `false` if there is no room. An empty one vanishes: a
    /// descriptor without a byte loses the frame on QEMU's newer models.
    fn push(&mut self, piece: Piece) -> bool {
        if piece.len == 0 {
            return true;
        }
        let Some(place) = self.list.get_mut(self.count) else { return false };
        *place = Some(piece);
        self.count = self.count.saturating_add(1);
        true
    }
}

/// The transmit ring and its slots.
#[derive(Debug)]
pub(crate) struct Transmitter {
    ring: DmaRegion,
    cells: DmaRegion,
    family: Family,
    piece_max: u32,
    /// Longest frame in bytes.
    frame_max: u32,
    /// Whether checksums are inserted.
    insert: bool,
    /// Context the device holds.
    context: Option<Context>,
    /// Last descriptor of each slot's frame.
    ends: [u16; TX_SLOTS as usize],
    /// Slot of the next frame, and of the frame after the low-water mark.
    next_slot: u16,
    done_slot: u16,
    /// Descriptor of the next frame, where the tail was last put, and the oldest in use.
    next: u16,
    tail: u16,
    oldest: u16,
    /// Ticket of the last frame queued, of the last one published, and low-water mark.
    last: TxTicket,
    published: TxTicket,
    done: TxTicket,
}

impl Transmitter {
    /// Not set up yet, in these pieces of memory.
    pub(crate) const fn new(ring: DmaRegion, cells: DmaRegion) -> Self {
        Self {
            ring,
            cells,
            family: Family::E1000,
            piece_max: 4096,
            frame_max: 0,
            insert: false,
            context: None,
            ends: [0; TX_SLOTS as usize],
            next_slot: 0,
            done_slot: 0,
            next: 0,
            tail: 0,
            oldest: 0,
            last: TxTicket::NONE,
            published: TxTicket::NONE,
            done: TxTicket::NONE,
        }
    }

    /// What frames may be: their IP packets at most `ip_mtu` bytes, their
    /// checksums inserted or not.
    pub(crate) fn set_limits(&mut self, ip_mtu: u16, insert: bool) {
        self.frame_max = u32::from(ip_mtu).saturating_add(u32::from(LINK_HEADER_MAX));
        self.insert = insert;
    }

    /// The device has been reset: no frame is in its hands.
    pub(crate) fn complete_all(&mut self) {
        self.done = self.last;
        self.published = self.last;
        (self.next, self.tail, self.oldest) = (0, 0, 0);
        (self.next_slot, self.done_slot) = (0, 0);
        // The context was lost with the reset.
        self.context = None;
    }

    /// Lays out an empty ring. Every frame must be complete.
    pub(crate) fn lay_out(&mut self, mac: Mac) -> Result<RingMemory, NicError> {
        self.family = mac.family();
        self.piece_max = mac.piece_max();
        self.complete_all();
        self.ring.zero(0, self.ring.len()).map_err(lost)?;
        self.memory()
    }

    /// Where the ring is.
    pub(crate) fn memory(&self) -> Result<RingMemory, NicError> {
        let len_bytes = u32::try_from(self.ring.len()).unwrap_or(0);
        Ok(RingMemory { address: self.ring.device_addr(), len_bytes })
    }

    /// The low-water mark.
    pub(crate) const fn done(&self) -> TxTicket {
        self.done
    }

    /// Whether the device has frames that it has not completed.
    pub(crate) fn at_device(&self) -> bool {
        self.done < self.published
    }

    /// The tail as the device last saw it.
    pub(crate) const fn tail(&self) -> u16 {
        self.tail
    }

    /// Queues a frame; the device sees it after [`Transmitter::publish`].
    pub(crate) fn queue(
        &mut self,
        frame: &TxFrame<'_>,
        map: &impl DmaMap,
    ) -> Result<TxTicket, TxError> {
        if self.last.0.saturating_sub(self.done.0) >= u64::from(TX_SLOTS) {
            return Err(TxError::Full);
        }
        let frame_len = self.check(frame)?;
        let context = Context::of(frame.header, frame.checksum)?;
        let new_context = context.filter(|context| Some(*context) != self.context);
        let pieces = self.pieces(frame, frame_len, map)?;
        let needed = pieces.count.saturating_add(usize::from(new_context.is_some()));
        if needed > usize::from(self.free()) {
            return Err(TxError::Full);
        }
        let end = self
            .write(frame.header, new_context, &pieces, frame_len, context.is_some())
            .map_err(|bad| TxError::Device(lost(bad)))?;
        if let Some(slot) = self.ends.get_mut(usize::from(self.next_slot)) {
            *slot = end;
        }
        self.next_slot = after_slot(self.next_slot);
        self.last = self.last.next();
        Ok(self.last)
    }

    /// Descriptors that are ours. One is never used: head and tail would meet.
    fn free(&self) -> u16 {
        let used = self.next.wrapping_sub(self.oldest) & (TX_DESCRIPTORS - 1);
        (TX_DESCRIPTORS - 1).saturating_sub(used)
    }

    /// Refuses what the device cannot send. The length of the frame in bytes.
    fn check(&self, frame: &TxFrame<'_>) -> Result<u32, TxError> {
        let unsupported = |what| Err(TxError::Device(NicError::Unsupported(what)));
        let header_len = frame.header.len();
        if header_len < ETHERNET_HEADER_LEN {
            return unsupported("a frame without an Ethernet header");
        }
        let frame_len = frame.payload.len().saturating_add(header_len as u64);
        let frame_len = u32::try_from(frame_len).unwrap_or(u32::MAX);
        if frame_len > self.frame_max || header_len > HEADER_MAX {
            let max = if header_len > HEADER_MAX { HEADER_MAX as u32 } else { self.frame_max };
            return Err(TxError::TooLong { len: frame_len, max });
        }
        if !self.insert && frame.checksum != debugnet_core::nic::Checksum::Complete {
            return unsupported("checksum insertion, which is off");
        }
        Ok(frame_len)
    }

    /// The frame in pieces: its cell, its payload as the device finds it, and
    /// padding up to the shortest frame, which no model and not every bridge adds.
    fn pieces(
        &self,
        frame: &TxFrame<'_>,
        frame_len: u32,
        map: &impl DmaMap,
    ) -> Result<Pieces, TxError> {
        let ranges = match frame.payload {
            Payload::None => &[],
            Payload::Dma(ranges) => ranges,
            // `Capabilities::payload` says so.
            Payload::Bytes(_) => {
                return Err(TxError::Device(NicError::Unsupported("payload as bytes")));
            }
        };
        let filled = || ranges.iter().filter(|range| !range.is_empty());
        let count = filled().count();
        if count > SEGMENTS_MAX {
            return Err(TxError::TooManySegments {
                count: u32::try_from(count).unwrap_or(u32::MAX),
                max: SEGMENTS_MAX as u32,
            });
        }
        let too_many = TxError::Device(NicError::Unsupported("a payload in too many pieces"));
        let inside = |bad| TxError::Device(lost(bad));
        let cell = usize::from(self.next_slot).saturating_mul(CELL_LEN);
        let mut pieces = Pieces::EMPTY;
        let header_len = u32::try_from(frame.header.len()).unwrap_or(0);
        let address = self.cells.device_addr_of(cell, frame.header.len()).map_err(inside)?;
        pieces.push(Piece { address, len: header_len });
        for range in filled() {
            self.cut(*range, map, &mut pieces)?.then_some(()).ok_or(too_many)?;
        }
        let padding_len = (FRAME_MIN as u32).saturating_sub(frame_len);
        let address = self
            .cells
            .device_addr_of(cell.saturating_add(PAD_AT), padding_len as usize)
            .map_err(inside)?;
        pieces.push(Piece { address, len: padding_len }).then_some(()).ok_or(too_many)?;
        Ok(pieces)
    }

    /// Adds a range in pieces that one descriptor can describe. `false` if there are too many.
    fn cut(
        &self,
        range: PhysRange,
        map: &impl DmaMap,
        pieces: &mut Pieces,
    ) -> Result<bool, TxError> {
        let mut address = map.map(range).ok_or(TxError::NotReachable)?;
        let mut left = u32::try_from(range.len()).map_err(|_| TxError::NotReachable)?;
        for _ in 0..PIECES_MAX {
            let len = left.min(self.piece_max);
            if !pieces.push(Piece { address, len }) {
                return Ok(false);
            }
            left = left.saturating_sub(len);
            if left == 0 {
                return Ok(true);
            }
            address = address.checked_add(u64::from(len)).ok_or(TxError::NotReachable)?;
        }
        Ok(false)
    }

    /// Fills the next cell and descriptors, which are ours until they are
    /// published. The index of the last one.
    fn write(
        &mut self,
        header: &[u8],
        context: Option<Context>,
        pieces: &Pieces,
        frame_len: u32,
        insert: bool,
    ) -> Result<u16, BadAccess> {
        let cell = usize::from(self.next_slot).saturating_mul(CELL_LEN);
        if frame_len < FRAME_MIN as u32 {
            self.cells.zero(cell, CELL_LEN)?;
        }
        self.cells.write_bytes(cell, header)?;
        let mut at = self.next;
        let mut end = at;
        if let Some(context) = context {
            self.write_descriptor(at, context.descriptor(self.family))?;
            at = after(at);
        }
        let last = pieces.count.saturating_sub(1);
        let frame_len = frame_len.max(FRAME_MIN as u32);
        for (index, piece) in pieces.list.iter().flatten().enumerate() {
            let place = Place { first: index == 0, last: index == last, frame_len, insert };
            self.write_descriptor(at, descriptor::data(self.family, *piece, place))?;
            end = at;
            at = after(at);
        }
        self.next = at;
        self.context = context.or(self.context);
        Ok(end)
    }

    fn write_descriptor(&mut self, index: u16, words: [u32; 4]) -> Result<(), BadAccess> {
        let mut at = usize::from(index).saturating_mul(DESCRIPTOR_LEN);
        for word in words {
            self.ring.write_le32(at, word)?;
            at = at.saturating_add(4);
        }
        Ok(())
    }

    /// The tail to write, if frames were queued since the last time. It is
    /// always behind a whole frame: the newer models lose one that two tails cut.
    pub(crate) fn publish(&mut self) -> Option<u16> {
        if self.tail == self.next {
            return None;
        }
        self.tail = self.next;
        self.published = self.last;
        fence::publish();
        Some(self.tail)
    }

    /// Moves the low-water mark over completed frames, at most one round of
    /// slots. `true` if it moved. The head register is no completion: it
    /// moves when a descriptor is fetched, and when it fails.
    pub(crate) fn reap(&mut self) -> Result<bool, NicError> {
        let before = self.done;
        for _ in 0..TX_SLOTS {
            // A bit set in a descriptor that the device was not given means nothing.
            if self.done >= self.published {
                break;
            }
            let end = self.ends.get(usize::from(self.done_slot)).copied().unwrap_or(0);
            let status_at = usize::from(end).saturating_mul(DESCRIPTOR_LEN).saturating_add(12);
            if self.ring.read_le32(status_at).map_err(lost)? & descriptor::DONE == 0 {
                break;
            }
            self.oldest = after(end);
            self.done = self.done.next();
            self.done_slot = after_slot(self.done_slot);
        }
        if self.done == before {
            return Ok(false);
        }
        // The cells and payloads behind the mark are written to again after this.
        fence::acquire();
        Ok(true)
    }
}

/// The descriptor after `index`.
const fn after(index: u16) -> u16 {
    index.wrapping_add(1) & (TX_DESCRIPTORS - 1)
}

const fn after_slot(slot: u16) -> u16 {
    let next = slot.saturating_add(1);
    if next < TX_SLOTS { next } else { 0 }
}
