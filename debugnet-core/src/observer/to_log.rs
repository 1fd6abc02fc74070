//! Events for the `log` crate.

use log::Level;

use super::{Event, Observer};
use crate::time::Instant;

/// Passes every event on to the `log` crate, under the target `debugnet`.
///
/// Only for a platform whose logger works on a dying machine: takes no lock that
/// the dead may hold, allocates nothing, waits for nobody. The logger formats;
/// `cargo xtask panic-free` proves nothing about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToLog;

impl Observer for ToLog {
    fn event(&mut self, now: Instant, event: &Event) {
        let level = match event {
            Event::Failure(_) | Event::AddressConflict { .. } => Level::Warn,
            Event::Progress { .. } => Level::Debug,
            _ => Level::Info,
        };
        log::log!(target: "debugnet", level, "{} us: {event:?}", now.as_micros());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::progress::Stage;

    static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

    struct Collect;

    impl log::Log for Collect {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            if record.target() == "debugnet" {
                LINES.lock().unwrap().push((record.level(), record.args().to_string()));
            }
        }

        fn flush(&self) {}
    }

    #[test]
    fn events_reach_the_logger_at_their_level() {
        log::set_logger(&Collect).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let progress = Event::Progress { done: 1, total: 2, rate_bytes_s: 0, remaining_us: 0 };
        ToLog.event(Instant::from_micros(5), &Event::Stage(Stage::Herald));
        ToLog.event(Instant::from_micros(6), &progress);
        let lines = LINES.lock().unwrap();
        assert_eq!(lines[0], (Level::Info, "5 us: Stage(Herald)".to_owned()));
        assert_eq!(lines[1].0, Level::Debug);
        assert!(lines[1].1.starts_with("6 us: Progress { done: 1, total: 2"), "{}", lines[1].1);
    }
}
