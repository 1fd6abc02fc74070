//! Developer commands: `cargo xtask --help`.

mod bench;
mod bench_nics;
mod cargo;
mod ci;
mod debuggers;
mod fuzz;
mod guides;
mod intake;
mod layouts;
mod ledger;
mod miri;
mod panic_free;
mod plot;
mod probe;
mod qemu_dump;
mod size;
mod tally;
mod test;
mod tools;
mod tshark;
mod values;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of debugnet-rs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot a tiny guest, crash it, take its dump, and compare it with the truth.
    QemuDump(Box<qemu_dump::Args>),
    /// Unit, simulator and doc tests, then the QEMU matrix.
    Test(test::Args),
    /// Everything that a change must pass.
    Ci(ci::Args),
    /// Look for inputs that break a promise, with a fuzzer.
    Fuzz(fuzz::Args),
    /// The core and the drivers against their fake devices, under Miri.
    Miri(miri::Args),
    /// Prove by linking that the crash path cannot panic.
    PanicFree,
    /// Cores of every machine and byte order, judged by readelf and gdb.
    Layouts,
    /// The performance table: simulated links, QEMU, and what a packet costs.
    Bench(bench::Args),
    /// Flash, RAM and stack of the crash path.
    Size(size::Args),
    /// Follow the guides in `docs/` to the letter, in a fresh folder.
    Guides,
    /// List every `unsafe` of the project, with its argument, in SAFETY.md.
    Ledger(ledger::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::QemuDump(args) => return qemu_dump::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Miri(args) => miri::run(&args),
        Command::Layouts => layouts::all().close(),
        Command::PanicFree => panic_free::run(),
        Command::Size(args) => size::run(&args),
        Command::Guides => guides::run(),
        Command::Ledger(args) => ledger::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
