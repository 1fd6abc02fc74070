//! The loop's seat: one thread runs the loop; while it waits for a disk, another can.
//!
//! Whoever runs the loop leaves it here before it does what may take long, and
//! takes it back afterwards. If it does not come back in time, whoever watches
//! gives the loop to another thread. In the usual case, a disk that is quick,
//! no thread is woken.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two looks: what is left at two looks in a row is given to another.
/// Others wait so long, once, for a disk that stops. On a machine that is short
/// of processors a thread may be away for some milliseconds without any disk.
const LOOK: Duration = Duration::from_millis(20);

/// Looks without anything new after which none is taken until something is left again.
const IDLE_LOOKS: u32 = 50;

/// A place for `T`, the loop.
#[derive(Debug)]
pub(super) struct Seat<T, R> {
    state: Mutex<State<T, R>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T, R> {
    left: Option<T>,
    /// Counts how often it was left.
    turn: u64,
    is_watched: bool,
    result: Option<R>,
}

/// What there is for whoever watches.
#[derive(Debug)]
pub(super) enum Seen<T, R> {
    /// The loop is over.
    Over(R),
    /// Whoever left it does not come back.
    Overdue(T),
}

impl<T, R> Seat<T, R> {
    pub(super) fn new() -> Self {
        let state = State { left: None, turn: 0, is_watched: true, result: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Leaves it; returns what it is to be taken back by.
    pub(super) fn leave(&self, it: T) -> u64 {
        let mut state = self.lock();
        state.turn += 1;
        state.left = Some(it);
        let turn = state.turn;
        if !std::mem::replace(&mut state.is_watched, true) {
            drop(state);
            self.changed.notify_one();
        }
        turn
    }

    /// Takes it back; `None` if another has it.
    pub(super) fn take_back(&self, turn: u64) -> Option<T> {
        let mut state = self.lock();
        if state.turn == turn { state.left.take() } else { None }
    }

    /// It is over: [`Self::watch`] returns.
    pub(super) fn end(&self, result: R) {
        self.lock().result = Some(result);
        self.changed.notify_one();
    }

    /// Waits until there is something to do.
    pub(super) fn watch(&self) -> Seen<T, R> {
        let (mut seen, mut idle_looks) = (None, 0);
        let mut state = self.lock();
        loop {
            if let Some(result) = state.result.take() {
                return Seen::Over(result);
            }
            let is_as_before = seen == Some(state.turn);
            if is_as_before && let Some(it) = state.left.take() {
                return Seen::Overdue(it);
            }
            idle_looks = if is_as_before { idle_looks + 1 } else { 0 };
            seen = Some(state.turn);
            state = if idle_looks < IDLE_LOOKS {
                let (state, _) =
                    self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
                state
            } else {
                idle_looks = 0;
                state.is_watched = false;
                let is_idle = |state: &mut State<T, R>| !state.is_watched && state.result.is_none();
                self.changed.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_is_left_for_long_is_another_ones() {
        let seat = Seat::<_, ()>::new();
        let turn = seat.leave("the loop");
        let Seen::Overdue(it) = seat.watch() else { panic!("it is not over") };
        assert_eq!((it, seat.take_back(turn)), ("the loop", None));
        // Left again by the other: still not the first one's.
        let next = seat.leave(it);
        assert_eq!((seat.take_back(turn), seat.take_back(next)), (None, Some("the loop")));
    }

    #[test]
    fn it_is_watched_again_after_a_long_silence() {
        let seat = Arc::new(Seat::new());
        let watched = Arc::clone(&seat);
        let watch = std::thread::spawn(move || {
            let Seen::Overdue(it) = watched.watch() else { panic!("it is not over") };
            (it, watched.watch())
        });
        for _ in 0..4000 {
            if !seat.lock().is_watched {
                seat.leave(7);
                while seat.lock().left.is_some() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                seat.end("over");
                let (it, Seen::Over("over")) = watch.join().unwrap() else { panic!("not over") };
                return assert_eq!(it, 7);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not rest");
    }
}
