//! The device's side of the rings, and the ways to lie about them.

use super::FakeVirtio;
use crate::header;
use crate::transport::status;

/// Receive queue.
pub const RX: u16 = 0;
/// Transmit queue.
pub const TX: u16 = 1;

/// Bytes read of one buffer; a longer one has been written over by the device.
const BUFFER_MAX: usize = 0x1_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A virtqueue as the device knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pub(super) len: u16,
    pub(super) enabled: bool,
    pub(super) descriptors: u64,
    pub(super) avail: u64,
    pub(super) used: u64,
    /// Legacy: the page the queue is on.
    pub(super) page: u32,
    /// MMIO version 1: alignment of the used ring.
    pub(super) align: u32,
    /// Free-running index of the next available entry.
    next_avail: u16,
    /// Free-running used index.
    used_index: u16,
}

impl Queue {
    /// Left behind, enabled, with rings at an address that only the dead kernel knew.
    pub(super) fn of_the_dead() -> Self {
        Self {
            len: 256,
            enabled: true,
            descriptors: 0xdead_0000,
            avail: 0xdead_1000,
            used: 0xdead_2000,
            page: 0x000d_ead0,
            align: 0x1000,
            next_avail: 0x1234,
            used_index: 0x1200,
        }
    }
}

/// A chain the device has fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Head descriptor.
    pub head: u16,
    /// Address and length of each buffer.
    pub buffers: Vec<(u64, u32)>,
}

