//! The daemon: command line, log, signals.
#![forbid(unsafe_code)]

mod args;
mod daemon;
mod report;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use netdumpd::core::Verdict;
use netdumpd::net::{Event, Observer, Server};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use crate::args::Args;
use crate::daemon::PidFile;
use crate::report::{Bars, JsonLines, Quiet};

const INCOMPLETE: u8 = 3;
const FAILED: u8 = 4;
const NO_DUMP: u8 = 5;

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.in_foreground() || args.daemon_child {
        true => serve(&args),
        false => daemon::start(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("netdumpd: {error:#}");
        ExitCode::FAILURE
    })
}

fn serve(args: &Args) -> Result<ExitCode> {
    if args.daemon_child {
        daemon::detach()?;
    }
    // The handler script must get nothing that we got from whoever started us.
    close_fds::set_fds_cloexec(3, &[]);
    raise_descriptor_limit();
    let mut observer = start_log(args);
    let mut server = Server::bind(args.server_config()?)?;
    let _pid_file = args.pid_file().map(|path| PidFile::create(&path)).transpose()?;

    let stopper = server.stopper();
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot take signals")?;
    let signal_handle = signals.handle();
    let listener = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            tracing::info!("stopping (signal {signal})");
            stopper.stop();
        }
    })?;

    tracing::info!("listening on {}", server.local_addr());
    if args.daemon_child {
        // All paths are absolute by now; a daemon keeps no directory busy.
        std::env::set_current_dir("/")?;
        daemon::announce()?;
    }
    let verdict = server.run(&mut *observer).context("cannot go on")?;
    signal_handle.close();
    // It cannot panic; if it did, the dumps are closed all the same.
    let _ = listener.join();
    Ok(exit_code(args.once, verdict))
}

fn exit_code(once: bool, verdict: Option<Verdict>) -> ExitCode {
    match verdict {
        _ if !once => ExitCode::SUCCESS,
        Some(Verdict::Complete) => ExitCode::SUCCESS,
        Some(Verdict::Incomplete) => INCOMPLETE.into(),
        Some(Verdict::Failed) => FAILED.into(),
        None => NO_DUMP.into(),
    }
}

/// The log goes to syslog from the daemon, else to standard error; events to
/// standard output as JSON, or to progress bars on a terminal.
fn start_log(args: &Args) -> Box<dyn Observer> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(false);
    if args.daemon_child {
        let (options, facility) = Default::default();
        // Only one logger can be open in a process, and this is the only place.
        if let Some(syslog) = syslog_tracing::Syslog::new(c"netdumpd", options, facility) {
            builder.without_time().with_level(false).with_writer(syslog).init();
        }
        return Box::new(Quiet);
    }
    if args.json {
        builder.with_writer(std::io::stderr).init();
        return Box::new(JsonLines);
    }
    let mut bars = Bars::default();
    builder.with_writer(bars.writer()).init();
    let on_terminal = std::io::stderr().is_terminal();
    if on_terminal { Box::new(move |event: &Event| bars.event(event)) } else { Box::new(Quiet) }
}

/// One descriptor a session and four a dump: as many as we may have.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!("descriptor limit: {error}");
    }
}
