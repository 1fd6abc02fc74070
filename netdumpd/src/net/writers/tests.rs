use std::net::SocketAddr;
use std::sync::{Condvar, Mutex};

use bytes::Bytes;
use mio::{Events, Poll, Token};

use super::pool::lock;
use super::*;
use crate::core::{DumpFile, DumpHeader, Fault, Herald, HeraldPath, Identity, Record};
use crate::store::Piece;

/// Sessions below 100 are on a disk that stands still until it is let go.
const STUCK: u64 = 100;

#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

struct Slow {
    gate: Arc<Gate>,
    /// Of each write: offset and number of payloads.
    writes: Arc<Mutex<Vec<(u64, usize)>>>,
}

impl Store for Slow {
    fn open(
        &mut self,
        _: SessionId,
        _: SocketAddr,
        _: &HeraldPath,
        _: &Herald,
    ) -> Result<(), Fault> {
        Ok(())
    }

    fn write(
        &mut self,
        session: SessionId,
        _: DumpFile,
        offset: u64,
        pieces: &[Piece],
    ) -> Result<(), Fault> {
        lock(&self.writes).push((offset, pieces.len()));
        if session.0 < STUCK {
            let mut open = lock(&self.gate.open);
            while !*open {
                open = self.gate.opened.wait(open).unwrap();
            }
        }
        Ok(())
    }

    fn record_header(&mut self, _: SessionId, _: u32, _: Option<&DumpHeader>) -> Result<(), Fault> {
        Ok(())
    }

    fn finish(&mut self, _: SessionId, _: &Record) -> Result<(), Fault> {
        Ok(())
    }

    fn close(&mut self, _: SessionId, _: &Record) {}

    fn device(&self, session: SessionId) -> Option<u64> {
        Some(session.0 / STUCK)
    }
}

struct Rig {
    _poll: Poll,
    gate: Arc<Gate>,
    writes: Arc<Mutex<Vec<(u64, usize)>>>,
    writers: Writers<Slow>,
    now: Instant,
    seqno: u32,
}

impl Rig {
    fn new() -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (gate, writes) = (Arc::<Gate>::default(), Arc::<Mutex<Vec<_>>>::default());
        let for_each = (Arc::clone(&gate), Arc::clone(&writes));
        let spare = move || Slow { gate: Arc::clone(&for_each.0), writes: Arc::clone(&for_each.1) };
        let mut writers = Writers::new(waker, spare);
        writers.have_no_own();
        Self { _poll: poll, gate, writes, writers, now: Instant::from_micros(1), seqno: 0 }
    }

    /// Opens the sessions' files: from then on it is known on which disk they are.
    fn open(&mut self, sessions: std::ops::Range<u64>) {
        for session in sessions.clone() {
            let peer = ([10, 0, 0, 1], session as u16).into();
            let herald = Herald { seqno: 1, identity: Identity::Stock };
            let (session, path) = (SessionId(session), HeraldPath::Unusable);
            assert!(self.writers.stage(Action::Open { session, peer, path, herald }).is_none());
        }
        self.writers.submit(self.now);
        let mut opened = 0;
        for _ in 0..4000 {
            opened += self.writers.take_done().len();
            if opened == sessions.clone().count() && self.writers.is_idle() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{opened} are open");
    }

    fn write(&mut self, session: u64, offset: u64) -> u32 {
        self.seqno += 1;
        let payload = Bytes::from_static(b"12345678");
        let (session, seqno) = (SessionId(session), self.seqno);
        let file = DumpFile::Vmcore;
        let left =
            self.writers.stage(Action::Write { session, seqno, count: 1, file, offset, payload });
        assert!(left.is_none());
        seqno
    }

    /// Numbers of messages that were written, until `count` are or the time is over.
    fn written(&mut self, count: usize) -> Vec<u32> {
        let mut found = Vec::new();
        for _ in 0..4000 {
            self.writers.submit(self.now);
            for batch in self.writers.take_done() {
                for done in batch.done {
                    if let Done::Written { seqnos, .. } = done {
                        found.extend(seqnos);
                    }
                }
            }
            if found.len() >= count {
                break;
            }
            self.now = self.now.after(PATIENCE_US);
            self.writers.relieve(self.now);
            std::thread::sleep(Duration::from_millis(5));
        }
        found
    }

    fn let_go(&self) {
        *lock(&self.gate.open) = true;
        self.gate.opened.notify_all();
    }
}

#[test]
fn a_disk_that_stands_still_holds_up_nobody_else() {
    let mut rig = Rig::new();
    rig.open(0..90);
    rig.open(STUCK..STUCK + 3);
    // More than there can be threads for one disk.
    for session in 0..90 {
        rig.write(session, 0);
    }
    rig.writers.submit(rig.now);
    for round in 0..20 {
        let seqno = rig.write(STUCK + round % 3, round * 8);
        assert_eq!(rig.written(1), [seqno], "round {round}");
    }
    assert!(!rig.writers.is_idle());
    rig.let_go();
    assert_eq!(rig.written(90).len(), 90);
}

