//! Random schedules: identical while a path exists, a true outcome where none does.
//!
//! Everything of a run follows from its seed. A failing one is repeated with a
//! capture, and says how to replay it; CONTRIBUTING.md has the variables.

mod common;

use common::{assert_identical, assert_true, random_ram, replayable, seeds, world_of};
use debugnet_core::dump::{FailureKind, Verdict};
use debugnet_core::nic::{ChecksumOffload, PayloadKind};
use debugnet_core::wire::debugnet::NETDUMP_CLIENT_PORT;
use debugnet_core::{Config, Limits};
use netsim::link::{GilbertElliott, LinkConfig};
use netsim::rng::Rng;
use netsim::server::CoreServer;
use netsim::world::{CLIENT_IP, Machine, SERVER_IP, World};

const IMAGE_LEN: usize = 150_000;

/// One world and one machine.
#[derive(Clone, Debug)]
struct Schedule {
    up: LinkConfig,
    down: LinkConfig,
    slots: usize,
    cells: usize,
    clock_step_us: u64,
    tx_slots: u16,
    payload: PayloadKind,
    checksum: ChecksumOffload,
    outage: Option<Outage>,
    /// Forged and repeated acks: how many, and how far apart.
    storm: Option<(u64, u64)>,
}

/// The server vanishes, and returns or does not.
#[derive(Clone, Copy, Debug)]
struct Outage {
    after_us: u64,
    lasts_us: Option<u64>,
}

fn one_in(rng: &mut Rng, n: u64) -> bool {
    rng.below(n) == 0
}

fn share(rng: &mut Rng, most: f64) -> f64 {
    rng.below(10_001) as f64 / 10_000.0 * most
}

fn link(rng: &mut Rng) -> LinkConfig {
    let rates = [10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000];
    let mut link = LinkConfig::new(rates[rng.below(4) as usize], rng.below(20_000));
    if !one_in(rng, 3) {
        link.loss = share(rng, 0.3);
    }
    if one_in(rng, 2) {
        link.duplicate = share(rng, 0.1);
    }
    if one_in(rng, 2) {
        (link.reorder, link.reorder_delay_us) = (share(rng, 0.2), rng.below(5_000));
    }
    if one_in(rng, 4) {
        link.corrupt = share(rng, 0.05);
    }
    if one_in(rng, 3) {
        link.burst = Some(GilbertElliott::bursts(0.001 + share(rng, 0.05), 2.0 + share(rng, 18.0)));
    }
    link.jitter_us = rng.below(500);
    link
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        let steps = [1, 10, 500, 1 + rng.below(20_000)];
        let outage = Outage {
            after_us: rng.below(200_000),
            lasts_us: (!one_in(rng, 4)).then(|| rng.below(5_000_000)),
        };
        Self {
            up: link(rng),
            down: link(rng),
            slots: 16 << rng.below(7),
            cells: 1 + rng.below(19) as usize,
            clock_step_us: steps[rng.below(4) as usize],
            tx_slots: 1 + rng.below(99) as u16,
            payload: if one_in(rng, 2) { PayloadKind::Bytes } else { PayloadKind::Dma },
            checksum: if one_in(rng, 2) { ChecksumOffload::Insert } else { ChecksumOffload::None },
            outage: one_in(rng, 2).then_some(outage),
            storm: one_in(rng, 4).then(|| (rng.below(2_000), 1 + rng.below(100))),
        }
    }

    fn machine(&self, seed: u64) -> Machine {
        let mut machine = Machine::new(random_ram(IMAGE_LEN, seed));
        let text = format!("server={SERVER_IP} client={CLIENT_IP} no-progress=60");
        machine.config = Config::parse(&text).unwrap();
        machine.limits = Limits { slots: self.slots, cells: self.cells, ..Limits::DEFAULT };
        machine.clock_step_us = self.clock_step_us;
        machine.nic.tx_slots = self.tx_slots;
        machine.nic.payload = self.payload;
        machine.nic.checksum = self.checksum;
        machine
    }

    /// What happens to the world while the dump runs.
    fn apply(&self, world: &mut World<CoreServer>, seed: u64) {
        world.host.tolerates_damage = self.up.corrupt > 0.0;
        let began = world.now();
        if let Some(Outage { after_us, lasts_us }) = self.outage {
            let gone = began.after(after_us);
            world.at(gone, Box::new(|world| world.server.is_dead = true));
            if let Some(lasts_us) = lasts_us {
                let back = gone.after(lasts_us);
                world.at(back, Box::new(|world| world.server.is_dead = false));
            }
        }
        let (count, gap_us) = self.storm.unwrap_or((0, 1));
        let mut rng = Rng::new(!seed);
        for i in 0..count {
            // Far off, of the herald, never to be sent: none of them alive but the
            // last kind, whose messages are sent long before.
            let seqno = match i % 4 {
                0 => rng.next_u64() as u32,
                1 => 0,
                2 => 100_000 + rng.below(1000) as u32,
                _ => u32::MAX,
            };
            let port = 40_000 + (i % 3 == 0) as u16;
            let forge = move |world: &mut World<CoreServer>| {
                let to = std::net::SocketAddrV4::new(CLIENT_IP, NETDUMP_CLIENT_PORT);
                if let Some(frame) = world.host.datagram(port, to, &seqno.to_be_bytes()) {
                    world.down.send(world.now(), &frame);
                }
            };
            world.at(began.after(1_000 + i * gap_us), Box::new(forge));
        }
    }
}

#[test]
fn any_schedule() {
    for seed in seeds(60) {
        replayable("any_schedule", seed, |capture| {
            let schedule = Schedule::new(seed);
            eprintln!("seed {seed}: {schedule:?}");
            let world = world_of(schedule.up.clone(), schedule.down.clone(), seed >> 2);
            if let Some(capture) = capture {
                world.borrow_mut().record(capture);
            }
            schedule.apply(&mut world.borrow_mut(), seed);
            let machine = schedule.machine(seed);
            let outcome = machine.crash(&world);
            assert_true(&machine, &world, &outcome);
            if schedule.outage.is_some_and(|outage| outage.lasts_us.is_none()) {
                // It may have been over before the server went.
                if outcome.verdict == Verdict::Failed {
                    let kind = outcome.failure.expect("a reason").kind;
                    let known = [FailureKind::NoHerald, FailureKind::Silence].contains(&kind);
                    assert!(known, "{outcome:?}");
                    assert!(outcome.elapsed_us < 130_000_000, "{outcome:?}");
                }
            } else {
                assert_identical(&machine, &world, &outcome);
            }
            // A path that loses three in ten of each direction needs about two for one;
            // a silent one is asked five times a second for a minute.
            assert!(outcome.transmissions < outcome.messages * 12 + 500, "{outcome:?}");
        });
    }
}
