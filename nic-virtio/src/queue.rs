//! The split virtqueue (virtio 1.2 section 2.7), the driver's side.
//!
//! ```text
//! descriptor table  16 n bytes      ours; the device reads it
//! available ring     6 + 2 n        ours; the device reads it
//! used ring          6 + 8 n        the device's; we read it
//! ```
//!
//! A head is *offered* (written to the available ring), then *published* with
//! all others offered since (one index store), and comes back through the
//! used ring. What is in a descriptor or the available ring is never read
//! back: the driver knows what it wrote, and a device may have changed it.

use debugnet_core::addr::DeviceAddr;
use debugnet_core::nic::NicError;
use nic_hal::{BadAccess, DmaRegion, fence};

use crate::transport::Rings;

/// Length of a descriptor in bytes.
const DESCRIPTOR_LEN: usize = 16;
/// Descriptor flag: the chain goes on at `next`.
const NEXT: u16 = 1;
/// Descriptor flag: the device writes, else it reads.
const WRITE: u16 = 2;
/// `avail.flags`: no interrupts, please.
const NO_INTERRUPT: u16 = 1;
/// `used.flags`: no notifications, please.
const NO_NOTIFY: u16 = 1;

/// One buffer, as the device is told about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    /// Where the device finds it.
    pub(crate) address: DeviceAddr,
    /// Length in bytes, never 0 (some devices treat that as fatal).
    pub(crate) len: u32,
    /// Whether the device writes to it.
    pub(crate) device_writes: bool,
    /// The descriptor that follows in the chain.
    pub(crate) next: Option<u16>,
}

/// An entry of the used ring, unchecked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Used {
    /// Head of the chain the device is done with, it says.
    pub(crate) id: u32,
    /// Bytes it wrote, it says.
    pub(crate) len: u32,
}

/// One virtqueue.
#[derive(Debug)]
pub(crate) struct SplitQueue {
    memory: DmaRegion,
    /// Entries: a power of two.
    len: u16,
    /// Free-running index of the next head to offer.
    offered: u16,
    /// The same as the device last saw it.
    published: u16,
    /// Free-running index of the next used entry to take.
    reaped: u16,
}

impl SplitQueue {
    /// Bytes the rings of a queue of `len` entries take.
    pub(crate) const fn memory_needed(len: u16) -> usize {
        let n = len as usize;
        Self::used_at(n).saturating_add(n.saturating_mul(8)).saturating_add(6)
    }

    const fn avail_at(n: usize) -> usize {
        n.saturating_mul(DESCRIPTOR_LEN)
    }

    const fn used_at(n: usize) -> usize {
        Self::avail_at(n).saturating_add(n.saturating_mul(2)).saturating_add(6).next_multiple_of(4)
    }

    /// A queue that is not set up yet, in `memory`.
    pub(crate) const fn new(memory: DmaRegion) -> Self {
        Self { memory, len: 0, offered: 0, published: 0, reaped: 0 }
    }

    /// Lays out empty rings of `len` entries (a power of two), and says where.
    /// The device must not be using them: it has been reset, or never saw them.
    pub(crate) fn lay_out(&mut self, len: u16) -> Result<Rings, BadAccess> {
        self.memory.zero(0, Self::memory_needed(len))?;
        let n = usize::from(len);
        let used_len = Self::memory_needed(len).saturating_sub(Self::used_at(n));
        (self.len, self.offered, self.published, self.reaped) = (len, 0, 0, 0);
        self.memory.write_le16(Self::avail_at(n), NO_INTERRUPT)?;
        Ok(Rings {
            len,
            descriptors: self.memory.device_addr(),
            avail: self.memory.device_addr_of(Self::avail_at(n), 0)?,
            used: self.memory.device_addr_of(Self::used_at(n), used_len)?,
        })
    }

    /// The available index as the device last saw it.
    pub(crate) const fn published(&self) -> u16 {
        self.published
    }

    /// Chains the device has and has not given back.
    pub(crate) const fn at_device(&self) -> u16 {
        self.published.wrapping_sub(self.reaped)
    }

    /// Heads offered since the last [`SplitQueue::publish`].
    pub(crate) const fn unpublished(&self) -> u16 {
        self.offered.wrapping_sub(self.published)
    }

    /// Where entry `index` (free-running) of a ring of `width`-byte entries lies.
    fn entry(&self, ring_at: usize, index: u16, width: usize) -> usize {
        let slot = usize::from(index & self.len.wrapping_sub(1));
        ring_at.saturating_add(4).saturating_add(slot.saturating_mul(width))
    }

    /// Writes descriptor `index`.
    pub(crate) fn write_descriptor(
        &mut self,
        index: u16,
        descriptor: Descriptor,
    ) -> Result<(), BadAccess> {
        let at = usize::from(index).saturating_mul(DESCRIPTOR_LEN);
        if index >= self.len {
            return Err(BadAccess { offset: at, len: DESCRIPTOR_LEN });
        }
        let write = if descriptor.device_writes { WRITE } else { 0 };
        let next = if descriptor.next.is_some() { NEXT } else { 0 };
        self.memory.write_le64(at, descriptor.address.0)?;
        self.memory.write_le32(at.saturating_add(8), descriptor.len)?;
        self.memory.write_le16(at.saturating_add(12), write | next)?;
        self.memory.write_le16(at.saturating_add(14), descriptor.next.unwrap_or(0))
    }

    /// Puts the chain that starts at descriptor `head` in the available ring.
    /// The device does not see it yet.
    pub(crate) fn offer(&mut self, head: u16) -> Result<(), BadAccess> {
        let at = self.entry(Self::avail_at(usize::from(self.len)), self.offered, 2);
        self.memory.write_le16(at, head)?;
        self.offered = self.offered.wrapping_add(1);
        Ok(())
    }

    /// Shows the device all that was offered. `true` if it wants to be
    /// notified of it; `false` also if nothing was new.
    pub(crate) fn publish(&mut self) -> Result<bool, BadAccess> {
        if self.unpublished() == 0 {
            return Ok(false);
        }
        let n = usize::from(self.len);
        // Up to here the new chains are ours; after the store they are the device's.
        fence::publish();
        self.memory.write_le16(Self::avail_at(n).saturating_add(2), self.offered)?;
        self.published = self.offered;
        // The device sets the flag, then looks at the index once more; we store
        // the index, then look at the flag. One of us sees the other.
        fence::full();
        Ok(self.memory.read_le16(Self::used_at(n))? & NO_NOTIFY == 0)
    }

    /// The next chain the device has given back, if any.
    ///
    /// # Errors
    /// [`NicError::Protocol`] if it gives back more than it has.
    pub(crate) fn take_used(&mut self) -> Result<Option<Used>, NicError> {
        let used_at = Self::used_at(usize::from(self.len));
        let index = self.memory.read_le16(used_at.saturating_add(2)).map_err(lost)?;
        let waiting = index.wrapping_sub(self.reaped);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.at_device() {
            return Err(NicError::Protocol("virtio used index jumped"));
        }
        // The index made the entry ours, and with it the chain it names.
        fence::acquire();
        let at = self.entry(used_at, self.reaped, 8);
        let id = self.memory.read_le32(at).map_err(lost)?;
        let len = self.memory.read_le32(at.saturating_add(4)).map_err(lost)?;
        self.reaped = self.reaped.wrapping_add(1);
        Ok(Some(Used { id, len }))
    }
}

/// The error of an access that the checks before it should have excluded.
pub(crate) fn lost(_: BadAccess) -> NicError {
    NicError::Protocol("virtio access outside a ring or register window")
}
