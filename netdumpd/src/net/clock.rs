//! The system's monotonic clock as the core's time.

use std::time::Duration;

use debugnet_core::time::Instant;

/// Counts from its creation.
#[derive(Debug)]
pub(super) struct Clock {
    start: std::time::Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_micros(micros(self.start.elapsed()))
    }
}

/// Whole microseconds of a duration.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
