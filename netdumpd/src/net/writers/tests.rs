use std::net::SocketAddr;

use bytes::Bytes;
use mio::{Events, Poll, Token};

use super::*;
use crate::core::{DumpFile, DumpHeader, Fault, Herald, HeraldPath, Identity, Record};

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
        payloads: &[Bytes],
        _: &[u32],
    ) -> Result<(), Fault> {
        lock(&self.writes).push((offset, payloads.len()));
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
        let writers = Writers::new(waker, spare);
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
        let left = self.writers.stage(Action::Write { session, seqno, file, offset, payload });
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
