//! The shield for stock clients: a faithful model of one, with the shield and without.
#![allow(clippy::single_range_in_vec_init, reason = "lists of one range are meant")]

use debugnet_core::time::Instant;
use debugnet_core::wire::debugnet::{EKCD_KEY, FINISHED, HERALD, KDH, VMCORE, herald_word};
use netdumpd::core::{Action, Core, Limits, Note, Socket, State, Verdict};
use netdumpd::store::MemStore;
use proptest::prelude::*;

use crate::stock_model::{CLIENT, Hop, Shift, StockModel};
use crate::support::{Rig, message, message_with, pattern};

const BURST: usize = 64 << 10;
/// As a minidump begins: its header, odd sizes, then full bursts.
const BURSTS: [usize; 5] = [4096, 36_864, BURST, BURST, 8192];
const LEN: usize = 4096 + 36_864 + BURST + BURST + 8192;
const THIRD: u64 = 4096 + 36_864;

/// First transmissions of these indices of the third burst are lost.
fn lost(indices: &'static [u32]) -> impl FnMut(Hop) -> bool {
    move |hop| {
        hop.offset == THIRD
            && hop.round == 0
            && !hop.is_ack
            && hop.kind == VMCORE
            && indices.contains(&hop.index)
    }
}

/// Runs a dump with the shield and without. With it nothing is missing;
/// without it `hole` is: offset and length.
fn on_and_off(run: impl Fn(&mut StockModel<'_>) -> bool, hole: Option<(u64, u64)>) {
    for shield in [true, false] {
        let mut client = StockModel::new(shield);
        assert!(run(&mut client), "the client is content, shield {shield}");
        let record = client.record();
        let holes: Vec<_> =
            record.holes.listed.iter().map(|hole| (hole.start, hole.end - hole.start)).collect();
        let expected: Vec<_> = hole.into_iter().filter(|_| !shield).collect();
        assert_eq!(holes, expected, "shield {shield}");
        let complete = if expected.is_empty() { Verdict::Complete } else { Verdict::Incomplete };
        assert_eq!(record.verdict, complete);
        assert_eq!(record.suspect.is_empty(), !record.notes.contains(&Note::HeaderInImage));
        if !shield {
            assert_eq!(record.stats.withheld, 0);
        }
    }
}

#[test]
fn a_lost_packet_whose_partner_is_acked() {
    for (index, len) in [(40, 1448), (8, 1448), (32, 1448), (13, 1448)] {
        let hole = (THIRD + u64::from(index) * 1448, len);
        on_and_off(
            |client| {
                client.lose = Box::new(move |hop| {
                    lost(&[0])(Hop { index: hop.index.wrapping_sub(index), ..hop })
                });
                let done = client.dump(&pattern(LEN), &BURSTS, b"");
                assert!(client.record().holes.is_empty() == (client.image() == pattern(LEN)));
                done
            },
            Some(hole),
        );
    }
}

#[test]
fn packets_without_a_partner_were_never_in_danger() {
    on_and_off(
        |client| {
            client.lose = Box::new(lost(&[14, 20, 31]));
            client.dump(&pattern(LEN), &BURSTS, b"")
        },
        None,
    );
}

#[test]
fn the_last_packet_is_lost() {
    on_and_off(
        |client| {
            client.lose = Box::new(lost(&[45]));
            client.dump(&pattern(LEN), &BURSTS, b"")
        },
        Some((THIRD + 45 * 1448, 376)),
    );
}

/// The very first burst is a full one, as of a compressed dump.
#[test]
fn the_first_burst_is_shielded_too() {
    on_and_off(
        |client| {
            client.lose = Box::new(|hop: Hop| {
                hop.kind == VMCORE
                    && hop.offset == 0
                    && hop.round == 0
                    && !hop.is_ack
                    && hop.index == 33
            });
            client.dump(&pattern(2 * BURST), &[BURST, BURST], b"")
        },
        Some((33 * 1448, 1448)),
    );
}

#[test]
fn acks_are_lost() {
    on_and_off(
        |client| {
            client.lose =
                Box::new(|hop: Hop| hop.is_ack && hop.round == 0 && hop.index.is_multiple_of(3));
            let done = client.dump(&pattern(LEN), &BURSTS, b"");
            assert_eq!(client.rounds, 8, "the first copy is acked: herald, bursts, header, end");
            done
        },
        None,
    );
}

/// At an MTU of 1076 packets divide the block size: where a burst of less than
/// 64 KiB ends is not to be seen.
#[test]
fn payload_of_1024() {
    on_and_off(
        |client| {
            client.payload_len = 1024;
            client.lose = Box::new(lost(&[40]));
            let done = client.dump(&pattern(LEN), &BURSTS, b"");
            assert!(client.rounds <= 1, "a burst without loss costs no retransmit");
            done
        },
        Some((THIRD + 40 * 1024, 1024)),
    );
    // The last of 64, whose partner has the bit that is sign-extended.
    on_and_off(
        |client| {
            client.payload_len = 1024;
            client.lose = Box::new(lost(&[63]));
            client.dump(&pattern(LEN), &BURSTS, b"")
        },
        Some((THIRD + 63 * 1024, 1024)),
    );
}

#[test]
fn the_order_and_the_last_burst_of_freebsd_12() {
    on_and_off(
        |client| {
            client.lose = Box::new(lost(&[35]));
            let done = client.dump_as_12(&pattern(LEN), &BURSTS);
            let record = client.record();
            assert_eq!(record.notes, [Note::HeaderInImage]);
            let last = (LEN - 8192) as u64;
            assert_eq!(record.suspect.listed, [last..last + 512]);
            done
        },
        Some((THIRD + 35 * 1448, 1448)),
    );
}

/// The header is a burst of one, before and between others.
#[test]
fn a_header_between_bursts_does_not_confuse_it() {
    for shield in [true, false] {
        let mut client = StockModel::new(shield);
        client.lose = Box::new(lost(&[38]));
        let image = pattern(LEN);
        assert!(client.herald());
        assert!(client.send(VMCORE, 0, &image[..4096]));
        assert!(client.send(KDH, 0, &[0; 512]));
        assert!(client.send(VMCORE, 4096, &image[4096..THIRD as usize]));
        assert!(client.send(KDH, 0, &[1; 512]));
        assert!(client.send(VMCORE, THIRD, &image[THIRD as usize..][..BURST]));
        assert!(client.send(FINISHED, 0, b""));
        assert_eq!(client.record().holes.count, u64::from(!shield));
    }
}

#[test]
fn a_key_blob_comes_first() {
    let mut key = vec![0; 4096];
    key[0] = 1;
    on_and_off(
        |client| {
            let mut image_loss = lost(&[36]);
            client.lose = Box::new(move |hop| {
                let in_key = hop.kind == EKCD_KEY && hop.round == 0 && hop.index == 1;
                in_key && !hop.is_ack || image_loss(hop)
            });
            let done = client.dump(&pattern(LEN), &BURSTS, &key);
            assert_eq!(client.rig.store.dumps().last().unwrap().1.key, key);
            done
        },
        Some((THIRD + 36 * 1448, 1448)),
    );
}

#[test]
fn packets_come_in_another_order() {
    for seed in 1..20u32 {
        on_and_off(
            |client| {
                client.lose = Box::new(lost(&[37]));
                let mut state = seed;
                client.reorder = Box::new(move |burst| {
                    for at in (1..burst.len()).rev() {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        burst.swap(at, (state >> 8) as usize % (at + 1));
                    }
                });
                client.dump(&pattern(LEN), &BURSTS, b"")
            },
            Some((THIRD + 37 * 1448, 1448)),
        );
    }
}

#[test]
fn a_32_bit_arm_client_has_no_bits_beyond_31() {
    on_and_off(
        |client| {
            client.shift = Shift::Zero;
            client.lose = Box::new(lost(&[40]));
            client.dump(&pattern(LEN), &BURSTS, b"")
        },
        Some((THIRD + 40 * 1448, 1448)),
    );
}

/// The client gives up in the middle of a burst and begins anew, with the
/// stale burst at its old offset first.
#[test]
fn a_restart_in_mid_burst() {
    for shield in [true, false] {
        let mut client = StockModel::new(shield);
        let image = pattern(LEN);
        assert!(client.herald());
        assert!(client.send(VMCORE, 0, &image[..4096]));
        client.lose = Box::new(|hop: Hop| hop.kind == VMCORE && (hop.is_ack || hop.index > 20));
        assert!(!client.send(VMCORE, THIRD, &image[THIRD as usize..][..BURST]));
        client.lose = Box::new(lost(&[41]));
        assert!(client.herald());
        assert!(client.send(VMCORE, THIRD, &image[THIRD as usize..][..BURST]));
        client.lose = Box::new(|_| false);
        let mut at = 0;
        for len in BURSTS {
            if at as u64 != THIRD {
                assert!(client.send(VMCORE, at as u64, &image[at..at + len]));
            }
            at += len;
        }
        assert!(client.send(FINISHED, 0, b""));
        let holes: Vec<_> = client.record().holes.listed.iter().map(|hole| hole.start).collect();
        let expected = if shield { vec![] } else { vec![THIRD + 41 * 1448] };
        assert_eq!(holes, expected);
        assert_eq!(client.image() == image, shield);
    }
}

#[test]
fn it_fails_open_on_the_third_reception_and_says_where() {
    let mut client = StockModel::new(true);
    // It never gets through.
    client.lose = Box::new(|hop: Hop| {
        hop.kind == VMCORE && hop.offset == THIRD && !hop.is_ack && hop.index == 40
    });
    assert!(client.dump(&pattern(LEN), &BURSTS, b""), "the dump goes on");
    assert_eq!(client.rounds, 2, "two seconds are lost, not twelve");
    let record = client.record();
    let partner = THIRD + 8 * 1448;
    assert_eq!(record.suspect.listed, [partner..partner + 1448]);
    let hole = THIRD + 40 * 1448;
    assert_eq!(record.holes.listed, [hole..hole + 1448]);
    assert_eq!(record.verdict, Verdict::Incomplete);
}

/// The end of the first burst never gets through, and its partner's ack is given at last. The
/// client goes on; its next burst, of which a later packet comes first, is shielded as any other.
#[test]
fn a_burst_without_an_end_is_followed_by_a_shielded_one() {
    const LAST: u32 = 45;
    for (first, order) in [(0, "as sent"), (3, "the first three later"), (44, "the last two first")]
    {
        for shield in [true, false] {
            let mut client = StockModel::new(shield);
            client.lose = Box::new(|hop: Hop| {
                let is_data = hop.kind == VMCORE && !hop.is_ack;
                is_data
                    && match hop.offset {
                        0 => hop.index == LAST,
                        _ => hop.round == 0 && [32, 40].contains(&hop.index),
                    }
            });
            client.reorder = Box::new(|burst| {
                let by = first.min(burst.len());
                burst.rotate_left(by);
            });
            let image = pattern(3 * BURST);
            assert!(client.dump(&image, &[BURST; 3], b""), "{order}, shield {shield}");
            let record = client.record();
            let starts: Vec<u64> = record.holes.listed.iter().map(|hole| hole.start).collect();
            let at = |burst: u64, index: u64| burst * BURST as u64 + index * 1448;
            let end = at(0, u64::from(LAST));
            if shield {
                assert_eq!(record.holes.listed, [end..BURST as u64], "{order}");
                let partner = at(0, u64::from(LAST - 32));
                assert_eq!(record.suspect.listed, [partner..partner + 1448], "{order}");
            } else {
                assert_eq!(starts, [end, at(1, 32), at(1, 40), at(2, 32), at(2, 40)], "{order}");
            }
        }
    }
}

/// The network kept a packet back beyond the end of its burst: that says nothing of the client.
#[test]
fn a_packet_of_an_earlier_burst_lowers_no_shield() {
    let mut client = StockModel::new(true);
    let bursts = [4096, 36_864, BURST, BURST, BURST];
    let image = pattern(bursts.iter().sum());
    let (kept, last) = (THIRD + 40 * 1448, THIRD + 2 * BURST as u64);
    client.lose = Box::new(move |hop: Hop| {
        let is_40 = hop.kind == VMCORE && !hop.is_ack && hop.index == 40;
        is_40 && (hop.offset == THIRD || hop.offset == last && hop.round == 0)
    });
    assert!(client.herald());
    let mut at = 0;
    for len in bursts {
        if at as u64 == last {
            let number = 2 + 3 + 26 + 40;
            let acks = client.late(number, kept, &image[kept as usize..][..1448]);
            assert_eq!(acks, [number]);
        }
        assert!(client.send(VMCORE, at as u64, &image[at..at + len]));
        at += len;
    }
    assert!(client.send(FINISHED, 0, b""));
    assert!(client.record().holes.is_empty() && client.image() == image);
}

/// The line stands still in the middle of bursts, so that acks are given, and
/// the rest comes as if the client had not waited for them.
#[test]
fn a_line_that_stops_twice_lowers_no_shield() {
    on_and_off(
        |client| {
            client.lose = Box::new(lost(&[40]));
            client.pause_us = Box::new(|hop: Hop| {
                let is_early = hop.kind == VMCORE && hop.offset < THIRD && hop.round == 0;
                if is_early && hop.index == 2 { 300_000 } else { 0 }
            });
            client.dump(&pattern(LEN), &BURSTS, b"")
        },
        Some((THIRD + 40 * 1448, 1448)),
    );
}

/// Packets come three times each, and the client has its acks before the end
/// of its burst could be seen. It goes on at once.
#[test]
fn a_burst_that_was_acked_early_ends_where_the_next_begins() {
    for shield in [true, false] {
        let mut client = StockModel::new(shield);
        client.payload_len = 1024;
        let image = pattern(8192 + BURST);
        client.lose = Box::new(|hop: Hop| {
            hop.offset == 8192 && hop.round == 0 && !hop.is_ack && hop.index == 40
        });
        client.copies = 3;
        assert!(client.herald() && client.send(VMCORE, 0, &image[..8192]));
        client.copies = 1;
        assert!(client.send(VMCORE, 8192, &image[8192..]) && client.send(FINISHED, 0, b""));
        assert_eq!(client.record().holes.is_empty(), shield);
        assert_eq!(client.image() == image, shield);
    }
}

/// Sends `window` messages at a time, and the next as soon as one is acked.
/// Returns acks in the order they came, and how long it took.
fn windowed(herald_aux2: u32, window: u32, payload_len: usize) -> (Rig<MemStore>, u64) {
    const MESSAGES: u32 = 400;
    let mut rig = Rig::new(Core::new(Limits::default()), MemStore::default());
    let herald = message_with(HERALD, 1, 0, herald_aux2, b"");
    assert_eq!(rig.datagram(Socket::Herald, CLIENT, &herald), [1]);
    let on = Socket::Session(rig.last_session());
    let begin = rig.now;
    let (mut next, mut acked) = (2, std::collections::BTreeSet::new());
    while acked.len() < MESSAGES as usize {
        if next < 2 + MESSAGES && next - 2 - (acked.len() as u32) < window {
            let offset = u64::from(next - 2) * payload_len as u64;
            let datagram = message(VMCORE, next, offset, &vec![next as u8; payload_len]);
            acked.extend(rig.datagram(on, CLIENT, &datagram));
            next += 1;
            rig.now = rig.now.after(10);
        } else {
            let until = rig.core.poll_timeout().expect("something is to come");
            assert!(until.since_us(begin) < 600_000_000, "no ack comes any more");
            rig.now = rig.now.max(until);
            rig.core.handle_timeout(rig.now);
            acked.extend(rig.settle());
        }
    }
    let took = rig.now.since_us(begin);
    (rig, took)
}

#[test]
fn another_client_is_held_up_once_at_most() {
    for window in [1, 2, 10, 31, 33, 46, 64, 200] {
        let (rig, took) = windowed(0, window, 1448);
        assert!(took < 120_000 + 400 * 10, "window {window}: {took} us");
        let session = rig.core.sessions().next().unwrap().1;
        assert_eq!(session.state, State::Receiving);
    }
}

/// Its packets divide the block size, so that its bursts seem to end, and its window does not.
#[test]
fn another_client_whose_packets_fit_is_held_up_three_times_at_most() {
    for window in [1, 3, 5, 10, 27, 33, 46, 63] {
        let (rig, took) = windowed(0, window, 1024);
        assert!(took < 3 * 120_000 + 400 * 10, "window {window}: {took} us");
        assert_eq!(rig.core.sessions().next().unwrap().1.state, State::Receiving);
    }
}

/// What a stock client would not send while it waits for acks gets them given at once.
#[test]
fn whoever_does_not_wait_gets_all_acks() {
    let rows: [(&str, u32, u64); 4] = [
        ("a header", KDH, 0),
        ("another file", EKCD_KEY, 5 * 1448),
        ("another place", VMCORE, 1 << 18),
        ("the place of another number", VMCORE, 6 * 1448),
    ];
    for (what, kind, offset) in rows {
        let mut rig = Rig::new(Core::new(Limits::default()), MemStore::default());
        assert_eq!(rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 1, 0, b"")), [1]);
        let on = Socket::Session(rig.last_session());
        for n in 0..5u32 {
            let data = message(VMCORE, 2 + n, u64::from(n) * 1448, &[1; 1448]);
            assert_eq!(rig.datagram(on, CLIENT, &data), [0; 0], "{what}: withheld");
        }
        let header = crate::support::dump_header(1 << 21);
        let payload = if kind == KDH { zerocopy::IntoBytes::as_bytes(&header) } else { &[2; 1448] };
        let mut acks = rig.datagram(on, CLIENT, &message(kind, 7, offset, payload));
        acks.sort_unstable();
        assert_eq!(acks, [2, 3, 4, 5, 6, 7], "{what}");
        let data = message(VMCORE, 8, 1 << 19, &[3; 1448]);
        assert_eq!(rig.datagram(on, CLIENT, &data), [8], "{what}: for good");
    }
}

