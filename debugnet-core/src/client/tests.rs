//! Recorded traffic of the stock client and server, against our encoders and parsers.

use super::*;
use core::net::Ipv4Addr;
use std::fs;

use crate::peer::{UdpSum, payload_sum};
use crate::session::{SPAN, Slot, Stored};
use crate::wire::debugnet::{self, Ack};
use pcap_file::pcap::PcapParser;
use zerocopy::{FromBytes, IntoBytes};

const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;

/// The frames of a capture, each with whether the client sent it.
fn recorded(name: &str) -> Vec<(bool, Vec<u8>)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../netdumpd/tests/testdata/");
    let file = fs::read(format!("{dir}{name}.pcap")).unwrap();
    let (mut rest, parser) = PcapParser::new(&file).unwrap();
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (next, packet) = parser.next_packet(rest).unwrap();
        let data = packet.data.into_owned();
        frames.push((data[6..12] == CLIENT_MAC.0, data));
        rest = next;
    }
    frames
}

const CAPTURES: [&str; 3] = ["stock-mtu1500-clean", "stock-mtu4148-clean", "stock-mtu1500-loss2"];

fn client() -> Client<'static> {
    let ends = Endpoints {
        mac: CLIENT_MAC,
        client: CLIENT,
        client_port: debugnet::NETDUMP_CLIENT_PORT,
        server: SERVER,
        gateway: None,
        vlan: None,
    };
    let slots = vec![Slot::EMPTY; 1024].leak();
    let index = vec![0; 1024 * SPAN].leak();
    let session = Session::new(slots, index, 1448);
    Client::new(ends, debugnet::NETDUMP_HERALD_PORT, session)
}

fn is_arp(frame: &[u8]) -> bool {
    frame[12..14] == [8, 6]
}

/// Every header the stock client wrote comes out of our encoders bit for bit,
/// and every ack the stock server wrote is understood.
#[test]
fn recorded_exchanges() {
    // An interpreter has time for a burst of the first.
    for name in CAPTURES.into_iter().take(if cfg!(miri) { 1 } else { CAPTURES.len() }) {
        let (mut client, mut envelope) = (client(), Envelope::new());
        let now = Instant::from_micros(1_000);
        let (mut headers, mut acks) = (0, 0);
        let mut sent = std::collections::HashSet::new();
        let mut acked = std::collections::HashSet::new();
        for (from_client, frame) in recorded(name) {
            let mut buf = [0; HEADER_MAX];
            if from_client && is_arp(&frame) {
                let len = client.poll_control(now, &mut buf).expect("an ARP request");
                // Recorded before the NIC filled it up.
                assert_eq!(buf[..frame.len()], frame[..], "{name}: ARP");
                assert_eq!((len, &buf[frame.len()..len]), (60, &[0; 18][..]), "{name}: padding");
                client.on_control_sent(now);
            } else if from_client {
                let (found, payload) = MessageHeader::parse(&frame[HEADERS..]).unwrap();
                let seqno = found.seqno.get();
                let message = Message {
                    kind: found.kind.get(),
                    aux2: found.aux2.get(),
                    offset: found.offset.get(),
                    len: payload.len() as u16,
                    stored: Stored::None,
                    sum: Some(payload_sum(payload)),
                };
                let sum = UdpSum::Payload(payload_sum(payload));
                client.open(&mut envelope).unwrap();
                let (made, _) = envelope.fill(&header(&message, seqno), sum).unwrap();
                assert_eq!(*made, frame[..HEADERS + 24], "{name}: message {seqno}");
                headers += 1;
                sent.insert(seqno);
                if seqno > client.session.counters().messages {
                    // The lossy capture is the server's: what never reached it is missing.
                    let missing = seqno - 1 - client.session.counters().messages;
                    for _ in 0..missing {
                        client.session.send(message).unwrap();
                    }
                    match message.kind {
                        debugnet::HERALD => client.session.herald(message).unwrap(),
                        _ => assert_eq!(client.session.send(message), Ok(seqno), "{name}"),
                    }
                    client.session.force_sent(now);
                }
            } else {
                match client.handle_frame(now, &frame) {
                    Some(Event::Resolved(mac)) => assert_eq!(mac.0[..], frame[6..12]),
                    Some(Event::Session(Heard::Acked { seqno, .. })) => {
                        let ack = Ack::read_from_bytes(&frame[HEADERS..HEADERS + 4]).unwrap();
                        assert_eq!(ack.seqno.get(), seqno);
                        assert!(acked.insert(seqno), "{name}");
                        acks += 1;
                    }
                    Some(Event::Session(Heard::Stale { seqno })) => {
                        assert!(acked.contains(&seqno), "{name}: {seqno} acked twice");
                    }
                    other => panic!("{name}: {other:?} from {:02x?}", frame.as_bytes()),
                }
                if cfg!(miri) && headers >= 67 && acks == headers {
                    break;
                }
            }
        }
        assert_eq!(acked, sent, "{name}: every message that arrived was acked");
        assert!(headers >= 67 && acks >= 67, "{name}: {headers} headers, {acks} acks");
        assert!(client.session.server_port().is_some_and(|port| port > 1023));
    }
}
