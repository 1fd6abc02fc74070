//! From the session's next message to the NIC's next frame: where a payload is
//! fetched from, and every copy of one.

use crate::addr::PhysRange;
use crate::client::{Client, Transmit};
use crate::dump::{DumpSource, FailureKind, Gap, Gaps, ReadFault, Reason, stage};
use crate::nic::{
    Capabilities, Checksum, ChecksumOffload, HEADER_MAX, Nic, Payload, PayloadKind, TxError,
    TxFrame, TxTicket,
};
use crate::peer::{UdpSum, payload_sum};
use crate::pool::{CellId, PacketPool};
use crate::session::{Message, SlotId, Stored};
use crate::time::Instant;
use crate::wire::udp::UdpHeader;

/// What one step sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) frames: usize,
    /// One of them carried a message.
    pub(crate) data: bool,
    /// The device or the pool has no room now.
    pub(crate) blocked: bool,
}

#[derive(Debug)]
pub(crate) struct Transmitter {
    header: [u8; HEADER_MAX],
    pub(crate) bytes_read: u64,
    pub(crate) bytes_copied: u64,
    /// What turned out unreadable when it was to be copied.
    pub(crate) unreadable: Gaps,
    pub(crate) fault: Option<ReadFault>,
}

/// Transmissions after which a summed range is taken to be changing under us.
const TRIES_BEFORE_COPY: u16 = 2;

/// A frame that did not go out.
enum Refused {
    /// Try again later; nothing was lost.
    Later,
    For(FailureKind),
}

impl Transmitter {
    pub(crate) const fn new() -> Self {
        Self {
            header: [0; HEADER_MAX],
            bytes_read: 0,
            bytes_copied: 0,
            unreadable: Gaps::EMPTY,
            fault: None,
        }
    }

    /// Sends up to `most` frames and rings the doorbell once.
    #[allow(clippy::too_many_arguments, reason = "the parts are borrowed from one dump")]
    pub(crate) fn send(
        &mut self,
        now: Instant,
        client: &mut Client<'_>,
        nic: &mut dyn Nic,
        source: &mut dyn DumpSource,
        pool: &mut PacketPool<'_>,
        caps: &Capabilities,
        most: usize,
    ) -> Result<Sent, FailureKind> {
        let mut sent = Sent::default();
        for _ in 0..most {
            let Some(next) = client.poll_transmit(now, &mut self.header) else { break };
            let ticket = match next {
                Transmit::Control { len } => self.control(nic, len),
                Transmit::Message(id) => self.message(client, id, nic, source, pool, caps),
            };
            match ticket {
                Ok(ticket) => {
                    client.on_sent(now, next, ticket);
                    sent.frames = sent.frames.saturating_add(1);
                    sent.data |= matches!(next, Transmit::Message(_));
                }
                Err(Refused::Later) => {
                    sent.blocked = true;
                    break;
                }
                Err(Refused::For(kind)) => return Err(kind),
            }
        }
        if sent.frames != 0 || sent.blocked {
            nic.kick();
        }
        Ok(sent)
    }

    fn control(&mut self, nic: &mut dyn Nic, len: usize) -> Result<TxTicket, Refused> {
        let header = self.header.get(..len).unwrap_or(&[]);
        let frame = TxFrame { header, payload: Payload::None, checksum: Checksum::Complete };
        nic.transmit(&frame).map_err(Refused::from)
    }

    fn message(
        &mut self,
        client: &mut Client<'_>,
        id: SlotId,
        nic: &mut dyn Nic,
        source: &mut dyn DumpSource,
        pool: &mut PacketPool<'_>,
        caps: &Capabilities,
    ) -> Result<TxTicket, Refused> {
        let Some(slot) = client.session.slot(id) else { return Err(Refused::Later) };
        let (message, seqno) = (&slot.message, slot.seqno);
        // Twice in vain: perhaps a device still writes there, and the sum no
        // longer fits. A copy holds still.
        let is_suspect = slot.tries >= TRIES_BEFORE_COPY && caps.checksum == ChecksumOffload::None;
        let len = usize::from(message.len);
        match (message.stored, caps.payload) {
            (Stored::None, _) => self.frame(client, message, seqno, nic, caps, Payload::None),
            (Stored::Cell(cell), PayloadKind::Bytes) => {
                self.frame(client, message, seqno, nic, caps, Payload::Bytes(pool.bytes(cell, len)))
            }
            (Stored::Cell(cell), PayloadKind::Dma) => {
                let range =
                    pool.phys(cell, len).ok_or(Refused::For(FailureKind::CellsNotReachable))?;
                self.frame(client, message, seqno, nic, caps, Payload::Dma(&[range]))
                    .map_err(Refused::for_a_cell)
            }
            (Stored::Range(_), PayloadKind::Dma) if is_suspect && pool.available() != 0 => {
                self.bounce(client, id, nic, source, pool, caps)
            }
            (Stored::Range(range), PayloadKind::Dma) => {
                match self.frame(client, message, seqno, nic, caps, Payload::Dma(&[range])) {
                    Err(Refused::For(FailureKind::Transmit(TxError::NotReachable))) => {
                        self.bounce(client, id, nic, source, pool, caps)
                    }
                    other => other,
                }
            }
            (Stored::Range(_), PayloadKind::Bytes) => {
                self.bounce(client, id, nic, source, pool, caps)
            }
        }
    }