#[test]
fn our_client_is_never_held_up() {
    for window in [1, 10, 64] {
        let (rig, took) = windowed(herald_word::new(5), window, 1448);
        assert_eq!(took, 400 * 10);
        assert_eq!(rig.core.sessions().next().unwrap().1.stats.withheld, 0);
    }
}

#[test]
fn large_payloads_need_no_shield() {
    for payload_len in [2048, 4096, 8948] {
        let (rig, _) = windowed(0, 5, payload_len);
        assert_eq!(rig.core.sessions().next().unwrap().1.stats.withheld, 0);
    }
}

fn bursts() -> impl Strategy<Value = Vec<usize>> {
    let len = prop_oneof![3 => Just(16usize), 4 => 1usize..=16].prop_map(|blocks| blocks * 4096);
    prop::collection::vec(len, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is lost, whatever the order: the client is never worse off, no
    /// byte is acked that is not stored, and what is missing is listed.
    #[test]
    fn any_link(
        bursts in bursts(),
        payload_len in prop::sample::select(vec![1024usize, 1280, 1408, 1440, 1448, 2047, 4096]),
        shift in prop::sample::select(vec![Shift::Masked, Shift::Zero]),
        as_12 in any::<bool>(),
        loss_permille in 0u64..30,
        seed in any::<u64>(),
        shuffled in any::<bool>(),
    ) {
        let image = pattern(bursts.iter().sum());
        let mut client = StockModel::new(true);
        let mut state = seed | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut random_order = random;
        (client.payload_len, client.shift) = (payload_len, shift);
        client.lose = Box::new(move |_| random() % 1000 < loss_permille);
        if shuffled {
            client.reorder = Box::new(move |burst| {
                if burst.len() > 1 {
                    let at = random_order() as usize % (burst.len() - 1);
                    burst.swap(at, at + 1);
                }
            });
        }
        let done = match as_12 {
            true => client.dump_as_12(&image, &bursts),
            false => client.dump(&image, &bursts, b""),
        };
        // Twelve transmissions of one message all lost, at 3 %: no.
        prop_assert!(done);
        let record = client.record();
        prop_assert_eq!(record.verdict == Verdict::Complete, record.holes.is_empty());
        let mut truth = image.clone();
        if as_12 {
            let at = image.len() - bursts[bursts.len() - 1];
            let header = crate::support::dump_header(image.len() as u64);
            truth[at..at + 512].copy_from_slice(zerocopy::IntoBytes::as_bytes(&header));
        }
        let mut here = client.image().to_vec();
        here.resize(truth.len(), 0);
        for hole in &record.holes.listed {
            let range = hole.start as usize..hole.end as usize;
            truth[range.clone()].copy_from_slice(&here[range]);
        }
        prop_assert!(here == truth, "bytes outside of the listed holes are right");
        // A hole needs three losses of one packet in a row, and then it says so.
        if !record.holes.is_empty() {
            prop_assert!(!record.suspect.is_empty());
        }
    }
}

#[test]
fn keys_and_images_do_not_mix() {
    // The same offsets in both files.
    let mut client = StockModel::new(true);
    assert!(client.dump(&pattern(LEN), &BURSTS, &pattern(4096)));
    assert_eq!(client.record().holes.count, 0);
    assert_eq!(client.rounds, 0);
    assert!(client.image() == pattern(LEN));
}

/// While what has come waits for the disk, the client is not the one who is silent.
#[test]
fn a_slow_disk_is_no_silent_client() {
    let mut core = Core::new(Limits::default());
    let (client, local) = ("10.99.0.1:20024".parse().unwrap(), "10.99.0.2".parse().unwrap());
    let mut now = Instant::from_micros(1);
    core.handle_datagram(now, Socket::Herald, client, local, &message(HERALD, 1, 0, b""));
    let Some(Action::Bind { session, .. }) = core.poll_action() else { panic!("a socket") };
    core.bound(now, session, Ok(()));
    assert!(matches!(core.poll_action(), Some(Action::Open { .. })));
    core.opened(now, session, Ok(()));
    let acks = |core: &mut Core| -> Vec<u32> {
        std::iter::from_fn(|| core.poll_action())
            .filter_map(|action| match action {
                Action::Reply { ack, .. } => Some(ack.seqno.get()),
                _ => None,
            })
            .collect()
    };
    assert_eq!(acks(&mut core), [1]);
    for n in 0..2u32 {
        let data = message(VMCORE, 2 + n, u64::from(n) * 1448, &[7; 1448]);
        core.handle_datagram(now, Socket::Session(session), client, local, &data);
    }
    core.written(now, session, 2, Ok(()));
    assert!(acks(&mut core).is_empty(), "withheld: its partner may be missing");
    now = now.after(5_000_000);
    core.handle_timeout(now);
    assert!(acks(&mut core).is_empty(), "the other has come, and is not yet written");
    core.written(now, session, 3, Ok(()));
    assert!(acks(&mut core).is_empty());
    let until = core.poll_timeout().unwrap();
    assert!(until <= now.after(1_000_000), "from now on silence counts");
    core.handle_timeout(until);
    assert_eq!(acks(&mut core), [2, 3]);
}
