//! Sessions in virtual time, dumps in memory.

use bytes::Bytes;
use debugnet_core::wire::debugnet::{EKCD_KEY, FINISHED, HERALD, KDH, VMCORE, herald_word};
use netdumpd::core::{
    Action, Basis, Core, End, HeaderProblem, Limits, Note, Notice, Reason, Record, SessionId,
    Socket, State, Verdict,
};
use netdumpd::store::{Faults, MemStore};
use zerocopy::IntoBytes;

use crate::support::{Rig, dump_header, message, message_with, pattern};

const CLIENT: &str = "10.99.0.1:20024";
const OTHER_PORT: &str = "10.99.0.1:40000";
const SECOND_US: u64 = 1_000_000;

fn rig() -> Rig<MemStore> {
    Rig::new(Core::new(Limits::default()), MemStore::default())
}

fn herald() -> Bytes {
    message(HERALD, 1, 0, b"")
}

fn our_herald(nonce: u16) -> Bytes {
    message_with(HERALD, 1, 0, herald_word::new(nonce), b"")
}

impl Rig<MemStore> {
    /// Opens a session; checks that its herald is acked.
    fn open(&mut self, from: &str, herald: &Bytes) -> SessionId {
        assert_eq!(self.datagram(Socket::Herald, from, herald), [1]);
        self.last_session()
    }

    fn send(&mut self, session: SessionId, message: &Bytes) -> Vec<u32> {
        let from = self.core.status(session).map_or(CLIENT.into(), |s| s.peer.to_string());
        self.datagram(Socket::Session(session), &from, message)
    }

    fn record(&self, session: SessionId) -> &Record {
        self.store.dump(session).unwrap().record.as_ref().expect("an ended dump")
    }

    fn handled(&self) -> Vec<(SessionId, Reason)> {
        let handle = |action: &Action| match action {
            Action::Handle { session, reason } => Some((*session, *reason)),
            _ => None,
        };
        self.actions.iter().filter_map(handle).collect()
    }

    fn notices(&self) -> Vec<Notice> {
        let notice = |action: &Action| match action {
            Action::Notice { notice, .. } => Some(notice.clone()),
            _ => None,
        };
        self.actions.iter().filter_map(notice).collect()
    }
}

/// A short dump, numbered from 2: data, header, FINISHED.
fn finish(rig: &mut Rig<MemStore>, session: SessionId) {
    assert_eq!(rig.send(session, &message(VMCORE, 2, 0, &pattern(4096))), [2]);
    assert_eq!(rig.send(session, &message(KDH, 3, 0, dump_header(4096).as_bytes())), [3]);
    assert_eq!(rig.send(session, &message(FINISHED, 4, 0, b"")), [4]);
}

#[test]
fn copies_of_a_herald_are_answered_from_one_session() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &herald());
    for _ in 0..100 {
        assert_eq!(rig.datagram(Socket::Herald, CLIENT, &herald()), [1]);
        assert_eq!(rig.last_session(), session);
    }
    assert_eq!(rig.core.sessions().count(), 1);
    assert_eq!(rig.store.dumps().count(), 1);
    finish(&mut rig, session);
    assert_eq!(rig.record(session).verdict, Verdict::Complete);
}

#[test]
fn a_late_herald_does_not_harm_a_running_dump() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &herald());
    assert_eq!(rig.send(session, &message(VMCORE, 2, 0, &pattern(4096))), [2]);
    assert_eq!(rig.datagram(Socket::Herald, CLIENT, &herald()), [1]);
    let provisional = rig.last_session();
    assert_ne!(provisional, session);
    assert_eq!(rig.core.status(provisional).unwrap().state, State::Provisional);
    assert!(rig.store.dump(provisional).is_none(), "no files");
    // Further copies go to the same one.
    assert_eq!(rig.datagram(Socket::Herald, CLIENT, &herald()), [1]);
    assert_eq!(rig.last_session(), provisional);

    rig.pass(31 * SECOND_US);
    assert!(rig.core.status(provisional).is_none());
    assert_eq!(rig.core.status(session).unwrap().state, State::Receiving);
    assert_eq!(rig.send(session, &message(FINISHED, 3, 0, b"")), [3]);
    assert_eq!(rig.record(session).verdict, Verdict::Complete);
    assert_eq!(rig.handled(), [(session, Reason::Success)]);
}

