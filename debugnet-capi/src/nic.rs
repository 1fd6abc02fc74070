//! A network interface as a table of C functions.

use core::ffi::c_void;

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::{
    Capabilities as CoreCapabilities, Checksum, ChecksumOffload, Link, NicError, Payload,
    PayloadKind, RxError, Start, TxError, TxFrame, TxTicket,
};
use debugnet_core::time::{Clock, Instant};

/// A network interface. Every function gets `context`. None may block or wait
/// longer than a millisecond; none may call back into the library.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Nic {
    /// The driver's own.
    pub context: *mut c_void,
    /// Says what the interface can do; called after `start` said it is ready.
    pub capabilities: Option<extern "C" fn(context: *mut c_void, capabilities: *mut Capabilities)>,
    /// One bounded step of taking the device over: silence it, reset it, set up own
    /// rings, enable it. `DEBUGNET_NIC_OK` when it runs; `DEBUGNET_NIC_AGAIN` to be called
    /// again at `*until_us`, or earlier. `now_us` is the time.
    pub start: Option<extern "C" fn(context: *mut c_void, now_us: u64, until_us: *mut u64) -> i32>,
    /// The state of the cable: one of `DEBUGNET_LINK_*`.
    pub link: Option<extern "C" fn(context: *mut c_void) -> i32>,
    /// Queues one frame; the device need not see it before `kick`. The header is to be
    /// copied; a payload by address stays as it is until `transmitted` passed the frame.
    /// `DEBUGNET_NIC_FULL` changes nothing.
    pub transmit: Option<extern "C" fn(context: *mut c_void, frame: *const Frame) -> i32>,
    /// Rings the doorbell for what was queued.
    pub kick: Option<extern "C" fn(context: *mut c_void)>,
    /// How many frames have left the device since the machine started, in order: the
    /// number of `transmit` calls that said `DEBUGNET_NIC_OK` and are done with. A reset
    /// completes all. `DEBUGNET_NIC_OK`, or why the device failed.
    pub transmitted: Option<extern "C" fn(context: *mut c_void, frames: *mut u64) -> i32>,
    /// Copies one received frame, without FCS, to `buffer` of `len` bytes: its length,
    /// 0 if none waits, `-1` for one that was dropped, less if the device failed.
    pub receive: Option<extern "C" fn(context: *mut c_void, buffer: *mut u8, len: usize) -> isize>,
    /// Makes the device quiet. `DEBUGNET_NIC_OK` only if it does no DMA from now on.
    pub stop: Option<extern "C" fn(context: *mut c_void) -> i32>,
}

// Numbers, not enums: what C hands over may be anything, and an enum with a
// value that it does not have is undefined behaviour.

/// Done.
pub const DEBUGNET_NIC_OK: i32 = 0;
/// Not yet: `start` only.
pub const DEBUGNET_NIC_AGAIN: i32 = 1;
/// No room now: `transmit` only. Nothing was lost.
pub const DEBUGNET_NIC_FULL: i32 = 2;
/// The device cannot fetch the payload from where it is: `transmit` only.
pub const DEBUGNET_NIC_NOT_REACHABLE: i32 = 3;
/// The frame is too long: `transmit` only.
pub const DEBUGNET_NIC_TOO_LONG: i32 = 4;
/// The device is gone.
pub const DEBUGNET_NIC_GONE: i32 = -1;
/// It did not do something in time.
pub const DEBUGNET_NIC_TIMEOUT: i32 = -2;
/// It broke its own protocol.
pub const DEBUGNET_NIC_PROTOCOL: i32 = -3;
/// It failed in another way.
pub const DEBUGNET_NIC_FAILED: i32 = -4;
/// It is not one that this driver can use.
pub const DEBUGNET_NIC_UNSUPPORTED: i32 = -5;

/// No carrier.
pub const DEBUGNET_LINK_DOWN: i32 = 0;
/// Frames can pass.
pub const DEBUGNET_LINK_UP: i32 = 1;
/// The device cannot tell; treated as up. So is any other number.
pub const DEBUGNET_LINK_UNKNOWN: i32 = 2;

/// What an interface can do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Capabilities {
    /// Station address.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes: 1500 on plain Ethernet.
    pub ip_mtu: u16,
    /// Frames that can wait in the device at once.
    pub tx_slots: u16,
    /// Payloads come by physical address (the device fetches them) instead of as bytes.
    /// 0: no.
    pub dma: u8,
    /// The device can insert UDP checksums. 0: no.
    pub checksum: u8,
}

/// One frame to send: header, then payload.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    /// Ethernet header and all that follows up to the payload. Gone when `transmit` returns.
    pub header: *const u8,
    /// Its length, at most 116 bytes.
    pub header_len: usize,
    /// The payload's bytes, for a device without `dma`; null otherwise. Gone when `transmit` returns.
    pub payload: *const u8,
    /// The payload's physical address, for a device with `dma`.
    pub payload_phys: u64,
    /// The payload's length; may be 0.
    pub payload_len: usize,
    /// Offset in the frame from which the device sums, to its end; 0 if it has nothing
    /// to insert. The sum's complement belongs at `checksum_offset` from there, where
    /// the pseudo header's sum is now.
    pub checksum_start: u16,
    /// See `checksum_start`.
    pub checksum_offset: u16,
}

fn error(status: i32) -> NicError {
    match status {
        DEBUGNET_NIC_GONE => NicError::Gone,
        DEBUGNET_NIC_TIMEOUT => NicError::Timeout("C driver"),
        DEBUGNET_NIC_UNSUPPORTED => NicError::Unsupported("C driver"),
        DEBUGNET_NIC_FAILED => NicError::Failed,
        _ => NicError::Protocol("C driver"),
    }
}

