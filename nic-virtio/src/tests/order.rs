//! Tickets under any order of completions, and any sequence of calls on any device.

use proptest::prelude::*;

use super::*;
use crate::fake::{Bus, fuzz};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Op {
    Send(u8),
    Kick,
    /// The device fetches what was kicked.
    Fetch,
    /// The device gives back the frame at this place among those it has.
    Complete(usize),
    Poll,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => (1u8..8).prop_map(Op::Send),
        2 => Just(Op::Kick),
        2 => Just(Op::Fetch),
        8 => any::<usize>().prop_map(Op::Complete),
        3 => Just(Op::Poll),
    ];
    prop::collection::vec(op, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(times(64, 1)))]

    /// The mark is the largest ticket such that it and all before it are complete.
    #[test]
    fn the_low_water_mark_is_exact(ops in ops(), bus in 0..4usize) {
        let sizes = Sizes::new(32, 1).unwrap().with_legacy(32).unwrap();
        let quirks = Quirks { queue_len: [32, 32, 64], ..Quirks::on(Bus::ALL[bus]) };
        let fake = FakeVirtio::with_sizes(quirks, sizes);
        let mut nic = fake.driver_with(Identity::new(), sizes);
        start(&mut nic, &mut TestClock::default()).unwrap();
        let slots = u64::from(nic.capabilities().tx_slots);
        prop_assert_eq!(slots, 10);

        let mut last = 0u64;
        let mut complete = std::collections::BTreeSet::new();
        let mut reported = 0;
        let mut at_device: Vec<(u64, u16)> = Vec::new();
        let mut fetched = 0u64;
        let mark = |complete: &std::collections::BTreeSet<u64>| {
            (1..).take_while(|ticket| complete.contains(ticket)).last().unwrap_or(0)
        };
        for op in ops {
            match op {
                Op::Send(count) => for _ in 0..count {
                    let sent = send(&mut nic, (last + 1) as u32);
                    if last - reported < slots {
                        last += 1;
                        prop_assert_eq!(sent, Ok(TxTicket(last)));
                    } else {
                        prop_assert_eq!(sent, Err(TxError::Full));
                    }
                },
                Op::Kick => nic.kick(),
                Op::Fetch => for (head, _, frame) in fake.fetch_frames() {
                    fetched += 1;
                    // In the order of their tickets, each with its own bytes.
                    prop_assert_eq!(frame, header(fetched as u32));
                    at_device.push((fetched, head));
                },
                Op::Complete(place) => if !at_device.is_empty() {
                    let (ticket, head) = at_device.swap_remove(place % at_device.len());
                    fake.push_used(TX, head.into(), 0);
                    complete.insert(ticket);
                },
                Op::Poll => {
                    reported = mark(&complete);
                    prop_assert_eq!(nic.poll_tx(), Ok(TxTicket(reported)));
                }
            }
        }
        assert_clean(&fake);
    }

    /// What a device can be and do, as the fuzzer has it, at less depth.
    #[test]
    #[cfg_attr(miri, ignore = "a story may be of 100,000 looks; some of the kept ones are told")]
    fn no_device_breaks_the_driver(story in prop::collection::vec(any::<u8>(), 0..800)) {
        fuzz::run(&story);
    }
}

#[test]
fn what_the_fuzzer_found_stays_mended() {
    // An interpreter has time for a few.
    for story in nic_hal::host::corpus("nic_virtio").into_iter().step_by(times(1, 20) as usize) {
        fuzz::run(&story);
    }
}