#[test]
fn a_client_that_begins_anew_replaces_its_dump() {
    let mut rig = rig();
    let old = rig.open(CLIENT, &herald());
    assert_eq!(rig.send(old, &message(VMCORE, 2, 0, &pattern(4096))), [2]);
    assert_eq!(rig.datagram(Socket::Herald, CLIENT, &herald()), [1]);
    let new = rig.last_session();
    finish(&mut rig, new);
    assert_eq!(rig.record(old).end, End::Superseded);
    assert_eq!(rig.record(old).verdict, Verdict::Incomplete);
    assert_eq!(rig.store.dump(old).unwrap().vmcore, pattern(4096), "nothing acked is lost");
    assert_eq!(rig.record(new).verdict, Verdict::Complete);
    assert_eq!(rig.handled(), [(old, Reason::Incomplete), (new, Reason::Success)]);
}

#[test]
fn our_client_is_known_by_its_nonce() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &our_herald(7));
    assert_eq!(rig.send(session, &message(VMCORE, 2, 0, &pattern(4096))), [2]);
    assert_eq!(rig.datagram(Socket::Herald, CLIENT, &our_herald(7)), [1]);
    assert_eq!(rig.last_session(), session, "a late copy");
    assert_eq!(rig.core.sessions().count(), 1);
    assert_eq!(rig.datagram(Socket::Herald, CLIENT, &our_herald(8)), [1]);
    let next = rig.last_session();
    assert_ne!(next, session, "a new crash");
    finish(&mut rig, next);
    assert_eq!(rig.record(session).end, End::Superseded);
    // While it lingers, too.
    assert_eq!(rig.datagram(Socket::Herald, CLIENT, &our_herald(8)), [1]);
    assert_eq!(rig.last_session(), next);
    assert_eq!(rig.datagram(Socket::Herald, CLIENT, &our_herald(9)), [1]);
    assert_ne!(rig.last_session(), next);
    assert!(rig.store.dump(rig.last_session()).is_none(), "no files before it goes on");
}

#[test]
fn another_port_is_another_client() {
    let mut rig = rig();
    let one = rig.open(CLIENT, &herald());
    assert_eq!(rig.send(one, &message(VMCORE, 2, 0, b"x")), [2]);
    let other = rig.open(OTHER_PORT, &herald());
    finish(&mut rig, other);
    finish(&mut rig, one);
    assert!([one, other].iter().all(|id| rig.record(*id).verdict == Verdict::Complete));
}

#[test]
fn it_lingers_for_late_retransmits() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &herald());
    finish(&mut rig, session);
    rig.pass(29 * SECOND_US);
    for (seqno, again) in [
        (4, message(FINISHED, 4, 0, b"")),
        (2, message(VMCORE, 2, 0, &pattern(4096))),
        (3, message(KDH, 3, 0, dump_header(4096).as_bytes())),
    ] {
        assert_eq!(rig.send(session, &again), [seqno]);
    }
    assert!(rig.send(session, &message(VMCORE, 9, 0, b"new")).is_empty(), "too late");
    // A number that is known, for a place that does not exist. Found by the fuzzer.
    assert!(rig.send(session, &message(VMCORE, 2, u64::MAX, b"lie")).is_empty());
    assert!(rig.send(session, &message(FINISHED, 9, 0, b"")).is_empty());
    // A stock herald's late copy, or its next crash: no files yet.
    assert_eq!(rig.datagram(Socket::Herald, CLIENT, &herald()), [1]);
    assert_eq!(rig.store.dumps().count(), 1);
    rig.pass(2 * SECOND_US);
    assert!(rig.core.status(session).is_none());
    rig.pass(31 * SECOND_US);
    assert_eq!(rig.core.sessions().count(), 0);
    assert_eq!(rig.core.poll_timeout(), None);
    assert_eq!(rig.handled(), [(session, Reason::Success)]);
}

