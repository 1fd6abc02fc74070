//! What the dump needs from a network interface: the [`Nic`] trait.
//!
//! A NIC is picked at panic time, so the trait is object safe. It moves plain
//! Ethernet frames and knows no protocol. A driver takes the device over by
//! reset, uses memory of its own, never waits longer than a millisecond in one
//! call, and never trusts what the device tells it.
//!
//! # Ownership of memory
//!
//! `transmit` copies the header before it returns. A [`Payload::Dma`] range
//! stays the core's, unchanged, until [`Nic::poll_tx`] has passed its ticket.
//! Received bytes are copied out, so that a parser sees memory the device can
//! no longer change.

use crate::addr::{MacAddr, PhysRange};
use crate::time::{Clock, Instant};

/// Longest frame header [`Nic::transmit`] is ever given, in bytes: enough for
/// Ethernet, two VLAN tags, IPv6, UDP and a debugnet header, or for a whole
/// ARP packet or neighbour advertisement.
pub const HEADER_MAX: usize = 116;

/// A network interface that can be taken over by a dying kernel.
///
/// The order of calls is `poll_start` until it says [`Start::Ready`], then any
/// of the others, then `stop`. After `stop`, `poll_start` may begin anew.
pub trait Nic {
    /// What the interface can do. Valid once [`Nic::poll_start`] said [`Start::Ready`].
    fn capabilities(&self) -> Capabilities;

    /// One bounded step (at most about 1 ms) of taking the device over:
    /// silence it, reset it, set up own rings, enable it. A longer wait is
    /// handed to the caller as [`Start::Again`]. Does not wait for the link.
    ///
    /// # Errors
    /// [`NicError`] if the device is gone, refuses, or cannot work in the memory it was given.
    fn poll_start(&mut self, clock: &mut dyn Clock) -> Result<Start, NicError>;

    /// The state of the cable, as far as the device knows.
    fn link(&mut self) -> Link;

    /// Queues one frame. The device may not see it before [`Nic::kick`].
    ///
    /// A frame may be shorter than Ethernet's 60 bytes (an ARP packet has 42):
    /// padding it is the driver's. So is cache maintenance for a
    /// [`Payload::Dma`] range on a machine whose devices do not snoop.
    ///
    /// # Errors
    /// [`TxError::Full`] changes nothing: kick, reap and offer the frame again.
    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError>;

    /// Tells the device about the frames queued since the last kick: the only
    /// place that rings a doorbell or writes a tail. Called after each batch,
    /// and before a [`TxError::Full`] is acted on.
    fn kick(&mut self);

    /// Reaps completions and returns the low-water mark: every frame with a
    /// ticket up to this one has left the device's hands.
    ///
    /// # Errors
    /// [`NicError`] if the device has failed for good.
    fn poll_tx(&mut self) -> Result<TxTicket, NicError>;

    /// Copies one received frame, without FCS, into `buf` and returns its length; `None` if none waits.
    ///
    /// # Errors
    /// [`RxError::TooLong`] drops a frame that does not fit; the next call goes on.
    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError>;

    /// Makes the device quiet: when this returns `Ok`, it does no DMA any more.
    /// Completes all tickets.
    ///
    /// # Errors
    /// [`NicError`] if the device does not confirm; its memory must then never be used again.
    fn stop(&mut self) -> Result<(), NicError>;
}

/// What an interface can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Capabilities {
    /// The station address frames are sent from.
    pub mac: MacAddr,
    /// Largest IP packet in bytes (1500 on plain Ethernet): frame length less Ethernet and VLAN headers.
    pub ip_mtu: u16,
    /// Frames that can wait in the device at once.
    pub tx_slots: u16,
    /// Largest number of [`PhysRange`]s in one [`Payload::Dma`].
    pub max_segments: u8,
    /// How payloads reach the device.
    pub payload: PayloadKind,
    /// Whether the device can insert the UDP checksum.
    pub checksum: ChecksumOffload,
}

/// How a device takes payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PayloadKind {
    /// It fetches them from physical memory itself: [`Payload::Dma`].
    Dma,
    /// The driver writes them to it (FIFO, SPI): [`Payload::Bytes`].
    Bytes,
}

