//! QEMU's own capture of the guest's link, and what a take-over may leave in it.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use pcap_file::pcap::PcapReader;
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol};

use crate::far_end::{CLIENT_PORT, HERALD_PORT, Network};
use crate::frame::{self, Received};
use crate::live;

/// Bytes of the smallest Ethernet frame, less its FCS.
const FRAME_MIN: usize = 60;
/// Complaints that are kept.
const STRAYS_MAX: usize = 8;

/// What the guest sent, by who sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames of the living kernel, before the first of the dump.
    pub live: u64,
    /// Frames of the dump: from its first ARP request on.
    pub dump: u64,
    /// Frames that should not be there, the first few: number in the capture, and why.
    pub strays: VecDeque<(u64, &'static str)>,
}

/// Reads the capture at `path` of a guest with the station address `mac`.
///
/// The living kernel's frames bear a mark, so that the first frame without it
/// is the dump's: an ARP request. From there on, a marked frame is a stray, sent
/// from a ring that should be gone; so is everything that is neither ARP nor a
/// datagram of the dump's to its server. Any frame of the guest is one if it is shorter
/// than Ethernet allows, or has another sender.
///
/// # Errors
/// A file that is no capture.
pub fn read(path: &Path, mac: EthernetAddress, network: &Network) -> io::Result<Sent> {
    let mut sent = Sent::default();
    let mut number = 0;
    each_frame(path, |frame| {
        number += 1;
        if let Some(why) = sent.account(frame, mac, network)
            && sent.strays.len() < STRAYS_MAX
        {
            sent.strays.push_back((number, why));
        }
    })?;
    Ok(sent)
}

/// The server's ports that the guest's dump went to, in the capture at `path`.
///
/// # Errors
/// A file that is no capture.
pub fn session_ports(path: &Path, network: &Network) -> io::Result<Vec<u16>> {
    let mut ports = BTreeSet::new();
    each_frame(path, |frame| {
        if let Received::Udp(datagram) = frame::parse(frame)
            && datagram.from.ip == network.client
            && datagram.to_port != HERALD_PORT
        {
            ports.insert(datagram.to_port);
        }
    })?;
    Ok(ports.into_iter().collect())
}

fn each_frame(path: &Path, mut act: impl FnMut(&[u8])) -> io::Result<()> {
    let file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut reader = PcapReader::new(file).map_err(io::Error::other)?;
    while let Some(packet) = reader.next_packet() {
        act(&packet.map_err(io::Error::other)?.data);
    }
    Ok(())
}

impl Sent {
    /// Takes note of one frame; what is wrong with it.
    fn account(
        &mut self,
        bytes: &[u8],
        mac: EthernetAddress,
        network: &Network,
    ) -> Option<&'static str> {
        let Ok(ethernet) = EthernetFrame::new_checked(bytes) else {
            return Some("shorter than a header");
        };
        let from = ethernet.src_addr();
        if from == network.gateway.mac || from == network.server.mac {
            return None;
        }
        if from != mac {
            return Some("from an address that nobody has");
        }
        if bytes.len() < FRAME_MIN {
            return Some("shorter than Ethernet allows");
        }
        if live::is_marked(bytes) {
            self.live += u64::from(self.dump == 0);
            return (self.dump > 0).then_some("of the living kernel, after the take-over");
        }
        self.dump += 1;
        let is_arp = ethernet.ethertype() == EthernetProtocol::Arp;
        if self.dump == 1 && !is_arp {
            return Some("of the dump, before it asked for its server");
        }
        let to_server = || match frame::parse(bytes) {
            Received::Udp(datagram) => {
                datagram.from_port == CLIENT_PORT
                    && datagram.from.ip == network.client
                    && datagram.to == network.server.ip
            }
            _ => false,
        };
        (!is_arp && !to_server()).then_some("neither ARP nor the dump's")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Path as Route, Station};

    const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    fn arp(padding: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend_from_slice(&MAC.0);
        frame.extend_from_slice(&[8, 6]);
        frame.resize(42, 0);
        frame.extend_from_slice(padding);
        frame.resize(60, 0);
        frame
    }

    fn live() -> Vec<u8> {
        let mut frame = arp(&[]);
        frame[12..14].copy_from_slice(&live::ETHERTYPE.to_be_bytes());
        frame[14..22].copy_from_slice(live::MARK);
        frame
    }

    fn datagram(to_port: u16, server: Station) -> Vec<u8> {
        let network = Network::default();
        let mut frame = Vec::new();
        let from = Station { mac: MAC, ip: network.client };
        let route = Route { from, from_port: CLIENT_PORT, to: server, to_port };
        frame::build_udp(&mut frame, route, &[0; 24]);
        frame
    }

    fn judge(frames: &[Vec<u8>]) -> (Sent, Vec<Option<&'static str>>) {
        let mut sent = Sent::default();
        let network = Network::default();
        let whys = frames.iter().map(|frame| sent.account(frame, MAC, &network)).collect();
        (sent, whys)
    }

    #[test]
    fn a_clean_take_over_has_no_strays() {
        let server = Network::default().server;
        let data = datagram(40_000, server);
        let frames = [arp(live::MARK), live(), arp(&[]), datagram(HERALD_PORT, server), data];
        let (sent, whys) = judge(&frames);
        assert_eq!(whys, [None; 5]);
        assert_eq!((sent.live, sent.dump), (2, 3));
    }

    #[test]
    fn what_a_stale_ring_sends_is_seen() {
        let server = Network::default().server;
        let elsewhere = Station { ip: [10, 0, 2, 9].into(), ..server };
        let mut garbage = vec![0; 64];
        garbage[6..12].copy_from_slice(&MAC.0);
        let frames = [
            live(),
            arp(&[]),
            live(),
            arp(live::MARK),
            datagram(1, elsewhere),
            garbage,
            vec![0; 64],
        ];
        let (_, whys) = judge(&frames);
        assert_eq!(whys[..2], [None; 2]);
        assert!(whys[2..].iter().all(Option::is_some), "{whys:?}");
    }

    #[test]
    fn short_frames_and_early_data_are_seen() {
        let server = Network::default().server;
        let (_, whys) = judge(&[live()[..59].to_vec(), datagram(HERALD_PORT, server)]);
        assert!(whys.iter().all(Option::is_some), "{whys:?}");
    }
}
