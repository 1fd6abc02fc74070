//! One debugnet conversation over a datagram path: herald, port adoption,
//! window, retransmission.
//!
//! It knows no IP, no NIC, no clock and no netdump message: datagrams go in as
//! a port and bytes, messages come out as slots, time is an argument. The
//! window is N slots that hold N *unacknowledged* messages, not N consecutive
//! ones: a message lost twice does not stop the others.
//!
//! A message is fresh (queued, never sent), in flight, or lost (to be sent
//! again). Fresh ones are the newest sequence numbers and need no list. `lost`
//! is a queue; `flight` is ordered by sending, which is what makes loss
//! detection O(1): when a later transmission is answered and an earlier one is
//! not, the earlier one is lost, give or take a tolerance for reordering (after
//! RFC 8985).

mod congestion;
mod recovery;
mod rtt;
mod slots;
mod standing;

use crate::nic::TxTicket;
use crate::time::Instant;
use crate::wire::debugnet::Ack;

use congestion::Congestion;
use recovery::{Newest, Tolerance};
use rtt::Rtt;
use slots::{List, Slots};
pub use slots::{Message, Slot, SlotId, Stored};

pub(crate) use slots::SPAN;

/// Where the conversation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum State {
    /// Before the herald.
    Idle,
    /// The herald with this sequence number waits for its ack.
    Heralding { seqno: u32 },
    /// The server answered, and is reached at this port from now on.
    Established { port: u16 },
}

/// What a datagram meant.
#[derive(Clone, Copy, Debug)]
pub enum Heard {
    /// It acknowledged this message for the first time. The slot is free, and
    /// keeps what it held until the next [`Session::send`]; a cell named in it
    /// is the caller's to hand back, with the ticket beside it.
    Acked {
        /// Where the message was.
        id: SlotId,
        /// Its sequence number.
        seqno: u32,
    },
    /// An ack of nothing alive: late, repeated, or forged.
    Stale {
        /// The number it named.
        seqno: u32,
    },
    /// From another port than the one adopted.
    WrongPort {
        /// The port it came from.
        port: u16,
    },
    /// No ack: a message of the peer's own.
    Message,
}

/// Counts of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Counters {
    /// Messages given to the session.
    pub messages: u32,
    /// Frames that carried one, first time and again.
    pub transmissions: u32,
    /// Frames that carried one again.
    pub retransmits: u32,
    /// Messages acknowledged.
    pub acked: u32,
    /// Acks of nothing alive.
    pub stale_acks: u32,
    /// Datagrams from another port than the adopted one.
    pub wrong_port: u32,
    /// Time-outs with nothing answered.
    pub timeouts: u32,
}

/// One conversation. `'m` is the caller's memory.
#[derive(Debug)]
pub struct Session<'m> {
    slots: Slots<'m>,
    flight: List,
    lost: List,
    state: State,
    /// Oldest sequence number that may be alive.
    base: u32,
    /// Oldest sequence number that was never sent; all from here on are fresh.
    fresh: u32,
    next_seqno: u32,
    /// Number of the last transmission.
    order: u32,
    /// The latest-sent transmission that was answered, and its round trip.
    newest: Option<Newest>,
    tolerance: Tolerance,
    rtt: Rtt,
    congestion: Congestion,
    /// When the last ack arrived, or the flight began.
    heard_at: Instant,
    /// Time-outs in a row, for the back-off.
    backoff: u32,
    probed: bool,
    counters: Counters,
}

impl<'m> Session<'m> {
    /// First sequence number, as the stock client's.
    pub const FIRST_SEQNO: u32 = 1;

    /// A session over the caller's memory for messages of up to `payload_len`
    /// bytes. `index` must be `8 * slots.len()` long and a power of two
    /// ([`arm`](crate::arm) checks it).
    pub fn new(slots: &'m mut [Slot], index: &'m mut [u16], payload_len: u16) -> Self {
        Self::starting_at(slots, index, payload_len, Self::FIRST_SEQNO)
    }

    /// As [`Session::new`], numbering from `seqno`.
    pub(crate) fn starting_at(
        slots: &'m mut [Slot],
        index: &'m mut [u16],
        payload_len: u16,
        seqno: u32,
    ) -> Self {
        let congestion = Congestion::new(slots.len() as u32, u32::from(payload_len));
        Self {
            slots: Slots::new(slots, index),
            flight: List::EMPTY,
            lost: List::EMPTY,
            state: State::Idle,
            base: seqno,
            fresh: seqno,
            next_seqno: seqno,
            order: 0,
            newest: None,
            tolerance: Tolerance { eighths: Tolerance::MIN, good: 0 },
            rtt: Rtt::new(),
            congestion,
            heard_at: Instant::ZERO,
            backoff: 0,
            probed: false,
            counters: Counters::default(),
        }
    }

    // Getters.

    /// Whether another message can be queued.
    pub fn has_room(&self) -> bool {
        self.slots.has_free() && self.next_seqno.wrapping_sub(self.base) < self.slots.span()
    }

