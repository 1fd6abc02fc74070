//! From an armed configuration to an [`Outcome`]: the only loop in the project.
//!
//! [`Dump::poll`] does bounded work and never waits; [`Armed::dump`] is a short
//! loop over it, for each target in turn.

mod attempt;
mod ending;

use crate::client::Client;
use crate::config::{Config, Target};
use crate::count::add_to;
use crate::dump::{DumpInfo, DumpSource, Dumper, Failure, FailureKind, Outcome, Transform};
use crate::nic::{Capabilities, Nic};
use crate::observer::Observer;
use crate::pool::PacketPool;
use crate::progress::{Progress, Stage};
use crate::session::Slot;
use crate::time::{Clock, Instant};
use crate::transmit::Transmitter;

/// What a step works with besides the NIC: all of it the platform's.
pub struct Io<'a> {
    /// Time.
    pub clock: &'a mut dyn Clock,
    /// The image.
    pub source: &'a mut dyn DumpSource,
    /// A pass between image and wire, if any.
    pub transform: Option<&'a mut dyn Transform>,
    /// Facts for the kernel dump header.
    pub info: &'a DumpInfo<'a>,
    /// Who is told.
    pub observer: &'a mut dyn Observer,
    /// Where it is recorded for a fault inside the dump to find.
    pub progress: &'a Progress,
}

/// Checked configuration and memory, waiting for the crash. Made by [`arm`](crate::arm).
#[derive(Debug)]
pub struct Armed<'m> {
    config: Config,
    slots: &'m mut [Slot],
    index: &'m mut [u16],
    rx: &'m mut [u8],
    pool: PacketPool<'m>,
    /// When the first target was begun; the deadline counts from here.
    started: Option<Instant>,
    time: SteadyTime,
    /// A NIC may hold cells: it was given some and has not been stopped since.
    in_use: bool,
    /// What an attempt works with, here because a small machine's stack is small.
    desk: Desk,
}

/// The larger part of an attempt's state.
#[derive(Debug)]
struct Desk {
    dumper: Dumper,
    transmitter: Transmitter,
    /// What it came to, once it is over, and of those before the one that got furthest.
    outcomes: [Outcome; 2],
    /// Which of the two that is.
    best: Which,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Which {
    First,
    Second,
}

impl Desk {
    /// For a new attempt. Not inlined: what it makes must not stay on the stack of the attempt.
    #[inline(never)]
    fn clear(&mut self) {
        self.dumper = Dumper::new();
        self.transmitter = Transmitter::new();
    }

    /// The best outcome so far, and the last.
    fn best_and_last(&mut self) -> (&mut Outcome, &mut Outcome) {
        let [first, second] = &mut self.outcomes;
        if self.best == Which::First { (first, second) } else { (second, first) }
    }
}

/// Time that never goes back, whatever the platform's clock does.
#[derive(Clone, Copy, Debug, Default)]
struct SteadyTime {
    last: Instant,
    behind_us: u64,
}

impl SteadyTime {
    fn now(&mut self, clock: &mut dyn Clock) -> Instant {
        let raw = clock.now();
        add_to(&mut self.behind_us, self.last.since_us(raw));
        self.last = raw;
        self.steady(raw)
    }

