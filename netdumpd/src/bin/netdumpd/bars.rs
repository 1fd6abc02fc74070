//! A progress bar for each dump, on a terminal.

use std::collections::HashMap;
use std::io::{self, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use netdumpd::core::SessionId;
use netdumpd::net::{Event, Observer};
use tracing_subscriber::fmt::MakeWriter;

/// A progress bar for each dump.
#[derive(Default)]
pub(crate) struct Bars {
    all: MultiProgress,
    dumps: HashMap<SessionId, ProgressBar>,
}

impl Bars {
    /// What log lines are to be written through, so that bars stay below them.
    pub(crate) fn writer(&self) -> AboveBars {
        AboveBars { all: self.all.clone() }
    }
}

impl Observer for Bars {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Progress { session, peer, bytes, .. } => {
                let all = &self.all;
                let bar = self.dumps.entry(*session).or_insert_with(|| {
                    let style = ProgressStyle::with_template(
                        "{prefix} {spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}",
                    );
                    let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
                    all.add(
                        ProgressBar::no_length().with_style(style).with_prefix(peer.to_string()),
                    )
                });
                bar.set_position(*bytes);
                bar.tick();
            }
            Event::Finished(outcome) => {
                if let Some(bar) = self.dumps.remove(&outcome.session) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
            }
            _ => {}
        }
    }
}

/// Standard error, above the bars.
#[derive(Clone)]
pub(crate) struct AboveBars {
    all: MultiProgress,
}

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.all.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for AboveBars {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
