//! The split virtqueue (virtio 1.2 section 2.7), the driver's side.
//!
//! ```text
//! descriptor table  16 n bytes      ours; the device reads it
//! available ring     6 + 2 n        ours; the device reads it
//! used ring          6 + 8 n        the device's; we read it
//! ```
//!
//! On the legacy interface the three lie in one block of 4096-byte pages, the
//! used ring on a page of its own (virtio 1.2 section 2.7.2).
//!
//! A head is *offered* (written to the available ring), then *published* with
//! all others offered since (one index store), and comes back through the
//! used ring. What is in a descriptor or the available ring is never read
//! back: the driver knows what it wrote, and a device may have changed it.

use debugnet_core::addr::DeviceAddr;
use debugnet_core::nic::NicError;
use nic_hal::{BadAccess, DmaRegion, fence};

use crate::format::{Format, Order};
use crate::transport::Rings;

/// Length of a descriptor in bytes.
const DESCRIPTOR_LEN: usize = 16;
/// Descriptor flag: the chain goes on at `next`.
const NEXT: u16 = 1;
/// Descriptor flag: the device writes, else it reads.
const WRITE: u16 = 2;
/// Alignment of the parts of a legacy queue in bytes.
pub(crate) const PAGE_LEN: usize = 4096;
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
    order: Order,
    /// Entries: a power of two.
    len: u16,
    /// Where the used ring begins.
    used_at: usize,
    /// Free-running index of the next head to offer.
    offered: u16,
    /// The same as the device last saw it.
    published: u16,
    /// Free-running index of the next used entry to take.
    reaped: u16,
}

impl SplitQueue {
    /// Bytes the rings of a queue of `len` entries take; as a legacy `block` of
    /// pages they must start on a page, too.
    pub(crate) const fn memory_needed(len: u16, block: bool) -> usize {
        let n = len as usize;
        let used_len = n.saturating_mul(8).saturating_add(6);
        let used_len = if block { used_len.next_multiple_of(PAGE_LEN) } else { used_len };
        Self::used_at(n, block).saturating_add(used_len)
    }

    const fn avail_at(n: usize) -> usize {
        n.saturating_mul(DESCRIPTOR_LEN)
    }

    const fn used_at(n: usize, block: bool) -> usize {
        let align = if block { PAGE_LEN } else { 4 };
        let avail_len = n.saturating_mul(2).saturating_add(6);
        Self::avail_at(n).saturating_add(avail_len).next_multiple_of(align)
    }

    /// A queue that is not set up yet, in `memory`.
    pub(crate) const fn new(memory: DmaRegion) -> Self {
        Self {
            memory,
            order: Order::Little,
            len: 0,
            used_at: 0,
            offered: 0,
            published: 0,
            reaped: 0,
        }
    }

    /// Lays out empty rings of `len` entries (a power of two), and says where.
    /// The device must not be using them: it has been reset, or never saw them.
    ///
    /// # Errors
    /// [`NicError::Memory`] if there is no room for a queue of the length that
    /// the device insists on.
    pub(crate) fn lay_out(&mut self, len: u16, format: Format) -> Result<Rings, NicError> {
        let need = Self::memory_needed(len, format.block);
        if need > self.memory.len() {
            return Err(NicError::Memory { need, have: self.memory.len() });
        }
        self.memory.zero(0, need).map_err(lost)?;
        let n = usize::from(len);
        self.order = format.order;
        self.used_at = Self::used_at(n, format.block);
        (self.len, self.offered, self.published, self.reaped) = (len, 0, 0, 0);
        self.write16(Self::avail_at(n), NO_INTERRUPT).map_err(lost)?;
        let used_len = need.saturating_sub(self.used_at);
        Ok(Rings {
            len,
            descriptors: self.memory.device_addr(),
            avail: self.memory.device_addr_of(Self::avail_at(n), 0).map_err(lost)?,
            used: self.memory.device_addr_of(self.used_at, used_len).map_err(lost)?,
        })
    }

    fn read16(&self, at: usize) -> Result<u16, BadAccess> {
        self.memory.read_le16(at).map(|word| self.order.le16(word))
    }

    fn read32(&self, at: usize) -> Result<u32, BadAccess> {
        self.memory.read_le32(at).map(|word| self.order.le32(word))
    }

    fn write16(&mut self, at: usize, value: u16) -> Result<(), BadAccess> {
        self.memory.write_le16(at, self.order.le16(value))
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
        self.memory.write_le64(at, self.order.le64(descriptor.address.0))?;
        self.memory.write_le32(at.saturating_add(8), self.order.le32(descriptor.len))?;
        self.write16(at.saturating_add(12), write | next)?;
        self.write16(at.saturating_add(14), descriptor.next.unwrap_or(0))
    }

    /// Puts the chain that starts at descriptor `head` in the available ring.
    /// The device does not see it yet.
    pub(crate) fn offer(&mut self, head: u16) -> Result<(), BadAccess> {
        let at = self.entry(Self::avail_at(usize::from(self.len)), self.offered, 2);
        self.write16(at, head)?;
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
        self.write16(Self::avail_at(n).saturating_add(2), self.offered)?;
        self.published = self.offered;
        // The device sets the flag, then looks at the index once more; we store
        // the index, then look at the flag. One of us sees the other.
        fence::full();
        Ok(self.read16(self.used_at)? & NO_NOTIFY == 0)
    }

    /// The next chain the device has given back, if any.
    ///
    /// # Errors
    /// [`NicError::Protocol`] if it gives back more than it has.
    pub(crate) fn take_used(&mut self) -> Result<Option<Used>, NicError> {
        let index = self.read16(self.used_at.saturating_add(2)).map_err(lost)?;
        let waiting = index.wrapping_sub(self.reaped);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.at_device() {
            return Err(NicError::Protocol("virtio used index jumped"));
        }
        // The index made the entry ours, and with it the chain it names.
        fence::acquire();
        let at = self.entry(self.used_at, self.reaped, 8);
        let id = self.read32(at).map_err(lost)?;
        let len = self.read32(at.saturating_add(4)).map_err(lost)?;
        self.reaped = self.reaped.wrapping_add(1);
        Ok(Some(Used { id, len }))
    }
}

/// The error of an access that the checks before it should have excluded.
pub(crate) fn lost(_: BadAccess) -> NicError {
    NicError::Protocol("virtio access outside a ring or register window")
}
