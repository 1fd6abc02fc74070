//! The client against netdumpd's core over seeded links, in virtual time.

mod common;

use std::net::Ipv4Addr;

use common::{assert_identical, assert_same, lossy, random_ram, replayable, world, world_of};
use debugnet_core::Config;
use debugnet_core::addr::MacAddr;
use debugnet_core::dump::{DumpInfo, FailureKind, Verdict};
use debugnet_core::observer::{Event, Trace};
use debugnet_core::progress::Stage;
use netsim::server::Server;
use netsim::world::{CLIENT_IP, GATEWAY_IP, Machine, SERVER_IP};

#[test]
fn clean_link() {
    let world = world(&lossy(0.0), 1);
    let machine = Machine::new(random_ram(1 << 20, 1));
    let outcome = machine.crash(&world);
    assert_identical(&machine, &world, &outcome);
    assert_eq!(outcome.retransmits, 0, "{outcome:?}");
    assert_eq!(outcome.acked_bytes, 1 << 20);
}

/// Loss both ways, 20 seeds each.
#[test]
fn loss_both_ways() {
    for percent in [0, 1, 5, 20] {
        for seed in 0..20 {
            replayable(&format!("loss-{percent}"), seed, |capture| {
                let world = world(&lossy(f64::from(percent) / 100.0), seed);
                if let Some(capture) = capture {
                    world.borrow_mut().record(capture);
                }
                let machine = Machine::new(random_ram(300_000, seed));
                let outcome = machine.crash(&world);
                assert_identical(&machine, &world, &outcome);
            });
        }
    }
}

/// Every frame of a short dump, in either direction, dropped in turn: ARP,
/// herald, each message, each ack, FINISHED and its ack.
#[test]
fn each_single_frame_dropped_in_turn() {
    let frames = |drop_up: Option<u64>, drop_down: Option<u64>| {
        let (mut up, mut down) = (lossy(0.0), lossy(0.0));
        up.drop_list.extend(drop_up);
        down.drop_list.extend(drop_down);
        let world = world_of(up, down, 3);
        let machine = Machine::new(random_ram(30_000, 3));
        let outcome = machine.crash(&world);
        assert_identical(&machine, &world, &outcome);
        let world = world.borrow();
        (world.up.counters().offered, world.down.counters().offered, outcome)
    };
    let (up, down, clean) = frames(None, None);
    assert_eq!(clean.retransmits, 0);
    // ARP, herald, the image's tail and 21 pieces, header, FINISHED.
    assert!(up >= 26 && down >= 26, "{up} up, {down} down");
    for ordinal in 0..up {
        let (sent, _, outcome) = frames(Some(ordinal), None);
        assert!(sent > up, "frame {ordinal} was sent again");
        assert!(ordinal == 0 || outcome.retransmits >= 1);
    }
    for ordinal in 0..down {
        let (sent, _, _) = frames(None, Some(ordinal));
        assert!(sent > up, "what ack {ordinal} answered was sent again");
    }
}

#[test]
fn a_server_gone_before_the_last_ack_leaves_it_unconfirmed() {
    let (up, mut down) = (lossy(0.0), lossy(0.0));
    let clean = world_of(up.clone(), down.clone(), 1);
    let machine = Machine::new(random_ram(30_000, 1));
    machine.crash(&clean);
    // From the ack of FINISHED on, nothing comes back.
    let last = clean.borrow().down.counters().offered - 1;
    down.drop_list.extend(last..last + 100);
    let world = world_of(up, down, 1);
    let outcome = machine.crash(&world);
    assert_eq!(outcome.verdict, Verdict::Unconfirmed, "{outcome:?}");
    assert!(outcome.is_complete() && outcome.holes.is_empty());
    assert_eq!(outcome.acked_bytes, 30_000);
    let failure = outcome.failure.expect("it says what was missing");
    assert_eq!((failure.kind, failure.stage), (FailureKind::Silence, Stage::Finish));
    assert!(failure.tries > 1 && failure.seqno.is_some());
}

