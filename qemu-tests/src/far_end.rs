//! The host at the other end of the guest's link, without sockets.
//!
//! It owns the server's and the gateway's address on the link, answers ARP for
//! both, and translates between datagrams on the link and datagrams of the
//! real server: heralds go to the server's herald address, and what the
//! server answers comes from a session port that is learned from its first
//! reply and shown to the guest unchanged.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::wire::EthernetAddress;

use crate::frame::{self, Datagram, Path, Received, Station};
use crate::live::Kind;

/// Port a server listens on for heralds.
pub const HERALD_PORT: u16 = 20023;
/// Port a client sends from and is answered at.
pub const CLIENT_PORT: u16 = 20024;

/// Session ports remembered; a server that used more is broken.
const SESSIONS_MAX: usize = 1024;

/// The guest's link as it is meant to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Address the guest is given.
    pub client: Ipv4Addr,
    /// The server. If it is not on the link it is reached through the gateway.
    pub server: Station,
    /// The gateway; equal to the server on a link that needs none.
    pub gateway: Station,
    /// Whether the server answers ARP itself.
    pub server_on_link: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            client: Self::host(15),
            server: Self::station(2),
            gateway: Self::station(1),
            server_on_link: true,
        }
    }
}

impl Network {
    const fn host(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 2, last)
    }

    const fn station(last: u8) -> Station {
        Station { mac: EthernetAddress([2, 0, 0, 0, 0, last]), ip: Self::host(last) }
    }
}

/// What is to be done with a frame that has crossed the link towards the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// A frame for the guest stands in the buffer given.
    Reply,
    /// Send `payload` to the server's socket `to`.
    Relay {
        /// The server's real address.
        to: SocketAddrV4,
        /// UDP payload.
        payload: &'a [u8],
    },
    /// The whole frame is a question of the living kernel.
    Answer,
    /// Take no frame from the guest for so many milliseconds.
    Hold(u16),
    /// Nobody's business: noise, or an address that is not ours.
    Ignore,
    /// A datagram to a port that the server has not opened.
    NoSession,
    /// A frame that a host would refuse.
    Malformed,
}

/// The state of the far end: the guest's station as learned, and the sessions.
#[derive(Debug)]
pub struct FarEnd {
    network: Network,
    herald: SocketAddrV4,
    guest: Option<Guest>,
    session_ports: BTreeSet<u16>,
    unsummed: u64,
}

/// Where the guest's last datagram came from.
#[derive(Clone, Copy, Debug)]
struct Guest {
    station: Station,
    port: u16,
}

impl FarEnd {
    /// A far end whose server listens for heralds at `herald`.
    pub fn new(network: Network, herald: SocketAddrV4) -> Self {
        Self { network, herald, guest: None, session_ports: BTreeSet::new(), unsummed: 0 }
    }

    /// Datagrams from the guest without a UDP checksum so far.
    pub fn unsummed(&self) -> u64 {
        self.unsummed
    }

