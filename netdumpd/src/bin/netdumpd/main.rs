//! The daemon, and what else `netdumpd` does.
#![forbid(unsafe_code)]

#[cfg(feature = "progress")]
mod bars;
mod daemon;
mod generate;
mod log;
#[cfg(feature = "metrics")]
mod metrics;
mod report;
#[cfg(all(feature = "sandbox", target_os = "linux"))]
mod sandbox;
mod serve;
mod user;

use std::process::ExitCode;

use anyhow::Result;
use netdumpd::inspect;
use netdumpd::options::{self, Command, Refused};

/// What clap uses for a command line it does not understand.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let typed = std::env::args_os().collect();
    let args = match options::parse(typed, |path| std::fs::read_to_string(path)) {
        Ok(args) => args,
        Err(Refused::Usage(error)) => error.exit(),
        Err(error) => {
            eprintln!("netdumpd: {error}");
            return BAD_USAGE.into();
        }
    };
    let result: Result<ExitCode> = match &args.command {
        Some(Command::Inspect { file, json }) => inspect::run(file, *json),
        Some(Command::Generate { what }) => {
            generate::print(what).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        None if args.handler_helper => serve::run_helper(&args),
        None if args.in_foreground() || args.daemon_child => serve::run(&args),
        None => daemon::start(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("netdumpd: {error:#}");
        ExitCode::FAILURE
    })
}