#[test]
fn nothing_is_acked_before_it_is_written() {
    let mut core = Core::new(Limits::default());
    let now = debugnet_core::time::Instant::from_micros(5);
    let (client, local) = (CLIENT.parse().unwrap(), "10.99.0.2".parse().unwrap());
    core.handle_datagram(now, Socket::Herald, client, local, &herald());
    let Some(Action::Bind { session, .. }) = core.poll_action() else { panic!("a socket first") };
    core.bound(now, session, Ok(()));
    let Some(Action::Open { .. }) = core.poll_action() else { panic!("then files") };
    assert!(core.poll_action().is_none(), "the herald waits for them");
    core.opened(now, session, Ok(()));
    assert!(matches!(core.poll_action(), Some(Action::Reply { .. })));

    let on = Socket::Session(session);
    for (seqno, offset) in [(2, 0), (3, 10)] {
        let data = message(VMCORE, seqno, offset, &pattern(10));
        core.handle_datagram(now, on, client, local, &data);
        core.handle_datagram(now, on, client, local, &data);
        assert!(matches!(core.poll_action(), Some(Action::Write { .. })));
    }
    core.handle_datagram(now, on, client, local, &message(FINISHED, 4, 0, b""));
    assert!(core.poll_action().is_none(), "two writes are under way");
    core.written(now, session, 3, Ok(()));
    let Some(Action::Reply { ack, .. }) = core.poll_action() else { panic!("an ack") };
    assert_eq!(ack.seqno.get(), 3);
    assert!(core.poll_action().is_none(), "one write is still under way");
    core.written(now, session, 2, Ok(()));
    assert!(matches!(core.poll_action(), Some(Action::Reply { .. })));
    assert!(matches!(core.poll_action(), Some(Action::Finish { .. })));
    core.handle_datagram(now, on, client, local, &message(FINISHED, 4, 0, b""));
    assert!(core.poll_action().is_none(), "FINISHED waits for the disk");
    core.finished(now, session, Ok(()));
    let Some(Action::Reply { ack, .. }) = core.poll_action() else { panic!("an ack") };
    assert_eq!(ack.seqno.get(), 4);
    assert!(matches!(core.poll_action(), Some(Action::Handle { reason: Reason::Success, .. })));
}

#[test]
fn a_failed_write_is_final() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &herald());
    assert_eq!(rig.send(session, &message(VMCORE, 2, 0, &pattern(100))), [2]);
    rig.store.faults = Faults { write_at: Some(150), ..Faults::default() };
    assert!(rig.send(session, &message(VMCORE, 3, 100, &pattern(100))).is_empty());
    rig.store.faults = Faults::default();
    for again in [
        message(VMCORE, 3, 100, &pattern(100)),
        message(VMCORE, 4, 200, &pattern(100)),
        message(FINISHED, 5, 0, b""),
        message(FINISHED, 5, 0, b""),
    ] {
        assert!(rig.send(session, &again).is_empty());
    }
    assert_eq!(rig.send(session, &message(VMCORE, 2, 0, &pattern(100))), [2], "that one is here");
    let record = rig.record(session);
    assert_eq!(record.verdict, Verdict::Failed);
    assert!(matches!(record.end, End::StoreFailed { offset: Some(100), .. }));
    assert_eq!(rig.handled(), [(session, Reason::Error)]);
}

#[test]
fn a_failed_sync_is_final() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &herald());
    assert_eq!(rig.send(session, &message(VMCORE, 2, 0, &pattern(100))), [2]);
    rig.store.faults = Faults { finish: true, ..Faults::default() };
    assert!(rig.send(session, &message(FINISHED, 3, 0, b"")).is_empty());
    rig.store.faults = Faults::default();
    for again in [message(FINISHED, 3, 0, b""), message(VMCORE, 3, 0, b"same number")] {
        assert!(rig.send(session, &again).is_empty());
    }
    assert_eq!(rig.record(session).verdict, Verdict::Failed);
    assert_eq!(rig.handled(), [(session, Reason::Error)]);
    rig.pass(31 * SECOND_US);
    assert_eq!(rig.core.sessions().count(), 0);
}

#[test]
fn files_that_cannot_be_opened_leave_the_herald_unanswered() {
    let mut rig = rig();
    rig.store.faults = Faults { open: true, ..Faults::default() };
    assert!(rig.datagram(Socket::Herald, CLIENT, &herald()).is_empty());
    assert_eq!(rig.core.sessions().count(), 0);
    rig.store.faults = Faults::default();
    let session = rig.open(CLIENT, &herald());
    finish(&mut rig, session);
}

