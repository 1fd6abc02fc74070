//! Random worlds: identical while a path exists.

mod common;

use common::{assert_identical, random_ram, world_of};
use debugnet_core::nic::{ChecksumOffload, PayloadKind};
use debugnet_core::{Config, Limits};
use netsim::link::{GilbertElliott, LinkConfig};
use netsim::world::{CLIENT_IP, Machine, SERVER_IP};
use proptest::prelude::*;

fn link() -> impl Strategy<Value = LinkConfig> {
    (
        prop_oneof![Just(0.0), 0.0..0.3f64],
        prop_oneof![Just(0.0), 0.0..0.1f64],
        (prop_oneof![Just(0.0), 0.0..0.2f64], 0u64..5000),
        prop_oneof![3 => Just(0.0), 1 => 0.0..0.05f64],
        prop_oneof![
            Just(10_000_000u64),
            Just(100_000_000),
            Just(1_000_000_000),
            Just(10_000_000_000)
        ],
        (0u64..20_000, 0u64..500),
        prop_oneof![2 => Just(None), 1 => (0.001..0.05f64, 2.0..20.0f64).prop_map(Some)],
    )
        .prop_map(|(loss, duplicate, reorder, corrupt, rate, delay, burst)| {
            let mut link = LinkConfig::new(rate, delay.0);
            link.loss = loss;
            link.duplicate = duplicate;
            (link.reorder, link.reorder_delay_us) = reorder;
            link.corrupt = corrupt;
            link.jitter_us = delay.1;
            link.burst = burst.map(|(loss, frames)| GilbertElliott::bursts(loss, frames));
            link
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn any_link_and_machine(
        up in link(),
        down in link(),
        seed: u64,
        slots in 4u32..11,
        cells in 1usize..20,
        clock in prop_oneof![Just(1u64), Just(10), Just(500), 1..20_000u64],
        bytes: bool,
        offload: bool,
        tx_slots in 1u16..100,
        outage in prop_oneof![Just(None), (0u64..200_000, 0u64..5_000_000).prop_map(Some)],
    ) {
        let world = world_of(up.clone(), down.clone(), seed >> 2);
        world.borrow_mut().host.tolerates_damage = up.corrupt > 0.0;
        let mut machine = Machine::new(random_ram(150_000, seed));
        machine.config =
            Config::parse(&format!("server={SERVER_IP} client={CLIENT_IP} no-progress=60")).unwrap();
        machine.limits = Limits { slots: 1 << slots, cells, ..Limits::DEFAULT };
        machine.clock_step_us = clock;
        machine.nic.tx_slots = tx_slots;
        if bytes {
            machine.nic.payload = PayloadKind::Bytes;
        }
        if offload {
            machine.nic.checksum = ChecksumOffload::Insert;
        }
        if let Some((after_us, length_us)) = outage {
            let gone = world.borrow().now().after(after_us);
            world.borrow_mut().at(gone, Box::new(|world| world.server.is_dead = true));
            world.borrow_mut().at(
                gone.after(length_us),
                Box::new(|world| world.server.is_dead = false),
            );
        }
        let outcome = machine.crash(&world);
        assert_identical(&machine, &world, &outcome);
        prop_assert!(outcome.transmissions < outcome.messages * 12 + 200, "{outcome:?}");
    }
}