/// What a device can do about the UDP checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ChecksumOffload {
    /// Nothing: the core computes it.
    None,
    /// It sums from [`Checksum::Insert::start`] to the end of the frame and
    /// writes the complement at [`Checksum::Insert::offset`]. The field holds
    /// the pseudo-header sum beforehand.
    Insert,
}

/// One step of [`Nic::poll_start`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Start {
    /// The device is ours and running.
    Ready,
    /// Call again at `until`, or earlier; nothing is lost by calling early.
    Again {
        /// When the device is expected to have got on.
        until: Instant,
    },
}

/// State of the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Link {
    /// Frames can pass.
    Up,
    /// No carrier.
    Down,
    /// The device cannot tell; treated as up.
    Unknown,
}

/// One frame to send: a header the driver copies, and a payload that stays where it is.
#[derive(Clone, Copy, Debug)]
pub struct TxFrame<'a> {
    /// Ethernet header and all that follows up to the payload, at most [`HEADER_MAX`] bytes.
    pub header: &'a [u8],
    /// What follows the header on the wire.
    pub payload: Payload<'a>,
    /// Who computes the UDP checksum.
    pub checksum: Checksum,
}

/// The payload of a frame.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// The frame is its header.
    None,
    /// Physical memory the device fetches, in this order. None of them is empty.
    Dma(&'a [PhysRange]),
    /// Bytes the driver copies out before `transmit` returns.
    Bytes(&'a [u8]),
}

impl Payload<'_> {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Payload::None => 0,
            Payload::Dma(ranges) => {
                ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.len()))
            }
            Payload::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The transport checksum of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Checksum {
    /// Already in the header, or the frame has none.
    Complete,
    /// The device inserts it. Only given to a NIC that offers [`ChecksumOffload::Insert`].
    Insert {
        /// Offset in the frame where the sum starts: the UDP header.
        start: u16,
        /// Offset of the checksum field from `start`: 6 for UDP. It holds the
        /// folded, uncomplemented pseudo-header sum.
        offset: u16,
    },
}

/// Names a transmitted frame: counts from 1 and never restarts, not even after a reset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct TxTicket(pub u64);

impl TxTicket {
    /// No frame: passed from the start.
    pub const NONE: Self = Self(0);

    /// The ticket of the next frame.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Why a frame was not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TxError {
    /// No room now. Nothing was lost; kick, reap, offer it again.
    Full,
    /// The device cannot fetch the payload from where it is; the core copies it to a cell and tries again.
    NotReachable,
    /// The frame has `len` bytes and the interface takes `max`.
    TooLong {
        /// Bytes of header and payload.
        len: u32,
        /// Largest frame.
        max: u32,
    },
    /// The payload has `count` segments and the interface takes `max`.
    TooManySegments {
        /// Segments given.
        count: u32,
        /// Most it takes.
        max: u32,
    },
    /// The device failed.
    Device(NicError),
}

/// Why nothing was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RxError {
    /// A frame of `len` bytes did not fit the buffer and was dropped.
    TooLong {
        /// Bytes the device reported.
        len: u32,
    },
    /// The device reported a frame that cannot be (bad index, bad length, error flag); dropped.
    Malformed,
    /// The device failed.
    Device(NicError),
}

/// Why a device cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum NicError {
    /// Its registers read as all ones: unplugged, or powered down.
    Gone,
    /// It is not a device this driver knows: `id` is the vendor (high half) and device id, or the magic found.
    Unknown {
        /// What was read.
        id: u32,
    },
    /// It cannot work as this driver needs; the text says what is missing.
    Unsupported(&'static str),
    /// It did not finish `0`'s named step in time.
    Timeout(&'static str),
    /// It broke its own protocol (an index out of range, a status that cannot be); the text says where.
    Protocol(&'static str),
    /// It asked to be reset, or stopped, more often than it may.
    Failed,
    /// The caller gave `have` bytes of memory where `need` are needed.
    Memory {
        /// Bytes needed.
        need: usize,
        /// Bytes given.
        have: usize,
    },
    /// Memory it must reach has no device address.
    NotReachable,
    /// The bus to it failed too often (SPI).
    Bus,
    /// Called out of order: before `poll_start` was ready, or after `stop`.
    NotStarted,
}
