//! A simulated NIC: a ring of finite length, DMA at the last moment, doorbells
//! that count.
//!
//! A payload is fetched when the device gets to the frame, not when the frame
//! is queued: a cell that is reused too early goes out with the wrong bytes,
//! as it would on hardware.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use debugnet_core::addr::{MacAddr, PhysAddr, PhysRange};
use debugnet_core::nic::{
    Capabilities, Checksum, ChecksumOffload, HEADER_MAX, Link, Nic, NicError, Payload, PayloadKind,
    RxError, Start, TxError, TxFrame, TxTicket,
};
use debugnet_core::time::Clock;

use crate::ram::SharedRam;

/// How the NIC is made.
#[derive(Clone, Copy, Debug)]
pub struct NicConfig {
    /// Its station address.
    pub mac: MacAddr,
    /// Its MTU.
    pub ip_mtu: u16,
    /// Frames its ring holds.
    pub tx_slots: u16,
    /// How it takes payloads.
    pub payload: PayloadKind,
    /// Whether it sums.
    pub checksum: ChecksumOffload,
    /// Physical addresses at and above this are out of its reach.
    pub reach: u64,
    /// A range of physical addresses it cannot reach either: first, and first behind it.
    pub unreachable: Option<(u64, u64)>,
    /// Frames that wait in it for the CPU at most.
    pub rx_slots: usize,
    /// Steps `poll_start` takes.
    pub start_steps: u32,
    /// `stop` is not confirmed.
    pub stop_fails: bool,
}

impl Default for NicConfig {
    fn default() -> Self {
        Self {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            ip_mtu: 1500,
            tx_slots: 64,
            payload: PayloadKind::Dma,
            checksum: ChecksumOffload::None,
            reach: u64::MAX,
            unreachable: None,
            rx_slots: 1024,
            start_steps: 3,
            stop_fails: false,
        }
    }
}

/// Cells as a device sees them: memory the CPU owns and the device reads.
#[derive(Clone, Copy, Debug)]
pub struct CellWindow {
    base: *const u8,
    len: usize,
    phys: PhysAddr,
}

impl CellWindow {
    /// A window on `bytes`, seen by devices at `phys`.
    ///
    /// # Safety
    /// `base` must stay valid for `len` bytes for as long as any NIC holds the window.
    pub unsafe fn new(base: *const u8, len: usize, phys: PhysAddr) -> Self {
        Self { base, len, phys }
    }

    fn read(&self, range: PhysRange) -> Option<Vec<u8>> {
        let offset = usize::try_from(range.start().0.checked_sub(self.phys.0)?).ok()?;
        let len = range.len() as usize;
        if offset.checked_add(len)? > self.len {
            return None;
        }
        let byte = |i| {
            // SAFETY: the bounds were checked above, and the caller of `new`
            // keeps the memory alive.
            let at = unsafe { self.base.add(i) };
            // SAFETY: a byte of living memory, as above. The CPU side writes a
            // cell only between transmissions; a device reads it whenever it
            // likes, which is what is simulated, hence volatile.
            unsafe { at.read_volatile() }
        };
        Some((offset..offset + len).map(byte).collect())
    }
}

/// What the wire side of the NIC sees.
#[derive(Debug)]
pub struct Device {
    config: NicConfig,
    ram: SharedRam,
    cells: Option<CellWindow>,
    /// Queued by the CPU, not yet kicked; then the device's.
    queued: VecDeque<Queued>,
    kicked: usize,
    done: TxTicket,
    last: TxTicket,
    rx: VecDeque<Vec<u8>>,
    /// Frames that found the receive ring full.
    pub rx_overruns: u64,
    /// Doorbells rung.
    pub kicks: u64,
    /// Whether frames are delivered and sent.
    pub link_up: bool,
    is_running: bool,
    /// It fails for good at the next call.
    pub is_dead: bool,
}

#[derive(Debug)]
struct Queued {
    header: Vec<u8>,
    payload: Source,
    checksum: Checksum,
    ticket: TxTicket,
}

#[derive(Debug)]
enum Source {
    Bytes(Vec<u8>),
    Dma(Vec<PhysRange>),
}

/// A device shared by its driver and its wire.
pub type SharedDevice = Rc<RefCell<Device>>;

impl Device {
    /// A device over this RAM and these cells.
    pub fn new(config: NicConfig, ram: SharedRam, cells: Option<CellWindow>) -> SharedDevice {
        Rc::new(RefCell::new(Self {
            config,
            ram,
            cells,
            queued: VecDeque::new(),
            kicked: 0,
            done: TxTicket::NONE,
            last: TxTicket::NONE,
            rx: VecDeque::new(),
            rx_overruns: 0,
            kicks: 0,
            link_up: true,
            is_running: false,
            is_dead: false,
        }))
    }

