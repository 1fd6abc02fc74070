//! The next hop, and the headers in front of every datagram to the server.
//!
//! Resolution asks for the server first, then for the gateway, in turn until
//! the caller's patience ends. The first reply from either counts. ARP has no
//! checksum and no proof of its sender, so while the server answers no herald
//! it is asked for again, half a second after each, and another reply may take
//! the first one's place; once the server answers, the next hop is kept for the
//! whole dump. Requests for our own address are answered at any time: otherwise
//! the server forgets us in mid-dump.

mod envelope;

use core::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(crate) use envelope::Envelope;

use crate::addr::MacAddr;
use crate::nic::HEADER_MAX;
use crate::time::Instant;
use crate::wire::Writer;
use crate::wire::arp::{self, ArpPacket};
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{
    ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_VLAN, EthernetHeader, FRAME_MIN, VlanTag,
};
use crate::wire::ipv4::{Ipv4Header, PROTOCOL_UDP};
use crate::wire::udp::{UdpHeader, pseudo_header_v4};

/// Who we are and whom we talk to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoints {
    pub(crate) mac: MacAddr,
    pub(crate) client: Ipv4Addr,
    pub(crate) client_port: u16,
    pub(crate) server: Ipv4Addr,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) vlan: Option<u16>,
}

/// What a frame meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Received<'f> {
    /// Not for us, or not understood.
    Ignored,
    /// The next hop is known from now on.
    Resolved(MacAddr),
    /// The next hop was a wrong one, and is this from now on.
    Moved(MacAddr),
    /// Somebody asked for our address; the answer goes out next.
    Asked,
    /// Somebody else claims our address.
    Conflict(MacAddr),
    /// A datagram from the server to our port.
    Datagram { port: u16, payload: &'f [u8] },
    /// The server's datagram was damaged on the way.
    BadChecksum,
}

/// How a frame's UDP checksum is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum UdpSum {
    /// From the payload's folded sum.
    Payload(u16),
    /// By the NIC, over the pseudo-header sum left in the field.
    Offload,
}

/// What is in front of the payload of a datagram without IP options.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct UdpPacket {
    ip: Ipv4Header,
    udp: UdpHeader,
}

#[derive(Debug)]
pub(crate) struct Peer {
    ends: Endpoints,
    /// In front of no payload; each message fills in its length.
    ip: Ipv4Header,
    /// Sum of the pseudo header without a length, folded: the same both ways.
    pseudo: u16,
    next_hop: Option<MacAddr>,
    /// Nothing was heard through the next hop: other replies count too.
    in_doubt: bool,
    /// Another request is due at `ask_at`.
    asks: bool,
    /// Requests sent so far, and when the next is due.
    asked: u32,
    ask_at: Instant,
    /// Who asked for our address.
    reply_to: Option<(MacAddr, Ipv4Addr)>,
}

impl Peer {
    /// Waits after the 1st, 2nd, ... request of a round; a NIC that is deaf
    /// for its first second still hears the answer to the fourth.
    const WAITS_US: [u64; 4] = [100_000, 200_000, 400_000, 800_000];

    /// So long may the answer to a herald take before its next hop is asked for again: what
    /// replies to that would take the place of the one that the answer comes through.
    const DOUBT_US: u64 = 500_000;

    pub(crate) fn new(ends: Endpoints) -> Self {
        Self {
            ip: Ipv4Header::udp(ends.client, ends.server, 0),
            pseudo: pseudo_header_v4(ends.client, ends.server, 0).folded(),
            ends,
            next_hop: None,
            in_doubt: false,
            asks: true,
            asked: 0,
            ask_at: Instant::ZERO,
            reply_to: None,
        }
    }

    pub(crate) fn next_hop(&self) -> Option<MacAddr> {
        self.next_hop
    }

    pub(crate) fn ends(&self) -> &Endpoints {
        &self.ends
    }

    /// Address the next request asks for: four times the server, four times
    /// the gateway if there is another one, and so on.
    fn asking_for(&self) -> Ipv4Addr {
        let round = self.asked >> 2;
        match self.ends.gateway {
            Some(gateway) if round & 1 == 1 => gateway,
            _ => self.ends.server,
        }
    }

