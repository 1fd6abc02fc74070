//! Warm use: a dump through the driver that the kernel was using all along.
//!
//! It works as far as that driver is sound, which a dead kernel cannot know; the `nic-*` crates reset the device instead.
#![allow(dead_code, reason = "an example without a device")]

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::{
    Capabilities, ChecksumOffload, Link, Nic, NicError, Payload, PayloadKind, RxError, Start,
    TxError, TxFrame, TxTicket,
};
use debugnet_core::time::Clock;

/// What a plain ring driver has anyway, without its locks: other CPUs are stopped.
pub(crate) trait Ring {
    fn mac(&self) -> [u8; 6];
    fn slots(&self) -> u16;
    fn mask_interrupts(&mut self);
    fn link_is_up(&mut self) -> bool;
    /// The buffer of the next free transmit slot, if there is one.
    fn tx_buffer(&mut self) -> Option<&mut [u8]>;
    /// Hands that slot over with this many bytes in it.
    fn tx_submit(&mut self, len: usize);
    fn doorbell(&mut self);
    /// Slots that have come back since the last call, in order.
    fn tx_reap(&mut self) -> u64;
    /// Copies a received frame out and gives its buffer back.
    fn rx_take(&mut self, into: &mut [u8]) -> Option<usize>;
}

/// The kernel's driver as a NIC for the dump.
pub(crate) struct Warm<R> {
    pub(crate) ring: R,
    sent: u64,
    done: u64,
    stale: u64, // the kernel's own frames in the ring, which come back first
}

impl<R: Ring> Warm<R> {
    /// `in_flight` slots are the dead kernel's.
    pub(crate) fn new(ring: R, in_flight: u64) -> Self {
        Self { ring, sent: 0, done: 0, stale: in_flight }
    }
}

impl<R: Ring> Nic for Warm<R> {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mac: MacAddr(self.ring.mac()),
            ip_mtu: 1500,
            tx_slots: self.ring.slots(),
            max_segments: 1,
            payload: PayloadKind::Bytes,
            checksum: ChecksumOffload::None,
        }
    }
    fn poll_start(&mut self, _: &mut dyn Clock) -> Result<Start, NicError> {
        self.ring.mask_interrupts();
        Ok(Start::Ready)
    }
    fn link(&mut self) -> Link {
        if self.ring.link_is_up() { Link::Up } else { Link::Down }
    }
    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError> {
        let payload = match frame.payload {
            Payload::Bytes(bytes) => bytes,
            _ => &[], // `capabilities` asks for bytes
        };
        let buffer = self.ring.tx_buffer().ok_or(TxError::Full)?;
        let bytes = frame.header.iter().chain(payload).copied();
        let len = (frame.header.len() + payload.len()).max(60);
        let max = buffer.len();
        let too_long = TxError::TooLong { len: len as u32, max: max as u32 };
        let room = buffer.get_mut(..len).ok_or(too_long)?;
        room.iter_mut().zip(bytes.chain(core::iter::repeat(0))).for_each(|(to, from)| *to = from);
        self.ring.tx_submit(len);
        self.sent += 1;
        Ok(TxTicket(self.sent))
    }
    fn kick(&mut self) {
        self.ring.doorbell();
    }
    fn poll_tx(&mut self) -> Result<TxTicket, NicError> {
        let back = self.ring.tx_reap();
        let stale = back.min(self.stale);
        self.stale -= stale;
        self.done += back - stale;
        Ok(TxTicket(self.done.min(self.sent)))
    }
    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        Ok(self.ring.rx_take(buf))
    }
    /// The device stays on, in the kernel's buffers; of the dump's it has none.
    fn stop(&mut self) -> Result<(), NicError> {
        Ok(())
    }
}

fn main() {} // nic-smoltcp/tests/dump.rs runs it
