//! The client against netdumpd's core over seeded links, in virtual time.

mod common;

use common::{assert_identical, lossy, random_ram, replayable, world};
use netsim::world::Machine;

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
