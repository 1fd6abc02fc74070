//! How many messages are to stand in the bottleneck's queue: found by trying.
//!
//! On a line that gives its frames one by one, a few are enough to keep it
//! busy, and more would only wait. A path whose stages work in batches (a
//! virtual machine's host, a NIC that joins interrupts, a server that wakes up
//! for many datagrams at once) looks the same from its round trips, but idles
//! between the batches unless more is there. What tells the two apart is the rate of
//! the acks: four times as many are tried from time to time, and kept only if that
//! rate rises; half as many are kept if it does not fall.
//!
//! Rates scatter: whoever shares the path's processors holds it up, now and
//! then for much longer than a round trip. So what counts is not how much was
//! acknowledged during a trial, but what it was as a rule (see `learn`).

use crate::time::Instant;

/// Shortest time over which a rate is taken: so many microseconds and, for a coarse clock, so many of its steps.
const UNIT_US: u32 = 1 << 10;
const UNIT_STEPS: u32 = 16;
/// Units that a trial lasts.
const TRIAL: i32 = 36;
/// Units to wait before a trial: at first, and after a gain. A trial in vain, or a loss, doubles them.
const REST: i32 = 32;
const REST_MAX: i32 = 1024;

#[derive(Clone, Debug)]
pub(crate) struct Standing {
    messages: u32,
    /// How many it was before the trial under way; the same without one.
    before: u32,
    least: u32,
    most: u32,
    /// Which way the next trial goes.
    up: bool,
    /// Units of this trial; those to wait before the next one, less than zero.
    units: i32,
    /// How many to wait after the next trial in vain.
    rest: i32,
    /// Acknowledged in this unit, and when it began in microseconds modulo 2^32.
    acked: u32,
    since_us: u32,
    /// Messages in 2^16 microseconds: what it is as a rule, and what it was before the trial.
    rate: u32,
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
            units: -REST,
            rest: REST,
            acked: 0,
            since_us: 0,
            rate: 0,
            rate_before: 0,
        }
    }

    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    /// More was lost than the path's own: what stands there is too much.
    pub(crate) fn on_overrun(&mut self) {
        if self.messages == self.least {
            // No trial of ours.
            return;
        }
        self.before = (self.messages >> 1).min(self.before).max(self.least);
        self.up = true;
        self.wait();
    }

    /// A round has ended in which `acked` messages were acknowledged, by a clock
    /// of steps of `step_us`. Rounds that something else limited say nothing of the path.
    #[inline(never)]
    pub(crate) fn on_round(&mut self, now: Instant, step_us: u32, acked: u32, is_limited: bool) {
        let now_us = now.as_micros() as u32;
        let us = now_us.wrapping_sub(self.since_us);
        self.acked = self.acked.wrapping_add(acked);
        if is_limited && us < UNIT_US.wrapping_add(step_us.wrapping_mul(UNIT_STEPS)) {
            return;
        }
        let rate = (self.acked << 16).checked_div(us).unwrap_or(0);
        self.acked = 0;
        self.since_us = now_us;
        if !is_limited {
            return;
        }
        self.units = self.units.wrapping_add(1);
        self.learn(rate);
        if self.units == 0 {
            self.rate_before = self.rate;
            let (more, less) = (self.before << 2, self.before >> 1);
            self.messages = if self.up { more.min(self.most) } else { less.max(self.least) };
            if self.messages == self.before {
                self.up = !self.up;
                self.units = -1;
            }
        }
        if self.units < TRIAL {
            return;
        }
        // An eighth more is a gain, a sixty-fourth less none lost.
        let before = self.rate_before;
        let needed = if self.up {
            before.wrapping_add(before >> 3).wrapping_add(1)
        } else {
            before.wrapping_sub(before >> 6)
        };
        if self.rate >= needed {
            self.before = self.messages;
            self.rest = REST;
        } else {
            self.rate = before;
            self.up = !self.up;
        }
        self.wait();
    }

    /// Back to what is known to be good, and no trial for a while.
    fn wait(&mut self) {
        self.messages = self.before;
        self.units = self.rest.wrapping_neg();
        self.rest = self.rest.wrapping_mul(2).min(REST_MAX);
    }

    /// Takes the rate of a unit into what it is as a rule. A unit in which
    /// somebody kept the path waiting counts as one, however long that was.
    fn learn(&mut self, rate: u32) {
        if self.rate == 0 {
            self.rate = rate;
        }
        // Before the first trial it is only known from a round or two.
        let shift = if self.rate_before == 0 { 3 } else { 6 };
        let step = (self.rate >> shift).max(1);
        self.rate = rate.max(self.rate.saturating_sub(step)).min(self.rate.wrapping_add(step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of `round_us` on a path with `rate(round, messages)` messages a
    /// millisecond; what stands there in the end.
    fn settle_rounds(
        standing: &mut Standing,
        rounds: u32,
        round_us: u64,
        rate: impl Fn(u32, u32) -> u32,
    ) -> u32 {
        let mut now = Instant::from_micros(standing.since_us.into());
        for round in 0..rounds {
            now = now.after(round_us);
            let acked = u64::from(rate(round, standing.messages())) * round_us / 1000;
            standing.on_round(now, 1, acked as u32, true);
        }
        standing.messages()
    }

    fn settle(standing: &mut Standing, rounds: u32, rate: impl Fn(u32) -> u32) -> u32 {
        settle_rounds(standing, rounds, 1100, |_, messages| rate(messages))
    }

    /// What a path carries on which 64 messages are under way between batches.
    fn batches(messages: u32) -> u32 {
        200 * messages / (64 + messages)
    }

    #[test]
    fn a_line_keeps_the_least() {
        let mut standing = Standing::new(16, 512);
        let (most, tried) = (core::cell::Cell::new(0), core::cell::Cell::new(0));
        settle(&mut standing, 10_000, |messages| {
            most.set(most.get().max(messages));
            tried.set(tried.get() + u32::from(messages > 16));
            100
        });
        assert_eq!(most.get(), 64, "one step is tried, and no more");
        assert!((100..1000).contains(&tried.get()), "and that seldom: {}", tried.get());
    }

    #[test]
    fn a_path_in_batches_is_filled_and_no_more() {
        let mut standing = Standing::new(16, 512);
        settle(&mut standing, 2000, |messages| messages.min(128));
        assert!((64..=128).contains(&standing.before), "{}", standing.before);
        // And given up when it is a line again.
        settle(&mut standing, 20_000, |_| 128);
        assert!(standing.before <= 64, "{}", standing.before);
    }

    #[test]
    fn what_holds_the_path_up_now_and_then_hides_nothing() {
        // A quarter more or less by chance; one round in twenty nearly nothing.
        let noise = |seed: u32, round: u32, rate: u32| {
            let mixed = (seed << 20 ^ round).wrapping_mul(2_654_435_761);
            let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x85eb_ca6b);
            let chance = (mixed ^ (mixed >> 13)) & 0xffff;
            if chance.is_multiple_of(20) { rate / 16 } else { rate * (96 + chance % 65) / 128 }
        };
        let (mut filled, mut more) = (0, core::cell::Cell::new(0));
        for seed in 0..16 {
            let mut standing = Standing::new(16, 512);
            settle_rounds(&mut standing, 1000, 1100, |round, messages| {
                noise(seed, round, batches(messages))
            });
            filled += u32::from(standing.before >= 128);
            let mut standing = Standing::new(16, 512);
            settle_rounds(&mut standing, 4000, 1100, |round, messages| {
                more.set(more.get() + u32::from(messages > 64));
                noise(seed, round, 100)
            });
        }
        assert!(filled >= 14, "filled {filled} of 16 times");
        let more = *more.get_mut();
        assert!(more < 16 * 4000 / 8, "on a line it is seldom more than one step: {more}");
    }

    #[test]
    fn short_rounds_and_coarse_clocks_are_taken_together() {
        let mut standing = Standing::new(16, 512);
        settle_rounds(&mut standing, 10_000, 100, |_, messages| batches(messages));
        assert!(standing.before >= 128, "{}", standing.before);
        // Everything in flight comes back within one step, whatever is in flight.
        let mut standing = Standing::new(16, 512);
        let mut now = Instant::ZERO;
        for _ in 0..16 * (REST + TRIAL) - 1 {
            now = now.after(500);
            standing.on_round(now, 500, standing.messages(), true);
        }
        assert_eq!(standing.before, 16, "a trial is 36 times 16 steps");
    }

    #[test]
    fn loss_ends_it_for_a_while() {
        let mut standing = Standing::new(16, 512);
        settle(&mut standing, 200, batches);
        assert!(standing.before >= 64, "{}", standing.before);
        for _ in 0..8 {
            standing.on_overrun();
        }
        assert_eq!(standing.messages(), 16);
        assert_eq!(settle(&mut standing, 500, batches), 16);
    }

    #[test]
    fn a_stall_at_the_beginning_is_no_slow_path() {
        for stall_us in [5_000, 10_000, 20_000, 40_000] {
            let mut standing = Standing::new(16, 512);
            standing.on_round(Instant::from_micros(stall_us), 1, 100, true);
            let most = core::cell::Cell::new(0);
            settle(&mut standing, 1000, |messages| {
                most.set(most.get().max(messages));
                100
            });
            assert_eq!(most.get(), 64, "one step is tried after {stall_us} us, and no more");
        }
    }

    #[test]
    fn a_loss_in_a_trial_leaves_what_was_before_it() {
        let mut standing = Standing::new(16, 512);
        let mut now = Instant::ZERO;
        let mut overruns = 0;
        for _ in 0..10_000 {
            now = now.after(1100);
            let room = standing.messages().min(50);
            standing.on_round(now, 1, room * 2, true);
            if standing.messages() > 50 {
                standing.on_overrun();
                overruns += 1;
            }
            assert!([16, 64].contains(&standing.messages()), "{}", standing.messages());
        }
        assert!((2..20).contains(&overruns), "{overruns}");
    }

    #[test]
    fn what_stands_on_a_slow_line_is_given_up() {
        for per_s in [100, 430, 860, 1000, 10_000] {
            let mut standing = Standing::new(16, 512);
            (standing.messages, standing.before, standing.up) = (512, 512, false);
            let mut now = Instant::ZERO;
            for _ in 0..2000 {
                now = now.after(40_000);
                standing.on_round(now, 1, per_s / 25, true);
            }
            assert!(standing.before <= 16, "{per_s}: {}", standing.before);
        }
    }

    #[test]
    fn what_the_source_limits_says_nothing() {
        let mut standing = Standing::new(16, 512);
        let mut now = Instant::ZERO;
        for round in 0..10_000 {
            now = now.after(600);
            // Never two in a row that the window limited, and one is shorter than a unit.
            standing.on_round(now, 1, standing.messages(), round % 2 != 0);
        }
        assert_eq!(standing.messages(), 16);
    }
}
