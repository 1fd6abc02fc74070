//! From an armed configuration to an [`Outcome`]: the only loop in the project.
//!
//! [`Dump::poll`] does bounded work and never waits; [`Armed::dump`] is a short
//! loop over it, for each target in turn.

use crate::client::{Client, Event as Heard};
use crate::config::{Config, Target};
use crate::dump::{
    DumpInfo, DumpSource, Dumper, Failure, FailureKind, Fill, Gap, Gaps, Outcome, Reason, Room,
    Step as DumpStep, Transform, Verdict,
};
use crate::nic::{
    Capabilities, ChecksumOffload, Link, Nic, NicError, PayloadKind, RxError, Start, TxTicket,
};
use crate::observer::{Event, Observer};
use crate::peer::Endpoints;
use crate::pool::PacketPool;
use crate::progress::{Progress, Stage};
use crate::session::{Heard as SessionHeard, Session, Slot, Stored};
use crate::time::{Clock, Instant};
use crate::transmit::Transmitter;
use crate::wire::debugnet;

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
        self.behind_us = self.behind_us.saturating_add(self.last.since_us(raw));
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
            dumper: Dumper::new(),
            transmitter: Transmitter::new(),
            stage: Stage::Idle,
            heard_at: Instant::ZERO,
            first_data: None,
            last_data: Instant::ZERO,
            failure: None,
            reported: 0,
            nonce: 0,
            over: None,
        }
    }

    /// Dumps to the first target that takes the image; `nics` are those the targets' indices name.
    ///
    /// Returns what became of it: of the target that has the image, else of
    /// the one that got furthest. Ends before `Config::deadline_us` at the
    /// latest, provided that the clock moves.
    pub fn dump(&mut self, nics: &mut [&mut dyn Nic], io: &mut Io<'_>) -> Outcome {
        let mut best: Option<Outcome> = None;
        let mut tried = 0;
        for index in 0..self.config.targets.len() {
            let nic = self.config.targets.get(index).map_or(usize::MAX, |target| target.nic);
            let mut dump = self.begin(index);
            let mut outcome = match nics.get_mut(nic) {
                Some(nic) => dump.run(*nic, io),
                None => dump.without_nic(nic, io),
            };
            tried = index.saturating_add(1);
            outcome.targets_tried = tried;
            if outcome.is_complete() {
                return outcome;
            }
            let far = |outcome: &Outcome| (outcome.acked_bytes, outcome.stage);
            if best.as_ref().is_none_or(|best| far(best) <= far(&outcome)) {
                best = Some(outcome);
            }
            let now = self.time.now(io.clock);
            let deadline_us = self.config.deadline_us;
            let over = self.started.is_some_and(|started| now >= started.after(deadline_us));
            if over {
                break;
            }
        }
        // `arm` saw to it that there is a target.
        let mut best = best.unwrap_or_else(|| self.begin(0).without_nic(0, io));
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
    dumper: Dumper,
    transmitter: Transmitter,
    stage: Stage,
    /// Last sign of life of the path.
    heard_at: Instant,
    first_data: Option<Instant>,
    last_data: Instant,
    failure: Option<Failure>,
    /// 64ths of the image reported.
    reported: u64,
    nonce: u16,
    /// What it came to.
    over: Option<Outcome>,
}

/// Frames handled each way, and pieces queued, in one step.
const BATCH: usize = 64;
/// When to look again while the device or a cell is waited for.
const DEVICE_WAIT_US: u64 = 50;
/// Steps without a wait before one is made all the same.
const BUSY_MAX: u32 = 16;
/// Waits in a row that the clock does not notice before it counts as stopped.
const STILL_MAX: u32 = 5_000_000;
/// Steps of counting the image's extents where no NIC can be waited for meanwhile.
const SURVEY_MAX: u32 = 65_536;
/// Longest take-over.
const TAKE_OVER_MAX_US: u64 = 10_000_000;
/// Longer gaps between two steps are the machine's, not the path's: a paused
/// or migrated VM. They are neither silence nor a wait for the link.
const GAP_MAX_US: u64 = 2_000_000;
/// When to look again for a link.
const LINK_WAIT_US: u64 = 10_000;