#[test]
fn a_quick_disk_is_the_loops_own_until_it_is_slow() {
    let mut rig = Rig::new();
    let (quick, other) = (STUCK, 2 * STUCK);
    rig.open(quick..quick + 2);
    rig.open(other..other + 1);
    rig.writers.has_own = true;
    let own = |rig: &mut Rig, session: u64, takes_us: u64| {
        let seqno = rig.write(session, 0);
        rig.writers.submit(rig.now);
        let Some(mut job) = rig.writers.next_own() else {
            assert_eq!(rig.written(1), [seqno], "then it is a thread's");
            return false;
        };
        let batch = job.carry_out();
        assert!(matches!(&batch.done[..], [Done::Written { seqnos, .. }] if *seqnos == [seqno]));
        let began = rig.now;
        rig.now = rig.now.after(takes_us);
        rig.writers.end_own(job, began, rig.now);
        true
    };
    assert!(own(&mut rig, quick, 10) && own(&mut rig, quick, SLOW_US + 1));
    assert!(!own(&mut rig, quick, 0) && !own(&mut rig, quick + 1, 0), "it was slow");
    assert!(own(&mut rig, other, 10), "not this one");
    for (pause_us, is_own) in [
        (*SLOW_FOR_US.start(), true),
        // Slow again: for twice as long.
        (*SLOW_FOR_US.start(), false),
        (*SLOW_FOR_US.start(), true),
    ] {
        rig.now = rig.now.after(pause_us);
        assert_eq!(own(&mut rig, quick, SLOW_US + 1), is_own);
    }
    rig.now = rig.now.after(*SLOW_FOR_US.end());
    assert!(own(&mut rig, quick, 10) && own(&mut rig, quick, 10), "quick again");
    assert!(rig.writers.slow.is_empty());
}

#[test]
fn what_the_loop_was_to_do_is_the_threads_once_it_is_stuck() {
    let mut rig = Rig::new();
    rig.open(STUCK..STUCK + 3);
    rig.writers.has_own = true;
    let seqnos = [0, 1, 2].map(|n| rig.write(STUCK + n, 0));
    rig.writers.submit(rig.now);
    let mut job = rig.writers.next_own().expect("a job of its own");
    // Here the loop is stuck; another goes on, and more comes for all three.
    rig.writers.own_is_stuck(job.device(), rig.now);
    let later = [0, 1, 2].map(|n| rig.write(STUCK + n, 8));
    let mut found = rig.written(4);
    assert!(!rig.writers.is_idle(), "one is still at it");
    let batch = job.carry_out();
    let [Done::Written { seqnos: stuck, .. }] = &batch.done[..] else { panic!("a write") };
    let stuck = stuck[0];
    job.end_late(batch);
    found.extend(rig.written(2));
    let mut all = [seqnos, later].concat();
    let at = |seqno: u32| found.iter().position(|it| *it == seqno);
    assert!(at(stuck) < at(later[seqnos.iter().position(|it| *it == stuck).unwrap()]), "in order");
    found.sort_unstable();
    all.sort_unstable();
    assert_eq!(found, all);
    for _ in 0..4000 {
        if rig.writers.is_idle() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("a strand does not end");
}

#[test]
fn what_gathers_behind_a_slow_write_becomes_one() {
    let mut rig = Rig::new();
    rig.write(1, 0);
    rig.writers.submit(rig.now);
    while lock(&rig.writes).is_empty() {
        std::thread::yield_now();
    }
    for n in 1..11 {
        rig.write(1, n * 8);
        rig.writers.submit(rig.now);
    }
    rig.let_go();
    let seqnos = rig.written(11);
    assert_eq!(seqnos, (1..12).collect::<Vec<_>>(), "in their order");
    assert_eq!(*lock(&rig.writes), [(0, 1), (8, 10)]);
}

#[test]
fn the_loop_is_woken_and_strands_end() {
    let mut rig = Rig::new();
    let session = SessionId(STUCK);
    rig.write(session.0, 0);
    rig.writers.submit(rig.now);
    let mut events = Events::with_capacity(4);
    rig._poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
    assert_eq!(events.iter().count(), 1);
    assert_eq!(rig.written(1), [1]);
    // Without files there is nothing to wait for.
    let release = Action::Release { session: SessionId(7777) };
    assert!(matches!(rig.writers.stage(release), Some(Action::Release { .. })));
    rig.writers.known.insert(session);
    assert!(rig.writers.stage(Action::Release { session }).is_none());
    rig.writers.submit(rig.now);
    for _ in 0..4000 {
        if rig.writers.shared.lock().strands.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the session's strand is still there");
}