    /// An instant of the platform's clock in ours.
    fn steady(&self, raw: Instant) -> Instant {
        raw.after(self.behind_us)
    }
}

/// What [`Dump::poll`] came to.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "made once a dump, and there is no heap")]
pub enum Step {
    /// Call again: at `until` at the latest, sooner if a frame may have arrived.
    Again {
        /// When there is certainly something to do; not later than now if there is already.
        until: Instant,
    },
    /// It is over and the NIC is quiet, or said that it is not.
    Done(Outcome),
}

impl<'m> Armed<'m> {
    pub(crate) fn new(
        config: Config,
        slots: &'m mut [Slot],
        index: &'m mut [u16],
        rx: &'m mut [u8],
        pool: PacketPool<'m>,
    ) -> Self {
        Self {
            config,
            slots,
            index,
            rx,
            pool,
            started: None,
            time: SteadyTime::default(),
            in_use: false,
            desk: Desk {
                dumper: Dumper::new(),
                transmitter: Transmitter::new(),
                outcomes: [Outcome::new(), Outcome::new()],
                best: Which::Second,
            },
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Begins a dump to the target of this index, for callers with a loop of their own.
    ///
    /// Poll it to [`Step::Done`]. If it is dropped before, its NIC is still
    /// running, and the cells it was given are never used again.
    pub fn begin(&mut self, target: usize) -> Dump<'_, 'm> {
        if self.in_use {
            self.pool.abandon();
            self.in_use = false;
        } else {
            self.pool.reset();
        }
        self.desk.clear();
        let Desk { dumper, transmitter, outcomes: [first, second], best } = &mut self.desk;
        let outcome = if *best == Which::First { second } else { first };
        Dump {
            config: &self.config,
            index: target,
            target: self.config.targets.get(target).copied(),
            window: Some((self.slots, self.index)),
            rx: self.rx,
            pool: &mut self.pool,
            started: &mut self.started,
            time: &mut self.time,
            in_use: &mut self.in_use,
            polled_at: Instant::ZERO,
            begun: None,
            phase: Phase::Survey,
            client: None,
            dumper,
            transmitter,
            outcome,
            stage: Stage::Idle,
            heard_at: Instant::ZERO,
            first_data: None,
            last_data: Instant::ZERO,
            failure: None,
            reported: 0,
            nonce: 0,
            over: false,
        }
    }

    /// Dumps to the first target that takes the image; `nics` are those the targets' indices name.
    ///
    /// Returns what became of it: of the target that has the image, else of
    /// the one that got furthest. Ends before `Config::deadline_us` at the
    /// latest, provided that the clock moves.
    pub fn dump(&mut self, nics: &mut [&mut dyn Nic], io: &mut Io<'_>) -> Outcome {
        self.dump_in_place(nics, io).clone()
    }

    /// The same without a copy of the outcome, for a small stack: an [`Outcome`] has some 600 bytes.
    pub fn dump_in_place(&mut self, nics: &mut [&mut dyn Nic], io: &mut Io<'_>) -> &Outcome {
        let mut tried = 0;
        // `arm` saw to it that there is a target.
        for index in 0..self.config.targets.len().max(1) {
            let nic = self.config.targets.get(index).map_or(usize::MAX, |target| target.nic);
            let mut dump = self.begin(index);
            match nics.get_mut(nic) {
                Some(nic) => dump.run(*nic, io),
                None => dump.without_nic(nic, io),
            }
            tried = index.saturating_add(1);
            let (best, last) = self.desk.best_and_last();
            let far = |outcome: &Outcome| (outcome.acked_bytes, outcome.stage);
            let complete = last.is_complete();
            if tried == 1 || complete || far(best) <= far(last) {
                self.desk.best = match self.desk.best {
                    Which::First => Which::Second,
                    Which::Second => Which::First,
                };
            }
            let now = self.time.now(io.clock);
            let deadline_us = self.config.deadline_us;
            let over = self.started.is_some_and(|started| now >= started.after(deadline_us));
            if over || complete {
                break;
            }
        }
        let (best, _) = self.desk.best_and_last();
        best.targets_tried = tried;
        best
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Survey,
    TakeOver { since: Instant },
    Link { since: Instant },
    Run { caps: Capabilities },
    Over,
}

/// One attempt to dump to one target.
#[derive(Debug)]
pub struct Dump<'a, 'm> {
    config: &'a Config,
    index: usize,
    target: Option<Target>,
    /// Moves into the session once the NIC is known.
    window: Option<(&'a mut [Slot], &'a mut [u16])>,
    rx: &'a mut [u8],
    pool: &'a mut PacketPool<'m>,
    started: &'a mut Option<Instant>,
    time: &'a mut SteadyTime,
    in_use: &'a mut bool,
    polled_at: Instant,
    begun: Option<Instant>,
    phase: Phase,
    client: Option<Client<'a>>,
    dumper: &'a mut Dumper,
    transmitter: &'a mut Transmitter,
    /// What it came to, if it is over.
    outcome: &'a mut Outcome,
    stage: Stage,
    /// Last sign of life of the path.
    heard_at: Instant,
    first_data: Option<Instant>,
    last_data: Instant,
    failure: Option<Failure>,
    /// 64ths of the image reported.
    reported: u64,
    nonce: u16,
    over: bool,
}

/// Steps without a wait before one is made all the same.
const BUSY_MAX: u32 = 16;
/// Waits in a row that the clock does not notice before it counts as stopped.
const STILL_MAX: u32 = 5_000_000;

impl Dump<'_, '_> {
    /// Runs to the end, waiting through the clock.
    fn run(&mut self, nic: &mut dyn Nic, io: &mut Io<'_>) {
        let (mut busy, mut still) = (0u32, 0u32);
        loop {
            let Some(until) = self.advance(nic, io) else { return };
            let now = self.time.now(io.clock);
            // On a clock of counted delays time passes in `relax` alone, so a
            // busy wire must not keep it from being called.
            busy = if until > now { BUSY_MAX } else { busy.saturating_add(1) };
            if busy < BUSY_MAX {
                continue;
            }
            busy = 0;
            io.observer.alive(now);
            io.clock.relax();
            still = if self.time.now(io.clock) > now { 0 } else { still.saturating_add(1) };
            if still >= STILL_MAX {
                return self.give_up(now, FailureKind::ClockStopped, nic, io);
            }
        }
    }
}
