//! What is lost, and when silence means something: loss by order of sending,
//! the probe of a tail, the time-out of everything.

use super::rtt::Rtt;
use super::{Session, SlotId, State, is_after};
use crate::time::Instant;

/// The latest-sent transmission that was answered, and its round trip.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    pub(super) sent_at: Instant,
    pub(super) order: u32,
    pub(super) rtt_us: u32,
}

/// How much reordering is taken for granted: eighths of the smallest round
/// trip, more after each loss that proved to be none, less with time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    pub(super) eighths: u32,
    pub(super) good: u32,
}

impl Tolerance {
    pub(super) const MIN: u32 = 2;
    const MAX: u32 = 64;
    /// Retransmissions that were needed before the tolerance shrinks again.
    const PATIENCE: u32 = 16;

    fn window_us(self, rtt: &Rtt) -> u32 {
        rtt.min_us().saturating_mul(self.eighths) >> 3
    }

    pub(super) fn was_spurious(&mut self) {
        self.eighths = self.eighths.saturating_mul(2).min(Self::MAX);
        self.good = 0;
    }

    pub(super) fn was_needed(&mut self) {
        self.good = self.good.saturating_add(1);
        if self.good >= Self::PATIENCE {
            self.good = 0;
            self.eighths = (self.eighths.saturating_sub(1)).max(Self::MIN);
        }
    }
}

impl Session<'_> {
    /// How long after its sending an overtaken message is given.
    fn slack_us(&self, newest: &Newest) -> u32 {
        newest
            .rtt_us
            .saturating_add(self.tolerance.window_us(&self.rtt))
            .saturating_add(self.rtt.granularity_us())
    }

    /// Declares lost what was sent before the newest answered transmission and
    /// has had its time. Each transmission is looked at once in all.
    pub(super) fn detect_losses(&mut self, now: Instant) {
        while let Some(id) = self.flight.first() {
            if self.loss_due().is_none_or(|due| now < due) {
                return;
            }
            self.lose(id);
        }
    }

    /// When [`Session::detect_losses`] will find the next one without a further ack.
    pub(super) fn loss_due(&self) -> Option<Instant> {
        let newest = self.newest?;
        let slot = self.slots.get(self.flight.first()?)?;
        (is_after(newest.order, slot.order) && newest.sent_at >= slot.sent_at)
            .then(|| slot.sent_at.after(u64::from(self.slack_us(&newest))))
    }

    #[cold]
    fn lose(&mut self, id: SlotId) {
        self.slots.remove(&mut self.flight, id);
        if let Some(slot) = self.slots.get_mut(id) {
            slot.in_flight = false;
        }
        self.slots.push_back(&mut self.lost, id);
        self.congestion.on_lost();
    }

    fn rto_us(&self) -> u32 {
        if matches!(self.state, State::Heralding { .. }) {
            return Rtt::INITIAL_RTO_US;
        }
        let rto_us = self.rtt.rto_us();
        rto_us.checked_shl(self.backoff).unwrap_or(u32::MAX).min(Rtt::BACKOFF_MAX_US).max(rto_us)
    }

    /// The instants at which silence means something: (probe of the tail, time-out of everything).
    pub(super) fn silence_due(&self) -> Option<(Instant, Instant)> {
        let oldest = self.slots.get(self.flight.first()?)?;
        let since = self.heard_at.max(oldest.sent_at);
        let probe = if self.rtt.known() && !self.probed && self.backoff == 0 {
            since.after(u64::from(self.rtt.probe_us()))
        } else {
            Instant::NEVER
        };
        Some((probe, since.after(u64::from(self.rto_us()))))
    }

    /// Time has passed: losses become known, silence becomes a time-out.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.rtt.saw(now);
        self.detect_losses(now);
        let Some((probe, timeout)) = self.silence_due() else { return };
        if now >= timeout {
            self.counters.timeouts = self.counters.timeouts.saturating_add(1);
            self.backoff = self.backoff.saturating_add(1).min(16);
            // A herald waits for files to be opened: its silence is not the path's.
            if !matches!(self.state, State::Heralding { .. }) {
                self.congestion.on_timeout();
            }
            // Bounded by the slots: each pass takes one off the flight.
            while let Some(id) = self.flight.first() {
                self.lose(id);
            }
        } else if now >= probe {
            // The last of a burst has no later ack to tell of its loss. The
            // oldest is sent again: if it was lost, that is no waste, and its
            // ack tells of all the others.
            self.probed = true;
            if let Some(id) = self.flight.first() {
                self.lose(id);
            }
        }
    }
}
