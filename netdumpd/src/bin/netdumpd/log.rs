//! Where the log goes: syslog from the daemon, else standard error, with the
//! journal's priorities if that is where it ends.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Begins to log to syslog.
pub(crate) fn to_syslog() {
    let (options, facility) = Default::default();
    // Only one logger can be open in a process, and this is the only place.
    if let Some(syslog) = syslog_tracing::Syslog::new(c"netdumpd", options, facility) {
        builder().without_time().with_level(false).with_writer(syslog).init();
    }
}

/// Begins to log to standard error, through `writer` if it is not the journal.
pub(crate) fn to_stderr(writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    if is_journal() {
        builder().without_time().with_level(false).with_writer(Journal).init();
    } else {
        builder().with_writer(writer).init();
    }
}

fn builder() -> tracing_subscriber::fmt::SubscriberBuilder<
    tracing_subscriber::fmt::format::DefaultFields,
    tracing_subscriber::fmt::format::Format,
    EnvFilter,
> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_target(false).with_ansi(false).with_env_filter(filter)
}

/// Whether standard error is the journal's: it names its device and inode to those it starts.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

/// Lines that begin with their priority.
struct Journal;

struct Line(u8);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = [format!("<{}>", self.0).as_bytes(), bytes].concat();
        io::stderr().write_all(&line)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(6)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line(match *metadata.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        })
    }
}
