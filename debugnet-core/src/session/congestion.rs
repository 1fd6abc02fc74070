//! How many messages may be in flight, and how fast they may leave.
//!
//! A delay-based window. Each round trip compares the smallest round-trip time
//! it saw with the smallest of all: what is above it is standing queue. The
//! window is steered so that a few messages [stand](super::standing) in the
//! bottleneck, which keeps the line busy and stays well below the 88 packets a
//! stock server's socket holds. Random loss says nothing about
//! congestion and is not an input, except when it is massive or comes with a
//! full queue.
//!
//! Frames leave through a token bucket filled at somewhat more than the
//! window's own rate and as deep as one burst that a stock server absorbs.

use crate::session::rtt::Rtt;
use crate::session::standing::Standing;
use crate::time::Instant;

/// Bytes of UDP and IP header the server's socket buffer is charged with each packet.
const PACKET_OVERHEAD: u32 = 40;
/// What a stock server takes back to back: 64 packets of 1448 B, 24 of 4096 B.
const BURST_BYTES: u32 = 64 * (1448 + PACKET_OVERHEAD) + 4000;

/// `value * by / over`; 0 over 0, and the largest number where it does not fit.
#[cfg_attr(target_pointer_width = "32", inline(never))]
fn scaled(value: u32, by: u32, over: u32) -> u32 {
    let product = u64::from(value).wrapping_mul(u64::from(by));
    let quotient = product.checked_div(u64::from(over)).unwrap_or(0);
    u32::try_from(quotient).unwrap_or(u32::MAX)
}

/// Tokens are counted in 1/1024 of a message.
const TOKEN: u32 = 1024;

#[derive(Clone, Debug)]
pub(crate) struct Congestion {
    /// Messages that may be in flight.
    window: u32,
    window_max: u32,
    burst: u32,
    starting: bool,
    /// Transmission number that ends the round: its ack, or that of a later one.
    round_end: u32,
    round_min_us: u32,
    round_acked: u32,
    round_lost: u32,
    /// Whether the window, and not the source, limited the round.
    round_limited: bool,
    /// Messages meant to stand in the bottleneck's queue.
    standing: Standing,
    /// Rounds in a row without a standing queue.
    calm_rounds: u32,
    tokens: u32,
    filled_at: Instant,
    /// Acks of the first burst: what they were spaced by is what the bottleneck takes.
    train: Train,
    /// Share of messages lost in rounds without a standing queue, in 1/1024:
    /// the loss that is not ours.
    calm_loss: u32,
    /// Set by a time-out of everything: one message a time-out until an ack comes.
    probing: Option<u32>,
}

impl Congestion {
    /// Fewest messages in flight once the path answers.
    const WINDOW_MIN: u32 = 4;

    /// Share of a doubling round, in 1/1024, that no line loses by chance.
    const OVERSHOOT_LOSS: u32 = 192;

    /// For messages of `payload_len` bytes and `slots` of them.
    pub(crate) fn new(slots: u32, payload_len: u32) -> Self {
        let burst = BURST_BYTES
            .checked_div(payload_len.saturating_add(PACKET_OVERHEAD))
            .unwrap_or(1)
            .min(64)
            .min(slots)
            .max(1);
        Self {
            window: burst,
            window_max: slots,
            burst,
            starting: true,
            round_end: 0,
            round_min_us: u32::MAX,
            round_acked: 0,
            round_lost: 0,
            round_limited: false,
            standing: Standing::new((burst >> 2).max(2), slots >> 1),
            calm_rounds: 0,
            tokens: burst.saturating_mul(TOKEN),
            filled_at: Instant::ZERO,
            train: Train::default(),
            calm_loss: 0,
            probing: None,
        }
    }

    /// Messages that may be in flight now.
    pub(crate) fn window(&self) -> u32 {
        if self.probing.is_some() { 1 } else { self.window }
    }

    /// Whether a message may leave now; else when to ask again.
    pub(crate) fn may_send(&self, now: Instant, rtt: &Rtt) -> Result<(), Instant> {
        let tokens = self.tokens_at(now, rtt);
        if tokens >= TOKEN {
            return Ok(());
        }
        let missing = TOKEN.wrapping_sub(tokens);
        let wait_us = missing.checked_div(self.fill_per_us(rtt)).unwrap_or(1).wrapping_add(1);
        Err(now.after(u64::from(wait_us)))
    }

