//! A smoltcp device as a [`Nic`].

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::{
    Capabilities, Checksum, ChecksumOffload, Link, Nic, NicError, Payload, PayloadKind, RxError,
    Start, TxError, TxFrame, TxTicket,
};
use debugnet_core::time::Clock;
use smoltcp::phy::{Device, Medium, RxToken as _, TxToken as _};
use smoltcp::time::Instant;

use crate::ETHERNET_HEADER_LEN;

/// Shortest frame on the wire, less its FCS.
const FRAME_MIN: usize = 60;
/// What a device that names no burst is taken to hold.
const TX_SLOTS_DEFAULT: u16 = 16;

/// A [`Nic`] made of a smoltcp device, which is running and stays so: nothing is reset.
///
/// The device copies payloads ([`PayloadKind::Bytes`]); a frame has left it when
/// `transmit` returns. `kick` does nothing. `stop` refuses further use, but cannot make
/// the device quiet: it has nothing of the dump's, and goes on receiving into its own buffers.
#[derive(Debug)]
pub struct PhyNic<D> {
    device: D,
    mac: MacAddr,
    frame_max: u16,
    burst: u16,
    /// The time that the device is told: that of the last `poll_start`, as the
    /// other calls have no clock.
    now: Instant,
    is_started: bool,
    last: TxTicket,
}

impl<D: Device> PhyNic<D> {
    /// The device, which sends from `mac`.
    ///
    /// # Errors
    /// [`NicError::Unsupported`] if it carries no Ethernet frames, or none of 68 bytes of IP.
    pub fn new(device: D, mac: MacAddr) -> Result<Self, NicError> {
        const IP_MIN: u16 = 68;
        let capabilities = device.capabilities();
        if capabilities.medium != Medium::Ethernet {
            return Err(NicError::Unsupported("smoltcp device without Ethernet frames"));
        }
        let frame_max = u16::try_from(capabilities.max_transmission_unit).unwrap_or(u16::MAX);
        if frame_max < IP_MIN.saturating_add(ETHERNET_HEADER_LEN) {
            return Err(NicError::Unsupported("smoltcp device with too short frames"));
        }
        let burst = capabilities
            .max_burst_size
            .map_or(TX_SLOTS_DEFAULT, |burst| u16::try_from(burst).unwrap_or(u16::MAX).max(1));
        let (now, last) = (Instant::ZERO, TxTicket::NONE);
        Ok(Self { device, mac, frame_max, burst, now, is_started: false, last })
    }

    /// The device.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// The device again.
    pub fn into_device(self) -> D {
        self.device
    }
}

/// Copies `from` to the front of `to` and gives what is behind it.
fn put<'a>(to: &'a mut [u8], from: &[u8]) -> &'a mut [u8] {
    let (here, rest) = to.split_at_mut_checked(from.len()).unwrap_or_default();
    for (to, from) in here.iter_mut().zip(from) {
        *to = *from;
    }
    rest
}

impl<D: Device> Nic for PhyNic<D> {
    /// The MTU is the device's, less an Ethernet header: with VLAN tags, configure 4 bytes less a tag.
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mac: self.mac,
            ip_mtu: self.frame_max.saturating_sub(ETHERNET_HEADER_LEN),
            tx_slots: self.burst,
            max_segments: 1,
            payload: PayloadKind::Bytes,
            checksum: ChecksumOffload::None,
        }
    }

    fn poll_start(&mut self, clock: &mut dyn Clock) -> Result<Start, NicError> {
        let now_us = i64::try_from(clock.now().as_micros()).unwrap_or(i64::MAX);
        self.now = Instant::from_micros(now_us);
        self.is_started = true;
        Ok(Start::Ready)
    }

    /// A device has no word for it.
    fn link(&mut self) -> Link {
        Link::Unknown
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError> {
        if !self.is_started {
            return Err(TxError::Device(NicError::NotStarted));
        }
        let payload = match frame.payload {
            Payload::None => &[],
            Payload::Bytes(bytes) => bytes,
            Payload::Dma(_) => {
                return Err(TxError::Device(NicError::Unsupported(
                    "smoltcp device fetches nothing",
                )));
            }
        };
        if frame.checksum != Checksum::Complete {
            return Err(TxError::Device(NicError::Unsupported("smoltcp device sums nothing")));
        }
        let max = usize::from(self.frame_max);
        let len = frame.header.len().saturating_add(payload.len()).max(FRAME_MIN);
        if len > max {
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            return Err(TxError::TooLong { len, max: u32::from(self.frame_max) });
        }
        let token = self.device.transmit(self.now).ok_or(TxError::Full)?;
        token.consume(len, |buffer| put(put(buffer, frame.header), payload).fill(0));
        self.last = self.last.next();
        Ok(self.last)
    }

    fn kick(&mut self) {}

    fn poll_tx(&mut self) -> Result<TxTicket, NicError> {
        Ok(self.last)
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        if !self.is_started {
            return Err(RxError::Device(NicError::NotStarted));
        }
        let Some((received, _)) = self.device.receive(self.now) else { return Ok(None) };
        received.consume(|frame| {
            let len = frame.len();
            let too_long = RxError::TooLong { len: u32::try_from(len).unwrap_or(u32::MAX) };
            put(buf.get_mut(..len).ok_or(too_long)?, frame);
            Ok(Some(len))
        })
    }

    fn stop(&mut self) -> Result<(), NicError> {
        self.is_started = false;
        Ok(())
    }
}
