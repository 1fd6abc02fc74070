//! Frames on their way out.
//!
//! Slot *i* owns header cell *i* and descriptors *3i* to *3i + 2* for ever (four
//! where the virtio header must have a descriptor of its own): no free list, and the id of a completion names its slot. Slots are used in
//! turn, so that the tickets in flight are a run, and the low-water mark moves
//! over the completed front of it however the device orders its completions.

use debugnet_core::addr::{DeviceAddr, PhysRange};
use debugnet_core::nic::{Checksum, HEADER_MAX, NicError, Payload, TxError, TxFrame, TxTicket};
use nic_hal::{BadAccess, DmaMap, DmaRegion};

use crate::bits::Bits;
use crate::format::Format;
use crate::header;
use crate::queue::{Descriptor, SplitQueue, lost};
use crate::sizes::CELL_LEN;
use crate::transport::Rings;

/// Payload segments of one frame: a message may cross one border between runs of memory.
pub(crate) const SEGMENTS_MAX: usize = 2;
/// Descriptors of one slot: its cell and its segments.
pub(crate) const DESCRIPTORS_PER_SLOT: u16 = 3;
/// The same where the cell takes two.
const DESCRIPTORS_PER_SLOT_APART: u16 = 4;

/// A piece of payload as the device finds it.
#[derive(Clone, Copy)]
struct Segment {
    address: DeviceAddr,
    len: u32,
}

/// What a frame must keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Longest frame in bytes.
    pub(crate) frame_max: u32,
    /// Whether the device inserts checksums.
    pub(crate) insert: bool,
}

/// The transmit queue and its slots.
#[derive(Debug)]
pub(crate) struct Transmitter {
    queue: SplitQueue,
    cells: DmaRegion,
    format: Format,
    slots: u16,
    /// Slots whose frame has not come back.
    outstanding: Bits,
    /// Slot of the next frame.
    next_slot: u16,
    /// Slot of the frame after the low-water mark.
    done_slot: u16,
    /// Ticket of the last frame queued.
    last: TxTicket,
    /// Low-water mark.
    done: TxTicket,
}

impl Transmitter {
    /// Not set up yet, in these pieces of memory.
    pub(crate) const fn new(rings: DmaRegion, cells: DmaRegion) -> Self {
        Self {
            queue: SplitQueue::new(rings),
            cells,
            format: Format::NONE,
            slots: 0,
            outstanding: Bits::new(),
            next_slot: 0,
            done_slot: 0,
            last: TxTicket::NONE,
            done: TxTicket::NONE,
        }
    }

    /// The device has confirmed a reset: no frame is in its hands.
    pub(crate) fn complete_all(&mut self) {
        self.done = self.last;
        self.done_slot = self.next_slot;
        self.outstanding = Bits::new();
    }

    /// Lays out an empty queue of `len` entries. Every frame must be complete.
    pub(crate) fn lay_out(&mut self, len: u16, format: Format) -> Result<Rings, NicError> {
        self.format = format;
        let in_queue = len.checked_div(self.descriptors_per_slot()).unwrap_or(0);
        // A queue whose length the device fixed may be longer than we have cells for.
        let cells = u16::try_from(self.cells.len() / CELL_LEN).unwrap_or(u16::MAX);
        let slots = in_queue.min(cells).min(Bits::LEN);
        if slots == 0 {
            return Err(NicError::Unsupported("virtio transmit queue too short"));
        }
        (self.slots, self.next_slot, self.done_slot) = (slots, 0, 0);
        self.queue.lay_out(len, format)
    }

    const fn descriptors_per_slot(&self) -> u16 {
        if self.format.header_apart { DESCRIPTORS_PER_SLOT_APART } else { DESCRIPTORS_PER_SLOT }
    }

    /// Frames that fit.
    pub(crate) const fn slots(&self) -> u16 {
        self.slots
    }

    /// Frames the device has and has not given back.
    pub(crate) const fn at_device(&self) -> u16 {
        self.queue.at_device()
    }

    /// The low-water mark.
    pub(crate) const fn done(&self) -> TxTicket {
        self.done
    }

    /// The available index as the device last saw it.
    pub(crate) const fn published(&self) -> u16 {
        self.queue.published()
    }

    /// Queues a frame; the device sees it after [`Transmitter::publish`].
    pub(crate) fn queue(
        &mut self,
        frame: &TxFrame<'_>,
        limits: Limits,
        map: &impl DmaMap,
    ) -> Result<TxTicket, TxError> {
        if self.last.0.saturating_sub(self.done.0) >= u64::from(self.slots) {
            return Err(TxError::Full);
        }
        check(frame, limits)?;
        let segments = map_segments(frame.payload, map)?;
        let slot = self.next_slot;
        self.write(slot, frame, segments).map_err(|bad| TxError::Device(lost(bad)))?;
        self.outstanding.insert(slot);
        self.next_slot = self.after(slot);
        self.last = self.last.next();
        Ok(self.last)
    }

    fn after(&self, slot: u16) -> u16 {
        let next = slot.saturating_add(1);
        if next < self.slots { next } else { 0 }
    }

