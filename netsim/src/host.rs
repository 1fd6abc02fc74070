//! The far end of the wire: a host with one address that answers ARP and
//! speaks UDP.
//!
//! Frames are read and written with `smoltcp::wire`, which shares no code with
//! the client: every frame the client emits must parse there, with checksums
//! verified, or the run fails.

use std::net::{Ipv4Addr, SocketAddrV4};

use debugnet_core::addr::MacAddr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

/// A UDP datagram that reached the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram<'f> {
    /// Who sent it.
    pub from: SocketAddrV4,
    /// The port it was sent to.
    pub to_port: u16,
    /// What it carries.
    pub payload: &'f [u8],
}

/// What a frame meant to the host.
#[derive(Debug)]
pub enum Input<'f> {
    /// Not for it, or damaged on the way.
    Dropped,
    /// Answer with this frame.
    Reply(Vec<u8>),
    /// A datagram for one of its sockets.
    Datagram(Datagram<'f>),
}

/// A host on the wire.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its station address.
    pub mac: MacAddr,
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
    /// Other addresses it answers ARP for, and the station it says is theirs: a router its own,
    /// which passes on what is for `ip`; any other drops all it gets.
    pub proxies: Vec<(Ipv4Addr, MacAddr)>,
    /// It does not answer ARP for its own address, as a host behind a router.
    pub is_silent: bool,
    /// ARP replies it got.
    pub arp_replies: u64,
    /// Station addresses learned from frames.
    neighbours: Vec<(Ipv4Addr, EthernetAddress)>,
    /// Whether a frame that does not parse is the line's fault; without it, it is a failure.
    pub tolerates_damage: bool,
    /// Frames that did not parse or verify.
    pub damaged: u64,
}

impl Host {
    /// A host with this address.
    pub fn new(mac: MacAddr, ip: Ipv4Addr) -> Self {
        Self {
            mac,
            ip,
            proxies: Vec::new(),
            is_silent: false,
            arp_replies: 0,
            neighbours: Vec::new(),
            tolerates_damage: false,
            damaged: 0,
        }
    }