#[test]
fn offsets_beyond_the_limit_are_refused() {
    let mut limits = Limits::default();
    limits.max_dump_len = 1000;
    let mut rig = Rig::new(Core::new(limits), MemStore::default());
    let session = rig.open(CLIENT, &herald());
    for (seqno, offset) in [(2, 1 << 40), (3, 1 << 63), (4, u64::MAX), (5, 991), (6, 1000)] {
        assert!(rig.send(session, &message(VMCORE, seqno, offset, &pattern(10))).is_empty());
    }
    assert_eq!(rig.notices(), [Notice::OffsetRefused { offset: 1 << 40, len: 10 }], "told once");
    assert_eq!(rig.send(session, &message(VMCORE, 7, 990, &pattern(10))), [7]);
    assert!(rig.send(session, &message(EKCD_KEY, 8, 1 << 30, b"key")).is_empty());
    assert_eq!(rig.core.status(session).unwrap().stats.refused, 6);
}

#[test]
fn what_is_no_message_gets_no_answer() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &herald());
    let mut wrong_len = message(VMCORE, 2, 0, b"four").to_vec();
    wrong_len.push(0);
    for bytes in [Bytes::new(), herald().slice(..23), wrong_len.into()] {
        assert!(rig.send(session, &bytes).is_empty());
        assert!(rig.datagram(Socket::Herald, CLIENT, &bytes).is_empty());
    }
    assert!(rig.send(session, &message(99, 2, 0, b"")).is_empty());
    assert!(rig.datagram(Socket::Herald, CLIENT, &message(VMCORE, 1, 0, b"")).is_empty());
    assert!(
        rig.datagram(Socket::Session(session), OTHER_PORT, &message(VMCORE, 2, 0, b"")).is_empty()
    );
    let stats = rig.core.status(session).unwrap().stats;
    assert_eq!((stats.malformed, stats.unknown), (3, 1));
    let counters = rig.core.counters();
    assert_eq!((counters.malformed, counters.stray, counters.foreign), (6, 1, 1));
    assert_eq!(rig.send(session, &message(VMCORE, 2, 0, &vec![1; 65_000])), [2], "up to 64 KiB");
}

#[test]
fn the_order_of_freebsd_12() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &herald());
    let header = dump_header(8192);
    assert_eq!(rig.send(session, &message(VMCORE, 2, 0, &pattern(4096))), [2]);
    for _ in 0..3 {
        assert_eq!(rig.send(session, &message(KDH, 3, 0, header.as_bytes())), [3]);
    }
    assert_eq!(rig.send(session, &message(VMCORE, 4, 4096, &pattern(4096))), [4]);
    assert_eq!(rig.send(session, &message(FINISHED, 5, 0, b"")), [5]);
    assert_eq!(rig.store.dump(session).unwrap().headers.len(), 1, "copies are noted once");
    assert_eq!(rig.record(session).verdict, Verdict::Complete);
    assert!(rig.record(session).notes.is_empty());
}

#[test]
fn bad_headers_are_acked_and_told() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &herald());
    let mut bad = dump_header(4096);
    bad.unused = *b"oops";
    assert_eq!(rig.send(session, &message(VMCORE, 2, 0, &pattern(4096))), [2]);
    assert_eq!(rig.send(session, &message(KDH, 3, 0, b"short")), [3]);
    assert_eq!(rig.send(session, &message(KDH, 4, 0, bad.as_bytes())), [4]);
    for seqno in 5..40 {
        assert_eq!(rig.send(session, &message(KDH, seqno, 0, &[seqno as u8; 512])), [seqno]);
    }
    assert_eq!(rig.send(session, &message(FINISHED, 40, 0, b"")), [40]);
    let record = rig.record(session);
    assert_eq!(record.verdict, Verdict::Complete, "all that was sent is here");
    assert_eq!(record.notes, [Note::ShortHeader]);
    let problems = &record.header.as_ref().unwrap().problems;
    assert!(problems.contains(&HeaderProblem::Magic));
    assert!(rig.store.dump(session).unwrap().headers.len() <= 4, "the info file is bounded");
}

