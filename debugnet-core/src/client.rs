//! Frames in, frames out: the next hop and the session together.
//!
//! Still without a NIC and without a clock, so that a simulator, a fuzzer and
//! the runner drive the same code. Input goes to [`Client::handle_frame`] and
//! [`Client::handle_timeout`]; output is asked for with
//! [`Client::poll_control`] and [`Session::poll_transmit`], which commit nothing:
//! a frame counts as sent only when that is said, so a full ring needs no
//! roll-back. Order of output: ARP, retransmission, new message.

use core::net::Ipv4Addr;

use zerocopy::network_endian::{U32, U64};

use crate::addr::MacAddr;
use crate::nic::HEADER_MAX;
use crate::peer::{Endpoints, Envelope, Peer, Received};
use crate::session::{Heard, Message, Session};
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

/// What a frame meant to the dump.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// The next hop is known.
    Resolved(MacAddr),
    /// It was a wrong one, and is this.
    Moved(MacAddr),
    /// Another station claims our address.
    Conflict { mac: MacAddr, ip: Ipv4Addr },
    /// The session heard something.
    Session(Heard),
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
            Received::Moved(mac) => Some(Event::Moved(mac)),
            Received::Conflict(mac) => Some(Event::Conflict { mac, ip: self.peer.ends().client }),
            Received::BadChecksum => {
                self.bad_checksums = self.bad_checksums.saturating_add(1);
                None
            }
            Received::Ignored | Received::Asked => None,
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let timeouts = self.session.counters().timeouts;
        self.session.handle_timeout(now);
        if self.session.server_port().is_some() {
            self.peer.trust();
        } else if self.session.counters().timeouts != timeouts {
            self.peer.doubt(now);
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Instant {
        let session =
            if self.is_resolved() { self.session.poll_timeout(now) } else { Instant::NEVER };
        session.min(self.peer.poll_timeout(now))
    }

    /// A frame of the next hop's resolution that is due, all header: its length.
    /// [`Client::on_control_sent`] says that it went out.
    pub(crate) fn poll_control(&self, now: Instant, buf: &mut [u8; HEADER_MAX]) -> Option<usize> {
        self.peer.poll_transmit(now, buf)
    }

    pub(crate) fn on_control_sent(&mut self, now: Instant) {
        self.peer.on_sent(now);
    }

    /// Makes the headers of the messages sent from now on, until another frame
    /// is received. `None` while the next hop is not known.
    pub(crate) fn open(&self, envelope: &mut Envelope) -> Option<()> {
        envelope.open(&self.peer, self.session.server_port().unwrap_or(self.herald_port))
    }
}

/// The header of a message under this sequence number.
#[inline]
pub(crate) fn header(message: &Message, seqno: u32) -> MessageHeader {
    MessageHeader {
        kind: U32::new(message.kind),
        seqno: U32::new(seqno),
        offset: U64::new(message.offset),
        len: U32::new(u32::from(message.len)),
        aux2: U32::new(message.aux2),
    }
}

#[cfg(test)]
mod tests;
