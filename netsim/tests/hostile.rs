//! A hostile network: what may come, and what becomes of the dump.
//!
//! Each row sends forged frames to the client all through a dump of 1 MiB. The
//! table in docs/reliability.md is made from this one, and compared with it.

mod common;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;

use common::{CoreWorld, assert_true, lossy, random_ram, world};
use debugnet_core::Config;
use debugnet_core::dump::{DumpInfo, FailureKind, Outcome, Verdict};
use debugnet_core::observer::Blind;
use debugnet_core::time::Instant;
use debugnet_core::wire::checksum::Sum;
use debugnet_core::wire::debugnet::{MessageHeader, NETDUMP_CLIENT_PORT};
use netsim::host::Datagram;
use netsim::link::{Link, LinkConfig};
use netsim::ram::RamSource;
use netsim::rng::Rng;
use netsim::server::{CoreServer, Reply, Server};
use netsim::world::{CLIENT_IP, Machine, SERVER_IP, World};

const SESSION_PORT: u16 = 40_000;
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FORGER_MAC: [u8; 6] = [2, 6, 6, 6, 6, 6];
const FORGER_IP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 66);
/// Offsets in an untagged frame.
const IP: usize = 14;
const UDP: usize = 34;

/// A sound ack from the server, as the server would send it.
fn ack(world: &World<CoreServer>, port: u16, seqno: u32) -> Option<Vec<u8>> {
    datagram(world, port, &seqno.to_be_bytes())
}

fn datagram(world: &World<CoreServer>, port: u16, payload: &[u8]) -> Option<Vec<u8>> {
    let to = SocketAddrV4::new(CLIENT_IP, NETDUMP_CLIENT_PORT);
    world.host.datagram(port, to, payload)
}