impl FakeVirtio {
    fn read(&self, address: u64, into: &mut [u8]) {
        let found = self.driver_memory.device_read(address, into).is_ok()
            || self.payload.device_read(address, into).is_ok();
        if !found {
            let mut device = self.device.borrow_mut();
            device.violation(format!("gave {} bytes at {address:#x} to read", into.len()));
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        if self.driver_memory.device_write(address, bytes).is_err() {
            let mut device = self.device.borrow_mut();
            device.violation(format!("gave {} bytes at {address:#x} to write", bytes.len()));
        }
    }

    fn read16(&self, address: u64) -> u16 {
        let mut bytes = [0; 2];
        self.read(address, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    fn queue(&self, queue: u16) -> Queue {
        self.device.borrow().queues[usize::from(queue)].clone()
    }

    /// Whether the device may touch memory: running, not resetting, a bus master.
    fn runs(&self, queue: u16) -> bool {
        let device = self.device.borrow();
        device.status & status::DRIVER_OK != 0
            && device.status & status::NEEDS_RESET == 0
            && !device.quirks.gone
            && device.queues[usize::from(queue)].enabled
            && (!device.quirks.bus.is_pci() || self.config.is_bus_master())
    }

    /// Takes the next available chain of `queue`, if the device runs and there is one.
    pub fn fetch(&self, queue: u16) -> Option<Chain> {
        if !self.runs(queue) {
            return None;
        }
        let rings = self.queue(queue);
        let index = self.read16(rings.avail + 2);
        if index == rings.next_avail {
            return None;
        }
        if index.wrapping_sub(rings.next_avail) > rings.len {
            self.device.borrow_mut().violation("available index jumped");
            return None;
        }
        if self.read16(rings.avail) != 1 {
            self.device.borrow_mut().violation("asks for interrupts");
        }
        let slot = u64::from(rings.next_avail % rings.len);
        let head = self.read16(rings.avail + 4 + 2 * slot);
        self.device.borrow_mut().queues[usize::from(queue)].next_avail =
            rings.next_avail.wrapping_add(1);
        Some(self.walk(queue, &rings, head))
    }

    fn walk(&self, queue: u16, rings: &Queue, head: u16) -> Chain {
        let mut chain = Chain { head, buffers: Vec::new() };
        let mut index = head;
        for _ in 0..rings.len {
            if index >= rings.len {
                self.device.borrow_mut().violation(format!("descriptor {index}"));
                break;
            }
            let mut descriptor = [0; 16];
            self.read(rings.descriptors + 16 * u64::from(index), &mut descriptor);
            let word = |at: usize| u16::from_le_bytes([descriptor[at], descriptor[at + 1]]);
            let address = u64::from_le_bytes(descriptor[..8].try_into().expect("8 bytes"));
            let len = u32::from_le_bytes(descriptor[8..12].try_into().expect("4 bytes"));
            let flags = word(12);
            let direction = if queue == RX { WRITE } else { 0 };
            if flags & WRITE != direction || flags & !(NEXT | WRITE) != 0 || len == 0 {
                let mut device = self.device.borrow_mut();
                device.violation(format!("descriptor flags {flags:#x}, length {len}"));
            }
            chain.buffers.push((address, len));
            if flags & NEXT == 0 {
                return chain;
            }
            index = word(14);
        }
        self.device.borrow_mut().violation("endless chain");
        chain
    }

    /// Length of the header in front of frames: that of the interface, as
    /// nothing that lengthens it can have been accepted.
    pub fn header_len(&self) -> usize {
        if self.device.borrow().quirks.bus.is_legacy() { 10 } else { 12 }
    }

    /// Without `ANY_LAYOUT` a legacy device takes the header from a buffer of its own.
    fn check_layout(&self, chain: &Chain) {
        let mut device = self.device.borrow_mut();
        let any = !device.quirks.bus.is_legacy() || device.driver_features & 1 << 27 != 0;
        let first = chain.buffers.first().map_or(0, |(_, len)| *len);
        if !any && first != 10 {
            device.violation(format!("header in a buffer of {first} bytes"));
        }
    }

    /// Fetches everything that was kicked and reads it: head, virtio header
    /// (padded with zeros) and frame of each.
    pub fn fetch_frames(&self) -> Vec<(u16, [u8; header::MAX], Vec<u8>)> {
        std::iter::from_fn(|| self.fetch(TX)).map(|chain| self.read_frame(&chain)).collect()
    }

    fn read_frame(&self, chain: &Chain) -> (u16, [u8; header::MAX], Vec<u8>) {
        self.check_layout(chain);
        let header_len = self.header_len();
        let mut bytes = Vec::new();
        for (address, len) in &chain.buffers {
            let at = bytes.len();
            let len = (*len as usize).min(BUFFER_MAX);
            bytes.resize(at + len, 0);
            self.read(*address, &mut bytes[at..]);
        }
        let mut virtio_header = [0; header::MAX];
        match bytes.get(..header_len) {
            Some(found) => virtio_header[..header_len].copy_from_slice(found),
            None => self.device.borrow_mut().violation("frame without a header"),
        }
        if virtio_header[10..] != [0, 0] {
            self.device.borrow_mut().violation("num_buffers of a sent frame is not 0");
        }
        (chain.head, virtio_header, bytes.split_off(header_len.min(bytes.len())))
    }

    /// Puts an entry in the used ring, true or not.
    pub fn push_used(&self, queue: u16, id: u32, len: u32) {
        let rings = self.queue(queue);
        if rings.len == 0 || !self.runs(queue) {
            return;
        }
        let slot = u64::from(rings.used_index % rings.len);
        let mut entry = [0; 8];
        entry[..4].copy_from_slice(&id.to_le_bytes());
        entry[4..].copy_from_slice(&len.to_le_bytes());
        self.write(rings.used + 4 + 8 * slot, &entry);
        self.set_used_index(queue, rings.used_index.wrapping_add(1));
    }

    /// Sets the used index, true or not, if the device runs.
    pub fn set_used_index(&self, queue: u16, index: u16) {
        if !self.runs(queue) {
            return;
        }
        let rings = self.queue(queue);
        self.write(rings.used + 2, &index.to_le_bytes());
        self.device.borrow_mut().queues[usize::from(queue)].used_index = index;
    }

    /// The used index.
    pub fn used_index(&self, queue: u16) -> u16 {
        self.queue(queue).used_index
    }

    /// Asks the driver not to ring the doorbell of `queue`, or to ring it again,
    /// if the device runs.
    pub fn suppress_doorbell(&self, queue: u16, suppress: bool) {
        if !self.runs(queue) {
            return;
        }
        self.write(self.queue(queue).used, &u16::from(suppress).to_le_bytes());
    }

    /// Delivers `frame` as it should be. `false` if there is no buffer.
    pub fn deliver(&self, frame: &[u8]) -> bool {
        let mut virtio_header = [0; header::MAX];
        virtio_header[10] = 1;
        self.deliver_as(virtio_header, frame, (self.header_len() + frame.len()) as u32)
    }

    /// Delivers `frame` with any header (as much of it as the interface has),
    /// and says that it wrote `len` bytes.
    pub fn deliver_as(&self, virtio_header: [u8; header::MAX], frame: &[u8], len: u32) -> bool {
        let Some(chain) = self.fetch(RX) else { return false };
        self.check_layout(&chain);
        let room: u64 = chain.buffers.iter().map(|(_, len)| u64::from(*len)).sum();
        if room < 1526 {
            self.device.borrow_mut().violation(format!("receive buffer of {room} bytes"));
        }
        let mut bytes = virtio_header[..self.header_len()].to_vec();
        bytes.extend_from_slice(frame);
        let mut left = &bytes[..];
        for (address, room) in &chain.buffers {
            // The whole buffer is the device's, and must be memory.
            self.read(address.wrapping_add(u64::from(*room)).wrapping_sub(1), &mut [0]);
            let (here, rest) = left.split_at(left.len().min(*room as usize));
            self.write(*address, here);
            left = rest;
        }
        self.push_used(RX, chain.head.into(), len);
        true
    }

    /// Overwrites the transmit descriptors, and all of the available ring but
    /// its flags and index: a device with a broken bus.
    pub fn scribble_descriptors(&self, byte: u8) {
        let rings = self.queue(TX);
        let len = usize::from(rings.len);
        self.write(rings.descriptors, &vec![byte; 16 * len]);
        self.write(rings.avail + 4, &vec![byte; 2 * len]);
    }

    /// Forgets all it was told, as if reset by somebody else.
    pub fn lose_state(&self) {
        self.device.borrow_mut().finish_reset();
    }
}
