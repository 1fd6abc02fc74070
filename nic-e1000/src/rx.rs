//! Frames on their way in: buffers used in ring order, copied out, handed over again.
//!
//! | word | legacy, written back | advanced (igb), written back |
//! |---|---|---|
//! | 0, 1 | address | packet type, sum: the address is gone |
//! | 2 | length 15:0, sum | status: DD 0, EOP 1; errors 31:24 |
//! | 3 | status: DD 0, EOP 1; errors 15:8 | length 15:0 |

use debugnet_core::nic::{NicError, RxError};
use nic_hal::{BadAccess, DmaRegion, fence};

use crate::configure::RingMemory;
use crate::ids::Family;
use crate::registers::lost;
use crate::sizes::{DESCRIPTOR_LEN, RX_BUFFER_LEN, RX_BUFFERS};

/// Shortest frame: an Ethernet header.
const FRAME_MIN: usize = 14;
/// Buffers handed over at a time: each time costs an exit in a virtual machine.
const BATCH: u16 = 16;
const DONE: u32 = 1;
const END_OF_PACKET: u32 = 2;
/// CE, SE, SEQ, CXE and RXE; the sums are the core's to check.
const ERRORS_LEGACY: u32 = 0x97;
/// RXE: the igb family tells no more.
const ERRORS_ADVANCED: u32 = 0x80;

/// What the device wrote into a descriptor.
struct WriteBack {
    len: usize,
    end_of_packet: bool,
    bad: bool,
}

/// The receive ring and its buffers. Buffer *i* is descriptor *i*.
#[derive(Debug)]
pub(crate) struct Receiver {
    ring: DmaRegion,
    buffers: DmaRegion,
    family: Family,
    /// Descriptor of the next frame.
    next: u16,
    /// Buffers taken and not handed over.
    held: u16,
    /// In the middle of a frame that is dropped.
    skipping: bool,
}

impl Receiver {
    /// Not set up yet, in these pieces of memory.
    pub(crate) const fn new(ring: DmaRegion, buffers: DmaRegion) -> Self {
        Self { ring, buffers, family: Family::E1000, next: 0, held: 0, skipping: false }
    }

    /// Fills the ring with buffers; the device gets them with the first tail.
    pub(crate) fn lay_out(&mut self, family: Family) -> Result<RingMemory, NicError> {
        self.family = family;
        (self.next, self.held, self.skipping) = (0, 0, false);
        for index in 0..RX_BUFFERS {
            self.refill(index).map_err(lost)?;
        }
        fence::publish();
        let len_bytes = u32::try_from(self.ring.len()).unwrap_or(0);
        Ok(RingMemory { address: self.ring.device_addr(), len_bytes })
    }

    /// The tail: all buffers but those we hold are the device's, and one more
    /// is ours, or the ring would look empty.
    pub(crate) const fn tail(&self) -> u16 {
        let ours = self.held.saturating_add(1);
        self.next.wrapping_sub(ours) & (RX_BUFFERS - 1)
    }

    const fn buffer_at(index: u16) -> usize {
        (index as usize).saturating_mul(RX_BUFFER_LEN)
    }

    const fn descriptor_at(index: u16) -> usize {
        (index as usize).saturating_mul(DESCRIPTOR_LEN)
    }

    /// Writes the whole descriptor of buffer `index`, which is ours: the device
    /// may have overwritten the address, and a stale DD is a frame twice.
    fn refill(&mut self, index: u16) -> Result<(), BadAccess> {
        let address = self.buffers.device_addr_of(Self::buffer_at(index), RX_BUFFER_LEN)?;
        let at = Self::descriptor_at(index);
        self.ring.write_le64(at, address.0)?;
        self.ring.write_le64(at.saturating_add(8), 0)
    }

    /// What the device wrote into the next descriptor, if it is done with it.
    fn written_back(&self) -> Result<Option<WriteBack>, BadAccess> {
        let at = Self::descriptor_at(self.next);
        let (status_at, len_at) = match self.family {
            Family::Igb => (at.saturating_add(8), at.saturating_add(12)),
            _ => (at.saturating_add(12), at.saturating_add(8)),
        };
        let status = self.ring.read_le32(status_at)?;
        if status & DONE == 0 {
            return Ok(None);
        }
        fence::acquire();
        let bad = match self.family {
            Family::Igb => status >> 24 & ERRORS_ADVANCED,
            _ => status >> 8 & ERRORS_LEGACY,
        };
        Ok(Some(WriteBack {
            len: usize::from(self.ring.read_le32(len_at)? as u16),
            end_of_packet: status & END_OF_PACKET != 0,
            bad: bad != 0,
        }))
    }

    /// Copies the next frame out and takes its buffer.
    pub(crate) fn take(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        let broken = |bad| RxError::Device(lost(bad));
        let Some(written) = self.written_back().map_err(broken)? else { return Ok(None) };
        let index = self.next;
        let taken = self.copy_out(index, &written, buf);
        self.refill(index).map_err(broken)?;
        self.next = index.wrapping_add(1) & (RX_BUFFERS - 1);
        self.held = self.held.saturating_add(1);
        taken.map(Some)
    }

    fn copy_out(
        &mut self,
        index: u16,
        written: &WriteBack,
        buf: &mut [u8],
    ) -> Result<usize, RxError> {
        // A frame of several buffers is longer than any we asked for: all of it is dropped.
        let in_pieces = self.skipping || !written.end_of_packet;
        self.skipping = !written.end_of_packet;
        if in_pieces || written.bad || !(FRAME_MIN..=RX_BUFFER_LEN).contains(&written.len) {
            return Err(RxError::Malformed);
        }
        let Some(into) = buf.get_mut(..written.len) else {
            return Err(RxError::TooLong { len: u32::try_from(written.len).unwrap_or(u32::MAX) });
        };
        let broken = |bad| RxError::Device(lost(bad));
        self.buffers.read_bytes(Self::buffer_at(index), into).map_err(broken)?;
        Ok(written.len)
    }

    /// The tail to write, once enough buffers are to be handed over.
    pub(crate) fn publish_batch(&mut self) -> Option<u16> {
        if self.held < BATCH {
            return None;
        }
        self.held = 0;
        fence::publish();
        Some(self.tail())
    }
}
