//! Frames in, frames out: the next hop and the session together.
//!
//! Still without a NIC and without a clock, so that a simulator, a fuzzer and
//! the runner drive the same code. Input goes to [`Client::handle_frame`] and
//! [`Client::handle_timeout`]; output is asked for with
//! [`Client::poll_transmit`], which commits nothing: a frame counts as sent
//! only by [`Client::on_sent`], so a full ring needs no roll-back. Order of
//! output: ARP reply, retransmission, new message.

use core::net::Ipv4Addr;

use zerocopy::network_endian::{U32, U64};

use crate::addr::MacAddr;
use crate::nic::{HEADER_MAX, TxTicket};
use crate::peer::{Endpoints, Peer, Received, UdpSum};
use crate::session::{Heard, Message, Session, SlotId};
use crate::time::Instant;
use crate::wire::debugnet::MessageHeader;

/// Peer and session.
#[derive(Debug)]
pub(crate) struct Client<'m> {
    peer: Peer,
    pub(crate) session: Session<'m>,
    herald_port: u16,
    bad_checksums: u32,
}

/// What to send next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transmit {
    /// A frame that is all header, of this length.
    Control { len: usize },
    /// A message; [`Client::header`] writes its headers.
    Message(SlotId),
}

/// What a frame meant to the dump.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// The next hop is known.
    Resolved(MacAddr),
    /// Another station claims our address.
    Conflict { mac: MacAddr, ip: Ipv4Addr },
    /// The session heard something.
    Session(Heard),
}

/// The headers of one message.
pub(crate) struct Headers {
    pub(crate) len: usize,
    /// Offset of the UDP header.
    pub(crate) udp_start: u16,
}

impl<'m> Client<'m> {
    pub(crate) fn new(ends: Endpoints, herald_port: u16, session: Session<'m>) -> Self {
        Self { peer: Peer::new(ends), session, herald_port, bad_checksums: 0 }
    }

    pub(crate) fn is_resolved(&self) -> bool {
        self.peer.next_hop().is_some()
    }

    pub(crate) fn bad_checksums(&self) -> u32 {
        self.bad_checksums
    }

    pub(crate) fn handle_frame(&mut self, now: Instant, frame: &[u8]) -> Option<Event> {
        match self.peer.handle_frame(frame) {
            Received::Datagram { port, payload } => {
                Some(Event::Session(self.session.handle_datagram(now, port, payload)))
            }
            Received::Resolved(mac) => Some(Event::Resolved(mac)),
            Received::Conflict(mac) => Some(Event::Conflict { mac, ip: self.peer.ends().client }),
            Received::BadChecksum => {
                self.bad_checksums = self.bad_checksums.saturating_add(1);
                None
            }
            Received::Ignored | Received::Asked => None,
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Instant {
        let session =
            if self.is_resolved() { self.session.poll_timeout(now) } else { Instant::NEVER };
        session.min(self.peer.poll_timeout(now))
    }

    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        buf: &mut [u8; HEADER_MAX],
    ) -> Option<Transmit> {
        if let Some(len) = self.peer.poll_transmit(now, buf) {
            return Some(Transmit::Control { len });
        }
        if !self.is_resolved() {
            return None;
        }
        self.session.poll_transmit(now).map(Transmit::Message)
    }

    /// Writes the headers of a message of the last [`Client::poll_transmit`].
    #[inline]
    pub(crate) fn header(
        &self,
        message: &Message,
        seqno: u32,
        sum: UdpSum,
        buf: &mut [u8; HEADER_MAX],
    ) -> Option<Headers> {
        let header = MessageHeader {
            kind: U32::new(message.kind),
            seqno: U32::new(seqno),
            offset: U64::new(message.offset),
            len: U32::new(u32::from(message.len)),
            aux2: U32::new(message.aux2),
        };
        let port = self.session.server_port().unwrap_or(self.herald_port);
        let (len, udp_start) = self.peer.encapsulate(port, &header, sum, buf)?;
        Some(Headers { len, udp_start })
    }

    pub(crate) fn on_sent(&mut self, now: Instant, what: Transmit, ticket: TxTicket) {
        match what {
            Transmit::Control { .. } => self.peer.on_sent(now),
            Transmit::Message(id) => self.session.on_sent(now, id, ticket),
        }
    }
}

#[cfg(test)]
mod tests;