    /// A frame has arrived from the guest. A reply is built into `reply`.
    pub fn handle<'a>(&mut self, frame: &'a [u8], reply: &mut Vec<u8>) -> Action<'a> {
        match frame::parse(frame) {
            Received::ArpRequest { sender, target } => {
                let Some(owner) = self.owner(target) else { return Action::Ignore };
                frame::build_arp_reply(reply, owner, sender);
                Action::Reply
            }
            Received::Udp(datagram) => self.route(datagram),
            Received::Live(live) => match live.kind {
                Kind::Ask => Action::Answer,
                Kind::Hold(ms) => Action::Hold(ms),
                Kind::Plain | Kind::Doomed => Action::Ignore,
            },
            Received::Other => Action::Ignore,
            Received::Malformed => Action::Malformed,
        }
    }

    /// An ack of `seqno` from the session port that the guest sends to, but
    /// for another station, into `frame`. `false` if there is no session yet.
    pub fn decoy(&self, port: u16, seqno: u32, frame: &mut Vec<u8>) -> bool {
        /// A station that nobody is.
        const NOBODY: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0x99]);
        let Some(guest) = self.guest.filter(|_| self.session_ports.contains(&port)) else {
            return false;
        };
        let from = Station { mac: self.next_hop().mac, ip: self.network.server.ip };
        let to = Station { mac: NOBODY, ip: guest.station.ip };
        let path = Path { from, from_port: port, to, to_port: guest.port };
        frame::build_udp(frame, path, &seqno.to_be_bytes());
        true
    }

    /// Wraps a datagram of the server for the guest into `frame`. `false` if it
    /// came from somewhere else, or if no guest has been heard yet.
    pub fn wrap(&mut self, from: SocketAddrV4, payload: &[u8], frame: &mut Vec<u8>) -> bool {
        let Some(guest) = self.guest.filter(|_| from.ip() == self.herald.ip()) else {
            return false;
        };
        if from.port() != self.herald.port() && self.session_ports.len() < SESSIONS_MAX {
            self.session_ports.insert(from.port());
        }
        let from_port = if from.port() == self.herald.port() { HERALD_PORT } else { from.port() };
        let from = Station { mac: self.next_hop().mac, ip: self.network.server.ip };
        frame::build_udp(
            frame,
            Path { from, from_port, to: guest.station, to_port: guest.port },
            payload,
        );
        true
    }

    fn route<'a>(&mut self, datagram: Datagram<'a>) -> Action<'a> {
        if datagram.to != self.network.server.ip || datagram.to_mac != self.next_hop().mac {
            return Action::Ignore;
        }
        let port = if datagram.to_port == HERALD_PORT {
            self.herald.port()
        } else if self.session_ports.contains(&datagram.to_port) {
            datagram.to_port
        } else {
            return Action::NoSession;
        };
        self.unsummed += u64::from(datagram.unsummed);
        self.guest = Some(Guest { station: datagram.from, port: datagram.from_port });
        Action::Relay { to: SocketAddrV4::new(*self.herald.ip(), port), payload: datagram.payload }
    }

    fn owner(&self, ip: Ipv4Addr) -> Option<Station> {
        let Network { server, gateway, server_on_link, .. } = self.network;
        [(server, server_on_link), (gateway, true)]
            .into_iter()
            .find_map(|(station, present)| (present && station.ip == ip).then_some(station))
    }

    fn next_hop(&self) -> Station {
        if self.network.server_on_link { self.network.server } else { self.network.gateway }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 1, 2, 3), 4000);
    const SESSION: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 1, 2, 3), 4001);

    fn guest() -> Station {
        Station { mac: EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]), ip: Network::host(15) }
    }

    fn from_guest(to: Station, to_port: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let path = Path { from: guest(), from_port: CLIENT_PORT, to, to_port };
        frame::build_udp(&mut frame, path, payload);
        frame
    }

    fn arp_request(target: Ipv4Addr) -> Vec<u8> {
        use smoltcp::wire::*;
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: guest().mac,
            source_protocol_addr: guest().ip,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target,
        };
        let mut frame = vec![0; 14 + arp.buffer_len()];
        let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
        ethernet.set_src_addr(guest().mac);
        ethernet.set_dst_addr(EthernetAddress::BROADCAST);
        ethernet.set_ethertype(EthernetProtocol::Arp);
        arp.emit(&mut ArpPacket::new_unchecked(ethernet.payload_mut()));
        frame
    }

    #[test]
    fn arp_is_answered_for_the_addresses_that_are_here() {
        let mut reply = Vec::new();
        let mut far = FarEnd::new(Network::default(), SERVER);
        assert_eq!(far.handle(&arp_request(Network::host(2)), &mut reply), Action::Reply);
        assert_eq!((&reply[..6], &reply[28..32]), (&guest().mac.0[..], &[10, 0, 2, 2][..]));
        assert_eq!(far.handle(&arp_request(Network::host(1)), &mut reply), Action::Reply);
        assert_eq!(far.handle(&arp_request(Network::host(9)), &mut reply), Action::Ignore);

        let behind = Network { server_on_link: false, ..Network::default() };
        let mut far = FarEnd::new(behind, SERVER);
        assert_eq!(far.handle(&arp_request(Network::host(2)), &mut reply), Action::Ignore);
        assert_eq!(far.handle(&arp_request(Network::host(1)), &mut reply), Action::Reply);
    }

    #[test]
    fn the_session_port_is_learned_and_shown_unchanged() {
        let network = Network::default();
        let mut far = FarEnd::new(network, SERVER);
        let mut buf = Vec::new();
        // Nobody to answer yet.
        assert!(!far.wrap(SESSION, b"ack!", &mut buf));
        // The session port is closed before the server has answered from it.
        let early = from_guest(network.server, SESSION.port(), b"data");
        assert_eq!(far.handle(&early, &mut buf), Action::NoSession);

        let herald = from_guest(network.server, HERALD_PORT, b"herald");
        assert_eq!(far.handle(&herald, &mut buf), Action::Relay { to: SERVER, payload: b"herald" });
        assert!(far.wrap(SESSION, b"ack!", &mut buf));
        let Received::Udp(got) = frame::parse(&buf) else { panic!() };
        assert_eq!((got.from, got.from_port), (network.server, SESSION.port()));
        assert_eq!((got.to_mac, got.to, got.to_port), (guest().mac, guest().ip, CLIENT_PORT));

        assert_eq!(far.handle(&early, &mut buf), Action::Relay { to: SESSION, payload: b"data" });
    }

    #[test]
    fn strangers_are_not_relayed() {
        let network = Network::default();
        let mut far = FarEnd::new(network, SERVER);
        let mut buf = Vec::new();
        far.handle(&from_guest(network.server, HERALD_PORT, b"herald"), &mut buf);
        let stranger = SocketAddrV4::new(Ipv4Addr::new(127, 9, 9, 9), 1);
        assert!(!far.wrap(stranger, b"ack!", &mut buf));
        let elsewhere = Station { ip: Network::host(77), ..network.server };
        let frame = from_guest(elsewhere, HERALD_PORT, b"herald");
        assert_eq!(far.handle(&frame, &mut buf), Action::Ignore);
        let wrong_mac = Station { mac: EthernetAddress([2; 6]), ..network.server };
        let frame = from_guest(wrong_mac, HERALD_PORT, b"herald");
        assert_eq!(far.handle(&frame, &mut buf), Action::Ignore);
        let mut bad = from_guest(network.server, HERALD_PORT, b"herald");
        *bad.last_mut().unwrap() ^= 1;
        assert_eq!(far.handle(&bad, &mut buf), Action::Malformed);
    }

    #[test]
    fn behind_a_gateway_the_frames_carry_its_station_address() {
        let network = Network { server_on_link: false, ..Network::default() };
        let mut far = FarEnd::new(network, SERVER);
        let mut buf = Vec::new();
        let via = Station { mac: network.gateway.mac, ip: network.server.ip };
        let frame = from_guest(via, HERALD_PORT, b"herald");
        assert!(matches!(far.handle(&frame, &mut buf), Action::Relay { .. }));
        assert!(far.wrap(SESSION, b"ack!", &mut buf));
        let Received::Udp(got) = frame::parse(&buf) else { panic!() };
        assert_eq!((got.from.mac, got.from.ip), (network.gateway.mac, network.server.ip));
    }
}
