//! The threads, and what they work at.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use debugnet_core::time::Instant;
use mio::Waker;

use super::{Batch, FEW, IDLE, MAX_ON_DEVICE, MAX_THREADS, PATIENCE_US};
use crate::core::{Action, SessionId};
use crate::store::{Store, carry_out};

pub(super) struct Shared<S> {
    state: Mutex<State<S>>,
    work: Condvar,
    done: Mutex<Vec<Batch>>,
    /// Whether the loop has been told that there is something in `done`.
    told: AtomicBool,
    waker: Arc<Waker>,
}

pub(super) struct State<S> {
    pub(super) strands: HashMap<SessionId, Strand<S>>,
    /// Sessions with work and no thread, and since when.
    pub(super) runnable: VecDeque<(SessionId, Instant)>,
    on_device: HashMap<Option<u64>, usize>,
    threads: usize,
    idle: usize,
    is_over: bool,
    /// The loop's time when it last looked.
    pub(super) now: Instant,
}

/// A session's actions, in their order.
pub(super) struct Strand<S> {
    pub(super) actions: VecDeque<Action>,
    pub(super) device: Option<u64>,
    /// With a [`Task`] while there is one.
    store: Option<S>,
}

/// A [`Task`] of the loop's own.
pub(in crate::net) struct Job<S> {
    pub(super) task: Task<S>,
    shared: Arc<Shared<S>>,
}

/// A session's actions with the means to carry them out; nobody else has them meanwhile.
pub(super) struct Task<S> {
    session: SessionId,
    device: Option<u64>,
    store: S,
    actions: VecDeque<Action>,
    /// Nothing comes after these.
    is_last: bool,
}

impl<S> Strand<S> {
    pub(super) fn new(store: S) -> Self {
        Self { actions: VecDeque::new(), device: None, store: Some(store) }
    }

    /// Whether somebody is at it, or will be.
    pub(super) fn has_work(&self) -> bool {
        self.store.is_none() || !self.actions.is_empty()
    }
}

impl<S: Store> Task<S> {
    /// May wait for a disk as long as that likes.
    fn carry_out(&mut self) -> Batch {
        let moves = self.actions.iter().any(|action| !matches!(action, Action::Write { .. }));
        let mut done = Vec::new();
        carry_out(&mut self.store, &mut self.actions, &mut done);
        let paths = moves.then(|| self.store.paths(self.session)).flatten();
        Batch { session: self.session, done, paths }
    }
}

impl<S: Store + Send + 'static> Job<S> {
    /// The file system it is on.
    pub(in crate::net) fn device(&self) -> Option<u64> {
        self.task.device
    }

    /// May wait for a disk as long as that likes.
    pub(in crate::net) fn carry_out(&mut self) -> Batch {
        self.task.carry_out()
    }

    /// It was carried out, and the loop has gone on without it.
    pub(in crate::net) fn end_late(self, batch: Batch) {
        let Self { task, shared } = self;
        shared.hand_over(batch);
        let mut state = shared.lock();
        state.end(task);
        shared.call_threads(state);
    }
}

impl<S> Shared<S> {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let state = State {
            strands: HashMap::new(),
            runnable: VecDeque::new(),
            on_device: HashMap::new(),
            threads: 0,
            idle: 0,
            is_over: false,
            now: Instant::ZERO,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Mutex::default(),
            told: AtomicBool::new(false),
            waker,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<S>> {
        lock(&self.state)
    }

    pub(super) fn take_done(&self) -> Vec<Batch> {
        // Told anew from here on: what comes in between is found by this call or the next.
        if !self.told.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&self.done))
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.lock().strands.values().any(Strand::has_work) && lock(&self.done).is_empty()
    }

    pub(super) fn close(&self) {
        self.lock().is_over = true;
        self.work.notify_all();
    }

    pub(super) fn job(self: &Arc<Self>, task: Task<S>) -> Job<S> {
        Job { task, shared: Arc::clone(self) }
    }

    fn hand_over(&self, batch: Batch) {
        lock(&self.done).push(batch);
        if !self.told.swap(true, Ordering::AcqRel) {
            // The loop looks at its next turn if it cannot be woken.
            let _ = self.waker.wake();
        }
    }
}

impl<S: Store + Send + 'static> Shared<S> {
    /// Sees to it that somebody takes what is runnable.
    pub(super) fn call_threads(self: &Arc<Self>, mut state: MutexGuard<'_, State<S>>) {
        while state.threads < FEW && state.threads < state.runnable.len() {
            if !self.spawn(&mut state) {
                break;
            }
        }
        let called = state.runnable.len().min(state.idle);
        drop(state);
        for _ in 0..called {
            self.work.notify_one();
        }
    }

    pub(super) fn spawn(self: &Arc<Self>, state: &mut State<S>) -> bool {
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
        let mut state = self.lock();
        loop {
            let Some(session) = state.next() else {
                if state.is_over {
                    break;
                }
                state.idle += 1;
                let waited = self.work.wait_timeout(state, IDLE);
                let (again, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                state = again;
                state.idle -= 1;
                if timeout.timed_out() && state.threads > FEW && state.position().is_none() {
                    break;
                }
                continue;
            };
            let Some(mut task) = state.begin(session) else { continue };
            drop(state);
            let batch = task.carry_out();
            self.hand_over(batch);
            state = self.lock();
            state.end(task);
        }
        state.threads -= 1;
    }
}

impl<S> State<S> {
    fn next(&mut self) -> Option<SessionId> {
        let (session, _) = self.runnable.remove(self.position()?)?;
        Some(session)
    }

    /// When the first that could be worked at has waited long enough for another thread.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
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

    /// What there is to do for a session.
    pub(super) fn begin(&mut self, session: SessionId) -> Option<Task<S>> {
        let strand = self.strands.get_mut(&session)?;
        let store = strand.store.take()?;
        let actions = std::mem::take(&mut strand.actions);
        let device = strand.device;
        *self.on_device.entry(device).or_default() += 1;
        let is_last = matches!(actions.back(), Some(Action::Release { .. }));
        Some(Task { session, device, store, actions, is_last })
    }

    /// One that was not begun is somebody else's.
    pub(super) fn put_back(&mut self, mut task: Task<S>) {
        self.leave(task.device);
        if let Some(strand) = self.strands.get_mut(&task.session) {
            task.actions.append(&mut strand.actions);
            (strand.actions, strand.store) = (task.actions, Some(task.store));
            self.runnable.push_back((task.session, self.now));
        }
    }

    fn leave(&mut self, device: Option<u64>) {
        if let Some(count) = self.on_device.get_mut(&device) {
            *count -= 1;
        }
    }
}

impl<S: Store> State<S> {
    /// It was carried out.
    pub(super) fn end(&mut self, task: Task<S>) {
        let Task { session, device, store, is_last, .. } = task;
        self.leave(device);
        if is_last {
            self.strands.remove(&session);
        } else if let Some(strand) = self.strands.get_mut(&session) {
            strand.device = store.device(session).or(strand.device);
            strand.store = Some(store);
            if !strand.actions.is_empty() {
                self.runnable.push_back((session, self.now));
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