    /// Fills the cell and the descriptors of `slot`, which is ours until it is published.
    fn write(
        &mut self,
        slot: u16,
        frame: &TxFrame<'_>,
        segments: [Option<Segment>; SEGMENTS_MAX],
    ) -> Result<(), BadAccess> {
        let cell_at = usize::from(slot).saturating_mul(CELL_LEN);
        let header_len = self.format.header_len;
        let frame_at = cell_at.saturating_add(header_len);
        let virtio_header = header::encode(frame.checksum, self.format.order);
        self.cells.write_bytes(cell_at, virtio_header.get(..header_len).unwrap_or(&[]))?;
        self.cells.write_bytes(frame_at, frame.header)?;

        let head = slot.saturating_mul(self.descriptors_per_slot());
        let [first, second] = segments;
        let chain = if self.format.header_apart {
            let virtio_header = self.in_cell(cell_at, header_len)?;
            let frame_header = self.in_cell(frame_at, frame.header.len())?;
            [Some(virtio_header), Some(frame_header), first, second]
        } else {
            let cell = self.in_cell(cell_at, header_len.saturating_add(frame.header.len()))?;
            [Some(cell), first, second, None]
        };
        let mut index = head;
        for (position, segment) in chain.iter().enumerate() {
            let Some(segment) = segment else { break };
            let more = chain.get(position.saturating_add(1)).is_some_and(Option::is_some);
            let next = index.saturating_add(1);
            let descriptor = Descriptor {
                address: segment.address,
                len: segment.len,
                device_writes: false,
                next: more.then_some(next),
            };
            self.queue.write_descriptor(index, descriptor)?;
            index = next;
        }
        self.queue.offer(head)
    }

    fn in_cell(&self, at: usize, len: usize) -> Result<Segment, BadAccess> {
        let address = self.cells.device_addr_of(at, len)?;
        Ok(Segment { address, len: u32::try_from(len).unwrap_or(0) })
    }

    /// Shows the device what was queued. `true` if the doorbell is to be rung.
    pub(crate) fn publish(&mut self) -> Result<bool, NicError> {
        self.queue.publish().map_err(lost)
    }

    /// Takes what the device has given back, at most one round of slots.
    /// `true` if there was anything.
    ///
    /// # Errors
    /// [`NicError::Protocol`] if it gives back what it does not have.
    pub(crate) fn reap(&mut self) -> Result<bool, NicError> {
        let mut any = false;
        for _ in 0..self.slots {
            // The length in a used entry of ours means nothing: nothing was written.
            let Some(used) = self.queue.take_used()? else { break };
            let head = u16::try_from(used.id).unwrap_or(u16::MAX);
            let per_slot = self.descriptors_per_slot();
            let slot = head.checked_div(per_slot).unwrap_or(u16::MAX);
            if !head.is_multiple_of(per_slot) || !self.outstanding.remove(slot) {
                return Err(NicError::Protocol("virtio completed a frame it did not have"));
            }
            any = true;
        }
        // At most a round: the run of tickets in flight is no longer than that.
        for _ in 0..self.slots {
            if self.done >= self.last || self.outstanding.contains(self.done_slot) {
                break;
            }
            self.done = self.done.next();
            self.done_slot = self.after(self.done_slot);
        }
        Ok(any)
    }
}

/// Refuses what the device cannot send.
fn check(frame: &TxFrame<'_>, limits: Limits) -> Result<(), TxError> {
    const ETHERNET_HEADER_LEN: usize = 14;
    let unsupported = |what| Err(TxError::Device(NicError::Unsupported(what)));
    let header_len = frame.header.len();
    if header_len < ETHERNET_HEADER_LEN {
        return unsupported("a frame without an Ethernet header");
    }
    let frame_len = frame.payload.len().saturating_add(header_len as u64);
    if frame_len > u64::from(limits.frame_max) || header_len > HEADER_MAX {
        let max = if header_len > HEADER_MAX { HEADER_MAX as u32 } else { limits.frame_max };
        return Err(TxError::TooLong { len: u32::try_from(frame_len).unwrap_or(u32::MAX), max });
    }
    if let Checksum::Insert { start, offset } = frame.checksum {
        let field_end = usize::from(start).saturating_add(usize::from(offset)).saturating_add(2);
        if !limits.insert || field_end > header_len {
            return unsupported("a checksum the device does not insert");
        }
    }
    Ok(())
}

/// The payload as the device finds it. Empty ranges vanish: an empty
/// descriptor is fatal to some devices.
fn map_segments(
    payload: Payload<'_>,
    map: &impl DmaMap,
) -> Result<[Option<Segment>; SEGMENTS_MAX], TxError> {
    let ranges = match payload {
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
    let mut segments = [None; SEGMENTS_MAX];
    for (segment, range) in segments.iter_mut().zip(filled()) {
        *segment = Some(map_segment(*range, map).ok_or(TxError::NotReachable)?);
    }
    Ok(segments)
}

fn map_segment(range: PhysRange, map: &impl DmaMap) -> Option<Segment> {
    Some(Segment { address: map.map(range)?, len: u32::try_from(range.len()).ok()? })
}
