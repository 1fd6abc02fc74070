//! From the session's next message to the NIC's next frame: where a payload is
//! fetched from, and every copy of one.

use crate::addr::PhysRange;
use crate::client::{Client, header};
use crate::count::add_to;
use crate::dump::{DumpSource, FailureKind, Gap, Gaps, ReadFault, Reason, stage};
use crate::nic::{
    Capabilities, Checksum, ChecksumOffload, HEADER_MAX, Nic, Payload, PayloadKind, TxError,
    TxFrame, TxTicket,
};
use crate::peer::{Envelope, UdpSum, payload_sum};
use crate::pool::{CellId, PacketPool};
use crate::session::{Message, Session, SlotId, Stored};
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

/// What frames leave through.
pub(crate) struct Road<'r, 'p> {
    pub(crate) nic: &'r mut dyn Nic,
    pub(crate) source: &'r mut dyn DumpSource,
    pub(crate) pool: &'r mut PacketPool<'p>,
    pub(crate) caps: &'r Capabilities,
}

#[derive(Debug)]
pub(crate) struct Transmitter {
    envelope: Envelope,
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

/// Sends what the path itself wants said: ARP. Apart, so that its header is not on the
/// stack of each message.
#[inline(never)]
fn control(
    now: Instant,
    client: &mut Client<'_>,
    road: &mut Road<'_, '_>,
    most: usize,
    sent: &mut Sent,
) -> Result<(), Refused> {
    let mut header = [0; HEADER_MAX];
    while sent.frames < most
        && let Some(len) = client.poll_control(now, &mut header)
    {
        let header = header.get(..len).unwrap_or(&[]);
        let checksum = Checksum::Complete;
        road.nic.transmit(&TxFrame { header, payload: Payload::None, checksum })?;
        client.on_control_sent(now);
        sent.frames = sent.frames.saturating_add(1);
    }
    Ok(())
}

impl Transmitter {
    pub(crate) const fn new() -> Self {
        Self {
            envelope: Envelope::new(),
            bytes_read: 0,
            bytes_copied: 0,
            unreadable: Gaps::new(),
            fault: None,
        }
    }

    /// Sends up to `most` frames and rings the doorbell once.
    #[inline(never)]
    pub(crate) fn send(
        &mut self,
        now: Instant,
        client: &mut Client<'_>,
        road: &mut Road<'_, '_>,
        most: usize,
    ) -> Result<Sent, FailureKind> {
        let mut sent = Sent::default();
        match self.send_all(now, client, road, most, &mut sent) {
            Ok(()) => {}
            Err(Refused::Later) => sent.blocked = true,
            Err(Refused::For(kind)) => return Err(kind),
        }
        if sent.frames != 0 || sent.blocked {
            road.nic.kick();
        }
        Ok(sent)
    }

    #[inline(never)]
    fn send_all(
        &mut self,
        now: Instant,
        client: &mut Client<'_>,
        road: &mut Road<'_, '_>,
        most: usize,
        sent: &mut Sent,
    ) -> Result<(), Refused> {
        control(now, client, road, most, sent)?;
        if client.open(&mut self.envelope).is_none() {
            return Ok(());
        }
        let session = &mut client.session;
        while sent.frames < most
            && let Some(id) = session.poll_transmit(now)
        {
            let ticket = self.message(session, id, road)?;
            session.on_sent(now, id, ticket);
            sent.frames = sent.frames.saturating_add(1);
            sent.data = true;
        }
        Ok(())
    }

    #[inline]
    fn message(
        &mut self,
        session: &mut Session<'_>,
        id: SlotId,
        road: &mut Road<'_, '_>,
    ) -> Result<TxTicket, Refused> {
        let Some(slot) = session.slot(id) else { return Err(Refused::Later) };
        let (message, seqno) = (&slot.message, slot.seqno);
        match message.stored {
            Stored::Range(range)
                if road.caps.payload == PayloadKind::Dma
                    // Twice in vain: perhaps a device still writes there, and the
                    // sum no longer fits. A copy holds still.
                    && (slot.tries < TRIES_BEFORE_COPY
                        || road.caps.checksum == ChecksumOffload::Insert
                        || road.pool.available() == 0) =>
            {
                match self.frame(message, seqno, road.nic, road.caps, Payload::Dma(&[range])) {
                    Ok(ticket) => Ok(ticket),
                    Err(TxError::NotReachable) => self.bounce(session, id, road),
                    Err(error) => Err(error.into()),
                }
            }
            Stored::Range(_) => self.bounce(session, id, road),
            Stored::None => {
                Ok(self.frame_apart(message, seqno, road.nic, road.caps, Payload::None)?)
            }
            Stored::Cell(cell) => self.cell(message, seqno, road, cell),
        }
    }

