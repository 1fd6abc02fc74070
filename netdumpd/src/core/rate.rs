//! How many new sessions a second, in all and for one address.

use std::collections::HashMap;
use std::net::IpAddr;

use debugnet_core::time::Instant;

const SECOND_US: u64 = 1_000_000;

/// What becomes of a herald that would open a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    Granted,
    /// The first of this second that is refused.
    FirstRefused,
    Refused,
}

/// Counts of the present second. Its memory is bounded by the limit: an
/// address is noted only when it is granted one.
#[derive(Debug, Default)]
pub(super) struct HeraldRate {
    since: Instant,
    granted: u32,
    of_source: HashMap<IpAddr, u32>,
    refused: bool,
}

impl HeraldRate {
    pub(super) fn admit(&mut self, now: Instant, source: IpAddr, limit: u32) -> Admission {
        if now.since_us(self.since) >= SECOND_US {
            *self = Self { since: now, ..Self::default() };
        }
        let of_source = self.of_source.get(&source).copied().unwrap_or_default();
        if self.granted < limit && of_source < limit.div_ceil(4) {
            self.granted += 1;
            self.of_source.insert(source, of_source + 1);
            return Admission::Granted;
        }
        match std::mem::replace(&mut self.refused, true) {
            false => Admission::FirstRefused,
            true => Admission::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_use_up_what_is_for_all() {
        let mut rate = HeraldRate::default();
        let now = Instant::from_micros(5 * SECOND_US);
        let loud = "10.0.0.1".parse().unwrap();
        let admit = |rate: &mut HeraldRate, now, source| rate.admit(now, source, 8);
        assert_eq!(admit(&mut rate, now, loud), Admission::Granted);
        assert_eq!(admit(&mut rate, now, loud), Admission::Granted);
        assert_eq!(admit(&mut rate, now, loud), Admission::FirstRefused);
        assert_eq!(admit(&mut rate, now, loud), Admission::Refused);
        for n in 2..8 {
            let other = format!("10.0.0.{n}").parse().unwrap();
            assert_eq!(admit(&mut rate, now, other), Admission::Granted);
        }
        let late = "10.0.0.99".parse().unwrap();
        assert_eq!(admit(&mut rate, now, late), Admission::Refused, "eight are out");
        let next = now.after(SECOND_US);
        assert_eq!(admit(&mut rate, next, late), Admission::Granted);
        assert_eq!(admit(&mut rate, next, loud), Admission::Granted);
    }
}
