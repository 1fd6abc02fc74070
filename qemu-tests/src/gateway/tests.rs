use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::*;
use crate::far_end::HERALD_PORT;
use crate::frame::{self, Path as UdpPath, Received, Station};
use smoltcp::wire::EthernetAddress;

/// Long enough for any machine; a test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A guest and a server with a gateway between them.
struct Bench {
    gateway: Gateway,
    guest: UnixDatagram,
    server: UdpSocket,
    network: Network,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(salt: u32, link: LinkConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (host_path, guest_path) = socket_paths(dir.path());
        let relay_ip = free_loopback(salt).unwrap();
        let server = UdpSocket::bind((relay_ip, 0)).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let guest = UnixDatagram::bind(&guest_path).unwrap();
        guest.set_read_timeout(Some(PATIENCE)).unwrap();
        let SocketAddr::V4(herald) = server.local_addr().unwrap() else { panic!() };
        let network = Network::default();
        let gateway = Gateway::start(GatewayConfig {
            wire: WireConfig::Unix { host_path: host_path.clone(), guest_path },
            network,
            relay_ip,
            herald,
            link,
            seed: 7,
            pcap: Some(dir.path().join("net.pcap")),
            noise_per_s: 0,
            decoys: false,
        })
        .unwrap();
        guest.connect(host_path).unwrap();
        Self { gateway, guest, server, network, dir }
    }

    fn station(&self) -> Station {
        Station { mac: EthernetAddress([2, 0, 0, 0, 0, 9]), ip: self.network.client }
    }

    fn guest_sends(&self, to_port: u16, payload: &[u8]) {
        let mut frame = Vec::new();
        let path = UdpPath {
            from: self.station(),
            from_port: CLIENT_PORT,
            to: self.network.server,
            to_port,
        };
        frame::build_udp(&mut frame, path, payload);
        self.guest.send(&frame).unwrap();
    }

    fn server_gets(&self) -> (Vec<u8>, SocketAddr) {
        let mut buf = [0; 2048];
        let (len, from) = self.server.recv_from(&mut buf).unwrap();
        (buf[..len].to_vec(), from)
    }

    /// UDP source port and payload.
    fn guest_gets(&self) -> (u16, Vec<u8>) {
        let mut buf = [0; 2048];
        let len = self.guest.recv(&mut buf).unwrap();
        let Received::Udp(got) = frame::parse(&buf[..len]) else { panic!("{:?}", &buf[..len]) };
        assert_eq!(got.to, self.network.client);
        (got.from_port, got.payload.to_vec())
    }

    /// Exchanges a herald and gives the session socket and where the guest appears.
    fn open(&self) -> (UdpSocket, SocketAddr) {
        self.guest_sends(HERALD_PORT, &message(1, 1));
        let (herald, relay) = self.server_gets();
        assert_eq!((herald, relay.port()), (message(1, 1), CLIENT_PORT));
        let session = UdpSocket::bind((self.server.local_addr().unwrap().ip(), 0)).unwrap();
        session.set_read_timeout(Some(PATIENCE)).unwrap();
        session.send_to(&1_u32.to_be_bytes(), relay).unwrap();
        let port = session.local_addr().unwrap().port();
        assert_eq!(self.guest_gets(), (port, vec![0, 0, 0, 1]));
        (session, relay)
    }