    pub(crate) fn on_sent(&mut self, now: Instant, rtt: &Rtt) {
        self.tokens = self.tokens_at(now, rtt).saturating_sub(TOKEN);
        self.filled_at = now;
    }

    /// The window kept a message back.
    pub(crate) fn on_limited(&mut self) {
        self.round_limited = true;
    }

    fn tokens_at(&self, now: Instant, rtt: &Rtt) -> u32 {
        if now == self.filled_at {
            // As a rule within a batch: there is nothing to fill in, and no division to make.
            return self.tokens;
        }
        let passed_us = now.since_short_us(self.filled_at);
        let depth = self.burst.wrapping_mul(TOKEN);
        self.tokens.saturating_add(passed_us.saturating_mul(self.fill_per_us(rtt))).min(depth)
    }

    /// Tokens a microsecond: twice the window's rate while it doubles each
    /// round, a quarter above it afterwards.
    fn fill_per_us(&self, rtt: &Rtt) -> u32 {
        let gain_4 = if self.starting { 8 } else { 5 };
        let tokens = self.window().wrapping_mul(TOKEN).wrapping_mul(gain_4) >> 2;
        tokens.checked_div(rtt.srtt_us().max(1)).unwrap_or(0).max(1)
    }

    /// One message was acknowledged. `order` is the number of the transmission
    /// that was answered, `newest` that of the last transmission so far, and
    /// `rtt_us` the round trip if it is certain.
    #[inline]
    pub(crate) fn on_ack(
        &mut self,
        now: Instant,
        order: u32,
        newest: u32,
        rtt_us: Option<u32>,
        rtt: &Rtt,
    ) {
        if let Some(before) = self.probing.take() {
            self.window = before;
            self.restart_round(newest);
        }
        self.round_acked = self.round_acked.wrapping_add(1);
        if let Some(rtt_us) = rtt_us {
            self.round_min_us = self.round_min_us.min(rtt_us);
        }
        // Sequence space of transmissions: later ones are less than half of it ahead.
        let ends_round = order.wrapping_sub(self.round_end) < u32::MAX / 2;
        if !ends_round {
            self.train.add(now);
        }
        if self.starting && self.round_limited {
            self.grow(rtt);
        }
        if ends_round {
            self.end_round(now, rtt);
            self.train.close(rtt);
            self.restart_round(newest);
        }
    }

    fn grow(&mut self, rtt: &Rtt) {
        // Doubles each round, up to what the first burst's acks say the
        // bottleneck takes; a queue seen at the end of a round ends it too.
        let most = self
            .train
            .messages_in(rtt)
            .map_or(u32::MAX, |path| path.saturating_add(self.standing.messages()).max(self.burst));
        if self.window < most {
            self.window = self.window.wrapping_add(1).min(self.window_max);
        } else {
            // From here on by what the queue shows, should the train have lied.
            self.starting = false;
        }
    }

    pub(crate) fn on_lost(&mut self) {
        self.round_lost = self.round_lost.wrapping_add(1);
    }

    /// Nothing was answered for a whole time-out.
    pub(crate) fn on_timeout(&mut self) {
        if self.probing.is_none() {
            self.starting = false;
            self.probing = Some(self.halved());
        }
    }

    fn halved(&self) -> u32 {
        (self.window >> 1).max(Self::WINDOW_MIN.min(self.window_max))
    }

    /// A round begins with the transmission after `newest`.
    pub(crate) fn restart_round(&mut self, newest: u32) {
        self.round_end = newest.wrapping_add(1);
        self.round_min_us = u32::MAX;
        self.round_acked = 0;
        self.round_lost = 0;
        self.round_limited = false;
    }