#[test]
fn keys_of_encrypted_dumps() {
    let mut blob = vec![0; 4096];
    blob[0] = 2;
    let mut header = dump_header(4096);
    header.dump_key_size = 4096.into();
    header.seal();
    for whole in [true, false] {
        let mut rig = rig();
        let session = rig.open(CLIENT, &herald());
        let sent = if whole { &blob[..] } else { &blob[..1000] };
        assert_eq!(rig.send(session, &message(EKCD_KEY, 2, 0, sent)), [2]);
        assert_eq!(rig.send(session, &message(VMCORE, 3, 0, &pattern(4096))), [3]);
        assert_eq!(rig.send(session, &message(KDH, 4, 0, header.as_bytes())), [4]);
        assert_eq!(rig.send(session, &message(FINISHED, 5, 0, b"")), [5]);
        assert_eq!(rig.store.dump(session).unwrap().key, sent);
        let record = rig.record(session);
        assert_eq!(record.key.unwrap().cipher, 2);
        assert_eq!(record.verdict == Verdict::Complete, whole);
        assert_eq!(record.notes.contains(&Note::KeyIncomplete), !whole);
    }
}

/// The test client of the stock server: herald and FINISHED carry 0.
#[test]
fn a_client_that_does_not_count_is_judged_by_offsets() {
    for whole in [true, false] {
        let mut rig = rig();
        assert_eq!(rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 0, 0, b"")), [0]);
        let session = rig.last_session();
        let seqnos = [0x0100_0000, 0x0200_0000, 0x0300_0000];
        for (n, seqno) in seqnos.into_iter().enumerate() {
            if whole || n != 1 {
                let data = message(VMCORE, seqno, n as u64 * 1024, &pattern(1024));
                assert_eq!(rig.send(session, &data), [seqno]);
            }
        }
        assert_eq!(rig.send(session, &message(KDH, 9, 0, dump_header(3072).as_bytes())), [9]);
        for _ in 0..2 {
            assert_eq!(rig.send(session, &message(FINISHED, 0, 0, b"")), [0]);
        }
        let record = rig.record(session);
        assert_eq!(record.basis, Basis::Offsets);
        assert_eq!(record.verdict == Verdict::Complete, whole);
        let holes: Vec<_> = (!whole).then_some(1024..2048).into_iter().collect();
        assert_eq!(record.holes.listed, holes);
    }
}

#[test]
fn pages_that_were_not_sent_are_no_holes() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &our_herald(1));
    assert_eq!(rig.send(session, &message(VMCORE, 2, 8192, &pattern(4096))), [2]);
    assert_eq!(rig.send(session, &message(KDH, 3, 0, dump_header(65536).as_bytes())), [3]);
    assert_eq!(rig.send(session, &message(FINISHED, 4, 0, b"")), [4]);
    let record = rig.record(session);
    assert_eq!(record.verdict, Verdict::Complete);
    assert_eq!(record.not_sent.listed, [0..8192, 12288..65536]);
    assert_eq!(rig.store.dump(session).unwrap().vmcore.len(), 65536, "with its unsent tail");
}

#[test]
fn compressed_dumps_lose_their_padding() {
    let mut header = dump_header(5000);
    header.compression = 2;
    header.seal();
    let mut rig = rig();
    let session = rig.open(CLIENT, &herald());
    assert_eq!(rig.send(session, &message(VMCORE, 2, 0, &pattern(8192))), [2]);
    assert_eq!(rig.send(session, &message(KDH, 3, 0, header.as_bytes())), [3]);
    assert_eq!(rig.store.dump(session).unwrap().vmcore.len(), 8192, "more may come");
    assert_eq!(rig.send(session, &message(FINISHED, 4, 0, b"")), [4]);
    assert_eq!(rig.store.dump(session).unwrap().vmcore, pattern(8192)[..5000]);
    assert_eq!(rig.record(session).verdict, Verdict::Complete);
}