impl Nic {
    /// Whether no function is missing.
    pub(crate) fn is_whole(&self) -> bool {
        self.capabilities.is_some()
            && self.start.is_some()
            && self.link.is_some()
            && self.transmit.is_some()
            && self.kick.is_some()
            && self.transmitted.is_some()
            && self.receive.is_some()
            && self.stop.is_some()
    }
}

/// A function is missing; [`Nic::is_whole`] has said so before.
const INCOMPLETE: NicError = NicError::Unsupported("C driver: a function is missing");

/// The table as the core's [`Nic`](debugnet_core::nic::Nic).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Driver {
    nic: Nic,
    /// Frames that it took since the machine started.
    pub(crate) taken: u64,
}

impl Driver {
    pub(crate) const fn new(nic: Nic, taken: u64) -> Self {
        Self { nic, taken }
    }
}

impl debugnet_core::nic::Nic for Driver {
    fn capabilities(&self) -> CoreCapabilities {
        let mut told = Capabilities::default();
        if let Some(capabilities) = self.nic.capabilities {
            capabilities(self.nic.context, &mut told);
        }
        CoreCapabilities {
            mac: MacAddr(told.mac),
            ip_mtu: told.ip_mtu,
            tx_slots: told.tx_slots,
            max_segments: 1,
            payload: if told.dma != 0 { PayloadKind::Dma } else { PayloadKind::Bytes },
            checksum: if told.checksum != 0 {
                ChecksumOffload::Insert
            } else {
                ChecksumOffload::None
            },
        }
    }

    fn poll_start(&mut self, clock: &mut dyn Clock) -> Result<Start, NicError> {
        let now_us = clock.now().as_micros();
        let mut until_us = now_us;
        let start = self.nic.start.ok_or(INCOMPLETE)?;
        match start(self.nic.context, now_us, &mut until_us) {
            DEBUGNET_NIC_OK => Ok(Start::Ready),
            DEBUGNET_NIC_AGAIN => Ok(Start::Again { until: Instant::from_micros(until_us) }),
            other => Err(error(other)),
        }
    }

    fn link(&mut self) -> Link {
        let Some(link) = self.nic.link else { return Link::Unknown };
        match link(self.nic.context) {
            DEBUGNET_LINK_DOWN => Link::Down,
            DEBUGNET_LINK_UP => Link::Up,
            _ => Link::Unknown,
        }
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError> {
        let header_len = frame.header.len();
        let (payload, payload_phys, payload_len) = match frame.payload {
            Payload::None => (core::ptr::null(), 0, 0),
            Payload::Bytes(bytes) => (bytes.as_ptr(), 0, bytes.len()),
            Payload::Dma([range]) => {
                let len = usize::try_from(range.len()).map_err(|_| TxError::NotReachable)?;
                (core::ptr::null(), range.start().0, len)
            }
            Payload::Dma(ranges) => {
                let count = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
                return Err(TxError::TooManySegments { count, max: 1 });
            }
        };
        let (checksum_start, checksum_offset) = match frame.checksum {
            Checksum::Complete => (0, 0),
            Checksum::Insert { start, offset } => (start, offset),
        };
        let given = Frame {
            header: frame.header.as_ptr(),
            header_len,
            payload,
            payload_phys,
            payload_len,
            checksum_start,
            checksum_offset,
        };
        let transmit = self.nic.transmit.ok_or(TxError::Device(INCOMPLETE))?;
        match transmit(self.nic.context, &given) {
            DEBUGNET_NIC_OK => {
                self.taken = self.taken.saturating_add(1);
                Ok(TxTicket(self.taken))
            }
            DEBUGNET_NIC_FULL => Err(TxError::Full),
            DEBUGNET_NIC_NOT_REACHABLE => Err(TxError::NotReachable),
            DEBUGNET_NIC_TOO_LONG => {
                let len = header_len.saturating_add(payload_len);
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                Err(TxError::TooLong { len, max: len.saturating_sub(1) })
            }
            other => Err(TxError::Device(error(other))),
        }
    }

    fn kick(&mut self) {
        if let Some(kick) = self.nic.kick {
            kick(self.nic.context);
        }
    }

    fn poll_tx(&mut self) -> Result<TxTicket, NicError> {
        let mut frames = 0;
        let transmitted = self.nic.transmitted.ok_or(INCOMPLETE)?;
        match transmitted(self.nic.context, &mut frames) {
            // More than were taken cannot have left: a cell would be freed too early.
            DEBUGNET_NIC_OK if frames <= self.taken => Ok(TxTicket(frames)),
            DEBUGNET_NIC_OK => {
                Err(NicError::Protocol("C driver: more frames left than were taken"))
            }
            other => Err(error(other)),
        }
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        let receive = self.nic.receive.ok_or(RxError::Device(INCOMPLETE))?;
        let len = receive(self.nic.context, buf.as_mut_ptr(), buf.len());
        match usize::try_from(len) {
            Ok(0) => Ok(None),
            Ok(len) if len <= buf.len() => Ok(Some(len)),
            // It has written behind the buffer, or does not count.
            Ok(_) => Err(RxError::Device(NicError::Protocol(
                "C driver: more received than there was room for",
            ))),
            Err(_) if len == -1 => Err(RxError::Malformed),
            Err(_) => Err(RxError::Device(NicError::Failed)),
        }
    }

    fn stop(&mut self) -> Result<(), NicError> {
        let stop = self.nic.stop.ok_or(INCOMPLETE)?;
        match stop(self.nic.context) {
            DEBUGNET_NIC_OK => Ok(()),
            other => Err(error(other)),
        }
    }
}
