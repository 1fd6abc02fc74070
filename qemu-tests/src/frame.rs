//! Frames as an ordinary host reads and writes them.
//!
//! Everything goes through `smoltcp::wire` and nothing through our own
//! encoders: the far end of a test link must not share their mistakes. A
//! frame with a wrong checksum is refused here as a kernel would refuse it.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use crate::live::{self, Live};

/// What a frame turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// Somebody asks for the station address of `target`.
    ArpRequest {
        /// Who asks.
        sender: Station,
        /// Whose address is asked for.
        target: Ipv4Addr,
    },
    /// A UDP datagram over IPv4, all checksums right.
    Udp(Datagram<'a>),
    /// A frame of the living kernel.
    Live(Live),
    /// Well formed, but nothing that the far end has an answer to.
    Other,
    /// Truncated, or a checksum or length is wrong.
    Malformed,
}

/// A host on the link: station address and IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Ethernet address.
    pub mac: EthernetAddress,
    /// IPv4 address.
    pub ip: Ipv4Addr,
}

/// A UDP datagram and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Sender: Ethernet source and IPv4 source.
    pub from: Station,
    /// Ethernet destination.
    pub to_mac: EthernetAddress,
    /// IPv4 destination.
    pub to: Ipv4Addr,
    /// UDP source port.
    pub from_port: u16,
    /// UDP destination port.
    pub to_port: u16,
    /// Whether the sender left the UDP checksum out (RFC 768: zero).
    pub unsummed: bool,
    /// UDP payload.
    pub payload: &'a [u8],
}

/// Takes a frame apart.
pub fn parse(frame: &[u8]) -> Received<'_> {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return Received::Malformed };
    match ethernet.ethertype() {
        EthernetProtocol::Arp => parse_arp(ethernet.payload()),
        EthernetProtocol::Ipv4 => {
            let (from, to) = (ethernet.src_addr(), ethernet.dst_addr());
            parse_ipv4(from, to, ethernet.payload()).unwrap_or(Received::Malformed)
        }
        EthernetProtocol::Unknown(live::ETHERTYPE) => {
            live::parse(frame).map_or(Received::Other, Received::Live)
        }
        _ => Received::Other,
    }
}

fn parse_arp(packet: &[u8]) -> Received<'_> {
    let Ok(packet) = ArpPacket::new_checked(packet) else { return Received::Malformed };
    match ArpRepr::parse(&packet) {
        Ok(ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) => Received::ArpRequest {
            sender: Station { mac: source_hardware_addr, ip: source_protocol_addr },
            target: target_protocol_addr,
        },
        Ok(_) => Received::Other,
        Err(_) => Received::Malformed,
    }
}

fn parse_ipv4(
    from_mac: EthernetAddress,
    to_mac: EthernetAddress,
    packet: &[u8],
) -> Option<Received<'_>> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    if ip.version() != 4 || !ip.verify_checksum() {
        return None;
    }
    if ip.next_header() != IpProtocol::Udp || ip.more_frags() || ip.frag_offset() != 0 {
        return Some(Received::Other);
    }
    let (source, to) = (ip.src_addr(), ip.dst_addr());
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    if !udp.verify_checksum(&IpAddress::Ipv4(source), &IpAddress::Ipv4(to)) {
        return None;
    }
    Some(Received::Udp(Datagram {
        from: Station { mac: from_mac, ip: source },
        to_mac,
        to,
        from_port: udp.src_port(),
        to_port: udp.dst_port(),
        unsummed: udp.checksum() == 0,
        payload: udp.payload(),
    }))
}

/// Both ends of a datagram to be built.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Sender.
    pub from: Station,
    /// UDP source port.
    pub from_port: u16,
    /// Receiver.
    pub to: Station,
    /// UDP destination port.
    pub to_port: u16,
}

