use super::*;
use crate::wire::debugnet::{self, MessageHeader};
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpPacket as SmolArp, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress,
    IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};
use zerocopy::IntoBytes;
use zerocopy::network_endian::{U32, U64};

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const SERVER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

fn ends(gateway: Option<Ipv4Addr>) -> Endpoints {
    Endpoints { mac: OWN, client: CLIENT, client_port: 20024, server: SERVER, gateway, vlan: None }
}

fn arp(operation: u16, sender: (MacAddr, Ipv4Addr), target: Ipv4Addr, to: MacAddr) -> Vec<u8> {
    let mut frame = to.0.to_vec();
    frame.extend(sender.0.0);
    frame.extend([8, 6]);
    frame.extend(ArpPacket::new(operation, sender, (OWN, target)).as_bytes());
    frame.resize(60, 0);
    frame
}

/// Sends what is due: the address asked for.
fn ask(peer: &mut Peer, now: Instant) -> Option<Ipv4Addr> {
    let mut buf = [0; HEADER_MAX];
    let len = peer.poll_transmit(now, &mut buf)?;
    peer.on_sent(now);
    let frame = EthernetFrame::new_checked(&buf[..len]).unwrap();
    assert!(frame.dst_addr().is_broadcast());
    let ArpRepr::EthernetIpv4 { target_protocol_addr, source_protocol_addr, .. } =
        ArpRepr::parse(&SmolArp::new_checked(frame.payload()).unwrap()).unwrap()
    else {
        panic!("not Ethernet");
    };
    assert_eq!(source_protocol_addr, CLIENT);
    Some(target_protocol_addr)
}

fn asked_for(gateway: Option<Ipv4Addr>, requests: usize) -> Vec<Ipv4Addr> {
    let mut peer = Peer::new(ends(gateway));
    let mut now = Instant::from_micros(1);
    let mut asked = Vec::new();
    while asked.len() < requests {
        asked.extend(ask(&mut peer, now));
        now = peer.poll_timeout(now);
        assert!(now < Instant::from_micros(60_000_000));
    }
    asked
}

#[test]
fn server_first_then_gateway_in_turn() {
    let asked = asked_for(Some(GATEWAY), 10);
    assert_eq!(asked[..4], [SERVER; 4]);
    assert_eq!(asked[4..8], [GATEWAY; 4]);
    assert_eq!(asked[8..], [SERVER; 2]);
    assert_eq!(asked_for(None, 9), [SERVER; 9]);
}

#[test]
fn first_reply_from_server_or_gateway_counts() {
    for (mac, ip) in [(SERVER_MAC, SERVER), (GATEWAY_MAC, GATEWAY)] {
        let mut peer = Peer::new(ends(Some(GATEWAY)));
        let reply = arp(arp::REPLY, (mac, ip), CLIENT, OWN);
        assert_eq!(peer.handle_frame(&reply), Received::Ignored, "nobody asked yet");
        ask(&mut peer, Instant::ZERO).unwrap();
        let stranger = arp(arp::REPLY, (mac, Ipv4Addr::new(10, 0, 0, 9)), CLIENT, OWN);
        assert_eq!(peer.handle_frame(&stranger), Received::Ignored);
        let group = arp(arp::REPLY, (MacAddr::BROADCAST, ip), CLIENT, OWN);
        assert_eq!(peer.handle_frame(&group), Received::Ignored);
        assert_eq!(peer.handle_frame(&reply), Received::Resolved(mac));
        let other = arp(arp::REPLY, (MacAddr([2, 9, 9, 9, 9, 9]), ip), CLIENT, OWN);
        assert_eq!(peer.handle_frame(&other), Received::Ignored, "the first one stays");
        assert_eq!(peer.next_hop(), Some(mac));
    }
}

/// A damaged or forged reply is put right when the server does not answer.
#[test]
fn a_next_hop_in_doubt_is_asked_for_again() {
    let other = MacAddr([2, 9, 9, 9, 9, 9]);
    let reply = |mac| arp(arp::REPLY, (mac, SERVER), CLIENT, OWN);
    let mut peer = Peer::new(ends(None));
    ask(&mut peer, Instant::ZERO).unwrap();
    assert_eq!(peer.handle_frame(&reply(other)), Received::Resolved(other));
    let later = Instant::from_micros(1_000_000);
    assert_eq!(ask(&mut peer, later), None, "it is known");
    peer.doubt(later);
    assert_eq!(ask(&mut peer, later), None, "the herald's answer is given its time");
    let later = later.after(500_000);
    assert_eq!(ask(&mut peer, later), Some(SERVER));
    assert_eq!(ask(&mut peer, later.after(10_000_000)), None, "once");
    assert_eq!(peer.handle_frame(&reply(other)), Received::Ignored, "nothing new");
    assert_eq!(peer.handle_frame(&reply(SERVER_MAC)), Received::Moved(SERVER_MAC));
    peer.trust();
    assert_eq!(peer.handle_frame(&reply(other)), Received::Ignored, "the server was heard");
    assert_eq!(peer.next_hop(), Some(SERVER_MAC));
}

