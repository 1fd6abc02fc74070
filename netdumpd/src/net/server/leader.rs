//! Which thread runs the loop.
//!
//! One does, and carries out the writers' own jobs between turns, out of the
//! seat. The thread that called [`Server::run`] watches: if such a job does not
//! come back within some milliseconds, it has another thread run the loop from
//! there on. The first one ends when its disk lets go of it.

use std::io;
use std::sync::Arc;

use super::Server;
use crate::core::Verdict;
use crate::net::event::Observer;
use crate::net::seat::{Seat, Seen};

type Ending = io::Result<Option<Verdict>>;

/// The loop and whoever watches it.
struct Leader {
    server: Server,
    observer: Box<dyn Observer + Send>,
    /// The file system of the job it is at.
    at_work_on: Option<u64>,
}

impl Server {
    /// Serves until it is stopped, or with `once` until the first dump is over.
    /// Returns how the first dump ended.
    ///
    /// # Errors
    /// If the system can no longer wait for sockets, or gives no thread.
    pub fn run(self, observer: Box<dyn Observer + Send>) -> Ending {
        let seat = Arc::new(Seat::new());
        let mut leader = Leader { server: self, observer, at_work_on: None };
        leader.server.begin(&mut *leader.observer);
        let mut next = Box::new(leader);
        loop {
            // Left in the seat: if there is no thread, it is not lost with it.
            let turn = seat.leave(next);
            let thread = std::thread::Builder::new().name("loop".into());
            let theirs = Arc::clone(&seat);
            let started = thread.spawn(move || {
                let _guard = Guard(&theirs);
                if let Some(leader) = theirs.take_back(turn) {
                    lead(&theirs, leader);
                }
            });
            if let Err(error) = started {
                let Some(leader) = seat.take_back(turn) else { return Err(error) };
                tracing::warn!("no thread for the loop: {error}");
                lead(&seat, leader);
            }
            match seat.watch() {
                Seen::Over(result) => return result,
                Seen::Overdue(leader) => next = leader,
            }
            let Leader { server, at_work_on, .. } = &mut *next;
            tracing::debug!("a write does not come back; the loop goes on without it");
            server.writers.own_is_stuck(at_work_on.take(), server.clock.now());
        }
    }
}

/// Runs the loop until it is over, or another has it.
fn lead(seat: &Seat<Box<Leader>, Ending>, mut leader: Box<Leader>) {
    loop {
        let Leader { server, observer, .. } = &mut *leader;
        match server.turn(&mut **observer) {
            Ok(true) => {}
            Ok(false) => {
                let verdict = server.end(&mut **observer);
                return seat.end(Ok(verdict));
            }
            Err(error) => return seat.end(Err(error)),
        }
        let mut has_written = false;
        while let Some(mut job) = leader.server.writers.next_own() {
            let began = leader.server.clock.now();
            leader.at_work_on = job.device();
            let turn = seat.leave(leader);
            let batch = job.carry_out();
            leader = match seat.take_back(turn) {
                Some(leader) => leader,
                None => return job.end_late(batch),
            };
            let Leader { server, observer, .. } = &mut *leader;
            server.has_written(job, batch, began, &mut **observer);
            has_written = true;
        }
        if has_written {
            let Leader { server, observer, .. } = &mut *leader;
            server.settle(&mut **observer);
        }
    }
}

/// A loop that panics is over: nobody is to wait for it.
struct Guard<'a>(&'a Seat<Box<Leader>, Ending>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(Err(io::Error::other("the loop has panicked")));
        }
    }
}
