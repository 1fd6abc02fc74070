//! What a dump tells while it runs.
//!
//! The core never writes to a global logger: its lock may be held by the dead.
//! It reports to an [`Observer`] given to it. Events are plain values; nothing
//! is formatted before an observer does so.

use core::net::Ipv4Addr;

use heapless::HistoryBuf;

use crate::addr::MacAddr;
use crate::dump::{Failure, Verdict};
use crate::progress::Stage;
use crate::time::Instant;

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Event {
    /// A target is tried.
    Target {
        /// Its index.
        index: usize,
    },
    /// The dump entered a stage.
    Stage(Stage),
    /// The next hop answered.
    Resolved(MacAddr),
    /// The server answered the herald from this port.
    Established {
        /// UDP port of the session.
        port: u16,
    },
    /// So much has been acknowledged. At most once a 64th of the image.
    Progress {
        /// Bytes acknowledged or left out as zeros.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Another station claims our address.
    AddressConflict {
        /// The station.
        mac: MacAddr,
        /// The address.
        #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
        ip: Ipv4Addr,
    },
    /// A message from the server that is no ack.
    Message,
    /// Something went wrong. The dump goes on if it can.
    Failure(Failure),
    /// The attempt is over.
    Finished(Verdict),
}

/// Receives events, and a sign of life at each step.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, now: Instant, event: &Event);

    /// Called at least once every bounded step and while waiting: feed the watchdog here.
    fn alive(&mut self, now: Instant) {
        let _ = now;
    }
}

/// An observer that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blind;

impl Observer for Blind {
    fn event(&mut self, _: Instant, _: &Event) {}
}

/// The last `N` events, for a look after the fact. No text, no allocation.
#[derive(Debug)]
pub struct Trace<const N: usize> {
    events: HistoryBuf<(Instant, Event), N>,
}

impl<const N: usize> Trace<N> {
    /// An empty trace.
    pub const fn new() -> Self {
        Self { events: HistoryBuf::new() }
    }

    /// The events kept, oldest first.
    pub fn events(&self) -> impl Iterator<Item = &(Instant, Event)> {
        self.events.oldest_ordered()
    }
}

impl<const N: usize> Default for Trace<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Observer for Trace<N> {
    fn event(&mut self, now: Instant, event: &Event) {
        self.events.write((now, *event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_keeps_the_last_events() {
        let mut trace = Trace::<2>::new();
        for (i, stage) in [Stage::Link, Stage::Resolve, Stage::Herald].into_iter().enumerate() {
            trace.event(Instant::from_micros(i as u64), &Event::Stage(stage));
        }
        let kept: Vec<_> = trace.events().map(|(_, event)| *event).collect();
        assert_eq!(kept, [Event::Stage(Stage::Resolve), Event::Stage(Stage::Herald)]);
    }
}
