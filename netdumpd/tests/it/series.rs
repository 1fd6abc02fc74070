//! Messages taken as a row, and the same one by one: nothing differs.

use bytes::Bytes;
use debugnet_core::wire::debugnet::{
    EKCD_KEY, FINISHED, HERALD, KDH, MessageHeader, VMCORE, herald_word,
};
use netdumpd::core::{Core, Limits, Series, SessionId, Socket};
use netdumpd::store::{MemStore, Store};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::support::{Rig, dump_header, message, message_with, pattern};

const CLIENT: &str = "10.0.0.1:20024";
const PIECE_LEN: u64 = 1448;

/// Gives all of `batch` to the core before anything is written, in rows or one by one.
fn deliver(rig: &mut Rig<MemStore>, session: SessionId, batch: &[Bytes], in_rows: bool) {
    let (socket, from) = (Socket::Session(session), CLIENT.parse().unwrap());
    let local = "10.99.0.2".parse().unwrap();
    if !in_rows {
        for datagram in batch {
            rig.core.handle_datagram(rig.now, socket, from, local, datagram);
        }
        rig.settle();
        return;
    }
    let mut rows: Vec<(Series, Vec<u8>)> = Vec::new();
    for datagram in batch {
        let (header, payload) = MessageHeader::parse(datagram).unwrap();
        if let Some((series, bytes)) = rows.last_mut()
            && series.take(&header)
        {
            bytes.extend(payload);
        } else {
            rows.push((Series::new(header), payload.to_vec()));
        }
    }
    for (series, payload) in rows {
        rig.core.handle_series(rig.now, socket, from, local, &series, payload.into());
    }
    rig.settle();
}

#[derive(Clone, Debug)]
enum What {
    /// Messages from a number on: new, again, or beyond a gap.
    Row {
        back: u64,
        ahead: u64,
        count: u64,
        last_len: u64,
    },
    Header,
    Key,
    /// The same number with other bytes.
    Conflict,
    Pass(u64),
    Fault(u64),
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        8 => (0..20u64, 0..3u64, 1..40u64, 1..=PIECE_LEN)
            .prop_map(|(back, ahead, count, last_len)| What::Row {
                back: back.saturating_sub(10),
                ahead,
                count,
                last_len,
            }),
        1 => Just(What::Header),
        1 => Just(What::Key),
        1 => Just(What::Conflict),
        1 => (0..2_000_000u64).prop_map(What::Pass),
        1 => (0..200_000u64).prop_map(What::Fault),
    ]
}

/// What is left at the end: acks in order, files, record.
fn run(is_ours: bool, batches: &[Vec<What>], in_rows: bool) -> (Vec<u32>, Vec<u8>, String) {
    let mut limits = Limits::default();
    limits.max_dump_len = 150 * PIECE_LEN;
    let mut rig = Rig::new(Core::new(limits), MemStore::default());
    let word = if is_ours { herald_word::new(5) } else { 0 };
    rig.datagram(Socket::Herald, CLIENT, &message_with(HERALD, 1, 0, word, b""));
    let session = rig.last_session();
    let image = pattern((400 * PIECE_LEN) as usize);
    let piece = |n: u64, len: u64| {
        let start = n * PIECE_LEN;
        let bytes = &image[start as usize..(start + len) as usize];
        message(VMCORE, 2 + n as u32, start, bytes)
    };
    let mut next = 0u64;
    for batch in batches {
        let mut datagrams = Vec::new();
        for what in batch {
            match what {
                What::Row { back, ahead, count, last_len } => {
                    let first = (next + ahead).saturating_sub(*back).min(300);
                    for n in first..first + count {
                        let is_last = n + 1 == first + count;
                        datagrams.push(piece(n, if is_last { *last_len } else { PIECE_LEN }));
                    }
                    next = next.max(first + count);
                }
                What::Header => {
                    datagrams.push(message(KDH, 2 + next as u32, 0, dump_header(9999).as_bytes()));
                    next += 1;
                }
                What::Key => {
                    datagrams.push(message(EKCD_KEY, 2 + next as u32, 0, &[7; 64]));
                    next += 1;
                }
                What::Conflict => {
                    datagrams.push(message(VMCORE, 1 + next as u32, 4096, &[3; 1000]));
                }
                What::Pass(us) => {
                    deliver(&mut rig, session, &datagrams, in_rows);
                    datagrams.clear();
                    rig.pass(*us);
                }
                What::Fault(at) => rig.store.faults.write_at = Some(*at),
            }
        }
        deliver(&mut rig, session, &datagrams, in_rows);
    }
    deliver(&mut rig, session, &[message(FINISHED, 2 + next as u32, 0, b"")], in_rows);
    assert!(rig.store.device(session).is_none());
    let dump = rig.store.dump(session).unwrap();
    let acks = rig.acks.iter().map(|(_, seqno)| *seqno).collect();
    (acks, dump.vmcore.clone(), format!("{:?}", dump.record))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_row_is_as_its_messages(
        is_ours in any::<bool>(),
        batches in prop::collection::vec(prop::collection::vec(what(), 1..5), 1..12),
    ) {
        // A fault ends the dump in mid-batch: what was acked before it may be one row less.
        let has_fault = batches.iter().flatten().any(|what| matches!(what, What::Fault(_)));
        let (rows, singles) = (run(is_ours, &batches, true), run(is_ours, &batches, false));
        if has_fault {
            let acked = |acks: &[u32]| acks.iter().copied().collect::<std::collections::BTreeSet<_>>();
            prop_assert!(acked(&rows.0).is_subset(&acked(&singles.0)));
        } else {
            prop_assert_eq!(rows, singles);
        }
    }
}