/// Both checksums made good again after a change.
fn mended(mut frame: Vec<u8>) -> Vec<u8> {
    frame[IP + 10..IP + 12].fill(0);
    let sum = Sum::of(&frame[IP..IP + 20]).complement();
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    let len = usize::from(u16::from_be_bytes([frame[UDP + 4], frame[UDP + 5]]));
    frame[UDP + 6..UDP + 8].fill(0);
    let pseudo = Sum::of(&frame[IP + 12..IP + 20]).plus(17).plus(len as u16);
    let sum = pseudo.and(&frame[UDP..UDP + len]).udp_field();
    frame[UDP + 6..UDP + 8].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn changed(frame: Option<Vec<u8>>, change: impl FnOnce(&mut Vec<u8>)) -> Option<Vec<u8>> {
    frame.map(|mut frame| {
        change(&mut frame);
        mended(frame)
    })
}

fn arp_reply(sender: ([u8; 6], Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let mut frame = CLIENT_MAC.to_vec();
    frame.extend(sender.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend(sender.0);
    frame.extend(sender.1.octets());
    frame.extend(CLIENT_MAC);
    frame.extend(target.octets());
    frame.resize(60, 0);
    frame
}

/// Makes the `i`th forged frame.
type Forge = fn(&World<CoreServer>, u64, &mut Rng) -> Option<Vec<u8>>;

struct Row {
    name: &'static str,
    /// When the first comes, how far apart they are, in microseconds, and how many.
    when: (u64, u64, u64),
    forge: Forge,
    expected: Expected,
    /// The server's host answers no ARP request.
    silent: bool,
    /// Shows that the client saw them, where it counts such frames.
    seen: fn(&Outcome) -> bool,
}

#[derive(Clone, Copy)]
enum Expected {
    Identical,
    /// Nothing plain debugnet could do; the outcome says so.
    Failed(FailureKind),
}

/// All through the dump.
const THROUGHOUT: (u64, u64, u64) = (0, 20, 700);
const UNCOUNTED: fn(&Outcome) -> bool = |_| true;

const fn row(name: &'static str, forge: Forge) -> Row {
    Row {
        name,
        when: THROUGHOUT,
        forge,
        expected: Expected::Identical,
        silent: false,
        seen: UNCOUNTED,
    }
}

const fn stale(name: &'static str, forge: Forge) -> Row {
    Row { seen: |outcome| outcome.stale_acks > 100, ..row(name, forge) }
}

fn rows() -> Vec<Row> {
    vec![
        row("acks from another address", |world, i, _| {
            changed(ack(world, SESSION_PORT, i as u32), |frame| frame[IP + 15] = 77)
        }),
        row("acks from another port of the server", |world, i, _| ack(world, 666, i as u32)),
        row("acks to another port", |world, i, _| {
            changed(ack(world, SESSION_PORT, i as u32), |frame| frame[UDP + 3] ^= 1)
        }),
        row("acks to another station", |world, i, _| {
            changed(ack(world, SESSION_PORT, i as u32), |frame| frame[5] ^= 1)
        }),
        row("acks to another address", |world, i, _| {
            changed(ack(world, SESSION_PORT, i as u32), |frame| frame[IP + 19] ^= 4)
        }),
        stale("acks of numbers never sent", |world, i, _| {
            ack(world, SESSION_PORT, 50_000 + i as u32)
        }),
        stale("acks of numbers acknowledged before", |world, _, _| ack(world, SESSION_PORT, 1)),
        stale("acks of any number but those alive", |world, _, rng| {
            ack(world, SESSION_PORT, rng.next_u64() as u32 | 1 << 20)
        }),
        Row {
            seen: |outcome| outcome.bad_checksums > 100,
            ..row("acks whose UDP checksum does not hold", |world, i, _| {
                let mut frame = ack(world, SESSION_PORT, i as u32)?;
                frame[UDP + 6] ^= 0x55;
                Some(frame)
            })
        },
        row("acks whose IP checksum does not hold", |world, i, _| {
            let mut frame = ack(world, SESSION_PORT, i as u32)?;
            frame[IP + 10] ^= 0x55;
            Some(frame)
        }),
        row("ICMP port unreachable", |world, i, _| {
            // In all else a sound ack: the protocol alone tells them apart.
            changed(ack(world, SESSION_PORT, i as u32), |frame| frame[IP + 9] = 1)
        }),
        row("first fragments", |world, i, _| {
            changed(ack(world, SESSION_PORT, i as u32), |frame| frame[IP + 6] = 0x20)
        }),
        row("later fragments", |world, i, _| {
            changed(ack(world, SESSION_PORT, i as u32), |frame| frame[IP + 7] = 1)
        }),
        row("IP options", |world, i, _| {
            changed(ack(world, SESSION_PORT, i as u32), |frame| frame[IP] = 0x46)
        }),
        row("a VLAN tag where none is expected", |world, i, _| {
            let mut frame = ack(world, SESSION_PORT, i as u32)?;
            frame.splice(12..12, [0x81, 0, 0, 7]);
            Some(frame)
        }),
        row("frames cut at every length", |world, i, _| {
            let mut frame = ack(world, SESSION_PORT, i as u32)?;
            frame.truncate(i as usize % 46);
            Some(frame)
        }),
        row("lengths that claim more than there is", |world, i, _| {
            let mut frame = ack(world, SESSION_PORT, i as u32)?;
            frame[UDP + 4] = 4;
            Some(frame)
        }),
        row("frames of 9000 bytes", |world, _, _| datagram(world, SESSION_PORT, &[0; 8972])),
        row("messages that are no acks", |world, _, rng| {
            let len = rng.below(1400) as usize;
            datagram(world, SESSION_PORT, &vec![1; if len == 4 { 5 } else { len }])
        }),
        row("any bytes", |_, _, rng| {
            let len = rng.below(1500);
            Some((0..len).map(|_| rng.next_u64() as u8).collect())
        }),
        Row {
            // 84 bytes on a line of 1 Gbit/s each.
            when: (0, 1, 15_000),
            ..stale("acks at line rate", |world, i, _| ack(world, SESSION_PORT, 1 << 30 | i as u32))
        },
        Row {
            when: (0, 1, 50),
            ..row("ARP replies before anything was asked, and of strangers", |_, _, _| {
                Some(arp_reply((FORGER_MAC, FORGER_IP), CLIENT_IP))
            })
        },
        Row {
            when: (5_000, 20, 700),
            ..row("ARP replies for the server once it was heard", |_, _, _| {
                Some(arp_reply((FORGER_MAC, SERVER_IP), CLIENT_IP))
            })
        },
        row("ARP replies for the server before its own", |_, _, _| {
            Some(arp_reply((FORGER_MAC, SERVER_IP), CLIENT_IP))
        }),
        Row {
            silent: true,
            expected: Expected::Failed(FailureKind::NoHerald),
            ..row("ARP replies for a server that does not answer itself", |_, _, _| {
                Some(arp_reply((FORGER_MAC, SERVER_IP), CLIENT_IP))
            })
        },
        row("ARP replies from a group address", |_, _, _| {
            Some(arp_reply(([3, 0, 0, 0, 0, 1], SERVER_IP), CLIENT_IP))
        }),
        row("another station with our address", |_, _, _| {
            Some(arp_reply((FORGER_MAC, CLIENT_IP), CLIENT_IP))
        }),
        row("requests for our address", |world, _, _| Some(world.host.ask_for(CLIENT_IP))),
        Row {
            when: (5_000, 20, 700),
            ..row("a second server that answers the herald too", |world, _, _| ack(world, 555, 1))
        },
        Row {
            expected: Expected::Failed(FailureKind::Silence),
            ..row("a forger that answers the herald before the server", |world, _, _| {
                ack(world, 555, 1)
            })
        },
    ]
}

fn crash(row: &Row, seed: u64) -> (Machine, CoreWorld, Outcome) {
    let world = world(&lossy(0.01), seed);
    let began = world.borrow().now();
    let (first, gap, count) = row.when;
    world.borrow_mut().host.meet(CLIENT_IP, debugnet_core::addr::MacAddr(CLIENT_MAC));
    world.borrow_mut().host.is_silent = row.silent;
    let forge = row.forge;
    for i in 0..count {
        let mut rng = Rng::new(seed << 32 | i);
        let send = move |world: &mut World<CoreServer>| {
            if let Some(frame) = forge(world, i, &mut rng) {
                let now = world.now();
                world.down.send(now, &frame);
            }
        };
        world.borrow_mut().at(began.after(first + i * gap), Box::new(send));
    }
    let mut machine = Machine::new(random_ram(1 << 20, seed));
    let text = format!("server={SERVER_IP} client={CLIENT_IP} no-progress=5");
    machine.config = Config::parse(&text).unwrap();
    let outcome = machine.crash(&world);
    (machine, world, outcome)
}

/// The rows as docs/reliability.md has them.
fn table() -> String {
    let mut table = String::from("| what comes | what becomes of the dump |\n|---|---|\n");
    for row in rows() {
        let expected = match row.expected {
            Expected::Identical => "identical".to_string(),
            Expected::Failed(kind) => format!("failed, `{kind:?}`, and says so"),
        };
        table += &format!("| {} | {expected} |\n", row.name);
    }
    table + AHEAD + LIAR
}

#[test]
fn the_table_in_the_docs_is_this_one() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reliability.md");
    let text = std::fs::read_to_string(docs).unwrap();
    assert!(text.contains(&table()), "docs/reliability.md should contain:\n{}", table());
}

#[test]
fn nothing_a_network_sends_ends_a_dump_wrongly() {
    for row in rows() {
        for seed in 0..2 {
            eprintln!("{}, seed {seed}", row.name);
            let (machine, world, outcome) = crash(&row, seed);
            assert_true(&machine, &world, &outcome);
            match row.expected {
                Expected::Identical => {
                    assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
                    assert!((row.seen)(&outcome), "the client saw none: {outcome:?}");
                }
                Expected::Failed(kind) => {
                    assert_eq!(outcome.verdict, Verdict::Failed, "{outcome:?}");
                    assert_eq!(outcome.failure.map(|failure| failure.kind), Some(kind));
                }
            }
        }
    }
}

const AHEAD: &str =
    "| a server that acks all numbers ahead at once, and goes on so | identical |\n";

/// Sends its acks, and with each of them those of messages that it knows have not left.
#[derive(Default)]
struct AheadServer {
    server: CoreServer,
    replies: VecDeque<Reply>,
    acked: u32,
}

impl AheadServer {
    const AHEAD: u32 = 64;

    /// The first number that cannot have left: the client begins with a window of 64 messages,
    /// and each ack adds one at most. It may be queued already, waiting for its turn.
    fn not_sent(&self) -> u32 {
        2 * self.acked + 64
    }
}

impl Server for AheadServer {
    fn datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.server.datagram(now, datagram);
    }

    fn poll_reply(&mut self, now: Instant) -> Option<Reply> {
        if let Some(reply) = self.replies.pop_front() {
            return Some(reply);
        }
        let reply = self.server.poll_reply(now)?;
        self.acked += 1;
        // With the ack of the herald, those of the messages that wait for it.
        let first = if reply.payload == [0, 0, 0, 1] { 2 } else { self.not_sent() };
        let ahead = first..first + Self::AHEAD;
        self.replies.extend(
            ahead.map(|seqno| Reply { payload: seqno.to_be_bytes().to_vec(), ..reply.clone() }),
        );
        Some(reply)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.server.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.server.handle_timeout(now);
    }

    fn image(&self) -> Option<(&[u8], bool)> {
        self.server.image()
    }
}

/// If one of them counted, its message would never be sent: the image would not be the same.
#[test]
fn acks_ahead_of_what_was_sent_count_for_nothing() {
    for seed in 0..2 {
        let up = Link::new(lossy(0.01), 2 * seed);
        // A line that takes no time: the herald's ack and those after it come at one instant.
        let down = Link::new(LinkConfig { rate_bps: 0, ..lossy(0.01) }, 2 * seed + 1);
        let world = Rc::new(RefCell::new(World::new(up, down, AheadServer::default())));
        let mut machine = Machine::new(random_ram(1 << 20, seed));
        // A dump that never ends is to end all the same, and to fail the test.
        let text = format!("server={SERVER_IP} client={CLIENT_IP} deadline=2");
        machine.config = Config::parse(&text).unwrap();
        let outcome = machine.crash(&world);
        assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
        assert!(outcome.retransmits > 0 && outcome.stale_acks > 10_000, "{outcome:?}");
        let world = world.borrow();
        let (image, is_finished) = world.server.image().unwrap();
        assert!(is_finished && image == machine.ram.borrow().truth(), "{outcome:?}");
        let record = world.server.server.record().unwrap();
        assert_eq!(record.verdict, netdumpd::core::Verdict::Complete, "{record:?}");
    }
}

const LIAR: &str = "| a server that acks at once whatever it is sent, and stores nothing | lost, and \
                    the outcome says `Confirmed`: the server's word is all that plain debugnet has |\n";

/// Acks all it gets, and keeps nothing.
#[derive(Default)]
struct Liar {
    replies: VecDeque<Reply>,
    acked: u32,
}

impl Server for Liar {
    fn datagram(&mut self, _: Instant, datagram: Datagram<'_>) {
        let (header, _) = MessageHeader::parse(datagram.payload).unwrap();
        let payload = header.seqno.get().to_be_bytes().to_vec();
        self.replies.push_back(Reply { from_port: SESSION_PORT, to: datagram.from, payload });
        self.acked += 1;
    }

    fn poll_reply(&mut self, _: Instant) -> Option<Reply> {
        self.replies.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn image(&self) -> Option<(&[u8], bool)> {
        None
    }
}

#[test]
fn a_server_that_acks_and_stores_nothing_is_believed() {
    for seed in 0..2 {
        let links = (Link::new(lossy(0.01), 2 * seed), Link::new(lossy(0.01), 2 * seed + 1));
        let world = Rc::new(RefCell::new(World::new(links.0, links.1, Liar::default())));
        let machine = Machine::new(random_ram(1 << 20, seed));
        let mut source = RamSource::new(machine.ram.clone());
        let info = DumpInfo::default();
        let outcome = machine.crash_from(&world, &mut source, None, &mut Blind, &info);
        assert_eq!(outcome.verdict, Verdict::Confirmed, "{outcome:?}");
        // No more than it was told: each message was acked by the liar, the lost ones too, in the end.
        assert_eq!(outcome.acked_bytes, outcome.dump_bytes);
        assert!(outcome.retransmits > 0 && world.borrow().server.acked >= outcome.messages);
    }
}
