//! Threads that write: what waits for a disk waits here, not in the loop.
//!
//! Each session's actions are carried out in their order by one thread at a
//! time. While a thread is at them more may gather: a slow disk gets larger
//! writes, not more of them. A thread that does not come back gets company,
//! so that one slow disk holds up its own sessions only; no file system gets
//! all the threads there can be.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use debugnet_core::time::Instant;
use mio::Waker;

use crate::core::{Action, SessionId};
use crate::store::{Done, DumpPaths, Store, carry_out};

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
    spare: Box<dyn Fn() -> S + Send>,
}

struct Shared<S> {
    state: Mutex<State<S>>,
    work: Condvar,
    done: Mutex<Vec<Batch>>,
    /// Whether the loop has been told that there is something in `done`.
    told: AtomicBool,
    waker: Arc<Waker>,
}

struct State<S> {
    strands: HashMap<SessionId, Strand<S>>,
    /// Sessions with work and no thread, and since when.
    runnable: VecDeque<(SessionId, Instant)>,
    on_device: HashMap<Option<u64>, usize>,
    threads: usize,
    idle: usize,
    is_over: bool,
    /// The loop's time when it last looked.
    now: Instant,
}

/// A session's actions, in their order.
struct Strand<S> {
    actions: VecDeque<Action>,
    device: Option<u64>,
    /// With a thread while that works.
    store: Option<S>,
}

impl<S: Store + Send + 'static> Writers<S> {
    /// No threads yet; `spare` makes a store for each session.
    pub(super) fn new(waker: Arc<Waker>, spare: impl Fn() -> S + Send + 'static) -> Self {
        let state = State {
            strands: HashMap::new(),
            runnable: VecDeque::new(),
            on_device: HashMap::new(),
            threads: 0,
            idle: 0,
            is_over: false,
            now: Instant::ZERO,
        };
        let shared = Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Mutex::default(),
            told: AtomicBool::new(false),
            waker,
        };
        let (known, staged) = Default::default();
        Self { shared: Arc::new(shared), known, staged, spare: Box::new(spare) }
    }

    /// The name a session's files are to have; before its files are opened.
    pub(super) fn set_host(&mut self, session: SessionId, host: &str) {
        let mut store = (self.spare)();
        store.set_host(session, host);
        self.known.insert(session);
        let strand = Strand { actions: VecDeque::new(), device: None, store: Some(store) };
        self.shared.lock().strands.insert(session, strand);
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

    /// Has the threads begin with what was staged.
    pub(super) fn submit(&mut self, now: Instant) {
        if self.staged.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        let before = state.runnable.len();
        for (session, mut actions) in self.staged.drain() {
            let strand = state.strands.entry(session).or_insert_with(|| Strand {
                actions: VecDeque::new(),
                device: None,
                store: Some((self.spare)()),
            });
            let is_waiting = !strand.actions.is_empty() || strand.store.is_none();
            strand.actions.append(&mut actions);
            if !is_waiting {
                state.runnable.push_back((session, now));
            }
        }
        state.now = now;
        let new = state.runnable.len() - before;
        let idle = state.idle;
        while state.threads < FEW && state.threads < state.runnable.len() {
            if !self.shared.spawn(&mut state) {
                break;
            }
        }
        drop(state);
        for _ in 0..new.min(idle) {
            self.shared.work.notify_one();
        }
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

    /// What was done since the last call.
    pub(super) fn take_done(&self) -> Vec<Batch> {
        // Told anew from here on: what comes in between is found by this call or the next.
        if !self.shared.told.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&self.shared.done))
    }

    /// Whether everything is done and fetched.
    pub(super) fn is_idle(&self) -> bool {
        let at_work = |strand: &Strand<S>| strand.store.is_none() || !strand.actions.is_empty();
        self.staged.is_empty()
            && !self.shared.lock().strands.values().any(at_work)
            && lock(&self.shared.done).is_empty()
    }
}

impl<S> Drop for Writers<S> {
    /// Lets the threads end; does not wait for one that a disk holds up.
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.work.notify_all();
    }
}

impl<S> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        lock(&self.state)
    }
}

impl<S: Store + Send + 'static> Shared<S> {
    fn spawn(self: &Arc<Self>, state: &mut State<S>) -> bool {
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name("writer".into());
        match thread.spawn(move || shared.work()) {
            Ok(_) => {
                state.threads += 1;
                true
            }
            Err(error) => {
                tracing::error!("no thread to write: {error}");
                false
            }
        }
    }

    fn work(&self) {
        let mut done = Vec::new();
        let mut state = self.lock();
        loop {
            let Some((session, device)) = state.next() else {
                if state.is_over {
                    break;
                }
                state.idle += 1;
                let waited = self.work.wait_timeout(state, IDLE);
                let (again, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                state = again;
                state.idle -= 1;
                if timeout.timed_out() && state.threads > FEW && !state.has_work() {
                    break;
                }
                continue;
            };
            let Some(strand) = state.strands.get_mut(&session) else { continue };
            let Some(mut store) = strand.store.take() else { continue };
            let mut actions = std::mem::take(&mut strand.actions);
            *state.on_device.entry(device).or_default() += 1;
            drop(state);

            let is_last = matches!(actions.back(), Some(Action::Release { .. }));
            let moves = actions.iter().any(|action| !matches!(action, Action::Write { .. }));
            carry_out(&mut store, &mut actions, &mut done);
            let paths = moves.then(|| store.paths(session)).flatten();
            let now_on = store.device(session);
            self.hand_over(Batch { session, done: std::mem::take(&mut done), paths });

            state = self.lock();
            if let Some(count) = state.on_device.get_mut(&device) {
                *count -= 1;
            }
            if is_last {
                state.strands.remove(&session);
            } else if let Some(strand) = state.strands.get_mut(&session) {
                strand.device = now_on.or(strand.device);
                strand.store = Some(store);
                if !strand.actions.is_empty() {
                    let since = state.now;
                    state.runnable.push_back((session, since));
                }
            }
        }
        state.threads -= 1;
    }

    fn hand_over(&self, batch: Batch) {
        lock(&self.done).push(batch);
        if !self.told.swap(true, Ordering::AcqRel) {
            // The loop looks at its next turn if it cannot be woken.
            let _ = self.waker.wake();
        }
    }
}

impl<S> State<S> {
    fn has_work(&self) -> bool {
        self.position().is_some()
    }

    fn next(&mut self) -> Option<(SessionId, Option<u64>)> {
        let (session, _) = self.runnable.remove(self.position()?)?;
        Some((session, self.strands.get(&session).and_then(|strand| strand.device)))
    }

    /// When the first that could be worked at has waited long enough for another thread.
    fn overdue_at(&self) -> Option<Instant> {
        if self.idle > 0 || self.threads >= MAX_THREADS {
            return None;
        }
        let (_, since) = self.runnable.get(self.position()?)?;
        Some(since.after(PATIENCE_US))
    }

    /// The first session whose file system has not too many threads already.
    fn position(&self) -> Option<usize> {
        self.runnable.iter().position(|(session, _)| {
            let device = self.strands.get(session).and_then(|strand| strand.device);
            self.on_device.get(&device).is_none_or(|count| *count < MAX_ON_DEVICE)
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
