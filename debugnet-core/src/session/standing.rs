//! How many messages are to stand in the bottleneck's queue: found by trying.
//!
//! On a line that gives its frames one by one, a few are enough to keep it
//! busy, and more would only wait. A path whose stages work in batches (a
//! virtual machine's host, a NIC that joins interrupts, a server that wakes up
//! for many datagrams at once) looks the same from its round trips, but idles
//! between the batches unless more is there. What tells the two apart is the rate of
//! the acks: twice as many are tried from time to time, and kept only if that
//! rate rises; half as many are kept if it does not fall.

use crate::time::Instant;

/// Rounds that a trial lasts, and those at its beginning that still show what was before.
const ROUNDS: i32 = 12;
const SETTLING: i32 = 4;
/// Shortest trial: 32 steps of a clock of 500 us.
const TRIAL_US: u32 = 1 << 14;
/// Rounds to wait after a trial in vain, or a loss.
const REST: i32 = 288;

#[derive(Clone, Debug)]
pub(crate) struct Standing {
    messages: u32,
    /// How many it was before the trial under way; the same without one.
    before: u32,
    least: u32,
    most: u32,
    /// Which way the next trial goes.
    up: bool,
    /// Rounds of this trial, less those to wait before; and what was acknowledged since it settled.
    rounds: i32,
    acked: u32,
    /// When it settled, in microseconds modulo 2^32.
    since_us: u32,
    /// Messages in 2^16 microseconds before the trial.
    rate_before: u32,
}

impl Standing {
    /// Between `least`, to begin with, and `most` messages.
    pub(crate) fn new(least: u32, most: u32) -> Self {
        Self {
            messages: least,
            before: least,
            least,
            most,
            up: true,
            rounds: 0,
            acked: 0,
            since_us: 0,
            rate_before: 0,
        }
    }

    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    /// More was lost than the path's own: what stands there is too much.
    pub(crate) fn on_overrun(&mut self) {
        self.messages = self.least;
        self.before = self.least;
        self.rounds = -REST;
    }

    /// A round has ended in which `acked` messages were acknowledged. Rounds that
    /// something else limited say nothing of the path.
    #[inline(never)]
    pub(crate) fn on_round(&mut self, now: Instant, acked: u32, is_limited: bool) {
        self.rounds = self.rounds.wrapping_add(1);
        if !is_limited {
            self.rounds = self.rounds.min(0);
        }
        let now_us = now.as_micros() as u32;
        if self.rounds <= SETTLING {
            self.acked = 0;
            self.since_us = now_us;
            return;
        }
        self.acked = self.acked.wrapping_add(acked);
        let us = now_us.wrapping_sub(self.since_us);
        if self.rounds < ROUNDS || us < TRIAL_US {
            return;
        }
        self.rounds = 0;
        let rate = self.acked.saturating_mul(1 << 16).checked_div(us).unwrap_or(0);
        if self.messages == self.before {
            self.rate_before = rate;
            let (double, half) = (self.before << 1, self.before >> 1);
            self.messages = if self.up { double.min(self.most) } else { half.max(self.least) };
            self.up ^= self.messages == self.before;
            return;
        }
        // A sixteenth more is a gain, a sixty-fourth less none lost.
        let before = self.rate_before;
        let needed = if self.up {
            before.wrapping_add(before >> 4).wrapping_add(1)
        } else {
            before.wrapping_sub(before >> 6)
        };
        if rate >= needed {
            self.before = self.messages;
        } else {
            self.messages = self.before;
            self.up = !self.up;
            self.rounds = -REST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of a path whose rate is `rate(messages)` a millisecond, with a
    /// round trip of one millisecond; what stands there in the end.
    fn settle(standing: &mut Standing, rounds: u32, rate: impl Fn(u32) -> u32) -> u32 {
        let mut now = Instant::from_micros(standing.since_us.into());
        for _ in 0..rounds {
            now = now.after(1000);
            standing.on_round(now, rate(standing.messages()), true);
        }
        standing.messages()
    }

    #[test]
    fn a_line_keeps_the_least() {
        let mut standing = Standing::new(16, 512);
        let most = core::cell::Cell::new(0);
        settle(&mut standing, 5000, |messages| {
            most.set(most.get().max(messages));
            100
        });
        assert_eq!(most.get(), 32, "one step is tried, and no more");
    }

    #[test]
    fn a_path_in_batches_is_filled_and_no_more() {
        let mut standing = Standing::new(16, 512);
        assert_eq!(settle(&mut standing, 200, |messages| messages.min(128)), 128);
        // And given up when it is a line again.
        settle(&mut standing, 20_000, |_| 128);
        assert!(standing.messages() <= 32, "{}", standing.messages());
    }

    #[test]
    fn loss_ends_it_for_a_while() {
        let mut standing = Standing::new(16, 512);
        settle(&mut standing, 200, |messages| messages.min(128));
        assert_eq!(standing.messages(), 128);
        standing.on_overrun();
        assert_eq!(settle(&mut standing, 200, |messages| messages), 16);
    }

    #[test]
    fn what_the_source_limits_says_nothing() {
        let mut standing = Standing::new(16, 512);
        let mut now = Instant::ZERO;
        for round in 0..1000 {
            now = now.after(1000);
            standing.on_round(now, standing.messages(), round % 4 != 0);
        }
        assert_eq!(standing.messages(), 16);
    }
}