    /// Sends a message whose payload is in a cell.
    fn cell(
        &mut self,
        message: &Message,
        seqno: u32,
        road: &mut Road<'_, '_>,
        cell: CellId,
    ) -> Result<TxTicket, Refused> {
        let unreachable = Refused::For(FailureKind::CellsNotReachable);
        let len = usize::from(message.len);
        let (pool, nic) = (&*road.pool, &mut *road.nic);
        let sent = match road.caps.payload {
            PayloadKind::Bytes => {
                let bytes = Payload::Bytes(pool.bytes(cell, len));
                self.frame_apart(message, seqno, nic, road.caps, bytes)
            }
            PayloadKind::Dma => {
                let Some(range) = pool.phys(cell, len) else { return Err(unreachable) };
                self.frame_apart(message, seqno, nic, road.caps, Payload::Dma(&[range]))
            }
        };
        // A cell is the last resort: if the device cannot reach even that, the target is lost.
        match sent {
            Err(TxError::NotReachable) => Err(unreachable),
            other => Ok(other?),
        }
    }

    /// Sends a copy whose source can be read again: the cell is free as soon
    /// as the device is done with it.
    fn bounce(
        &mut self,
        session: &mut Session<'_>,
        id: SlotId,
        road: &mut Road<'_, '_>,
    ) -> Result<TxTicket, Refused> {
        let Some((mut message, seqno, _)) = session.message(id) else {
            return Err(Refused::Later);
        };
        let Stored::Range(range) = message.stored else { return Err(Refused::Later) };
        let cell = road.pool.take().ok_or(Refused::Later)?;
        let len = usize::from(message.len);
        if let Err(fault) = self.copy(road.source, road.pool, range, cell) {
            road.pool.release(cell, TxTicket::NONE, TxTicket::NONE);
            self.leave_out(&mut message, fault);
            session.replace(id, message);
            return Ok(self.frame_apart(&message, seqno, road.nic, road.caps, Payload::None)?);
        }
        message.sum = Some(payload_sum(road.pool.bytes(cell, len)));
        let result = self.cell(&message, seqno, road, cell);
        let last = match (&result, road.caps.payload) {
            (Ok(ticket), PayloadKind::Dma) => *ticket,
            _ => TxTicket::NONE,
        };
        road.pool.release(cell, last, TxTicket::NONE);
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
        add_to(&mut self.bytes_read, range.len());
        add_to(&mut self.bytes_copied, range.len());
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

    /// [`Transmitter::frame`] once for all who seldom need it.
    fn frame_apart(
        &mut self,
        message: &Message,
        seqno: u32,
        nic: &mut dyn Nic,
        caps: &Capabilities,
        payload: Payload<'_>,
    ) -> Result<TxTicket, TxError> {
        self.frame(message, seqno, nic, caps, payload)
    }

    // Its place is in the loop over messages; where flash is scarce, it is there once.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    #[cfg_attr(not(target_pointer_width = "32"), inline(always))]
    fn frame(
        &mut self,
        message: &Message,
        seqno: u32,
        nic: &mut dyn Nic,
        caps: &Capabilities,
        payload: Payload<'_>,
    ) -> Result<TxTicket, TxError> {
        let sum = match caps.checksum {
            ChecksumOffload::Insert => UdpSum::Offload,
            ChecksumOffload::None => UdpSum::Payload(message.sum.unwrap_or(0)),
        };
        let Some((headers, start)) = self.envelope.fill(&header(message, seqno), sum) else {
            return Err(TxError::Full);
        };
        let checksum = match sum {
            UdpSum::Offload => Checksum::Insert { start, offset: UdpHeader::CHECKSUM_OFFSET },
            UdpSum::Payload(_) => Checksum::Complete,
        };
        nic.transmit(&TxFrame { header: headers, payload, checksum })
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