#[test]
fn in_doubt_who_was_asked_last_is_asked_first() {
    for (first, second, mac) in [(SERVER, GATEWAY, SERVER_MAC), (GATEWAY, SERVER, GATEWAY_MAC)] {
        let mut peer = Peer::new(ends(Some(GATEWAY)));
        let mut now = Instant::ZERO;
        // The reply comes after the last request of a round.
        for _ in 0..if first == SERVER { 4 } else { 8 } {
            now = now.after(1_000_000);
            ask(&mut peer, now).unwrap();
        }
        let reply = arp(arp::REPLY, (mac, first), CLIENT, OWN);
        assert_eq!(peer.handle_frame(&reply), Received::Resolved(mac));
        let asked = [(); 9].map(|()| {
            peer.doubt(now);
            now = now.after(1_000_000);
            ask(&mut peer, now).unwrap()
        });
        assert_eq!(asked[..4], [first; 4]);
        assert_eq!(asked[4..8], [second; 4]);
        assert_eq!(asked[8], first);
    }
}

#[test]
fn requests_for_us_are_answered_to_the_asker() {
    let mut peer = Peer::new(ends(None));
    let request = arp(arp::REQUEST, (SERVER_MAC, SERVER), CLIENT, MacAddr::BROADCAST);
    assert_eq!(peer.handle_frame(&request), Received::Asked);
    let mut buf = [0; HEADER_MAX];
    let len = peer.poll_transmit(Instant::ZERO, &mut buf).unwrap();
    let frame = EthernetFrame::new_checked(&buf[..len]).unwrap();
    assert_eq!(frame.dst_addr(), EthernetAddress(SERVER_MAC.0));
    assert_eq!(frame.ethertype(), EthernetProtocol::Arp);
    let repr = ArpRepr::parse(&SmolArp::new_checked(frame.payload()).unwrap()).unwrap();
    assert_eq!(
        repr,
        ArpRepr::EthernetIpv4 {
            operation: smoltcp::wire::ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(OWN.0),
            source_protocol_addr: CLIENT,
            target_hardware_addr: EthernetAddress(SERVER_MAC.0),
            target_protocol_addr: SERVER,
        }
    );
    let for_another = arp(arp::REQUEST, (SERVER_MAC, SERVER), GATEWAY, MacAddr::BROADCAST);
    assert_eq!(peer.handle_frame(&for_another), Received::Ignored);
    let claims_ours = arp(arp::REPLY, (GATEWAY_MAC, CLIENT), CLIENT, MacAddr::BROADCAST);
    assert_eq!(peer.handle_frame(&claims_ours), Received::Conflict(GATEWAY_MAC));
}

fn resolved(vlan: Option<u16>) -> Peer {
    let mut peer = Peer::new(Endpoints { vlan, ..ends(None) });
    peer.next_hop = Some(SERVER_MAC);
    peer
}

fn header(seqno: u32, offset: u64, len: u32, aux2: u32) -> MessageHeader {
    MessageHeader {
        kind: U32::new(debugnet::VMCORE),
        seqno: U32::new(seqno),
        offset: U64::new(offset),
        len: U32::new(len),
        aux2: U32::new(aux2),
    }
}

/// A datagram as the server's stack builds it.
fn from_server(source: Ipv4Addr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let caps = ChecksumCapabilities::default();
    let udp = UdpRepr { src_port: ports.0, dst_port: ports.1 };
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: CLIENT,
        next_header: IpProtocol::Udp,
        payload_len: 8 + payload.len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; 14 + 20 + 8 + payload.len()];
    frame[..6].copy_from_slice(&OWN.0);
    frame[6..12].copy_from_slice(&SERVER_MAC.0);
    frame[12..14].copy_from_slice(&[8, 0]);
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    ip.emit(&mut packet, &caps);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &IpAddress::from(source),
        &IpAddress::from(CLIENT),
        payload.len(),
        |room| room.copy_from_slice(payload),
        &caps,
    );
    let len = frame.len().max(60);
    frame.resize(len, 0);
    frame
}