    /// When [`Peer::poll_transmit`] has a frame.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Instant {
        if self.reply_to.is_some() {
            now
        } else if self.asks {
            self.ask_at
        } else {
            Instant::NEVER
        }
    }

    /// An ARP frame that is due, written to `buf` and padded: its length. Commits nothing.
    pub(crate) fn poll_transmit(&self, now: Instant, buf: &mut [u8; HEADER_MAX]) -> Option<usize> {
        let own = (self.ends.mac, self.ends.client);
        let (destination, packet) = if let Some((mac, ip)) = self.reply_to {
            (mac, ArpPacket::new(arp::REPLY, own, (mac, ip)))
        } else if self.asks && now >= self.ask_at {
            let target = (MacAddr::ZERO, self.asking_for());
            (MacAddr::BROADCAST, ArpPacket::new(arp::REQUEST, own, target))
        } else {
            return None;
        };
        let mut writer = Writer::new(buf);
        self.put_ethernet(&mut writer, destination, ETHERTYPE_ARP);
        writer.put(&packet);
        let len = writer.finish()?;
        // Not every NIC fills up what is too short for Ethernet, nor does every bridge.
        let padded_len = len.max(FRAME_MIN);
        buf.get_mut(len..padded_len)?.fill(0);
        Some(padded_len)
    }

    /// The frame of the last [`Peer::poll_transmit`] went out.
    pub(crate) fn on_sent(&mut self, now: Instant) {
        if self.reply_to.take().is_none() {
            let wait_us = Self::WAITS_US.get(self.asked as usize & 3).copied().unwrap_or(0);
            self.asked = self.asked.wrapping_add(1);
            self.ask_at = now.after(wait_us);
            self.asks = self.next_hop.is_none();
        }
    }

    /// The next hop was of no use so far: one more request, and its answer counts.
    pub(crate) fn doubt(&mut self, now: Instant) {
        self.in_doubt = true;
        self.asks = true;
        self.ask_at = now.after(Self::DOUBT_US);
    }

    /// The next hop leads to the server.
    pub(crate) fn trust(&mut self) {
        self.in_doubt = false;
        self.asks = false;
    }

    fn put_ethernet(&self, writer: &mut Writer<'_>, destination: MacAddr, ethertype: u16) {
        let outer = if self.ends.vlan.is_some() { ETHERTYPE_VLAN } else { ethertype };
        writer.put(&EthernetHeader {
            destination,
            source: self.ends.mac,
            ethertype: U16::new(outer),
        });
        if let Some(vlan) = self.ends.vlan {
            writer.put(&VlanTag { tci: U16::new(vlan), ethertype: U16::new(ethertype) });
        }
    }

    /// A frame from the NIC.
    pub(crate) fn handle_frame<'f>(&mut self, frame: &'f [u8]) -> Received<'f> {
        self.parse(frame).unwrap_or(Received::Ignored)
    }

    fn parse<'f>(&mut self, frame: &'f [u8]) -> Option<Received<'f>> {
        let (ethernet, mut rest) = EthernetHeader::ref_from_prefix(frame).ok()?;
        let mut ethertype = ethernet.ethertype.get();
        if let Some(vlan) = self.ends.vlan {
            let (tag, inner) = VlanTag::read_from_prefix(rest).ok()?;
            if ethertype != ETHERTYPE_VLAN || tag.id() != vlan {
                return None;
            }
            (ethertype, rest) = (tag.ethertype.get(), inner);
        }
        let to_us = ethernet.destination == self.ends.mac;
        match ethertype {
            ETHERTYPE_ARP if to_us || ethernet.destination == MacAddr::BROADCAST => {
                self.handle_arp(rest)
            }
            ETHERTYPE_IPV4 if to_us => self.handle_ipv4(rest),
            _ => None,
        }
    }

    fn handle_arp(&mut self, bytes: &[u8]) -> Option<Received<'static>> {
        let (packet, _) = ArpPacket::read_from_prefix(bytes).ok()?;
        let sender = Ipv4Addr::from(packet.sender_ip);
        let target = Ipv4Addr::from(packet.target_ip);
        if !packet.is_ethernet_ipv4()
            || !packet.sender_mac.is_station()
            || packet.sender_mac == self.ends.mac
        {
            return None;
        }
        if sender == self.ends.client {
            return Some(Received::Conflict(packet.sender_mac));
        }
        match packet.operation.get() {
            arp::REQUEST if target == self.ends.client => {
                self.reply_to = Some((packet.sender_mac, sender));
                Some(Received::Asked)
            }
            arp::REPLY
                if target == self.ends.client
                    && (sender == self.ends.server || Some(sender) == self.ends.gateway)
                    && self.asked != 0 =>
            {
                let mac = packet.sender_mac;
                let received = match self.next_hop {
                    None => {
                        // In doubt, who was asked last is asked first: a round of four begins.
                        self.asked = 8 | self.asked.wrapping_sub(1) & 4;
                        Received::Resolved(mac)
                    }
                    Some(known) if self.in_doubt && known != mac => Received::Moved(mac),
                    Some(_) => return None,
                };
                self.next_hop = Some(mac);
                self.asks = false;
                Some(received)
            }
            _ => None,
        }
    }

    fn handle_ipv4<'f>(&mut self, bytes: &'f [u8]) -> Option<Received<'f>> {
        let (UdpPacket { ip, udp }, rest) = UdpPacket::ref_from_prefix(bytes).ok()?;
        if self.next_hop.is_none()
            || Ipv4Addr::from(ip.source) != self.ends.server
            || Ipv4Addr::from(ip.destination) != self.ends.client
            || ip.protocol != PROTOCOL_UDP
            || udp.destination.get() != self.ends.client_port
            || !ip.is_plain()
        {
            return None;
        }
        // Trailing bytes are Ethernet padding.
        let len = usize::from(ip.total_len.get()).checked_sub(size_of::<UdpPacket>())?;
        let udp_len = udp.len.get();
        let payload_len = usize::from(udp_len).checked_sub(UdpHeader::LEN)?;
        let payload = rest.get(..len)?.get(..payload_len)?;
        if udp.checksum.get() != 0 {
            let sum = Sum::of(udp.as_bytes()).and(payload).plus(self.pseudo).plus(udp_len);
            if sum.complement() != 0 {
                return Some(Received::BadChecksum);
            }
        }
        Some(Received::Datagram { port: udp.source.get(), payload })
    }
}

/// The folded sum of a payload that is at hand.
pub(crate) fn payload_sum(payload: &[u8]) -> u16 {
    Sum::of(payload).folded()
}

#[cfg(test)]
mod tests;