    /// Sends a copy whose source can be read again: the cell is free as soon
    /// as the device is done with it.
    #[allow(clippy::too_many_arguments, reason = "the parts are borrowed from one dump")]
    fn bounce(
        &mut self,
        client: &mut Client<'_>,
        id: SlotId,
        nic: &mut dyn Nic,
        source: &mut dyn DumpSource,
        pool: &mut PacketPool<'_>,
        caps: &Capabilities,
    ) -> Result<TxTicket, Refused> {
        let Some((mut message, seqno, _)) = client.session.message(id) else {
            return Err(Refused::Later);
        };
        let Stored::Range(range) = message.stored else { return Err(Refused::Later) };
        let cell = pool.take().ok_or(Refused::Later)?;
        let len = usize::from(message.len);
        if let Err(fault) = self.copy(source, pool, range, cell) {
            pool.release(cell, TxTicket::NONE, TxTicket::NONE);
            self.leave_out(&mut message, fault);
            client.session.replace(id, message);
            return self.frame(client, &message, seqno, nic, caps, Payload::None);
        }
        message.sum = Some(payload_sum(pool.bytes(cell, len)));
        let result = match (caps.payload, pool.phys(cell, len)) {
            (PayloadKind::Bytes, _) => {
                let bytes = Payload::Bytes(pool.bytes(cell, len));
                self.frame(client, &message, seqno, nic, caps, bytes)
            }
            (PayloadKind::Dma, Some(copy)) => self
                .frame(client, &message, seqno, nic, caps, Payload::Dma(&[copy]))
                .map_err(Refused::for_a_cell),
            (PayloadKind::Dma, None) => Err(Refused::For(FailureKind::CellsNotReachable)),
        };
        let last = match (&result, caps.payload) {
            (Ok(ticket), PayloadKind::Dma) => *ticket,
            _ => TxTicket::NONE,
        };
        pool.release(cell, last, TxTicket::NONE);
        result
    }

    fn copy(
        &mut self,
        source: &mut dyn DumpSource,
        pool: &mut PacketPool<'_>,
        range: PhysRange,
        cell: CellId,
    ) -> Result<(), ReadFault> {
        stage(source, pool, range, cell)?;
        self.bytes_read = self.bytes_read.saturating_add(range.len());
        self.bytes_copied = self.bytes_copied.saturating_add(range.len());
        Ok(())
    }

    /// A message whose payload cannot be read carries none: its sequence
    /// number is used, and the server sees that the range was not sent.
    fn leave_out(&mut self, message: &mut Message, fault: ReadFault) {
        self.fault.get_or_insert(fault);
        self.unreadable.add(Gap {
            offset: message.offset,
            len: u64::from(message.len),
            reason: Reason::Unreadable,
        });
        message.len = 0;
        message.stored = Stored::None;
        message.sum = Some(0);
    }

    fn frame(
        &mut self,
        client: &Client<'_>,
        message: &Message,
        seqno: u32,
        nic: &mut dyn Nic,
        caps: &Capabilities,
        payload: Payload<'_>,
    ) -> Result<TxTicket, Refused> {
        let sum = match (caps.checksum, message.sum) {
            (ChecksumOffload::Insert, _) => UdpSum::Offload,
            (ChecksumOffload::None, sum) => UdpSum::Payload(sum.unwrap_or(0)),
        };
        let Some(headers) = client.header(message, seqno, sum, &mut self.header) else {
            return Err(Refused::Later);
        };
        let checksum = match caps.checksum {
            ChecksumOffload::Insert => {
                Checksum::Insert { start: headers.udp_start, offset: UdpHeader::CHECKSUM_OFFSET }
            }
            ChecksumOffload::None => Checksum::Complete,
        };
        let header = self.header.get(..headers.len).unwrap_or(&[]);
        nic.transmit(&TxFrame { header, payload, checksum }).map_err(Refused::from)
    }
}

impl From<TxError> for Refused {
    fn from(error: TxError) -> Self {
        match error {
            TxError::Full => Self::Later,
            TxError::Device(error) => Self::For(FailureKind::Nic(error)),
            other => Self::For(FailureKind::Transmit(other)),
        }
    }
}

impl Refused {
    /// A cell is the last resort: if the device cannot reach even that, the target is lost.
    fn for_a_cell(self) -> Self {
        match self {
            Self::For(FailureKind::Transmit(TxError::NotReachable)) => {
                Self::For(FailureKind::CellsNotReachable)
            }
            other => other,
        }
    }
}
