//! Who writes: what waits for a disk waits in threads of its own, not in the loop.
//!
//! Each session's actions are carried out in their order by one thread at a
//! time. While a thread is at them more may gather: a slow disk gets larger
//! writes, not more of them. A thread that does not come back gets company,
//! so that one slow disk holds up its own sessions only; no file system gets
//! all the threads there can be.
//!
//! A write to a disk that has been quick costs less than handing it to a thread
//! and being woken by it. Such writes are the loop's own ([`Writers::next_own`]):
//! it carries them out itself, after it has left its seat to whoever takes over
//! should the disk stand still this time ([`seat`](super::seat)). A disk that
//! was slow is left to the threads for a while.

mod pool;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use debugnet_core::time::Instant;
use mio::Waker;

pub(super) use pool::Job;
use pool::{Shared, Strand};

use crate::core::{Action, SessionId};
use crate::store::{Done, DumpPaths, Store};

/// Threads that are there as soon as there is work for them.
const FEW: usize = 2;

/// Threads at most.
const MAX_THREADS: usize = 64;

/// Threads at most for one file system, and for files that are being opened.
const MAX_ON_DEVICE: usize = 48;

/// How long work waits for busy threads before there is another one.
const PATIENCE_US: u64 = 5_000;

/// An idle thread beyond the first few ends after this.
const IDLE: Duration = Duration::from_secs(10);

/// Work of the loop's own that took longer was on a slow disk.
const SLOW_US: u64 = 4_000;

/// How long a disk that was slow counts as slow: the first time, and at most.
/// Each time that it was slow again the span is twice as long.
const SLOW_FOR_US: std::ops::RangeInclusive<u64> = 250_000..=30_000_000;

/// What came of a session's actions.
pub(super) struct Batch {
    pub(super) session: SessionId,
    pub(super) done: Vec<Done>,
    /// Where its files are, if that may have changed.
    pub(super) paths: Option<DumpPaths>,
}

/// The loop's end of it.
pub(super) struct Writers<S> {
    shared: Arc<Shared<S>>,
    /// Sessions that have files, or will have.
    known: HashSet<SessionId>,
    staged: foldhash::HashMap<SessionId, VecDeque<Action>>,
    /// What the loop is to carry out itself.
    own: VecDeque<Job<S>>,
    has_own: bool,
    slow: HashMap<u64, Slow>,
    spare: Box<dyn Fn() -> S + Send>,
}

/// A disk that was slow.
struct Slow {
    until: Instant,
    span_us: u64,
}

impl<S: Store + Send + 'static> Writers<S> {
    /// No threads yet; `spare` makes a store for each session.
    pub(super) fn new(waker: Arc<Waker>, spare: impl Fn() -> S + Send + 'static) -> Self {
        let (known, staged, own, slow) = Default::default();
        let (shared, spare) = (Arc::new(Shared::new(waker)), Box::new(spare));
        Self { shared, known, staged, own, has_own: true, slow, spare }
    }

    /// The name a session's files are to have; before its files are opened.
    pub(super) fn set_host(&mut self, session: SessionId, host: &str) {
        let mut store = (self.spare)();
        store.set_host(session, host);
        self.known.insert(session);
        self.shared.lock().strands.insert(session, Strand::new(store));
    }

    /// Takes what is to be done in order with the session's files, to be begun
    /// by [`Self::submit`]. Gives back what has nothing to do with files.
    pub(super) fn stage(&mut self, action: Action) -> Option<Action> {
        let session = match &action {
            Action::Open { session, .. } => {
                self.known.insert(*session);
                *session
            }
            Action::Write { session, .. }
            | Action::RecordHeader { session, .. }
            | Action::Finish { session, .. }
            | Action::Close { session, .. }
            | Action::Digest { session }
            | Action::Handle { session, .. } => *session,
            Action::Release { session } if self.known.remove(session) => *session,
            _ => return Some(action),
        };
        self.staged.entry(session).or_default().push_back(action);
        None
    }

    /// Has the threads begin with what was staged, but for what is the loop's own.
    pub(super) fn submit(&mut self, now: Instant) {
        if self.staged.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        for (session, mut actions) in self.staged.drain() {
            let new = || Strand::new((self.spare)());
            let strand = state.strands.entry(session).or_insert_with(new);
            let is_waiting = strand.has_work();
            strand.actions.append(&mut actions);
            if is_waiting {
                continue;
            }
            let is_quick = self.has_own
                && strand
                    .device
                    .is_some_and(|on| self.slow.get(&on).is_none_or(|it| it.until <= now))
                && strand.actions.iter().all(|action| matches!(action, Action::Write { .. }));
            if is_quick {
                self.own.extend(state.begin(session).map(|task| self.shared.job(task)));
            } else {
                state.runnable.push_back((session, now));
            }
        }
        state.now = now;
        self.shared.call_threads(state);
    }

    /// The next of what the loop is to carry out itself, since the last [`Self::submit`].
    pub(super) fn next_own(&mut self) -> Option<Job<S>> {
        self.own.pop_front()
    }

    /// The loop has carried out a job of its own.
    pub(super) fn end_own(&mut self, job: Job<S>, began: Instant, now: Instant) {
        if let Some(device) = job.device() {
            if now.since_us(began) > SLOW_US {
                self.was_slow(device, now);
            } else {
                self.slow.remove(&device);
            }
        }
        let mut state = self.shared.lock();
        state.end(job.task);
        self.shared.call_threads(state);
    }

    /// A job of the loop's own does not come back. What else it had is the threads' now.
    pub(super) fn own_is_stuck(&mut self, device: Option<u64>, now: Instant) {
        if let Some(device) = device {
            self.was_slow(device, now);
        }
        let mut state = self.shared.lock();
        for job in self.own.drain(..) {
            state.put_back(job.task);
        }
        self.shared.call_threads(state);
    }

    /// The loop does nothing itself any more.
    pub(super) fn have_no_own(&mut self) {
        self.has_own = false;
    }

    fn was_slow(&mut self, device: u64, now: Instant) {
        let (first_us, most_us) = SLOW_FOR_US.into_inner();
        let before = self.slow.get(&device);
        let span_us = before.map_or(first_us, |slow| (slow.span_us * 2).min(most_us));
        self.slow.insert(device, Slow { until: now.after(span_us), span_us });
    }

    /// When [`Self::relieve`] is to be called, if nothing else happens before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.shared.lock().overdue_at()
    }

    /// Starts another thread if work has waited too long for the others.
    pub(super) fn relieve(&self, now: Instant) {
        let mut state = self.shared.lock();
        state.now = now;
        if state.overdue_at().is_some_and(|at| at <= now) {
            self.shared.spawn(&mut state);
        }
    }

    /// What the threads have done since the last call.
    pub(super) fn take_done(&self) -> Vec<Batch> {
        self.shared.take_done()
    }

    /// Whether everything is done and fetched.
    pub(super) fn is_idle(&self) -> bool {
        self.staged.is_empty() && self.shared.is_idle()
    }
}

impl<S> Drop for Writers<S> {
    /// Lets the threads end; does not wait for one that a disk holds up.
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[cfg(test)]
mod tests;
