//! Whatever comes: no panic, no leak, nothing acked that is not stored.

use std::collections::HashMap;

use bytes::Bytes;
use debugnet_core::wire::debugnet::herald_word;
use netdumpd::core::{Core, Limits, Socket};
use netdumpd::store::{Faults, MemStore};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::support::{Rig, dump_header, message_with};

#[derive(Clone, Debug)]
enum Step {
    Raw { to_herald: bool, session: usize, port: u16, bytes: Vec<u8> },
    Message { session: usize, kind: u32, seqno: u32, offset: u64, len: usize },
    Header { session: usize, seqno: u32, length: u64, compression: u8, key_size: u32 },
    Herald { port: u16, seqno: u32, nonce: Option<u16>, path: Vec<u8> },
    Wait { seconds: u64 },
    Fault { write_at: Option<u64>, finish: bool, open: bool, header: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0usize..6;
    let port = 1u16..4;
    let seqno = prop_oneof![0u32..20, any::<u32>()];
    let offset = prop_oneof![6 => 0u64..8192, 1 => any::<u64>()];
    prop_oneof![
        2 => (any::<bool>(), session.clone(), port.clone(), prop::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(to_herald, session, port, bytes)| Step::Raw { to_herald, session, port, bytes }),
        12 => (session.clone(), 0u32..7, seqno.clone(), offset, 0usize..600)
            .prop_map(|(session, kind, seqno, offset, len)| Step::Message { session, kind, seqno, offset, len }),
        2 => (session, seqno.clone(), prop_oneof![0u64..9000, any::<u64>()], 0u8..4, 0u32..3)
            .prop_map(|(session, seqno, length, compression, key_size)| Step::Header { session, seqno, length, compression, key_size }),
        3 => (port, seqno, prop::option::of(0u16..3), prop::collection::vec(any::<u8>(), 0..8))
            .prop_map(|(port, seqno, nonce, path)| Step::Herald { port, seqno, nonce, path }),
        1 => (0u64..700).prop_map(|seconds| Step::Wait { seconds }),
        1 => (prop::option::of(0u64..8192), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(write_at, finish, open, header)| Step::Fault { write_at, finish, open, header }),
    ]
}

proptest! {
    #[test]
    fn steps_in_any_order(steps in prop::collection::vec(step(), 1..120)) {
        let mut limits = Limits::default();
        limits.max_dump_len = 1 << 20;
        limits.max_seqno_runs = 8;
        limits.max_byte_runs = 8;
        let mut rig = Rig::new(Core::new(limits), MemStore::default());
        // Sessions in the order their heralds were acked.
        let mut sessions = Vec::new();
        let mut written: HashMap<_, Vec<u8>> = HashMap::new();
        for step in steps {
            match step {
                Step::Raw { to_herald, session, port, bytes } => {
                    let on = match sessions.get(session) {
                        Some(id) if !to_herald => Socket::Session(*id),
                        _ => Socket::Herald,
                    };
                    rig.datagram(on, &format!("10.0.0.1:{port}"), &bytes.into());
                }
                Step::Message { session, kind, seqno, offset, len } => {
                    let Some(id) = sessions.get(session).copied() else { continue };
                    let Some(status) = rig.core.status(id) else { continue };
                    let payload: Vec<u8> = (0..len).map(|n| (n as u8) ^ (seqno as u8)).collect();
                    let datagram = message_with(kind, seqno, offset, 0, &payload);
                    let new = !written.get(&id).is_some_and(|known| known.contains(&(seqno as u8)));
                    let acks = rig.datagram(Socket::Session(id), &status.peer.to_string(), &datagram);
                    prop_assert!(acks.iter().all(|acked| *acked == seqno), "only what was asked");
                    if kind == 3 && acks == [seqno] && new {
                        written.entry(id).or_default().push(seqno as u8);
                        let dump = rig.store.dump(id).expect("files before acks");
                        let at = offset as usize;
                        prop_assert!(dump.vmcore[at..at + len] == payload[..], "acked is stored");
                    }
                }
                Step::Header { session, seqno, length, compression, key_size } => {
                    let Some(id) = sessions.get(session).copied() else { continue };
                    let Some(status) = rig.core.status(id) else { continue };
                    let mut header = dump_header(length);
                    header.compression = compression;
                    header.dump_key_size = key_size.into();
                    header.seal();
                    let datagram = message_with(4, seqno, 0, 0, header.as_bytes());
                    rig.datagram(Socket::Session(id), &status.peer.to_string(), &datagram);
                }
                Step::Herald { port, seqno, nonce, path } => {
                    let word = nonce.map_or(0, herald_word::new);
                    let herald = message_with(1, seqno, 0, word, &path);
                    let acks = rig.datagram(Socket::Herald, &format!("10.0.0.1:{port}"), &herald);
                    prop_assert!(acks.len() <= 1 && acks.iter().all(|acked| *acked == seqno));
                    if acks.len() == 1 && !sessions.contains(&rig.last_session()) {
                        sessions.push(rig.last_session());
                    }
                }
                Step::Wait { seconds } => rig.pass(seconds * 1_000_000),
                Step::Fault { write_at, finish, open, header } => {
                    rig.store.faults = Faults { open, write_at, header, finish };
                }
            }
        }
        rig.core.stop(rig.now);
        rig.settle();
        prop_assert_eq!(rig.core.sessions().count(), 0);
        prop_assert_eq!(rig.core.poll_timeout(), None);
        for (_, dump) in rig.store.dumps() {
            prop_assert!(dump.record.is_some(), "every dump has its record");
        }
    }

    #[test]
    fn bytes_of_any_kind(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..40)) {
        let mut rig = Rig::new(Core::new(Limits::default()), MemStore::default());
        rig.datagram(Socket::Herald, "10.0.0.1:1", &message_with(1, 1, 0, 0, b""));
        let session = rig.last_session();
        for bytes in datagrams {
            let bytes = Bytes::from(bytes);
            rig.datagram(Socket::Herald, "10.0.0.1:1", &bytes);
            rig.datagram(Socket::Session(session), "10.0.0.1:1", &bytes);
        }
    }
}