    /// Whether every message queued so far has been acknowledged.
    pub fn is_idle(&self) -> bool {
        self.base == self.next_seqno
    }

    /// Messages queued and never sent.
    pub fn queued(&self) -> usize {
        self.next_seqno.wrapping_sub(self.fresh) as usize
    }

    /// Messages sent and not acknowledged.
    pub fn unacked(&self) -> usize {
        self.flight.len().saturating_add(self.lost.len())
    }

    /// The server's port, once its ack of the herald taught it.
    pub fn server_port(&self) -> Option<u16> {
        match self.state {
            State::Established { port } => Some(port),
            _ => None,
        }
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Smoothed round trip in microseconds, once measured.
    pub fn srtt_us(&self) -> Option<u64> {
        self.rtt.known().then(|| u64::from(self.rtt.srtt_us()))
    }

    /// Messages that may be in flight now.
    pub fn window(&self) -> u32 {
        self.congestion.window()
    }

    pub(crate) fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(id)
    }

    /// What a slot holds: message, sequence number, transmissions so far.
    pub fn message(&self, id: SlotId) -> Option<(Message, u32, u16)> {
        let slot = self.slots.get(id)?;
        Some((slot.message, slot.seqno, slot.tries))
    }

    /// Every message not yet acknowledged, oldest first, with sequence number
    /// and transmissions. Looks at up to eight numbers a slot.
    pub fn pending(&self) -> impl Iterator<Item = (Message, u32, u16)> + '_ {
        self.unacked_slots().map(|slot| (slot.message, slot.seqno, slot.tries))
    }

    /// The slots of [`Session::pending`].
    pub(crate) fn unacked_slots(&self) -> impl Iterator<Item = &Slot> {
        let live = self.next_seqno.wrapping_sub(self.base);
        (0..live).filter_map(|i| self.slots.get(self.slots.find(self.base.wrapping_add(i))?))
    }

    // Commands.

    /// Queues the herald, the first message of all. Nothing else is sent until it is acknowledged.
    pub fn herald(&mut self, message: Message) -> Result<(), WindowFull> {
        let seqno = self.send(message)?;
        self.state = State::Heralding { seqno };
        Ok(())
    }

    /// Queues a message and returns its sequence number.
    ///
    /// # Errors
    /// [`WindowFull`] when there is no slot, or the oldest unacknowledged
    /// message is too far behind; try again after an ack.
    #[inline]
    pub fn send(&mut self, message: Message) -> Result<u32, WindowFull> {
        if !self.has_room() {
            return Err(WindowFull);
        }
        let seqno = self.next_seqno;
        self.slots.occupy(seqno, message).ok_or(WindowFull)?;
        self.next_seqno = seqno.wrapping_add(1);
        self.counters.messages = self.counters.messages.wrapping_add(1);
        Ok(seqno)
    }

    /// Changes what a message carries: its payload turned out unreadable.
    pub(crate) fn replace(&mut self, id: SlotId, message: Message) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.message = message;
        }
    }

    // Input.

    /// A datagram from the server's address. What it says of others that are
    /// missing is found by the next [`Session::handle_timeout`]: call that
    /// after each batch.
    #[inline]
    pub fn handle_datagram(&mut self, now: Instant, port: u16, datagram: &[u8]) -> Heard {
        self.rtt.saw(now);
        let Some(ack) = Ack::parse(datagram) else { return Heard::Message };
        let seqno = ack.seqno.get();
        match self.state {
            State::Established { port: adopted } if adopted == port => {}
            State::Established { .. } => {
                self.counters.wrong_port = self.counters.wrong_port.saturating_add(1);
                return Heard::WrongPort { port };
            }
            State::Heralding { seqno: herald } if herald == seqno => {}
            _ => return self.stale(seqno),
        }
        let Some(id) = self.slots.find(seqno) else { return self.stale(seqno) };
        let Some(&Slot { sent_at, order, tries, in_flight, .. }) = self.slots.get(id) else {
            return self.stale(seqno);
        };
        if tries == 0 {
            // Nobody can acknowledge what was never sent.
            return self.stale(seqno);
        }
        if in_flight {
            self.slots.remove(&mut self.flight, id);
        } else {
            self.slots.remove(&mut self.lost, id);
            self.tolerance.was_spurious();
        }
        self.slots.unbind(seqno);
        self.slots.release(id);
        self.advance_base();
        self.counters.acked = self.counters.acked.wrapping_add(1);
        self.heard_at = now;
        self.backoff = 0;
        self.probed = false;
        if let State::Heralding { .. } = self.state {
            // The answer took the time to open files: no measure of the path.
            self.state = State::Established { port };
            self.congestion.restart_round(self.order);
        } else {
            self.measure(
                now,
                Newest { sent_at, order, rtt_us: now.since_short_us(sent_at) },
                tries,
            );
        }
        Heard::Acked { id, seqno }
    }

    fn stale(&mut self, seqno: u32) -> Heard {
        self.counters.stale_acks = self.counters.stale_acks.saturating_add(1);
        Heard::Stale { seqno }
    }

    /// What the ack of a transmission, the last of `tries`, says of the path.
    fn measure(&mut self, now: Instant, answered: Newest, tries: u16) {
        let Newest { order, rtt_us, .. } = answered;
        let mut early = false;
        let mut certain = None;
        if tries == 1 {
            certain = Some(rtt_us);
            self.rtt.sample(now, rtt_us);
        } else {
            // An ack much sooner than a round trip answers an earlier transmission.
            // Taken for an answer to the last one, it would declare all in between lost.
            let soonest_us = self.rtt.min_us().max(self.rtt.srtt_us() >> 1);
            early = self.rtt.known() && rtt_us < soonest_us;
            if early {
                self.tolerance.was_spurious();
            } else {
                self.tolerance.was_needed();
            }
        }
        self.congestion.on_ack(now, order, self.order, certain, &self.rtt);
        if !early && self.newest.is_none_or(|newest| is_after(order, newest.order)) {
            self.newest = Some(answered);
        }
    }

    fn advance_base(&mut self) {
        // Every number passed here was acknowledged once: amortised O(1).
        while self.base != self.next_seqno && !self.slots.is_bound(self.base) {
            self.base = self.base.wrapping_add(1);
        }
    }

    // Output.

    /// When [`Session::handle_timeout`] or [`Session::poll_transmit`] has something to do next.
    pub fn poll_timeout(&self, now: Instant) -> Instant {
        let silence = self.silence_due().map_or(Instant::NEVER, |(probe, rto)| probe.min(rto));
        let loss = self.loss_due().unwrap_or(Instant::NEVER);
        let sending = match self.blocked(now) {
            Blocked::No => now,
            Blocked::Until(then) => then,
            Blocked::ByWindow | Blocked::Empty => Instant::NEVER,
        };
        silence.min(loss).min(sending)
    }

    #[cfg_attr(not(target_pointer_width = "32"), inline(always))]
    fn blocked(&self, now: Instant) -> Blocked {
        if self.lost.is_empty() && self.fresh == self.next_seqno {
            return Blocked::Empty;
        }
        // Heralds are paced by their time-out alone.
        if self.state == State::Idle {
            return Blocked::Empty;
        }
        if matches!(self.state, State::Heralding { .. }) {
            return if self.flight.is_empty() { Blocked::No } else { Blocked::Empty };
        }
        if self.flight.len() >= self.congestion.window() as usize {
            return Blocked::ByWindow;
        }
        match self.congestion.may_send(now, &self.rtt) {
            Ok(()) => Blocked::No,
            Err(then) => Blocked::Until(then),
        }
    }

    /// The message to send next: a lost one before a new one. Commits nothing;
    /// [`Session::on_sent`] does.
    // Not inlined: its variables would crowd those of the loop over messages.
    #[inline(never)]
    pub fn poll_transmit(&mut self, now: Instant) -> Option<SlotId> {
        match self.blocked(now) {
            Blocked::No => self.lost.first().or_else(|| self.slots.find(self.fresh)),
            Blocked::ByWindow => {
                self.congestion.on_limited();
                None
            }
            Blocked::Until(_) | Blocked::Empty => None,
        }
    }

    /// Sends all that is queued, whatever the window says: for replaying
    /// somebody else's sending.
    #[cfg(test)]
    pub(crate) fn force_sent(&mut self, now: Instant) {
        while self.fresh != self.next_seqno {
            let id = self.slots.find(self.fresh).unwrap();
            self.on_sent(now, id, TxTicket::NONE);
        }
    }

    /// The message of the last [`Session::poll_transmit`] went to the NIC under `ticket`.
    #[inline]
    pub fn on_sent(&mut self, now: Instant, id: SlotId, ticket: TxTicket) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        // Acknowledged since it was polled: there is nothing to record.
        if slot.tries == 0 {
            if slot.seqno != self.fresh || self.fresh == self.next_seqno {
                return;
            }
            self.fresh = self.fresh.wrapping_add(1);
        } else if self.lost.first() == Some(id) {
            self.counters.retransmits = self.counters.retransmits.wrapping_add(1);
        } else {
            return;
        }
        let is_again = slot.tries != 0;
        self.counters.transmissions = self.counters.transmissions.wrapping_add(1);
        self.order = self.order.wrapping_add(1);
        slot.tries = slot.tries.saturating_add(1);
        slot.ticket = ticket;
        slot.sent_at = now;
        slot.order = self.order;
        slot.in_flight = true;
        if is_again {
            self.slots.remove(&mut self.lost, id);
        }
        if self.flight.is_empty() {
            self.heard_at = now;
        }
        self.slots.push_back(&mut self.flight, id);
        self.congestion.on_sent(now, &self.rtt);
    }
}

enum Blocked {
    No,
    Until(Instant),
    ByWindow,
    Empty,
}

/// No slot is free for a new message; try again after an ack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowFull;

/// Whether transmission `a` came after `b`; numbers wrap.
fn is_after(a: u32, b: u32) -> bool {
    let distance = a.wrapping_sub(b);
    distance != 0 && distance < u32::MAX / 2
}

#[cfg(test)]
mod tests;
