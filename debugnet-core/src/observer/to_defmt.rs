//! Events for `defmt`.

use super::{Event, Observer};
use crate::time::Instant;

/// Passes every event on to `defmt`'s global logger, as an index and raw values: nothing
/// is formatted on the machine.
///
/// Only for a platform whose `defmt` logger works on a dying machine: one that takes
/// no lock that the dead may hold (an interrupted frame leaves RTT's critical section
/// taken), and waits for nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToDefmt;

impl Observer for ToDefmt {
    fn event(&mut self, now: Instant, event: &Event) {
        match event {
            Event::Failure(_) | Event::AddressConflict { .. } => {
                defmt::warn!("{=u64} us: {}", now.as_micros(), event);
            }
            Event::Progress { .. } => defmt::debug!("{=u64} us: {}", now.as_micros(), event),
            _ => defmt::info!("{=u64} us: {}", now.as_micros(), event),
        }
    }
}