/// The server dies in mid-dump: the outcome says so, and its holes are exactly
/// what the server did not ack.
#[test]
fn a_server_killed_in_mid_dump() {
    for seed in 0..20 {
        replayable("killed", seed, |capture| {
            let world = world(&lossy(0.02), seed);
            if let Some(capture) = capture {
                world.borrow_mut().record(capture);
            }
            let dies = world.borrow().now().after(2_000 + seed * 200);
            world.borrow_mut().at(dies, Box::new(|world| world.server.is_dead = true));
            let machine = Machine::new(random_ram(1 << 20, seed));
            let outcome = machine.crash(&world);
            assert_eq!(outcome.verdict, Verdict::Failed, "{outcome:?}");
            assert!(!outcome.is_complete() && outcome.nic_stopped);
            let failure = outcome.failure.unwrap();
            assert_eq!((failure.kind, failure.stage), (FailureKind::Silence, Stage::Data));
            assert!(failure.tries >= 1 && failure.offset.is_some());
            assert_eq!(outcome.acked_bytes + outcome.holes.bytes(), 1 << 20, "{outcome:?}");
            assert!(outcome.acked_bytes > 0);
            // 12 s of silence, not an hour and not a storm.
            assert!(outcome.elapsed_us < 15_000_000);
            assert!(outcome.transmissions < 2 * outcome.messages + 200, "{outcome:?}");
            // What was acked is there.
            let world = world.borrow();
            let (image, finished) = world.server.image().unwrap();
            assert!(!finished);
            let truth = machine.ram.borrow().truth();
            let mut missing = outcome.holes.list().to_vec();
            if outcome.holes.omitted() == 0 {
                missing.sort_by_key(|gap| gap.offset);
                let mut at = 0;
                for gap in missing {
                    assert_same(&image[at..gap.offset as usize], &truth[at..gap.offset as usize]);
                    at = (gap.offset + gap.len) as usize;
                }
            }
        });
    }
}

#[test]
fn an_unanswered_herald_and_an_unanswered_arp() {
    let world1 = world(&lossy(0.0), 1);
    world1.borrow_mut().server.is_dead = true;
    let machine = Machine::new(random_ram(30_000, 1));
    let outcome = machine.crash(&world1);
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::NoHerald);
    assert_eq!(outcome.holes.bytes(), 30_000);
    assert!((12_000_000..13_500_000).contains(&outcome.elapsed_us), "{}", outcome.elapsed_us);

    let world2 = world(&lossy(1.0), 1);
    let outcome = machine.crash(&world2);
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::NoNextHop);
    assert_eq!(outcome.holes.bytes(), 30_000);
    assert_eq!(outcome.messages, 0);
}

#[test]
fn the_gateway_is_taken_when_the_server_does_not_answer() {
    for gateway in [GATEWAY_IP, SERVER_IP] {
        let world = world(&lossy(0.0), 1);
        // The host is a router: it answers for the gateway's address, and
        // passes on to an address of its own that it does not answer for.
        let server = Ipv4Addr::new(192, 0, 2, 9);
        world.borrow_mut().host.ip = server;
        world.borrow_mut().host.is_silent = true;
        let mac = world.borrow().host.mac;
        world.borrow_mut().host.proxies = vec![(GATEWAY_IP, mac)];
        let mut machine = Machine::new(random_ram(30_000, 1));
        let text = format!("server={server} client={CLIENT_IP} gateway={gateway}");
        machine.config = Config::parse(&text).unwrap();
        let outcome = machine.crash(&world);
        if gateway == GATEWAY_IP {
            assert_identical(&machine, &world, &outcome);
        } else {
            assert_eq!(outcome.failure.unwrap().kind, FailureKind::NoNextHop);
        }
    }
    // A gateway that is the server itself must not loop for ever.
    let world = world(&lossy(1.0), 1);
    let mut machine = Machine::new(random_ram(30_000, 1));
    let text = format!("server={SERVER_IP} client={CLIENT_IP} gateway={SERVER_IP}");
    machine.config = Config::parse(&text).unwrap();
    assert_eq!(machine.crash(&world).failure.unwrap().kind, FailureKind::NoNextHop);
}

