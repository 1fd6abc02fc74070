//! [`Envelope`]: the headers in front of a message, made once for a burst.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Peer, UdpSum};
use crate::nic::HEADER_MAX;
use crate::wire::Writer;
use crate::wire::checksum::{Sum, added};
use crate::wire::debugnet::MessageHeader;
use crate::wire::ethernet::ETHERTYPE_IPV4;
use crate::wire::ipv4::Ipv4Header;
use crate::wire::udp::UdpHeader;

/// What is behind the Ethernet header and in front of the payload.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct MessageHeaders {
    ip: Ipv4Header,
    udp: UdpHeader,
    message: MessageHeader,
}

/// All in front of a payload. Between two messages of a burst little changes:
/// [`Envelope::open`] writes the rest once, [`Envelope::fill`] what differs.
#[derive(Debug)]
pub(crate) struct Envelope {
    bytes: [u8; HEADER_MAX],
    /// Offset of the IP header.
    ip_at: usize,
    /// The IP header in front of nothing, and its pseudo header's sum.
    ip: Ipv4Header,
    pseudo: u16,
    /// UDP length that the headers are made for, and the pseudo header's sum with it.
    udp_len: u16,
    seed: u16,
}

impl Envelope {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; HEADER_MAX],
            ip_at: HEADER_MAX,
            ip: Ipv4Header::EMPTY,
            pseudo: 0,
            udp_len: 0,
            seed: 0,
        }
    }

    /// Makes the headers from `peer` to the server's `port`. `None` while the
    /// next hop is not known.
    pub(crate) fn open(&mut self, peer: &Peer, port: u16) -> Option<()> {
        let next_hop = peer.next_hop?;
        let mut writer = Writer::new(&mut self.bytes);
        peer.put_ethernet(&mut writer, next_hop, ETHERTYPE_IPV4);
        self.ip_at = writer.finish()?;
        self.ip = peer.ip;
        (self.pseudo, self.udp_len) = (peer.pseudo, 0);
        let headers = MessageHeaders::mut_from_prefix(self.bytes.get_mut(self.ip_at..)?).ok()?.0;
        headers.udp = UdpHeader {
            source: U16::new(peer.ends.client_port),
            destination: U16::new(port),
            len: U16::new(0),
            checksum: U16::new(0),
        };
        Some(())
    }

    /// The headers of one message, and the offset of the UDP header. `None` if
    /// it is too long for a datagram.
    #[inline]
    pub(crate) fn fill(&mut self, message: &MessageHeader, sum: UdpSum) -> Option<(&[u8], u16)> {
        const BEHIND_IP: usize = UdpHeader::LEN + MessageHeader::LEN;
        let end = self.ip_at.checked_add(size_of::<MessageHeaders>())?;
        let bytes = self.bytes.get_mut(..end)?;
        let (_, headers) = MessageHeaders::mut_from_suffix(bytes).ok()?;
        let payload_len = u16::try_from(message.len.get()).ok()?;
        let udp_len = payload_len.checked_add(BEHIND_IP as u16)?;
        if udp_len != self.udp_len {
            udp_len.checked_add(Ipv4Header::LEN as u16)?;
            headers.ip = self.ip.with_payload(udp_len);
            headers.udp.len = U16::new(udp_len);
            (self.udp_len, self.seed) = (udp_len, added(self.pseudo, udp_len));
        }
        headers.message = *message;
        headers.udp.checksum = U16::new(match sum {
            UdpSum::Offload => self.seed,
            UdpSum::Payload(payload) => {
                headers.udp.checksum = U16::new(0);
                let sum = Sum::of(headers.udp.as_bytes()).and(message.as_bytes());
                sum.plus(self.seed).plus(payload).udp_field()
            }
        });
        let udp_at = end.checked_sub(BEHIND_IP)?;
        Some((bytes, udp_at as u16))
    }
}