#[test]
fn only_sound_datagrams_from_the_server_pass() {
    let mut peer = resolved(None);
    let ack = [0, 0, 0, 7];
    let good = from_server(SERVER, (4000, 20024), &ack);
    assert_eq!(peer.handle_frame(&good), Received::Datagram { port: 4000, payload: &ack });
    let bad = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        frame
    };
    for (what, frame, expected) in [
        ("other host", from_server(GATEWAY, (4000, 20024), &ack), Received::Ignored),
        ("other port", from_server(SERVER, (4000, 20025), &ack), Received::Ignored),
        ("other station", bad(&|f| f[0] ^= 4), Received::Ignored),
        ("IP checksum", bad(&|f| f[22] ^= 1), Received::Ignored),
        ("payload", bad(&|f| f[45] ^= 1), Received::BadChecksum),
        ("truncated", good[..40].to_vec(), Received::Ignored),
        ("empty", Vec::new(), Received::Ignored),
    ] {
        assert_eq!(peer.handle_frame(&frame), expected, "{what}");
    }
    // Fragments and options, with a header checksum that holds.
    for (at, value) in [(20, 0x20), (14, 0x46)] {
        let frame = bad(&|f| {
            f[at] = value;
            f[24..26].fill(0);
            let sum = Sum::of(&f[14..34]).complement();
            f[24..26].copy_from_slice(&sum.to_be_bytes());
        });
        assert_eq!(peer.handle_frame(&frame), Received::Ignored);
    }
    // No UDP checksum is legal over IPv4.
    let unsummed = bad(&|f| f[40..42].fill(0));
    assert_eq!(peer.handle_frame(&unsummed), Received::Datagram { port: 4000, payload: &ack });
}

#[test]
fn vlan_tags_are_written_and_required() {
    let mut peer = resolved(Some(7));
    let mut envelope = Envelope::new();
    envelope.open(&peer, 4000).unwrap();
    let (bytes, udp) = envelope.fill(&header(1, 0, 0, 0), UdpSum::Payload(0)).unwrap();
    assert_eq!((bytes.len(), udp), (14 + 4 + 20 + 8 + 24, 38));
    assert_eq!(bytes[12..18], [0x81, 0, 0, 7, 8, 0]);
    let good = from_server(SERVER, (4000, 20024), &[0, 0, 0, 7]);
    assert_eq!(peer.handle_frame(&good), Received::Ignored, "untagged");
    let mut tagged = good.clone();
    tagged.splice(12..12, [0x81, 0, 0x20, 7]);
    assert!(matches!(peer.handle_frame(&tagged), Received::Datagram { .. }), "priority 1, id 7");
    tagged[15] = 8;
    assert_eq!(peer.handle_frame(&tagged), Received::Ignored, "other VLAN");
}

proptest! {
    /// Every data frame parses in smoltcp, checksums verified, to the fields it was made from.
    #[test]
    fn smoltcp_agrees(
        seqno: u32, offset: u64, aux2: u32, port: u16,
        payload in proptest::collection::vec(any::<u8>(), 0..1449),
        offload: bool,
        before in 0u32..1449,
    ) {
        let peer = resolved(None);
        let message = header(seqno, offset, payload.len() as u32, aux2);
        let mut envelope = Envelope::new();
        prop_assert!(envelope.open(&peer, port).is_some());
        // What another message has left in it does not matter.
        let other = UdpSum::Payload(payload_sum(&seqno.to_ne_bytes()));
        envelope.fill(&header(aux2, offset, before, seqno), other).unwrap();
        let sum = if offload { UdpSum::Offload } else { UdpSum::Payload(payload_sum(&payload)) };
        let (bytes, udp_start) = envelope.fill(&message, sum).unwrap();
        let mut frame = bytes.to_vec();
        frame.extend(&payload);
        if offload {
            // What a NIC does.
            let udp = usize::from(udp_start);
            let sum = Sum::of(&frame[udp..]).udp_field();
            frame[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
        }
        let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
        prop_assert_eq!(ethernet.src_addr(), EthernetAddress(OWN.0));
        prop_assert_eq!(ethernet.dst_addr(), EthernetAddress(SERVER_MAC.0));
        let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        let caps = ChecksumCapabilities::default();
        let repr = Ipv4Repr::parse(&ip, &caps).unwrap();
        prop_assert_eq!((repr.src_addr, repr.dst_addr), (CLIENT, SERVER));
        prop_assert!(ip.dont_frag() && !ip.more_frags());
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        let ports = UdpRepr::parse(&udp, &repr.src_addr.into(), &repr.dst_addr.into(), &caps).unwrap();
        prop_assert_eq!((ports.src_port, ports.dst_port), (20024, port));
        let (parsed, rest) = MessageHeader::parse(udp.payload()).unwrap();
        prop_assert_eq!(parsed, message);
        prop_assert_eq!(rest, &payload[..]);
    }

    /// Nothing a wire can carry upsets the parser.
    #[test]
    fn any_bytes(mut frame in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..4) {
        let types: [&[u8]; 4] = [&[8, 0], &[8, 6], &[0x81, 0], &[0x86, 0xdd]];
        if frame.len() > 34 {
            frame[..6].copy_from_slice(&OWN.0);
            frame[12..14].copy_from_slice(types[kind]);
            frame[14] = 0x45;
        }
        for vlan in [None, Some(7)] {
            let mut peer = resolved(vlan);
            let heard = peer.handle_frame(&frame);
            prop_assert!(!matches!(heard, Received::Resolved(_)), "already resolved");
        }
    }
}
