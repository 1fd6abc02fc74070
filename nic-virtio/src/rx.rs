//! Frames on their way in: buffers posted in turn, copied out, posted again.

use debugnet_core::nic::{NicError, RxError};
use nic_hal::{BadAccess, DmaRegion};

use crate::bits::Bits;
use crate::format::Format;
use crate::header;
use crate::queue::{Descriptor, SplitQueue, lost};
use crate::sizes::RX_BUFFER_LEN;
use crate::transport::Rings;

/// Shortest frame: an Ethernet header.
const FRAME_MIN: usize = 14;
/// Longest link header: Ethernet and two VLAN tags.
pub(crate) const LINK_HEADER_MAX: u16 = 22;

/// The receive queue and its buffers. Buffer *i* is descriptor *i*, or, where the
/// header is apart, descriptors *2i* and *2i + 1*.
#[derive(Debug)]
pub(crate) struct Receiver {
    queue: SplitQueue,
    buffers: DmaRegion,
    format: Format,
    /// Length of one buffer in bytes.
    buffer_len: usize,
    /// Buffers there are: as many as fit memory and queue.
    count: u16,
    /// Buffers that are posted.
    posted: Bits,
}

impl Receiver {
    /// Not set up yet, in these pieces of memory.
    pub(crate) const fn new(rings: DmaRegion, buffers: DmaRegion) -> Self {
        Self {
            queue: SplitQueue::new(rings),
            buffers,
            format: Format::NONE,
            buffer_len: RX_BUFFER_LEN,
            count: 0,
            posted: Bits::new(),
        }
    }

    /// Buffer length for packets of up to `ip_mtu` bytes. A device that names an
    /// MTU has to be given buffers that hold it (virtio 1.2 section 5.1.4.2).
    fn buffer_len_for(ip_mtu: u16) -> usize {
        usize::from(ip_mtu)
            .saturating_add(usize::from(LINK_HEADER_MAX))
            .saturating_add(header::MAX)
            .next_multiple_of(64)
            .max(RX_BUFFER_LEN)
    }

    /// Whether there is memory for even one packet of `ip_mtu` bytes.
    pub(crate) fn can_hold(&self, ip_mtu: u16) -> bool {
        Self::buffer_len_for(ip_mtu) <= self.buffers.len()
    }

    /// Lays out a queue of `len` entries for packets of up to `ip_mtu` bytes
    /// and posts every buffer; the device sees them once it runs.
    pub(crate) fn lay_out(
        &mut self,
        len: u16,
        ip_mtu: u16,
        format: Format,
    ) -> Result<Rings, NicError> {
        self.format = format;
        self.buffer_len = Self::buffer_len_for(ip_mtu);
        self.posted = Bits::new();
        let rings = self.queue.lay_out(len, format)?;
        let fit = self.buffers.len().checked_div(self.buffer_len).unwrap_or(0);
        let in_queue = if format.header_apart { len / 2 } else { len };
        self.count = u16::try_from(fit).unwrap_or(u16::MAX).min(in_queue).min(Bits::LEN);
        if self.count == 0 {
            return Err(NicError::Unsupported("virtio receive queue too short"));
        }
        for index in 0..self.count {
            self.post(index).map_err(lost)?;
        }
        self.queue.publish().map_err(lost)?;
        Ok(rings)
    }

    /// The available index as the device last saw it.
    pub(crate) const fn published(&self) -> u16 {
        self.queue.published()
    }

    fn buffer_at(&self, index: u16) -> usize {
        usize::from(index).saturating_mul(self.buffer_len)
    }

    /// Offers buffer `index`, which is ours, to the device.
    fn post(&mut self, index: u16) -> Result<(), BadAccess> {
        let at = self.buffer_at(index);
        // Devices leave fields they do not use as they were: see `header::is_whole`.
        self.buffers.zero(at, self.format.header_len)?;
        let head = if self.format.header_apart {
            let head = index.saturating_mul(2);
            let data = head.saturating_add(1);
            let header_len = self.format.header_len;
            self.describe(head, at, header_len, Some(data))?;
            let data_at = at.saturating_add(header_len);
            self.describe(data, data_at, self.buffer_len.saturating_sub(header_len), None)?;
            head
        } else {
            self.describe(index, at, self.buffer_len, None)?;
            index
        };
        self.queue.offer(head)?;
        self.posted.insert(index);
        Ok(())
    }

    /// Descriptor `index` for `len` bytes of buffer memory at `at`.
    fn describe(
        &mut self,
        index: u16,
        at: usize,
        len: usize,
        next: Option<u16>,
    ) -> Result<(), BadAccess> {
        let descriptor = Descriptor {
            address: self.buffers.device_addr_of(at, len)?,
            len: u32::try_from(len).unwrap_or(0),
            device_writes: true,
            next,
        };
        self.queue.write_descriptor(index, descriptor)
    }

    /// The buffer whose chain starts at descriptor `head`, if the device has it.
    fn take_back(&mut self, head: u32) -> Option<u16> {
        let head = u16::try_from(head).ok()?;
        let index = if self.format.header_apart {
            head.is_multiple_of(2).then_some(head / 2)?
        } else {
            head
        };
        self.posted.remove(index).then_some(index)
    }

    /// Copies the next frame out and posts its buffer again.
    pub(crate) fn take(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        let Some(used) = self.queue.take_used().map_err(RxError::Device)? else {
            return Ok(None);
        };
        let Some(index) = self.take_back(used.id) else {
            let error = NicError::Protocol("virtio filled a buffer it did not have");
            return Err(RxError::Device(error));
        };
        let taken = self.copy_out(index, used.len, buf);
        // Good or bad, the buffer goes back: a lying length costs one frame, not one buffer.
        self.post(index).map_err(|bad| RxError::Device(lost(bad)))?;
        taken.map(Some)
    }

    fn copy_out(&self, index: u16, used_len: u32, buf: &mut [u8]) -> Result<usize, RxError> {
        let broken = |bad| RxError::Device(lost(bad));
        let at = self.buffer_at(index);
        let header_len = self.format.header_len;
        let written = usize::try_from(used_len)
            .ok()
            .filter(|written| *written <= self.buffer_len)
            .ok_or(RxError::Malformed)?;
        let frame_len = written
            .checked_sub(header_len)
            .filter(|len| *len >= FRAME_MIN)
            .ok_or(RxError::Malformed)?;
        let mut virtio_header = [0; header::MAX];
        let found = virtio_header.get_mut(..header_len).unwrap_or(&mut []);
        self.buffers.read_bytes(at, found).map_err(broken)?;
        if !header::is_whole(virtio_header) {
            return Err(RxError::Malformed);
        }
        let Some(into) = buf.get_mut(..frame_len) else {
            return Err(RxError::TooLong { len: u32::try_from(frame_len).unwrap_or(u32::MAX) });
        };
        self.buffers.read_bytes(at.saturating_add(header_len), into).map_err(broken)?;
        Ok(frame_len)
    }

    /// Shows the device the buffers posted since the last time, once they are
    /// a quarter of all: until then the device has three quarters to fill. `true` if the doorbell is to be rung.
    pub(crate) fn publish_batch(&mut self) -> Result<bool, NicError> {
        let batch = (self.count / 4).max(1);
        if self.queue.unpublished() < batch {
            return Ok(false);
        }
        self.queue.publish().map_err(lost)
    }
}
