//! Round-trip time: smoothed estimate, variance, minimum, and the retransmission
//! time-out made from them (RFC 6298 with a floor fit for a LAN).

use crate::time::Instant;

/// Round-trip estimator. All values in microseconds; 32 bits, which a small CPU
/// multiplies and divides in one instruction, hold more than an hour.
#[derive(Clone, Debug)]
pub(crate) struct Rtt {
    /// Smoothed, in eighths of a microsecond; 0 before the first sample.
    srtt_8: u32,
    /// Mean deviation, in quarters of a microsecond.
    rttvar_4: u32,
    min: MinFilter,
    granularity_us: u32,
    last_seen: Instant,
}

impl Rtt {
    /// Time-out before anything is known: a late copy of a herald kills a
    /// healthy dump on a stock server, so the first one waits a full second.
    pub(crate) const INITIAL_RTO_US: u32 = 1_000_000;
    /// A busy server on the same switch may pause for tens of milliseconds; a
    /// lost tail is found by the probe long before.
    const RTO_FLOOR_US: u32 = 40_000;
    /// A server that is no real-time program pauses for milliseconds; a probe
    /// in each pause would be a retransmission in each.
    const PROBE_FLOOR_US: u32 = 5_000;
    /// Longest wait between two probes of a silent path: some sixty of them
    /// before it is given up, which also sees the end of a long burst of loss.
    pub(crate) const BACKOFF_MAX_US: u32 = 200_000;
    const RTO_CEILING_US: u32 = 1_000_000;
    /// A clock that ticks slower than this is no clock.
    const GRANULARITY_MAX_US: u32 = 50_000;

    pub(crate) const fn new() -> Self {
        Self {
            srtt_8: 0,
            rttvar_4: 0,
            min: MinFilter::new(),
            granularity_us: Self::GRANULARITY_MAX_US,
            last_seen: Instant::ZERO,
        }
    }

    /// Learns the clock's step from the instants it shows.
    pub(crate) fn saw(&mut self, now: Instant) {
        if now <= self.last_seen {
            return;
        }
        if self.last_seen != Instant::ZERO {
            self.granularity_us = self.granularity_us.min(now.since_short_us(self.last_seen));
        }
        self.last_seen = now;
    }

    /// One unambiguous measurement.
    pub(crate) fn sample(&mut self, now: Instant, rtt_us: u32) {
        self.min.add(now, rtt_us);
        let sample_8 = rtt_us.saturating_mul(8);
        if self.srtt_8 == 0 {
            self.srtt_8 = sample_8.max(1);
            self.rttvar_4 = rtt_us.saturating_mul(2);
            return;
        }
        let srtt_us = self.srtt_8 >> 3;
        let error_us = srtt_us.abs_diff(rtt_us);
        // rttvar += (|error| - rttvar) / 4; srtt += (sample - srtt) / 8.
        self.rttvar_4 = self.rttvar_4.saturating_sub(self.rttvar_4 >> 2).saturating_add(error_us);
        self.srtt_8 = self.srtt_8.saturating_sub(self.srtt_8 >> 3).saturating_add(rtt_us).max(1);
    }

    pub(crate) fn known(&self) -> bool {
        self.srtt_8 != 0
    }

    /// Smoothed round trip; the initial time-out before the first sample.
    pub(crate) fn srtt_us(&self) -> u32 {
        if self.known() { self.srtt_8 >> 3 } else { Self::INITIAL_RTO_US }
    }

    /// Smallest round trip of the last seconds, 0 before the first sample.
    pub(crate) fn min_us(&self) -> u32 {
        self.min.get()
    }

    /// Step of the clock: no difference below it means anything.
    pub(crate) fn granularity_us(&self) -> u32 {
        self.granularity_us
    }

    /// Retransmission time-out without back-off.
    pub(crate) fn rto_us(&self) -> u32 {
        if !self.known() {
            return Self::INITIAL_RTO_US;
        }
        self.srtt_us()
            .saturating_add(self.rttvar_4.max(self.granularity_us))
            .max(Self::RTO_FLOOR_US)
            .min(Self::RTO_CEILING_US)
    }

    /// When a tail with no later ack is probed: two round trips and room for the clock's step.
    pub(crate) fn probe_us(&self) -> u32 {
        self.srtt_us()
            .saturating_mul(2)
            .saturating_add(self.rttvar_4)
            .saturating_add(self.granularity_us.saturating_mul(2))
            .min(self.rto_us())
            .max(Self::PROBE_FLOOR_US)
    }
}

/// Minimum over the last [`MinFilter::SPAN_US`] to twice that, in two buckets.
#[derive(Clone, Debug)]
struct MinFilter {
    current_us: u32,
    previous_us: u32,
    bucket_end: Instant,
}

impl MinFilter {
    const SPAN_US: u64 = 10_000_000;

    const fn new() -> Self {
        Self { current_us: u32::MAX, previous_us: u32::MAX, bucket_end: Instant::ZERO }
    }

    fn add(&mut self, now: Instant, value_us: u32) {
        if now >= self.bucket_end {
            self.previous_us = self.current_us;
            self.current_us = u32::MAX;
            self.bucket_end = now.after(Self::SPAN_US);
        }
        self.current_us = self.current_us.min(value_us);
    }

    fn get(&self) -> u32 {
        match self.current_us.min(self.previous_us) {
            u32::MAX => 0,
            min => min,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_micros(us)
    }

    #[test]
    fn constant_path_converges_to_it() {
        let mut rtt = Rtt::new();
        assert_eq!(rtt.rto_us(), Rtt::INITIAL_RTO_US);
        for i in 1..200 {
            rtt.saw(at(i * 10));
            rtt.sample(at(i * 10), 60_000);
        }
        assert_eq!(rtt.srtt_us(), 60_000);
        assert_eq!(rtt.min_us(), 60_000);
        assert!((60_000..61_000).contains(&rtt.rto_us()), "{}", rtt.rto_us());
    }

    /// RFC 6298 section 2: the variation begins at half of the first round trip and loses a
    /// quarter of itself with each sample that is as expected.
    #[test]
    fn the_time_out_comes_down_by_quarters() {
        let mut rtt = Rtt::new();
        let rtos = [(); 4].map(|()| {
            rtt.sample(at(1), 200_000);
            rtt.rto_us()
        });
        assert_eq!(rtos, [600_000, 500_000, 425_000, 368_750]);
    }

    #[test]
    fn a_lan_keeps_the_floor() {
        let mut rtt = Rtt::new();
        for i in 1..200 {
            rtt.saw(at(i));
            rtt.sample(at(i), 100);
        }
        assert_eq!(rtt.rto_us(), Rtt::RTO_FLOOR_US);
        assert_eq!(rtt.probe_us(), Rtt::PROBE_FLOOR_US);
    }

    #[test]
    fn the_clock_step_is_learned() {
        let mut rtt = Rtt::new();
        for i in 1..10 {
            rtt.saw(at(i * 500));
        }
        assert_eq!(rtt.granularity_us(), 500);
    }

    #[test]
    fn the_minimum_is_forgotten_in_the_end() {
        let mut rtt = Rtt::new();
        rtt.sample(at(0), 100);
        rtt.sample(at(11_000_000), 900);
        assert_eq!(rtt.min_us(), 100);
        rtt.sample(at(22_000_000), 900);
        assert_eq!(rtt.min_us(), 900);
    }
}
