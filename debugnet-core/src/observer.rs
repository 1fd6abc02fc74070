//! What a dump tells while it runs.
//!
//! The core never writes to a global logger: its lock may be held by the dead.
//! It reports to an [`Observer`] given to it. Events are plain values; nothing
//! is formatted before an observer does so.

#[cfg(feature = "defmt")]
mod to_defmt;
#[cfg(feature = "log")]
mod to_log;

use core::fmt;
use core::net::Ipv4Addr;

use heapless::HistoryBuf;

use crate::addr::MacAddr;
use crate::decimal::decimal;
use crate::dump::{Failure, Verdict};
use crate::progress::Stage;
use crate::time::Instant;

#[cfg(feature = "defmt")]
pub use to_defmt::ToDefmt;
#[cfg(feature = "log")]
pub use to_log::ToLog;

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
        /// Bytes of the image acknowledged or left out; of a transformed image those read.
        done: u64,
        /// Bytes of the image in all.
        total: u64,
        /// Of those done, how many a second so far; 0 if it is too early to say.
        rate_bytes_s: u64,
        /// How long the rest takes at that rate, in microseconds; 0 if it is too early to say.
        remaining_us: u64,
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

/// The line that users of the original know: `Dumping 47 out of 1007 MB:..11%..21%`
/// and so on to `..100%`, one item for each ten percent.
///
/// `Dumping` names the size of the image, `out of` the memory of the machine. Hand it each event.
///
/// ```
/// use debugnet_core::observer::{DumpingLine, Event};
///
/// let mut console = String::new();
/// let mut line = DumpingLine::new(2 << 30);
/// for percent in [1, 7, 11, 29, 100] {
///     let (done, total) = (percent << 20, 100 << 20);
///     let event = Event::Progress { done, total, rate_bytes_s: 0, remaining_us: 0 };
///     line.event(&event, &mut console)?;
/// }
/// assert_eq!(console, "Dumping 100 out of 2048 MB:..1%..11%..29%..100%");
/// # Ok::<(), core::fmt::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DumpingLine {
    memory_len: u64,
    /// Ten percents that have been told of; `None` before the first word.
    tens: Option<u64>,
}

impl DumpingLine {
    /// For a machine with so many bytes of memory.
    pub const fn new(memory_len: u64) -> Self {
        Self { memory_len, tens: None }
    }

    /// Writes what the event adds to the line. Nothing is formatted by `core::fmt`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn event(&mut self, event: &Event, out: &mut dyn fmt::Write) -> fmt::Result {
        match event {
            Event::Target { .. } => self.tens = None,
            Event::Progress { done, total, .. } => {
                if self.tens.is_none() {
                    out.write_str("Dumping ")?;
                    write_decimal(total >> 20, out)?;
                    out.write_str(" out of ")?;
                    write_decimal(self.memory_len >> 20, out)?;
                    out.write_str(" MB:")?;
                }
                let hundredth = total.div_ceil(100).max(1);
                let percent = match done {
                    done if done >= total => 100,
                    done => done.checked_div(hundredth).unwrap_or(0),
                };
                if self.tens.is_none_or(|tens| tens < percent / 10) {
                    self.tens = Some(percent / 10);
                    out.write_str("..")?;
                    write_decimal(percent, out)?;
                    out.write_str("%")?;
                }
            }
            Event::Finished(Verdict::Failed) => out.write_str("\n** DUMP FAILED **\n")?,
            Event::Finished(_) => out.write_str("\nDump complete\n")?,
            _ => {}
        }
        Ok(())
    }
}

fn write_decimal(value: u64, out: &mut dyn fmt::Write) -> fmt::Result {
    for digit in decimal(value, &mut [0; 20]) {
        out.write_char(char::from(*digit))?;
    }
    Ok(())
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