impl Dump<'_, '_> {
    /// Runs to the end, waiting through the clock.
    fn run(&mut self, nic: &mut dyn Nic, io: &mut Io<'_>) -> Outcome {
        let (mut busy, mut still) = (0u32, 0u32);
        loop {
            let until = match self.poll(nic, io) {
                Step::Done(outcome) => return outcome,
                Step::Again { until } => until,
            };
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

    /// One bounded step: at most 64 frames each way. Never waits.
    ///
    /// After [`Step::Done`] it says `Done` again.
    pub fn poll(&mut self, nic: &mut dyn Nic, io: &mut Io<'_>) -> Step {
        if let Some(outcome) = &self.over {
            return Step::Done(outcome.clone());
        }
        let now = self.time.now(io.clock);
        io.observer.alive(now);
        let gap_us = now.since_us(self.polled_at);
        if self.begun.is_some() && gap_us > GAP_MAX_US {
            self.heard_at = self.heard_at.after(gap_us);
            if let Phase::Link { since } = &mut self.phase {
                *since = since.after(gap_us);
            }
        }
        self.polled_at = now;
        if self.begun.is_none() {
            self.begun = Some(now);
            self.started.get_or_insert(now);
            io.progress.set_target(self.index);
            io.progress.set_acked(0);
            io.progress.set_stage(Stage::Idle);
            io.observer.event(now, &Event::Target { index: self.index });
        }
        let deadline = self.deadline();
        let result =
            if now >= deadline { Err(FailureKind::Deadline) } else { self.step(now, nic, io) };
        match result {
            Ok(Some(until)) => Step::Again { until: until.min(deadline) },
            Ok(None) => Step::Done(self.finish(now, nic, io, Verdict::Confirmed)),
            Err(kind) => Step::Done(self.give_up(now, kind, nic, io)),
        }
    }

    fn give_up(
        &mut self,
        now: Instant,
        kind: FailureKind,
        nic: &mut dyn Nic,
        io: &mut Io<'_>,
    ) -> Outcome {
        let unconfirmed = self.stage == Stage::Finish && self.was_sent();
        // A page that could not be read did not end the dump; this does. The
        // page is in the list of what was not sent.
        if matches!(self.failure, Some(Failure { kind: FailureKind::Read(_), .. })) {
            self.failure = None;
        }
        self.fail(now, kind, io);
        let verdict = if unconfirmed { Verdict::Unconfirmed } else { Verdict::Failed };
        self.finish(now, nic, io, verdict)
    }

    /// Whether what is in the window has been sent at least once.
    fn was_sent(&self) -> bool {
        let Some(client) = &self.client else { return false };
        client.session.queued() == 0
    }

    fn deadline(&self) -> Instant {
        self.started.map_or(Instant::NEVER, |started| started.after(self.config.deadline_us))
    }

    /// `Ok(None)` when FINISHED is acknowledged.
    fn step(
        &mut self,
        now: Instant,
        nic: &mut dyn Nic,
        io: &mut Io<'_>,
    ) -> Result<Option<Instant>, FailureKind> {
        match self.phase {
            Phase::Survey => {
                if self.dumper.survey(io.source, BATCH) {
                    if let Some(transform) = &mut io.transform {
                        transform.restart();
                    }
                    self.phase = Phase::TakeOver { since: now };
                }
                Ok(Some(now))
            }
            Phase::TakeOver { since } => {
                self.enter(now, Stage::TakeOver, io);
                match nic.poll_start(io.clock).map_err(FailureKind::Nic)? {
                    Start::Again { .. } if now.since_us(since) >= TAKE_OVER_MAX_US => {
                        Err(FailureKind::Nic(NicError::Timeout("take-over")))
                    }
                    Start::Again { until } => Ok(Some(self.time.steady(until))),
                    Start::Ready => {
                        self.phase = Phase::Link { since: now };
                        Ok(Some(now))
                    }
                }
            }
            Phase::Link { since } => {
                self.enter(now, Stage::Link, io);
                if nic.link() == Link::Down {
                    if now.since_us(since) >= self.config.link_wait_us {
                        return Err(FailureKind::NoLink);
                    }
                    return Ok(Some(now.after(LINK_WAIT_US)));
                }
                let caps = nic.capabilities();
                self.connect(now, &caps, io.info.time_s)?;
                *self.in_use = caps.payload == PayloadKind::Dma;
                self.phase = Phase::Run { caps };
                Ok(Some(now))
            }
            Phase::Run { caps } => self.exchange(now, nic, io, &caps),
            Phase::Over => Ok(None),
        }
    }

    fn enter(&mut self, now: Instant, stage: Stage, io: &mut Io<'_>) {
        if self.stage != stage {
            self.stage = stage;
            io.progress.set_stage(stage);
            io.observer.event(now, &Event::Stage(stage));
        }
    }

    /// The NIC is ready: now addresses and sizes are known.
    fn connect(
        &mut self,
        now: Instant,
        caps: &Capabilities,
        time_s: u64,
    ) -> Result<(), FailureKind> {
        let target = self.target.ok_or(FailureKind::NoAddress)?;
        let client = target.client_address(caps.mac).ok_or(FailureKind::NoAddress)?;
        let core::net::IpAddr::V4(server) = target.server else {
            return Err(FailureKind::NoAddress);
        };
        let gateway = match target.gateway {
            Some(core::net::IpAddr::V4(gateway)) if gateway != server => Some(gateway),
            _ => None,
        };
        let payload_len = self.config.payload_len(caps.ip_mtu);
        if usize::from(payload_len) < crate::wire::kdh::KernelDumpHeader::LEN {
            return Err(FailureKind::Mtu { payload: payload_len });
        }
        if self.pool.count() == 0 {
            return Err(FailureKind::NoCells);
        }
        if caps.payload == PayloadKind::Dma && !self.pool.has_phys() {
            return Err(FailureKind::CellsNotReachable);
        }
        let (slots, index) = self.window.take().ok_or(FailureKind::NoCells)?;
        let ends = Endpoints {
            mac: caps.mac,
            client,
            client_port: target.client_port,
            server,
            gateway,
            vlan: target.vlan,
        };
        let session = Session::new(slots, index, payload_len);
        self.client = Some(Client::new(ends, target.herald_port, session));
        // New with every crash; a machine without a wall clock has at least its uptime.
        let mixed = now.as_micros() ^ time_s.rotate_left(20);
        self.nonce = (mixed ^ mixed >> 16 ^ mixed >> 32 ^ mixed >> 48) as u16;
        self.heard_at = now;
        Ok(())
    }

    /// Frames in, image into the window, frames out.
    fn exchange(
        &mut self,
        now: Instant,
        nic: &mut dyn Nic,
        io: &mut Io<'_>,
        caps: &Capabilities,
    ) -> Result<Option<Instant>, FailureKind> {
        let done = nic.poll_tx().map_err(FailureKind::Nic)?;
        self.pool.reap(done);
        let received = self.receive(now, nic, io, done)?;
        if let Some(client) = &mut self.client {
            client.handle_timeout(now);
        }
        let fill = self.fill(io, caps, done)?;
        self.name_stage(now, io);
        if fill == Fill::Done {
            return Ok(None);
        }
        let Some(client) = &mut self.client else { return Err(FailureKind::NoAddress) };
        let sent = self.transmitter.send(now, client, nic, io.source, self.pool, caps, BATCH)?;
        if sent.data && self.first_data.is_none() && self.dumper.step() > DumpStep::AwaitHerald {
            self.first_data = Some(now);
        }
        self.check_limits(now)?;
        let Some(client) = &self.client else { return Err(FailureKind::NoAddress) };
        let until = if received || sent.frames != 0 || fill == Fill::More {
            now
        } else if sent.blocked || (self.pool.available() == 0 && self.pool.count() != 0) {
            now.after(DEVICE_WAIT_US)
        } else {
            client.poll_timeout(now).min(self.heard_at.after(self.config.no_progress_us))
        };
        Ok(Some(until))
    }

    fn receive(
        &mut self,
        now: Instant,
        nic: &mut dyn Nic,
        io: &mut Io<'_>,
        done: TxTicket,
    ) -> Result<bool, FailureKind> {
        let mut any = false;
        for _ in 0..BATCH {
            let len = match nic.receive(self.rx) {
                Ok(Some(len)) => len,
                Ok(None) => break,
                Err(RxError::Device(error)) => return Err(FailureKind::Nic(error)),
                Err(RxError::TooLong { .. } | RxError::Malformed) => continue,
            };
            any = true;
            let Some(client) = &mut self.client else { break };
            let Some(frame) = self.rx.get(..len) else { continue };
            match client.handle_frame(now, frame) {
                Some(Heard::Resolved(mac)) => {
                    self.heard_at = now;
                    io.observer.event(now, &Event::Resolved(mac));
                }
                Some(Heard::Conflict { mac, ip }) => {
                    io.observer.event(now, &Event::AddressConflict { mac, ip });
                }
                Some(Heard::Session(SessionHeard::Acked { id, .. })) => {
                    self.heard_at = now;
                    let Some(slot) = client.session.slot(id) else { continue };
                    let message = &slot.message;
                    if let Stored::Cell(cell) = message.stored {
                        self.pool.release(cell, slot.ticket, done);
                    }
                    if message.kind == debugnet::HERALD
                        && let Some(port) = client.session.server_port()
                    {
                        io.observer.event(now, &Event::Established { port });
                    }
                    if message.kind == debugnet::VMCORE {
                        self.last_data = now;
                    }
                    self.dumper.on_acked(message);
                }
                Some(Heard::Session(SessionHeard::Message)) => {
                    io.observer.event(now, &Event::Message);
                }
                Some(Heard::Session(
                    SessionHeard::Stale { .. } | SessionHeard::WrongPort { .. },
                ))
                | None => {}
            }
        }
        if any {
            self.report(now, io);
        }
        Ok(any)
    }

    fn report(&mut self, now: Instant, io: &mut Io<'_>) {
        io.progress.set_acked(self.dumper.acked_bytes);
        let done = self.dumper.acked_bytes.saturating_add(self.dumper.zero_bytes);
        let total = self.dumper.dump_bytes;
        let step = total.div_ceil(64).max(1);
        let part = done.checked_div(step).unwrap_or(0);
        if part > self.reported {
            self.reported = part;
            io.observer.event(now, &Event::Progress { done: done.min(total), total });
        }
    }

    fn fill(
        &mut self,
        io: &mut Io<'_>,
        caps: &Capabilities,
        done: TxTicket,
    ) -> Result<Fill, FailureKind> {
        let Some(client) = &mut self.client else { return Err(FailureKind::NoAddress) };
        if !client.is_resolved() {
            return Ok(Fill::Waiting);
        }
        let mut room = Room {
            session: &mut client.session,
            pool: self.pool,
            source: io.source,
            transform: match &mut io.transform {
                Some(transform) => Some(&mut **transform),
                None => None,
            },
            info: io.info,
            config: self.config,
            done,
            sums: caps.payload == PayloadKind::Dma && caps.checksum == ChecksumOffload::None,
            payload_len: self.config.payload_len(caps.ip_mtu),
            nonce: self.nonce,
        };
        for _ in 0..BATCH {
            // Enough is queued for this step and the next.
            if room.session.queued() > 2 * BATCH {
                return Ok(Fill::Waiting);
            }
            match self.dumper.fill(&mut room).map_err(FailureKind::Read)? {
                Fill::More => {}
                other => return Ok(other),
            }
        }
        Ok(Fill::More)
    }

    fn name_stage(&mut self, now: Instant, io: &mut Io<'_>) {
        let resolved = self.client.as_ref().is_some_and(Client::is_resolved);
        let stage = match self.dumper.step() {
            _ if !resolved => Stage::Resolve,
            DumpStep::Survey | DumpStep::Herald | DumpStep::AwaitHerald => Stage::Herald,
            DumpStep::Key | DumpStep::Tail | DumpStep::Data | DumpStep::Header => Stage::Data,
            DumpStep::AwaitHeader | DumpStep::Finish => Stage::Header,
            DumpStep::AwaitFinish => Stage::Finish,
        };
        self.enter(now, stage, io);
        if let Some(fault) = self.dumper.fault.or(self.transmitter.fault)
            && self.failure.is_none()
        {
            self.fail(now, FailureKind::Read(fault), io);
        }
    }

    /// Silence and storms end the attempt.
    fn check_limits(&mut self, now: Instant) -> Result<(), FailureKind> {
        let Some(client) = &self.client else { return Ok(()) };
        let session = &client.session;
        if client.is_resolved() && session.is_idle() && self.pool.available() != 0 {
            // Nothing was asked, so nothing can be missing.
            self.heard_at = now;
        }
        let counters = session.counters();
        let most = self
            .config
            .max_transmissions
            .unwrap_or_else(|| counters.messages.saturating_mul(64).saturating_add(10_000));
        if counters.transmissions > most {
            return Err(FailureKind::TooManyTransmissions);
        }
        if now.since_us(self.heard_at) < self.config.no_progress_us {
            return Ok(());
        }
        Err(match self.stage {
            Stage::Resolve => FailureKind::NoNextHop,
            Stage::Herald => FailureKind::NoHerald,
            _ => FailureKind::Silence,
        })
    }

    /// Records what went wrong with the oldest message in the air.
    fn fail(&mut self, now: Instant, kind: FailureKind, io: &mut Io<'_>) {
        let oldest = self
            .client
            .as_ref()
            .filter(|_| !matches!(kind, FailureKind::Read(_)))
            .and_then(|client| client.session.pending().find(|(_, _, tries)| *tries != 0));
        let address = match (kind, &oldest) {
            (FailureKind::Read(fault), _) => Some(fault.at),
            (_, Some((message, ..))) => match message.stored {
                Stored::Range(range) => Some(range.start()),
                _ => None,
            },
            _ => None,
        };
        let failure = Failure {
            kind,
            stage: self.stage,
            address,
            offset: oldest.map(|(message, ..)| message.offset),
            seqno: oldest.map(|(_, seqno, _)| seqno),
            tries: oldest.map_or(0, |(_, _, tries)| tries),
        };
        self.failure.get_or_insert(failure);
        io.progress.set_failed();
        io.observer.event(now, &Event::Failure(failure));
    }

    fn without_nic(&mut self, index: usize, io: &mut Io<'_>) -> Outcome {
        let now = self.time.now(io.clock);
        self.begun = Some(now);
        self.started.get_or_insert(now);
        for _ in 0..SURVEY_MAX {
            if self.dumper.survey(io.source, BATCH) {
                break;
            }
        }
        self.fail(now, FailureKind::NoNic { index }, io);
        self.outcome(now, Verdict::Failed, io, true)
    }

    /// Quiets the NIC, settles who owns the cells, and tells the truth.
    fn finish(
        &mut self,
        now: Instant,
        nic: &mut dyn Nic,
        io: &mut Io<'_>,
        verdict: Verdict,
    ) -> Outcome {
        let stopped = nic.stop();
        match stopped {
            Ok(()) => *self.in_use = false,
            Err(error) => {
                // The cells are settled when the next target begins.
                if self.failure.is_none() {
                    self.fail(now, FailureKind::Nic(error), io);
                }
            }
        }
        let outcome = self.outcome(now, verdict, io, stopped.is_ok());
        self.phase = Phase::Over;
        self.over = Some(outcome.clone());
        outcome
    }

    fn outcome(
        &mut self,
        now: Instant,
        verdict: Verdict,
        io: &mut Io<'_>,
        nic_stopped: bool,
    ) -> Outcome {
        let mut holes = Gaps::EMPTY;
        let mut counters = crate::session::Counters::default();
        if verdict == Verdict::Failed {
            if let Some(client) = &self.client {
                for (message, ..) in client.session.pending() {
                    if message.kind == debugnet::VMCORE {
                        holes.add(Gap {
                            offset: message.offset,
                            len: u64::from(message.len),
                            reason: Reason::Unacknowledged,
                        });
                    }
                }
            }
            self.dumper.remaining(io.source, io.transform.is_some(), &mut holes);
        }
        let mut bad_checksums = 0;
        if let Some(client) = &self.client {
            counters = client.session.counters();
            bad_checksums = client.bad_checksums();
        }
        io.observer.event(now, &Event::Finished(verdict));
        let stage = self.stage;
        io.progress.set_stage(Stage::Done);
        Outcome {
            verdict,
            failure: self.failure,
            target: self.index,
            targets_tried: 1,
            stage,
            image_len: self.dumper.image_len,
            dump_bytes: self.dumper.dump_bytes,
            sent_bytes: self.dumper.sent_bytes.saturating_sub(self.transmitter.unreadable.bytes()),
            acked_bytes: self.dumper.acked_bytes,
            zero_bytes: self.dumper.zero_bytes,
            holes,
            not_sent: self.not_sent(),
            messages: counters.messages,
            transmissions: counters.transmissions,
            retransmits: counters.retransmits,
            bad_checksums,
            stale_acks: counters.stale_acks,
            bytes_read: self.dumper.bytes_read.saturating_add(self.transmitter.bytes_read),
            bytes_copied: self.dumper.bytes_copied.saturating_add(self.transmitter.bytes_copied),
            cells_high_water: self.pool.high_water(),
            elapsed_us: now.since_us(self.begun.unwrap_or(now)),
            data_us: self.last_data.since_us(self.first_data.unwrap_or(self.last_data)),
            nic_stopped,
        }
    }

    /// What could not be read when it was queued, and when it was to be copied.
    fn not_sent(&self) -> Gaps {
        let mut gaps = self.dumper.not_sent.clone();
        gaps.join(&self.transmitter.unreadable);
        gaps
    }
}