/// Builds a UDP datagram in an Ethernet frame into `frame` (whatever it held is gone).
pub fn build_udp(frame: &mut Vec<u8>, path: Path, payload: &[u8]) {
    let udp = UdpRepr { src_port: path.from_port, dst_port: path.to_port };
    let ip = Ipv4Repr {
        src_addr: path.from.ip,
        dst_addr: path.to.ip,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    let sums = ChecksumCapabilities::default();
    let rest = start_frame(
        frame,
        path.from.mac,
        path.to.mac,
        EthernetProtocol::Ipv4,
        ip.buffer_len() + ip.payload_len,
    );
    let mut ip_packet = Ipv4Packet::new_unchecked(rest);
    ip.emit(&mut ip_packet, &sums);
    udp.emit(
        &mut UdpPacket::new_unchecked(ip_packet.payload_mut()),
        &IpAddress::Ipv4(path.from.ip),
        &IpAddress::Ipv4(path.to.ip),
        payload.len(),
        |buf| buf.copy_from_slice(payload),
        &sums,
    );
}

/// Builds the answer of `owner` to an ARP request of `asker`.
pub fn build_arp_reply(frame: &mut Vec<u8>, owner: Station, asker: Station) {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: owner.mac,
        source_protocol_addr: owner.ip,
        target_hardware_addr: asker.mac,
        target_protocol_addr: asker.ip,
    };
    let rest = start_frame(frame, owner.mac, asker.mac, EthernetProtocol::Arp, arp.buffer_len());
    arp.emit(&mut ArpPacket::new_unchecked(rest));
}

/// Builds a broadcast frame of the local experimental type 0x88b5 (IEEE 802)
/// that means nothing to anybody: `len` bytes filled with `fill`.
pub fn build_noise(frame: &mut Vec<u8>, from: EthernetAddress, len: usize, fill: u8) {
    let kind = EthernetProtocol::Unknown(0x88b5);
    start_frame(frame, from, EthernetAddress::BROADCAST, kind, len).fill(fill);
}

fn start_frame(
    frame: &mut Vec<u8>,
    src_addr: EthernetAddress,
    dst_addr: EthernetAddress,
    ethertype: EthernetProtocol,
    payload_len: usize,
) -> &mut [u8] {
    let ethernet = EthernetRepr { src_addr, dst_addr, ethertype };
    let header_len = ethernet.buffer_len();
    frame.clear();
    frame.resize(header_len + payload_len, 0);
    ethernet.emit(&mut EthernetFrame::new_unchecked(frame.as_mut_slice()));
    &mut frame[header_len..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Station =
        Station { mac: EthernetAddress([2, 0, 0, 0, 0, 1]), ip: Ipv4Addr::new(10, 0, 2, 15) };
    const B: Station =
        Station { mac: EthernetAddress([2, 0, 0, 0, 0, 2]), ip: Ipv4Addr::new(10, 0, 2, 2) };

    fn datagram(payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        build_udp(&mut frame, Path { from: A, from_port: 20024, to: B, to_port: 7 }, payload);
        frame
    }

    #[test]
    fn a_datagram_comes_back_as_it_went_in() {
        let frame = datagram(b"payload");
        assert_eq!(frame.len(), 14 + 20 + 8 + 7);
        let Received::Udp(got) = parse(&frame) else { panic!("{:?}", parse(&frame)) };
        assert_eq!((got.from, got.to_mac, got.to), (A, B.mac, B.ip));
        assert_eq!((got.from_port, got.to_port, got.unsummed), (20024, 7, false));
        assert_eq!(got.payload, b"payload");
    }

    #[test]
    fn ethernet_padding_is_not_payload() {
        let mut frame = datagram(b"ack!");
        frame.resize(60, 0xee);
        let Received::Udp(got) = parse(&frame) else { panic!() };
        assert_eq!(got.payload, b"ack!");
    }

    #[test]
    fn every_flipped_bit_behind_the_station_addresses_is_noticed() {
        let good = datagram(b"some payload of a datagram");
        for bit in 8 * 14..8 * good.len() {
            let mut frame = good.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            match parse(&frame) {
                Received::Malformed => {}
                // The checksum itself may be turned into "no checksum".
                Received::Udp(got) => assert!(got.unsummed, "bit {bit}"),
                other => panic!("bit {bit}: {other:?}"),
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let good = datagram(b"payload");
        for len in 0..good.len() {
            assert_eq!(parse(&good[..len]), Received::Malformed, "{len}");
        }
    }

    #[test]
    fn requests_are_read_and_replies_ignored() {
        let mut frame = Vec::new();
        build_arp_reply(&mut frame, B, A);
        assert_eq!(parse(&frame), Received::Other);
        // Operation 2 to 1: the reply read as a request of B for A's address.
        frame[21] = 1;
        assert_eq!(parse(&frame), Received::ArpRequest { sender: B, target: A.ip });
    }

    #[test]
    fn noise_is_nobody_s() {
        let mut frame = Vec::new();
        build_noise(&mut frame, B.mac, 100, 0xaa);
        assert_eq!(frame.len(), 114);
        assert_eq!(parse(&frame), Received::Other);
    }
}
