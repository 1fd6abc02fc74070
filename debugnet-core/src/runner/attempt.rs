//! One attempt, step by step: take-over, link, frames in, image into the
//! window, frames out. Never waits.

use super::{Dump, Io, Phase, Step};
use crate::client::{Client, Event as Heard};
use crate::dump::{Failure, FailureKind, Fill, Room, Step as DumpStep, Verdict};
use crate::nic::{
    Capabilities, ChecksumOffload, Link, Nic, NicError, PayloadKind, RxError, Start, TxTicket,
};
use crate::observer::Event;
use crate::peer::Endpoints;
use crate::progress::Stage;
use crate::session::{Heard as SessionHeard, Session, Stored};
use crate::time::Instant;
use crate::transmit::Road;
use crate::wire::debugnet;

/// Frames handled each way, and pieces queued, in one step.
pub(super) const BATCH: usize = 64;
/// Bytes of the image that a transform may have taken in before a step makes no further message of it.
const TRANSFORM_STEP_LEN: u64 = 256 << 10;
/// When to look again while the device or a cell is waited for.
const DEVICE_WAIT_US: u64 = 50;
/// Longest take-over.
const TAKE_OVER_MAX_US: u64 = 10_000_000;
/// Longer gaps between two steps are the machine's, not the path's: a paused
/// or migrated VM. They are neither silence nor a wait for the link.
const GAP_MAX_US: u64 = 2_000_000;
/// When to look again for a link.
const LINK_WAIT_US: u64 = 10_000;

/// `value * by / over` of numbers that may be large; 0 over 0. Seldom needed.
#[inline(never)]
fn scaled(value: u64, by: u64, over: u64) -> u64 {
    match value.checked_mul(by) {
        Some(product) => product.checked_div(over).unwrap_or(0),
        None => value.checked_div(over).unwrap_or(0).saturating_mul(by),
    }
}

impl Dump<'_, '_> {
    /// One bounded step: at most 64 frames each way. Never waits.
    ///
    /// After [`Step::Done`] it says `Done` again.
    pub fn poll(&mut self, nic: &mut dyn Nic, io: &mut Io<'_>) -> Step {
        match self.advance(nic, io) {
            Some(until) => Step::Again { until },
            None => Step::Done(self.outcome.clone()),
        }
    }

    /// The step itself; `None` when it is over and the outcome is written.
    pub(super) fn advance(&mut self, nic: &mut dyn Nic, io: &mut Io<'_>) -> Option<Instant> {
        if self.over {
            return None;
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
            Ok(Some(until)) => return Some(until.min(deadline)),
            Ok(None) => self.finish(now, nic, io, Verdict::Confirmed),
            Err(kind) => self.give_up(now, kind, nic, io),
        }
        None
    }

    pub(super) fn give_up(
        &mut self,
        now: Instant,
        kind: FailureKind,
        nic: &mut dyn Nic,
        io: &mut Io<'_>,
    ) {
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
                if self.dumper.survey(io.source, io.transform.is_some(), BATCH) {
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
    ///
    /// Not inlined: what it puts together must not weigh on the stack of each step.
    #[inline(never)]
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
        let mut road = Road { nic, source: io.source, pool: self.pool, caps };
        let sent = self.transmitter.send(now, client, &mut road, BATCH)?;
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

    #[inline(never)]
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
                // No sign of life: it may be as wrong as the one before.
                Some(Heard::Moved(mac)) => io.observer.event(now, &Event::Resolved(mac)),
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
        let (done, total) = self.dumper.done(io.transform.is_some());
        let step = total.div_ceil(64).max(1);
        let part = if done < total { done.checked_div(step).unwrap_or(0) } else { u64::MAX };
        if part > self.reported {
            self.reported = part;
            let elapsed_us = now.since_us(self.first_data.unwrap_or(now));
            let rate_bytes_s = scaled(done, 1_000_000, elapsed_us);
            let remaining_us = scaled(total.saturating_sub(done), 1_000_000, rate_bytes_s);
            let progress = Event::Progress { done, total, rate_bytes_s, remaining_us };
            io.observer.event(now, &progress);
        }
    }

    #[inline(never)]
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
        let begun_at = self.dumper.stream.bytes_read;
        for _ in 0..BATCH {
            // A compressor may swallow a thousand times what it fills a cell with.
            if self.dumper.stream.bytes_read.wrapping_sub(begun_at) > TRANSFORM_STEP_LEN {
                break;
            }
            // Enough is queued for this step and the next.
            if room.session.queued() > 2 * BATCH {
                return Ok(Fill::Waiting);
            }
            match self.dumper.fill(&mut room).map_err(FailureKind::Transform)? {
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
        let fault = self.dumper.fault.or(self.dumper.stream.fault).or(self.transmitter.fault);
        if let Some(fault) = fault
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
}