    /// The next frame the device puts on the wire, fetched now.
    pub fn take_frame(&mut self) -> Option<Vec<u8>> {
        if self.kicked == 0 || !self.link_up {
            return None;
        }
        self.kicked -= 1;
        let queued = self.queued.pop_front()?;
        let mut frame = queued.header;
        match queued.payload {
            Source::Bytes(bytes) => frame.extend_from_slice(&bytes),
            Source::Dma(ranges) => {
                for range in ranges {
                    let bytes = match self.cells.and_then(|cells| cells.read(range)) {
                        Some(bytes) => bytes,
                        None => self.ram.borrow().dma(range).expect("DMA outside RAM").to_vec(),
                    };
                    frame.extend_from_slice(&bytes);
                }
            }
        }
        if let Checksum::Insert { start, offset } = queued.checksum {
            let start = usize::from(start);
            let field = start + usize::from(offset);
            let sum = match !ones_complement(&frame[start..]) {
                0 => 0xffff,
                sum => sum,
            };
            frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        self.done = queued.ticket;
        Some(frame)
    }

    /// A frame came from the wire.
    pub fn deliver(&mut self, frame: Vec<u8>) {
        if !self.is_running || !self.link_up {
            return;
        }
        if self.rx.len() < self.config.rx_slots {
            self.rx.push_back(frame);
        } else {
            self.rx_overruns += 1;
        }
    }

    /// Frames the CPU has kicked and the wire can take.
    pub fn backlog(&self) -> usize {
        if self.link_up { self.kicked } else { 0 }
    }

    /// Frames that the CPU has handed over since it was made.
    pub fn queued_ever(&self) -> u64 {
        self.last.0
    }

    /// Whether the CPU has a frame to fetch.
    pub fn has_received(&self) -> bool {
        !self.rx.is_empty()
    }
}

/// Byte by byte, unlike the code it is held against.
fn ones_complement(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The driver's side.
#[derive(Debug)]
pub struct SimNic {
    device: SharedDevice,
    steps: u32,
}

impl SimNic {
    /// The driver of a device.
    pub fn new(device: SharedDevice) -> Self {
        Self { device, steps: 0 }
    }
}

impl Nic for SimNic {
    fn capabilities(&self) -> Capabilities {
        let config = self.device.borrow().config;
        Capabilities {
            mac: config.mac,
            ip_mtu: config.ip_mtu,
            tx_slots: config.tx_slots,
            max_segments: 2,
            payload: config.payload,
            checksum: config.checksum,
        }
    }

    fn poll_start(&mut self, clock: &mut dyn Clock) -> Result<Start, NicError> {
        let mut device = self.device.borrow_mut();
        if device.is_dead {
            return Err(NicError::Gone);
        }
        if self.steps < device.config.start_steps {
            self.steps += 1;
            return Ok(Start::Again { until: clock.now().after(1000) });
        }
        device.is_running = true;
        Ok(Start::Ready)
    }

    fn link(&mut self) -> Link {
        if self.device.borrow().link_up { Link::Up } else { Link::Down }
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError> {
        let mut device = self.device.borrow_mut();
        if device.is_dead {
            return Err(TxError::Device(NicError::Gone));
        }
        let config = device.config;
        assert!(device.is_running, "transmit on a NIC that is not running");
        assert!(frame.header.len() <= HEADER_MAX);
        assert!(
            frame.checksum == Checksum::Complete || config.checksum == ChecksumOffload::Insert,
            "offload not offered"
        );
        let len = frame.header.len() as u64 + frame.payload.len();
        // Ethernet header and VLAN tag.
        let max = u64::from(config.ip_mtu) + 18;
        if len > max {
            return Err(TxError::TooLong { len: len as u32, max: max as u32 });
        }
        if device.queued.len() >= usize::from(config.tx_slots) {
            return Err(TxError::Full);
        }
        let payload = match frame.payload {
            Payload::None => Source::Bytes(Vec::new()),
            Payload::Bytes(bytes) => {
                assert_eq!(config.payload, PayloadKind::Bytes);
                Source::Bytes(bytes.to_vec())
            }
            Payload::Dma(ranges) => {
                assert_eq!(config.payload, PayloadKind::Dma);
                let (from, to) = config.unreachable.unwrap_or((0, 0));
                let is_out = |range: &PhysRange| {
                    range.end().0 > config.reach || range.start().0 < to && range.end().0 > from
                };
                if ranges.iter().any(is_out) {
                    return Err(TxError::NotReachable);
                }
                Source::Dma(ranges.to_vec())
            }
        };
        let ticket = device.last.next();
        device.last = ticket;
        let header = frame.header.to_vec();
        device.queued.push_back(Queued { header, payload, checksum: frame.checksum, ticket });
        Ok(ticket)
    }

    fn kick(&mut self) {
        let mut device = self.device.borrow_mut();
        device.kicks += 1;
        device.kicked = device.queued.len();
    }

    fn poll_tx(&mut self) -> Result<TxTicket, NicError> {
        let device = self.device.borrow();
        if device.is_dead { Err(NicError::Gone) } else { Ok(device.done) }
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        let Some(frame) = self.device.borrow_mut().rx.pop_front() else { return Ok(None) };
        match buf.get_mut(..frame.len()) {
            Some(room) => {
                room.copy_from_slice(&frame);
                Ok(Some(frame.len()))
            }
            None => Err(RxError::TooLong { len: frame.len() as u32 }),
        }
    }

    fn stop(&mut self) -> Result<(), NicError> {
        let mut device = self.device.borrow_mut();
        device.is_running = false;
        self.steps = 0;
        if device.config.stop_fails {
            return Err(NicError::Timeout("stop"));
        }
        device.queued.clear();
        device.kicked = 0;
        device.rx.clear();
        device.done = device.last;
        Ok(())
    }
}
