//! The models of the stock client and server against what was measured of the
//! real ones, and our client beside them.

mod common;

use std::cell::RefCell;
use std::net::SocketAddrV4;
use std::rc::Rc;

use common::{assert_identical, lossy, random_ram, world};
use debugnet_core::dump::Stability;
use debugnet_core::wire::debugnet::NETDUMP_CLIENT_PORT;
use netdumpd::core::{Limits, Verdict};
use netsim::link::{Link, LinkConfig};
use netsim::models::{PlainServer, StockClient};
use netsim::ram::{Ram, SharedRam};
use netsim::rng::Rng;
use netsim::server::{CoreServer, Server};
use netsim::world::{CLIENT_IP, Machine, World};

fn ram(len: usize) -> SharedRam {
    let mut rng = Rng::new(1);
    let mut ram = Ram::new();
    ram.add(0, (0..len).map(|_| rng.next_u64() as u8 | 1).collect(), Stability::Frozen);
    Rc::new(RefCell::new(ram))
}

fn stock_world(rtt_us: u64, loss: f64, seed: u64) -> Rc<RefCell<World<PlainServer>>> {
    let mut link = LinkConfig::new(1_000_000_000, rtt_us / 2);
    link.loss = loss;
    let links = (Link::new(link.clone(), 2 * seed), Link::new(link, 2 * seed + 1));
    Rc::new(RefCell::new(World::new(links.0, links.1, PlainServer::new(None))))
}

/// FreeBSD's client on a 1 Gbit/s link without loss, in MB/s.
#[test]
fn the_stock_client_is_as_fast_as_it_was_measured() {
    const LEN: usize = 8 << 20;
    let ram = ram(LEN);
    for (rtt_us, measured) in [(100, 39.4), (1_000, 26.0), (10_000, 5.5), (50_000, 1.26)] {
        let world = stock_world(rtt_us, 0.0, 1);
        let outcome = StockClient::MTU_1500.dump(&world, &ram, LEN);
        assert!(outcome.success && outcome.retransmits == 0);
        let world = world.borrow();
        let (image, _) = world.server.image().unwrap();
        assert!(image == ram.borrow().truth());
        let mb_s = LEN as f64 / outcome.data_us as f64;
        assert!((mb_s / measured - 1.0).abs() < 0.3, "{mb_s:.1} at {rtt_us} us, was {measured}");
    }
}

/// Its ack bitmap aliases: it reports success, and the file has holes.
#[test]
fn the_stock_client_leaves_holes_and_does_not_notice() {
    const LEN: usize = 4 << 20;
    let ram = ram(LEN);
    let mut with_holes = 0;
    for seed in 0..3 {
        let world = stock_world(1_000, 0.01, seed);
        let outcome = StockClient::MTU_1500.dump(&world, &ram, LEN);
        assert!(outcome.success, "it believes so");
        let world = world.borrow();
        let (image, finished) = world.server.image().unwrap();
        assert!(finished);
        let truth = ram.borrow().truth();
        let missing = truth.len() - image.len()
            + image.iter().zip(&truth).filter(|(got, sent)| got != sent).count();
        with_holes += usize::from(missing >= 376);
        // About a second for each chunk that met a loss it noticed.
        assert!(outcome.data_us > 5_000_000);
    }
    assert_eq!(with_holes, 3);
}

/// The same client, the same losses, netdumpd with its shield and without:
/// dumps finished, bytes missing of all of them, microseconds.
fn shielded(shield: bool, loss: f64, len: usize, seeds: std::ops::Range<u64>) -> (usize, u64, u64) {
    let ram = ram(len);
    let (mut finished, mut missing, mut micros) = (0, 0, 0);
    for seed in seeds {
        let mut link = LinkConfig::new(1_000_000_000, 50);
        link.loss = loss;
        let links = (Link::new(link.clone(), 2 * seed), Link::new(link, 2 * seed + 1));
        let mut limits = Limits::default();
        limits.shield = shield;
        let world = World::new(links.0, links.1, CoreServer::new(limits));
        let world = Rc::new(RefCell::new(world));
        let outcome = StockClient::MTU_1500.dump(&world, &ram, len);
        finished += usize::from(outcome.success);
        micros += outcome.data_us;
        let world = world.borrow();
        let record = world.server.record().expect("an ended dump");
        missing += record.holes.bytes;
        assert_eq!(record.verdict == Verdict::Complete, record.holes.is_empty());
        // The record agrees with the image, byte for byte (no byte of the RAM is zero).
        let (image, _) = world.server.image().unwrap();
        let truth = ram.borrow().truth();
        let differing = truth.len() - image.len()
            + image.iter().zip(&truth).filter(|(got, sent)| got != sent).count();
        assert_eq!(differing as u64, record.holes.bytes);
    }
    (finished, missing, micros)
}

#[test]
fn the_shield_leaves_no_holes_and_the_same_dumps_finish() {
    for (loss, len) in [(0.001, 8 << 20), (0.01, 4 << 20)] {
        let (finished, missing, off_us) = shielded(false, loss, len, 0..5);
        assert_eq!(finished, 5);
        assert!(missing >= 376, "{missing} bytes missing without the shield at {loss}");
        let (finished, missing, on_us) = shielded(true, loss, len, 0..5);
        assert_eq!((finished, missing), (5, 0), "with the shield at {loss}");
        // What it costs: a second for each burst whose loss went unnoticed before.
        assert!(on_us < off_us * 3, "{on_us} us with, {off_us} us without");
    }
}

/// Without the shield the client goes on as soon as 32 of the 46 packets of a
/// burst are acked. With it all of them are, and that may take one more of its
/// polls of half a millisecond, as it would a client whose bitmap is right.
#[test]
fn the_shield_costs_a_poll_a_burst_without_loss() {
    let (_, _, off_us) = shielded(false, 0.0, 8 << 20, 0..1);
    let (finished, missing, on_us) = shielded(true, 0.0, 8 << 20, 0..1);
    assert_eq!((finished, missing), (1, 0));
    assert!(on_us <= off_us + (8 << 20) / 65_536 * 500, "{on_us} us with, {off_us} us without");
}

/// Acks of everything, of nothing, from the right port and a wrong one, all the time.
#[test]
fn a_storm_of_acks_neither_ends_nor_completes_a_dump() {
    for seed in 0..5 {
        let world = world(&lossy(0.02), seed);
        let mut rng = Rng::new(seed);
        let began = world.borrow().now();
        for i in 0..2_000u64 {
            // Numbers far ahead, far behind, and alive but never sent.
            let seqno = match i % 4 {
                0 => rng.next_u64() as u32,
                1 => 0,
                2 => 100_000 + rng.below(1000) as u32,
                _ => u32::MAX,
            };
            let port = 40_000 + (i % 3 == 0) as u16;
            let storm = move |world: &mut World<_>| {
                let to = SocketAddrV4::new(CLIENT_IP, NETDUMP_CLIENT_PORT);
                if let Some(frame) = world.host.datagram(port, to, &seqno.to_be_bytes()) {
                    world.down.send(world.now(), &frame);
                }
            };
            world.borrow_mut().at(began.after(1_000 + i * 5), Box::new(storm));
        }
        let machine = Machine::new(random_ram(1 << 20, seed));
        let outcome = machine.crash(&world);
        assert_identical(&machine, &world, &outcome);
        assert!(outcome.stale_acks > 100, "the storm did not reach it: {outcome:?}");
    }
}
