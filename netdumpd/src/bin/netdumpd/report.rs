//! Events for programs, and for several observers at once.

use std::io::{self, Write};

use netdumpd::net::{Event, Observer};

/// Events as one JSON object a line.
pub(crate) struct JsonLines;

impl Observer for JsonLines {
    fn event(&mut self, event: &Event) {
        let mut line = match serde_json::to_vec(event) {
            Ok(line) => line,
            Err(error) => return tracing::error!("event {event:?}: {error}"),
        };
        line.push(b'\n');
        let mut output = io::stdout().lock();
        // Whoever read this may be gone; dumps go on.
        let _ = output.write_all(&line).and_then(|()| output.flush());
    }
}

/// Everyone who watches, in turn.
#[derive(Default)]
pub(crate) struct All(pub(crate) Vec<Box<dyn Observer + Send>>);

impl Observer for All {
    fn event(&mut self, event: &Event) {
        for observer in &mut self.0 {
            observer.event(event);
        }
    }
}