    fn until(&self, what: &str, done: impl Fn(&Stats) -> bool) -> Stats {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let stats = self.gateway.stats();
            if done(&stats) {
                return stats;
            }
            assert!(std::time::Instant::now() < end, "{what} did not happen: {stats:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A message without payload.
fn message(kind: u32, seqno: u32) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    bytes[..4].copy_from_slice(&kind.to_be_bytes());
    bytes[4..8].copy_from_slice(&seqno.to_be_bytes());
    bytes
}

#[test]
fn a_session_passes_both_ways_and_is_captured() {
    let bench = Bench::new(1, LinkConfig::new(1_000_000_000, 100));
    let (session, relay) = bench.open();
    let port = session.local_addr().unwrap().port();
    for seqno in 2..50_u32 {
        bench.guest_sends(port, &message(3, seqno));
        let mut buf = [0; 64];
        let (len, from) = session.recv_from(&mut buf).unwrap();
        assert_eq!((&buf[..len], from), (message(3, seqno).as_slice(), relay));
        session.send_to(&seqno.to_be_bytes(), from).unwrap();
        assert_eq!(bench.guest_gets(), (port, seqno.to_be_bytes().to_vec()));
    }
    let Bench { gateway, dir, .. } = bench;
    let stats = gateway.finish().unwrap();
    assert_eq!((stats.drops_up(), stats.drops_down(), stats.unroutable), (0, 0, 0));
    assert_eq!((stats.traffic.data_messages, stats.traffic.acked_messages), (48, 48));

    let file = std::fs::File::open(dir.path().join("net.pcap")).unwrap();
    let mut reader = pcap_file::pcap::PcapReader::new(file).unwrap();
    let mut frames = 0;
    while let Some(packet) = reader.next_packet() {
        assert!(matches!(frame::parse(&packet.unwrap().data), Received::Udp(_)));
        frames += 1;
    }
    assert_eq!(frames, 2 * 49);
}

#[test]
fn a_guest_is_held_when_it_has_sent_enough() {
    let bench = Bench::new(8, LinkConfig::default());
    let (session, relay) = bench.open();
    let port = session.local_addr().unwrap().port();
    let data = |seqno| {
        let mut bytes = message(3, seqno);
        bytes.resize(24 + 100, 7);
        bytes
    };
    let server_gets = || {
        let mut buf = [0; 200];
        let len = session.recv(&mut buf).unwrap();
        buf[..len].to_vec()
    };
    bench.gateway.hold_at(200);
    for seqno in 2..6 {
        bench.guest_sends(port, &data(seqno));
    }
    assert_eq!([server_gets(), server_gets()], [data(2), data(3)]);
    // The other direction goes on, and with it the loop.
    for seqno in 2_u32..12 {
        session.send_to(&seqno.to_be_bytes(), relay).unwrap();
        assert_eq!(bench.guest_gets().1, seqno.to_be_bytes());
    }
    assert_eq!(bench.gateway.stats().traffic.data_bytes, 200);
    bench.gateway.hold_at(u64::MAX);
    assert_eq!([server_gets(), server_gets()], [data(4), data(5)]);
}

#[test]
fn losses_are_counted_on_their_side() {
    let drop_list = BTreeSet::from([2, 4]);
    let bench = Bench::new(2, LinkConfig { drop_list, ..LinkConfig::default() });
    let (session, relay) = bench.open();
    let port = session.local_addr().unwrap().port();
    // Herald and ack were frame 0 each; 2 and 4 of each direction vanish.
    for seqno in 1..7 {
        bench.guest_sends(port, &message(3, seqno));
        session.send_to(&seqno.to_be_bytes(), relay).unwrap();
    }
    let got: Vec<_> = (0..4).map(|_| bench.guest_gets().1[3]).collect();
    assert_eq!(got, [1, 3, 5, 6]);
    let stats = bench.until("the losses", |stats| stats.up.offered == 7);
    assert_eq!((stats.drops_up(), stats.drops_down()), (2, 2));
}

#[test]
fn a_guest_that_does_not_read_blocks_nothing() {
    let bench = Bench::new(3, LinkConfig::default());
    let (session, relay) = bench.open();
    let port = session.local_addr().unwrap().port();
    // Far more than kernel queue and backlog hold, in portions that the
    // relay's receive buffer takes.
    let mut sent = 0_u64;
    while sent < 4000 {
        for _ in 0..50 {
            session.send_to(&[0; 4], relay).unwrap();
            sent += 1;
        }
        bench.until("the portion's arrival", |stats| stats.down.offered > sent);
    }
    let stats = bench.until("a full socket", |stats| stats.socket_full > 3000);
    assert_eq!(stats.drops_up(), 0);
    // The other direction still works.
    bench.guest_sends(port, &message(3, 9));
    let mut buf = [0; 64];
    assert_eq!(session.recv_from(&mut buf).unwrap().0, 24);
}

#[test]
fn noise_reaches_the_guest_and_stops() {
    let bench = Bench::new(4, LinkConfig::default());
    bench.gateway.set_noise(10_000);
    let mut buf = [0; 2048];
    for _ in 0..20 {
        let len = bench.guest.recv(&mut buf).unwrap();
        assert_eq!(&buf[..6], &[0xff; 6]);
        assert!((14..3014).contains(&len));
    }
    bench.gateway.set_noise(0);
    // Drain what is queued; the thread looks at the switch in every turn, and
    // two datagrams that come out again are two turns.
    bench.guest.set_nonblocking(true).unwrap();
    let turn = |seen: u64| {
        bench.guest_sends(HERALD_PORT, b"turn");
        bench.until("a turn", |stats| {
            while bench.guest.recv(&mut [0; 2048]).is_ok() {}
            stats.up.delivered > seen
        })
    };
    let first = turn(0);
    let second = turn(first.up.delivered);
    assert_eq!(turn(second.up.delivered).noise, second.noise);
}

#[test]
fn a_cut_link_carries_nothing() {
    let bench = Bench::new(5, LinkConfig::default());
    let (session, _) = bench.open();
    let port = session.local_addr().unwrap().port();
    let offer = |seqno: u64| {
        bench.guest_sends(port, &message(3, seqno as u32));
        bench.until("the frame", |stats| stats.up.offered >= seqno)
    };
    bench.gateway.set_link_up(false);
    // The switch is seen at the latest in the turn after the one under way.
    let mut stats = offer(2);
    for seqno in 3..10 {
        let before = stats;
        stats = offer(seqno);
        if seqno > 3 {
            assert_eq!(stats.up.lost, before.up.lost + 1);
            assert_eq!(stats.up.delivered, before.up.delivered);
        }
    }
}

#[test]
fn parallel_runs_have_addresses_of_their_own() {
    let held: Vec<_> = (0..8)
        .map(|salt| {
            let ip = free_loopback(salt).unwrap();
            assert!(ip.is_loopback());
            UdpSocket::bind((ip, CLIENT_PORT)).unwrap()
        })
        .collect();
    let again = free_loopback(0).unwrap();
    assert!(held.iter().all(|socket| socket.local_addr().unwrap().ip() != again));
}

#[test]
fn questions_of_the_living_kernel_are_answered() {
    let bench = Bench::new(6, LinkConfig::default());
    // Number 7 of a frame without payload, as `live.rs` reads it.
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x88, 0xb6];
    frame.extend_from_slice(b"LIVE-KRN\x02\0\0\0\0\x07\0\x3c\0\x3c\0\0");
    frame.resize(60, 0);
    bench.guest.send(&frame).unwrap();
    let mut buf = [0; 2048];
    let len = bench.guest.recv(&mut buf).unwrap();
    assert_eq!(&buf[..6], &frame[6..12], "to the asker");
    assert_eq!((len, &buf[12..28]), (60, &b"\x88\xb6LIVE-KRN\x03\0\0\0\0\x07"[..]));
    bench.until("the frame in the census", |stats| stats.live.arrived == 1);
}