    fn end_round(&mut self, now: Instant, rtt: &Rtt) {
        let (acked, lost) = (self.round_acked, self.round_lost);
        let is_limited = self.round_limited && !self.starting;
        self.standing.on_round(now, rtt.granularity_us(), acked, is_limited);
        // More than half of a real round lost is no bit error.
        if lost > acked && lost > Self::WINDOW_MIN {
            self.starting = false;
            self.window = self.halved();
            return;
        }
        if self.round_min_us == u32::MAX || rtt.min_us() == 0 && rtt.granularity_us() <= 1 {
            return;
        }
        let base_us = rtt.min_us().max(1);
        // A clock of coarse steps shows a step of delay where there may be none.
        let standing_us = self
            .round_min_us
            .saturating_sub(base_us)
            .saturating_sub(rtt.granularity_us().saturating_sub(1));
        let loaded_us = base_us.wrapping_add(standing_us);
        // Little's law: what stands in the queue is its share of the round trip.
        let queued = scaled(self.window, standing_us, loaded_us);
        let target = self.standing.messages();
        let all = acked.wrapping_add(lost).max(1);
        let loss = scaled(lost, 1024, all);
        if queued <= target {
            self.calm_loss = self.calm_loss.wrapping_mul(7).wrapping_add(loss) >> 3;
        }
        // What the path holds without a queue: the window's share of the base
        // round trip. With a queue *and* more loss than the path's own, the
        // window overstates what arrives, and what was acked is believed.
        let is_overrun = queued > target && loss > self.calm_loss.wrapping_mul(2).max(16);
        let held = if is_overrun {
            scaled(acked, 1024, 1024u32.wrapping_sub(self.calm_loss).max(1))
        } else {
            self.window
        };
        let path = scaled(held, base_us, loaded_us);
        if self.starting {
            if loss > Self::OVERSHOOT_LOSS {
                self.starting = false;
                self.set_window(acked);
            } else if queued > target {
                self.starting = false;
                self.set_window(path.wrapping_add(target));
            }
            return;
        }
        self.calm_rounds =
            if queued.wrapping_mul(2) < target { self.calm_rounds.wrapping_add(1) } else { 0 };
        if !self.round_limited && queued <= target {
            return;
        }
        let aim = path.wrapping_add(target);
        if is_overrun {
            self.standing.on_overrun();
            return self.set_window(aim);
        }
        // Half the way at a time; a path that stays calm has grown, and is
        // followed twice as fast each round, up to an eighth of the window.
        let mut next = self.window.wrapping_add(aim).wrapping_add(1) >> 1;
        if self.calm_rounds > 4 {
            let step = (target << self.calm_rounds.wrapping_sub(4).min(6)).min(self.window >> 3);
            next = next.max(self.window.wrapping_add(step));
        }
        self.set_window(next);
    }

    fn set_window(&mut self, window: u32) {
        let floor = Self::WINDOW_MIN.min(self.window_max);
        self.window = window.min(self.window_max).max(floor);
    }
}

/// The spacing of the acks of one burst: the rate of the slowest stage.
#[derive(Clone, Copy, Debug, Default)]
struct Train {
    acks: u32,
    first: Instant,
    last: Instant,
    /// Acks and the microseconds they took, once the burst is over and if the clock resolves it.
    rate: Option<(u32, u32)>,
    is_closed: bool,
}

impl Train {
    /// Acks and clock steps below which a train says nothing.
    const LEAST: u32 = 8;

    fn add(&mut self, now: Instant) {
        if self.is_closed {
            return;
        }
        if self.acks == 0 {
            self.first = now;
        }
        self.last = now;
        self.acks = self.acks.wrapping_add(1);
    }

    fn close(&mut self, rtt: &Rtt) {
        if self.is_closed {
            return;
        }
        if self.acks < Self::LEAST {
            // The herald's ack alone, or a burst that was lost: the next one counts.
            *self = Self::default();
            return;
        }
        self.is_closed = true;
        let span_us = self.last.since_short_us(self.first);
        let gaps = self.acks.wrapping_sub(1);
        let steps = rtt.granularity_us().saturating_mul(Self::LEAST);
        if gaps >= Self::LEAST && span_us >= steps {
            self.rate = Some((gaps, span_us));
        }
    }

    /// Messages the path holds at this rate.
    fn messages_in(&self, rtt: &Rtt) -> Option<u32> {
        let (gaps, span_us) = self.rate?;
        Some(scaled(gaps, rtt.min_us(), span_us))
    }
}