#[test]
fn silence_ends_a_dump_with_its_record() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &herald());
    for minute in 0..20 {
        rig.pass(60 * SECOND_US);
        let data = message(VMCORE, 2 + minute * 2, u64::from(minute) * 20, &pattern(10));
        assert_eq!(rig.send(session, &data), [2 + minute * 2], "still there");
    }
    rig.pass(599 * SECOND_US);
    assert!(rig.core.status(session).is_some());
    rig.pass(2 * SECOND_US);
    assert!(rig.core.status(session).is_none());
    let record = rig.record(session);
    assert_eq!((&record.end, record.verdict), (&End::TimedOut, Verdict::Incomplete));
    assert_eq!(record.notes, [Note::NoHeader]);
    assert_eq!((record.missing_seqnos, record.holes.count), (19, 19));
    assert_eq!(rig.handled(), [(session, Reason::Timeout)]);
}

#[test]
fn stopping_closes_every_dump() {
    let mut rig = rig();
    let running = rig.open(CLIENT, &herald());
    assert_eq!(rig.send(running, &message(VMCORE, 2, 0, b"x")), [2]);
    let ended = rig.open(OTHER_PORT, &herald());
    finish(&mut rig, ended);
    rig.core.stop(rig.now);
    rig.settle();
    assert_eq!(rig.core.sessions().count(), 0);
    assert_eq!(rig.record(running).end, End::Stopped);
    assert_eq!(rig.handled(), [(ended, Reason::Success), (running, Reason::Timeout)]);
    assert!(rig.datagram(Socket::Herald, CLIENT, &herald()).is_empty());
}

#[test]
fn sessions_are_limited_in_all_and_for_each_address() {
    let mut limits = Limits::default();
    (limits.max_sessions, limits.max_sessions_per_source) = (3, 2);
    let mut rig = Rig::new(Core::new(limits), MemStore::default());
    rig.open("10.0.0.1:1", &herald());
    rig.open("10.0.0.1:2", &herald());
    assert!(rig.datagram(Socket::Herald, "10.0.0.1:3", &herald()).is_empty());
    rig.open("10.0.0.2:1", &herald());
    assert!(rig.datagram(Socket::Herald, "10.0.0.3:1", &herald()).is_empty());
    assert_eq!(rig.core.counters().refused_heralds, 2);
    rig.core.stop(rig.now);
    rig.settle();
    assert_eq!(rig.core.sessions().count(), 0);
}

#[test]
fn heralds_are_limited_in_a_second_and_copies_are_not() {
    let mut limits = Limits::default();
    limits.max_heralds_per_s = 8;
    let mut rig = Rig::new(Core::new(limits), MemStore::default());
    let session = rig.open("10.0.0.1:1", &herald());
    rig.open("10.0.0.1:2", &herald());
    for _ in 0..100 {
        assert!(rig.datagram(Socket::Herald, "10.0.0.1:3", &herald()).is_empty());
        assert_eq!(rig.datagram(Socket::Herald, "10.0.0.1:1", &herald()), [1], "a copy");
    }
    assert_eq!(rig.notices(), [Notice::TooManyHeralds], "told once");
    assert_eq!(rig.core.counters().refused_heralds, 100);
    rig.open("10.0.0.2:1", &herald());
    finish(&mut rig, session);
    rig.pass(SECOND_US);
    rig.open("10.0.0.1:3", &herald());
}

#[test]
fn provisional_sessions_of_one_client_are_few() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &our_herald(0));
    for nonce in 1..500 {
        rig.open(CLIENT, &our_herald(nonce));
        assert!(rig.core.sessions().count() <= 5);
        rig.pass(50_000);
    }
    finish(&mut rig, session);
    assert_eq!(rig.store.dumps().count(), 1);
}

#[test]
fn a_long_path_in_two_heralds() {
    let mut rig = rig();
    let session = rig.open(CLIENT, &message(HERALD, 1, 0, b"no end"));
    assert_eq!(rig.datagram(Socket::Herald, CLIENT, &message(HERALD, 2, 6, b" yet\0")), [2]);
    assert_eq!(rig.last_session(), session);
    assert_eq!(rig.notices(), [Notice::UnusablePath]);
    assert_eq!(rig.send(session, &message(VMCORE, 3, 0, &pattern(10))), [3]);
    assert_eq!(rig.send(session, &message(FINISHED, 4, 0, b"")), [4]);
    let record = rig.record(session);
    assert_eq!((record.verdict, record.basis), (Verdict::Complete, Basis::Sequence));
}
