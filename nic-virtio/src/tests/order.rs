//! Tickets under any order of completions, and any sequence of calls on any device.

use debugnet_core::nic::RxError;
use proptest::prelude::*;

use super::*;
use crate::fake::Bus;

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
    #![proptest_config(ProptestConfig::with_cases(128))]

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

    /// Whatever is written into the used rings, whenever: no panic, no stray
    /// access, no end that is not an error, and a stop that works.
    #[test]
    fn no_device_breaks_the_driver(
        lies in prop::collection::vec((0u8..8, any::<u32>(), any::<u32>()), 0..60),
        bus in 0..4usize,
        any_layout in any::<bool>(),
    ) {
        let sizes = Sizes::new(16, 4).unwrap().with_legacy(16).unwrap();
        let quirks = Quirks { queue_len: [16, 16, 64], ..Quirks::on(Bus::ALL[bus]) };
        let hidden = if any_layout { 0 } else { features::ANY_LAYOUT };
        let quirks = Quirks { features: quirks.features & !hidden, ..quirks };
        let fake = FakeVirtio::with_sizes(quirks, sizes);
        let mut nic = fake.driver_with(Identity::new(), sizes);
        start(&mut nic, &mut TestClock::default()).unwrap();
        let mut last = TxTicket::NONE;
        let mut done = TxTicket::NONE;
        let mut buf = [0; 1514];
        for (kind, first, second) in lies {
            let queue = (first >> 16 & 1) as u16;
            match kind {
                0 => fake.push_used(queue, first & 0xf, second),
                1 => fake.push_used(queue, first, second & 0xfff),
                2 => fake.set_used_index(queue, second as u16),
                3 => fake.suppress_doorbell(queue, first & 1 != 0),
                4 => { fake.deliver_as([first as u8; 12], &[0; 60], second); }
                5 => fake.set_status_bits(second as u8),
                _ => { fake.fetch_frames(); }
            }
            if let Ok(ticket) = send(&mut nic, first) {
                prop_assert!(ticket > last);
                last = ticket;
            }
            nic.kick();
            for _ in 0..3 {
                if let Ok(mark) = nic.poll_tx() {
                    prop_assert!(done <= mark && mark <= last);
                    done = mark;
                }
                match nic.receive(&mut buf) {
                    Ok(Some(len)) => prop_assert!(len <= buf.len()),
                    Ok(None) | Err(RxError::Malformed | RxError::TooLong { .. } | RxError::Device(_)) => {}
                    Err(_) => prop_assert!(false),
                }
            }
        }
        prop_assert!(fake.margins_are_untouched());
        prop_assert_eq!(nic.stop(), Ok(()));
        prop_assert_eq!(nic.poll_tx(), Ok(last));
    }
}