/// The server replies to the last request of its round only, the first herald is lost, and a
/// gateway that leads nowhere replies at once: the second herald's answer is not taken for one
/// that came through it.
#[test]
fn a_gateway_asked_in_doubt_does_not_take_the_dump_away() {
    let world = world(&lossy(0.0), 1);
    let began = world.borrow().now();
    let mut far_end = world.borrow_mut();
    far_end.host.proxies = vec![(GATEWAY_IP, MacAddr([2, 0, 0, 0, 0, 3]))];
    far_end.host.is_silent = true;
    far_end.server.is_dead = true;
    far_end.at(began.after(600_000), Box::new(|world| world.host.is_silent = false));
    far_end.at(began.after(1_200_000), Box::new(|world| world.server.is_dead = false));
    drop(far_end);
    let mut machine = Machine::new(random_ram(300_000, 1));
    let text = format!("server={SERVER_IP} client={CLIENT_IP} gateway={GATEWAY_IP}");
    machine.config = Config::parse(&text).unwrap();
    let mut trace = Trace::<1024>::new();
    let outcome = machine.crash_with(&world, None, &mut trace, &DumpInfo::default());
    assert_identical(&machine, &world, &outcome);
    let hops = trace.events().filter(|(_, event)| matches!(event, Event::Resolved(_))).count();
    assert_eq!((hops, outcome.retransmits), (1, 1), "one herald was lost");
}

#[test]
fn the_second_target_gets_it() {
    let world = world(&lossy(0.0), 1);
    let mut machine = Machine::new(random_ram(30_000, 1));
    machine.config = Config::parse(&format!(
        "server=10.99.0.77 client={CLIENT_IP} server={SERVER_IP} client={CLIENT_IP} nic=7 \
         server={SERVER_IP} client={CLIENT_IP} no-progress=2"
    ))
    .unwrap();
    let mut trace = Trace::<64>::new();
    let outcome = machine.crash_with(&world, None, &mut trace, &DumpInfo::default());
    assert_identical(&machine, &world, &outcome);
    assert_eq!((outcome.target, outcome.targets_tried), (2, 3));
    let failures: Vec<_> = trace
        .events()
        .filter_map(|(_, event)| match event {
            Event::Failure(failure) => Some(failure.kind),
            _ => None,
        })
        .collect();
    assert_eq!(failures, [FailureKind::NoNextHop, FailureKind::NoNic { index: 7 }]);
}

#[test]
fn the_deadline_holds_for_the_whole() {
    let world = world(&lossy(0.0), 1);
    world.borrow_mut().server.is_dead = true;
    let mut machine = Machine::new(random_ram(30_000, 1));
    machine.config = Config::parse(&format!(
        "server={SERVER_IP} client={CLIENT_IP} server={SERVER_IP} client={CLIENT_IP} deadline=3"
    ))
    .unwrap();
    let began = world.borrow().now();
    let outcome = machine.crash(&world);
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::Deadline);
    assert_eq!(outcome.targets_tried, 1);
    let took_us = world.borrow().now().since_us(began);
    assert!((3_000_000..3_300_000).contains(&took_us), "{took_us}");
}

#[test]
fn arp_requests_are_answered_in_mid_dump() {
    let world = world(&lossy(0.0), 1);
    for i in 0..5 {
        let at = world.borrow().now().after(2_000 + i * 300);
        world.borrow_mut().at(
            at,
            Box::new(|world| {
                let request = world.host.ask_for(CLIENT_IP);
                world.down.send(world.now(), &request);
            }),
        );
    }
    let machine = Machine::new(random_ram(1 << 20, 1));
    let outcome = machine.crash(&world);
    assert_identical(&machine, &world, &outcome);
    assert_eq!(world.borrow().host.arp_replies, 5);
}
