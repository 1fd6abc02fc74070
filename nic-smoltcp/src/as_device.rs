//! A [`Nic`] as a smoltcp device.

use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::nic::{
    Checksum, HEADER_MAX, Nic, NicError, Payload, PayloadKind, TxFrame, TxTicket,
};
use nic_hal::DmaRegion;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::ETHERNET_HEADER_LEN;

/// Memory that a NIC fetches sent frames from, for one that does ([`PayloadKind::Dma`]).
#[derive(Debug)]
pub struct TxMemory {
    /// Room for some frames of the largest size.
    pub region: DmaRegion,
    /// Its physical address, which the driver maps.
    pub phys: PhysAddr,
}

/// A smoltcp device made of a [`Nic`] that has been started.
///
/// `CELLS` frames at most are in the NIC's hands; a frame goes out at once, with
/// a doorbell of its own. A frame that the NIC does not take is lost, as on a wire, and counted.
#[derive(Debug)]
pub struct NicDevice<'m, N, const CELLS: usize = 8> {
    nic: N,
    sender: Sender<'m, CELLS>,
    rx: &'m mut [u8],
}

#[derive(Debug)]
struct Sender<'m, const CELLS: usize> {
    /// Where smoltcp puts a frame together.
    frame: &'m mut [u8],
    memory: Option<TxMemory>,
    cell_len: usize,
    /// The last frame from each cell: it is free when the NIC has passed that.
    tickets: [TxTicket; CELLS],
    next: usize,
    dropped: u64,
}

impl<'m, N: Nic, const CELLS: usize> NicDevice<'m, N, CELLS> {
    /// A device over `nic`. `frame` and `rx` hold one frame of the largest size each
    /// (MTU and 14 bytes); `memory` has room for `CELLS` of them, behind their headers of
    /// [`HEADER_MAX`] bytes, and is needed only by a NIC that fetches payloads itself.
    ///
    /// # Errors
    /// [`NicError::Memory`] if one of them is too short.
    pub fn new(
        nic: N,
        frame: &'m mut [u8],
        rx: &'m mut [u8],
        memory: Option<TxMemory>,
    ) -> Result<Self, NicError> {
        let capabilities = nic.capabilities();
        let need = usize::from(capabilities.ip_mtu.saturating_add(ETHERNET_HEADER_LEN));
        let short = |have: usize, need: usize| {
            if have < need { Err(NicError::Memory { need, have }) } else { Ok(()) }
        };
        short(frame.len(), need)?;
        short(rx.len(), need)?;
        let cell_len = need.saturating_sub(HEADER_MAX).next_multiple_of(64);
        if capabilities.payload == PayloadKind::Dma {
            let have = memory.as_ref().map_or(0, |memory| memory.region.len());
            short(have, cell_len.saturating_mul(CELLS))?;
        }
        let tickets = [TxTicket::NONE; CELLS];
        let sender = Sender { frame, memory, cell_len, tickets, next: 0, dropped: 0 };
        Ok(Self { nic, sender, rx })
    }

    /// The NIC.
    pub const fn nic(&mut self) -> &mut N {
        &mut self.nic
    }

    /// Frames that the NIC did not take.
    pub const fn dropped(&self) -> u64 {
        self.sender.dropped
    }

    fn has_room(&mut self) -> bool {
        let oldest = self.sender.tickets.get(self.sender.next);
        match (self.nic.poll_tx(), oldest) {
            (Ok(mark), Some(oldest)) => *oldest <= mark,
            _ => false,
        }
    }
}

impl<const CELLS: usize> Sender<'_, CELLS> {
    /// Sends the first `len` bytes of the frame.
    fn send(&mut self, nic: &mut dyn Nic, len: usize) -> Option<()> {
        let frame = self.frame.get(..len)?;
        let (header, rest) = frame.split_at_checked(HEADER_MAX).unwrap_or((frame, &[]));
        let range;
        let payload = match &mut self.memory {
            _ if rest.is_empty() => Payload::None,
            // Behind its cell is another frame's.
            Some(_) if rest.len() > self.cell_len => return None,
            Some(memory) => {
                let at = self.next.checked_mul(self.cell_len)?;
                memory.region.write_bytes(at, rest).ok()?;
                let start = memory.phys.checked_add(u64::try_from(at).ok()?)?;
                range = [PhysRange::new(start, u64::try_from(rest.len()).ok()?)?];
                Payload::Dma(&range)
            }
            None => Payload::Bytes(rest),
        };
        let frame = TxFrame { header, payload, checksum: Checksum::Complete };
        let ticket = nic.transmit(&frame).ok()?;
        nic.kick();
        *self.tickets.get_mut(self.next)? = ticket;
        self.next = self.next.saturating_add(1).checked_rem(CELLS)?;
        Some(())
    }
}

impl<'m, N: Nic, const CELLS: usize> Device for NicDevice<'m, N, CELLS> {
    type RxToken<'a>
        = NicRxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = NicTxToken<'a, 'm, CELLS>
    where
        Self: 'a;

    /// A frame that the NIC reports as damaged or too long is passed over.
    fn receive(&mut self, _: Instant) -> Option<(NicRxToken<'_>, NicTxToken<'_, 'm, CELLS>)> {
        // The answer needs room, or the question would be lost.
        if !self.has_room() {
            return None;
        }
        let len = self.nic.receive(self.rx).ok().flatten()?;
        let received = NicRxToken { frame: self.rx.get(..len)? };
        Some((received, NicTxToken { nic: &mut self.nic, sender: &mut self.sender }))
    }

    fn transmit(&mut self, _: Instant) -> Option<NicTxToken<'_, 'm, CELLS>> {
        if !self.has_room() {
            return None;
        }
        Some(NicTxToken { nic: &mut self.nic, sender: &mut self.sender })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let nic = self.nic.capabilities();
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit =
            usize::from(nic.ip_mtu.saturating_add(ETHERNET_HEADER_LEN));
        capabilities.max_burst_size = Some(CELLS.min(usize::from(nic.tx_slots)));
        capabilities
    }
}

/// A received frame.
#[derive(Debug)]
pub struct NicRxToken<'a> {
    frame: &'a [u8],
}

impl RxToken for NicRxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.frame)
    }
}

/// The right to send one frame.
pub struct NicTxToken<'a, 'm, const CELLS: usize> {
    nic: &'a mut dyn Nic,
    sender: &'a mut Sender<'m, CELLS>,
}

impl<const CELLS: usize> TxToken for NicTxToken<'_, '_, CELLS> {
    /// A frame longer than the MTU allows is made and lost.
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        // Too long: smoltcp honours the MTU, so only a caller's own mistake.
        let len = len.min(self.sender.frame.len());
        let result = f(self.sender.frame.get_mut(..len).unwrap_or_default());
        if self.sender.send(self.nic, len).is_none() {
            self.sender.dropped = self.sender.dropped.saturating_add(1);
        }
        result
    }
}