    /// A frame from the wire.
    ///
    /// # Panics
    /// If it is malformed and [`Host::tolerates_damage`] is off: the client must not emit such a frame.
    pub fn receive<'f>(&mut self, frame: &'f [u8]) -> Input<'f> {
        match self.parse(frame) {
            Ok(input) => input,
            Err(error) => {
                self.damaged += 1;
                assert!(self.tolerates_damage, "malformed frame from the client: {error}");
                Input::Dropped
            }
        }
    }

    fn parse<'f>(&mut self, bytes: &'f [u8]) -> Result<Input<'f>, String> {
        let wire = |what: &'static str| move |_: smoltcp::wire::Error| what.to_string();
        let frame = EthernetFrame::new_checked(bytes).map_err(wire("Ethernet"))?;
        let to_us = frame.dst_addr() == EthernetAddress(self.mac.0);
        if !to_us && !frame.dst_addr().is_broadcast() {
            return Ok(Input::Dropped);
        }
        let payload: &'f [u8] = &bytes[EthernetFrame::<&[u8]>::header_len()..];
        match frame.ethertype() {
            EthernetProtocol::Arp => {
                let packet = ArpPacket::new_checked(payload).map_err(wire("ARP"))?;
                let repr = ArpRepr::parse(&packet).map_err(wire("ARP"))?;
                Ok(self.arp(repr))
            }
            EthernetProtocol::Ipv4 => {
                let packet = Ipv4Packet::new_checked(payload).map_err(wire("IPv4"))?;
                let caps = ChecksumCapabilities::default();
                let ip = Ipv4Repr::parse(&packet, &caps).map_err(wire("IPv4 header"))?;
                if ip.dst_addr != self.ip || ip.next_header != IpProtocol::Udp {
                    return Ok(Input::Dropped);
                }
                let start = usize::from(packet.header_len());
                let end = usize::from(packet.total_len());
                let datagram: &'f [u8] = &payload[start..end];
                let udp = UdpPacket::new_checked(datagram).map_err(wire("UDP"))?;
                let (source, destination) =
                    (IpAddress::from(ip.src_addr), IpAddress::from(ip.dst_addr));
                let repr = UdpRepr::parse(&udp, &source, &destination, &caps)
                    .map_err(wire("UDP checksum"))?;
                self.learn(ip.src_addr, frame.src_addr());
                let payload: &'f [u8] = &datagram[8..usize::from(udp.len())];
                Ok(Input::Datagram(Datagram {
                    from: SocketAddrV4::new(ip.src_addr, repr.src_port),
                    to_port: repr.dst_port,
                    payload,
                }))
            }
            other => Err(format!("EtherType {other}")),
        }
    }

    /// Learns where a neighbour is without asking.
    pub fn meet(&mut self, ip: Ipv4Addr, mac: MacAddr) {
        self.learn(ip, EthernetAddress(mac.0));
    }

    fn learn(&mut self, ip: Ipv4Addr, mac: EthernetAddress) {
        match self.neighbours.iter_mut().find(|(known, _)| *known == ip) {
            Some(entry) => entry.1 = mac,
            None => self.neighbours.push((ip, mac)),
        }
    }

    fn arp(&mut self, repr: ArpRepr) -> Input<'static> {
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } = repr
        else {
            return Input::Dropped;
        };
        self.learn(source_protocol_addr, source_hardware_addr);
        if operation == ArpOperation::Reply {
            self.arp_replies += 1;
        }
        let own = (!self.is_silent).then_some((self.ip, self.mac));
        let mut answers = own.into_iter().chain(self.proxies.iter().copied());
        let answer = answers.find(|(ip, _)| *ip == target_protocol_addr);
        let Some((ip, mac)) = answer.filter(|_| operation == ArpOperation::Request) else {
            return Input::Dropped;
        };
        Input::Reply(self.arp_frame(
            ArpOperation::Reply,
            (mac, ip),
            (source_hardware_addr, source_protocol_addr),
            source_hardware_addr,
        ))
    }

    fn arp_frame(
        &self,
        operation: ArpOperation,
        sender: (MacAddr, Ipv4Addr),
        target: (EthernetAddress, Ipv4Addr),
        to: EthernetAddress,
    ) -> Vec<u8> {
        let repr = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(sender.0.0),
            source_protocol_addr: sender.1,
            target_hardware_addr: target.0,
            target_protocol_addr: target.1,
        };
        self.ethernet(to, EthernetProtocol::Arp, repr.buffer_len(), |payload| {
            repr.emit(&mut ArpPacket::new_unchecked(payload));
        })
    }

    /// An ARP request for `ip`, as a host sends one that has forgotten a neighbour.
    pub fn ask_for(&self, ip: Ipv4Addr) -> Vec<u8> {
        self.arp_frame(
            ArpOperation::Request,
            (self.mac, self.ip),
            (EthernetAddress([0; 6]), ip),
            EthernetAddress::BROADCAST,
        )
    }

    /// The frame of a datagram from one of the host's ports; `None` to a station not heard of.
    pub fn datagram(&self, from_port: u16, to: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
        let (_, mac) = self.neighbours.iter().find(|(ip, _)| ip == to.ip())?;
        let udp = UdpRepr { src_port: from_port, dst_port: to.port() };
        let ip = Ipv4Repr {
            src_addr: self.ip,
            dst_addr: *to.ip(),
            next_header: IpProtocol::Udp,
            payload_len: udp.header_len() + payload.len(),
            hop_limit: 64,
        };
        let caps = ChecksumCapabilities::default();
        let len = ip.buffer_len() + ip.payload_len;
        Some(self.ethernet(*mac, EthernetProtocol::Ipv4, len, |bytes| {
            let mut packet = Ipv4Packet::new_unchecked(bytes);
            ip.emit(&mut packet, &caps);
            let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
            udp.emit(
                &mut datagram,
                &IpAddress::from(self.ip),
                &IpAddress::from(*to.ip()),
                payload.len(),
                |room| room.copy_from_slice(payload),
                &caps,
            );
        }))
    }

    fn ethernet(
        &self,
        to: EthernetAddress,
        ethertype: EthernetProtocol,
        payload_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Vec<u8> {
        let repr = EthernetRepr { src_addr: EthernetAddress(self.mac.0), dst_addr: to, ethertype };
        let mut bytes = vec![0; repr.buffer_len() + payload_len];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
        repr.emit(&mut frame);
        fill(frame.payload_mut());
        // Ethernet's shortest frame.
        let len = bytes.len().max(60);
        bytes.resize(len, 0);
        bytes
    }
}
