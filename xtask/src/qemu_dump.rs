//! `cargo xtask qemu-dump`: the main job.

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use netsim::link::LinkConfig;
use qemu_tests::board::{Board, board};
use qemu_tests::gateway::Stats;
use qemu_tests::qemu::Machine;
use qemu_tests::run::{Progress, RunConfig, RunReport, run as run_guest, time_limit};
use qemu_tests::serial::OutcomeKind;
use qemu_tests::unpack::Unpacked;
use serde_json::{Value, json};

use crate::{cargo, tools, values};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The guest's NIC, as QEMU calls it; `-legacy`: the legacy interface of virtio [default:
    /// the machine's first, virtio-net-pci for q35]
    #[arg(long, value_name = "NAME", value_parser = values::nic)]
    nic: Option<String>,
    /// The machine, as QEMU calls it: q35, pc, microvm; aarch64-virt, riscv64-virt; or mps2-an385,
    /// which is a Cortex-M3
    #[arg(long, value_name = "NAME", default_value = "q35", value_parser = values::machine)]
    machine: String,
    /// Virtual addresses of the guest: identity, or higher-half for the top 2 GiB
    #[arg(long, value_name = "NAME", default_value = "identity", value_parser = values::mapping)]
    mapping: String,
    /// What dumps in the guest: the library in Rust, C code through its C interface, or on mps2-an385
    /// defmt, Rust that logs with it
    #[arg(long, value_name = "NAME", default_value = "rust", value_parser = values::client)]
    client: String,
    /// What the dump looks like: elf, for debuggers; flat, RAM at its physical address; or freebsd
    /// [default: elf, if the guest makes it]
    #[arg(long, value_name = "NAME", value_parser = values::image)]
    image: Option<String>,
    /// How the dump is compressed on its way: none, or gzip, of which the comparison reads what it
    /// holds
    #[arg(long, value_name = "NAME", default_value = "none", value_parser = values::compress)]
    compress: String,
    /// Keep a page of the guest's keys out of the dump
    #[arg(long)]
    redact: bool,
    /// The guest's CPUs: 1, or 2 with the second one stopped by the death of the first
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=2))]
    cpus: u32,
    /// The guest's RAM [default: 256M, or what the board has]
    #[arg(long, value_name = "SIZE", value_parser = values::memory)]
    memory: Option<u64>,
    /// The link's IP MTU in bytes
    #[arg(long, value_name = "N", default_value = "1500", value_parser = values::mtu)]
    mtu: u16,
    /// Frames lost in each direction, in percent
    #[arg(long, value_name = "PCT", default_value = "0", value_parser = values::percent)]
    loss: f64,
    /// How the guest dies: null, panic, stack or driver-lock
    #[arg(long, value_name = "HOW", default_value = "null", value_parser = values::crash)]
    crash: String,
    /// QEMU's accelerator: tcg or kvm
    #[arg(long, value_name = "NAME", default_value = "tcg", value_parser = values::accel)]
    accel: String,
    /// Where the files go [default: target/qemu-dump, emptied first]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
    /// Seed of the link's losses and of the pattern in the guest's RAM
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Slots of the sender's window, a power of two [default: the guest's]
    #[arg(long, value_name = "N", value_parser = values::slots)]
    slots: Option<u32>,
    /// Keep QEMU's copy of the RAM (truth.*) even if the dump is identical
    #[arg(long)]
    keep: bool,
    /// Invert one byte of the vmcore before comparing, to see that it is found
    #[arg(long = "break", value_name = "ADDR", hide = true, value_parser = values::address)]
    break_at: Option<u64>,
}

/// Runs the job; the exit status is 0 only for a dump that is identical to the truth.
pub(crate) fn run(args: &Args) -> ExitCode {
    let (result, object) = match dump(args) {
        Ok((report, machine, guest)) => {
            summarise(args, &machine, &report);
            (report.is_identical(), to_json(&machine, &report, &guest))
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            (false, failed(args, &format!("{error:#}")))
        }
    };
    if args.json {
        println!("{object}");
    }
    if result { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The machine that the flags ask for, and what it is.
fn machine(args: &Args) -> Result<(Machine, &'static Board)> {
    let board = board(&args.machine).context("no such machine")?;
    let nic = args.nic.as_deref().or(board.nics.first().copied()).context("it has no NIC")?;
    let memory_mib = args.memory.or(board.memory_mib).unwrap_or(256);
    let machine = Machine {
        machine: args.machine.clone(),
        nic: nic.to_owned(),
        accel: args.accel.clone(),
        mapping: args.mapping.clone(),
        client: args.client.clone(),
        image: args.image.as_deref().unwrap_or(board.guest.images()[0]).to_owned(),
        compress: args.compress.clone(),
        redact: args.redact,
        cpus: args.cpus,
        memory_mib,
        mtu: args.mtu,
        crash: args.crash.clone(),
        slots: args.slots,
        seed: args.seed,
        ..Machine::default()
    };
    board.check(&machine)?;
    Ok((machine, board))
}

fn dump(args: &Args) -> Result<(RunReport, Machine, PathBuf)> {
    let (machine, board) = machine(args)?;
    if let Some(target) = board.guest.target() {
        tools::target(target).with_context(|| format!("{} needs it", board.name))?;
    }
    let qemu = tools::qemu(board.program)?;
    let guest = cargo::build_guest(board.guest, &machine.mapping, &machine.client)?;
    let netdumpd = cargo::build_netdumpd()?;
    let out = match &args.out {
        Some(dir) => dir.clone(),
        None => default_dir()?,
    };
    let config = RunConfig {
        link: LinkConfig { loss: args.loss, ..LinkConfig::default() },
        seed: args.seed,
        keep_truth: args.keep,
        break_at: args.break_at,
        time_limit: time_limit(&machine),
        machine: machine.clone(),
        ..RunConfig::new(guest.clone(), qemu, netdumpd, out)
    };
    let bar = Bar::new();
    let report = run_guest(&config, &mut |progress| bar.show(progress));
    bar.clear();
    Ok((report.context("the run")?, machine, guest))
}

/// `target/qemu-dump`, without the files of the last run.
fn default_dir() -> Result<PathBuf> {
    let dir = cargo::target_dir()?.join("qemu-dump");
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("emptying {}", dir.display()));
        }
        _ => {}
    }
    Ok(dir)
}

/// A bar on a terminal, one line a stage elsewhere.
struct Bar {
    bar: Option<ProgressBar>,
    last: std::cell::Cell<Option<std::mem::Discriminant<Progress>>>,
}

impl Bar {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            // The template is a constant; one that is wrong leaves the plain style.
            if let Ok(style) = ProgressStyle::with_template(
                "{msg:12} [{bar:36}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            ) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, last: std::cell::Cell::new(None) }
    }

    fn show(&self, progress: Progress) {
        let stage = match progress {
            Progress::Booting => "booting",
            Progress::Dumping { .. } => "dumping",
            Progress::Closing => "closing",
            Progress::Comparing => "comparing",
        };
        let stage_id = Some(std::mem::discriminant(&progress));
        let is_new = self.last.replace(stage_id) != stage_id;
        match &self.bar {
            None if is_new => eprintln!("{stage} ..."),
            None => {}
            Some(bar) => {
                bar.set_message(stage);
                if let Progress::Dumping { sent, total } = progress {
                    bar.set_length(total);
                    bar.set_position(sent);
                }
            }
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The summary for people: to stdout, unless that is for a program.
fn summarise(args: &Args, machine: &Machine, report: &RunReport) {
    let mut lines = vec![match report.complaint() {
        None => "identical: the vmcore is the guest's RAM, byte for byte".to_owned(),
        Some(complaint) => format!("{}: {complaint}", verdict(report)),
    }];
    let Stats { up, down, socket_full, traffic, .. } = report.stats;
    let field = |name: &str, text: String| format!("  {name:<14}{text}");
    lines.push(field(
        "machine",
        format!(
            "{}, {}, {}, {} MiB",
            machine.machine, machine.nic, machine.accel, machine.memory_mib
        ),
    ));
    lines.push(field("death", args.crash.clone()));
    let compared = report.verdict.as_ref().map_or(0, |verdict| verdict.compared);
    lines.push(field("image", format!("{} bytes of RAM, {compared} compared", report.dump_bytes)));
    lines.push(field(
        "sent",
        format!("{} bytes in {} messages", traffic.data_bytes, traffic.data_messages),
    ));
    if let Some(unpacked) = &report.unpacked {
        let Unpacked { image_len, packed_len, .. } = unpacked;
        let ratio = unpacked.ratio();
        lines.push(field(
            "compressed",
            format!("{image_len} bytes of image in {packed_len}, {ratio:.2} to 1"),
        ));
    }
    if let (Some(us), Some(goodput)) = (traffic.data_us(), traffic.goodput_mb_s()) {
        lines.push(field("goodput", format!("{goodput:.1} MB/s over {:.2} s", us as f64 / 1e6)));
    }
    lines.push(field("retransmits", traffic.retransmits.to_string()));
    lines.push(field(
        "link drops",
        format!(
            "{} of {} to the server, {} of {} to the guest{}",
            report.stats.drops_up(),
            up.offered,
            report.stats.drops_down(),
            down.offered,
            if socket_full > 0 {
                format!(" ({socket_full} at QEMU's socket)")
            } else {
                String::new()
            }
        ),
    ));
    if report.outcome.result != OutcomeKind::Confirmed {
        lines.push(field("outcome", format!("{:?}", report.outcome.result)));
    }
    if let Some(doorbells) = report.outcome.more.get("doorbells").and_then(Value::as_u64) {
        lines.push(field("doorbells", doorbells.to_string()));
    }
    let files = &report.files;
    let named = [
        ("vmcore", files.vmcore.as_deref()),
        ("unpacked", report.unpacked.as_ref().map(|unpacked| unpacked.image.as_path())),
        ("capture", files.pcap.as_deref()),
        ("serial log", Some(files.serial_log.as_path())),
        ("server log", Some(files.server_log.as_path())),
        ("truth", files.truth.first().and_then(|file| file.parent())),
    ];
    for (name, path) in named {
        if let Some(path) = path {
            lines.push(field(name, path.display().to_string()));
        }
    }
    let text = lines.join("\n");
    if args.json { eprintln!("{text}") } else { println!("{text}") }
}

fn verdict(report: &RunReport) -> &'static str {
    match &report.verdict {
        _ if report.is_identical() => "identical",
        Some(verdict) if !verdict.is_identical() => "different",
        _ => "failed",
    }
}

fn to_json(machine: &Machine, report: &RunReport, guest: &Path) -> Value {
    let traffic = report.stats.traffic;
    let mut object = json!({
        "result": verdict(report),
        "nic": machine.nic,
        "machine": machine.machine,
        "accel": machine.accel,
        "compress": machine.compress,
        "dump_bytes": report.dump_bytes,
        "sent_bytes": traffic.data_bytes,
        "seconds": traffic.data_us().map(|us| us as f64 / 1e6),
        "goodput_mb_s": traffic.goodput_mb_s(),
        "retransmits": traffic.retransmits,
        "link_drops": report.stats.drops_up() + report.stats.drops_down(),
        "vmcore": report.files.vmcore,
        "guest": guest,
    });
    if let Some(unpacked) = &report.unpacked {
        object["image_bytes"] = unpacked.image_len.into();
        object["compressed_bytes"] = unpacked.packed_len.into();
        object["ratio"] = unpacked.ratio().into();
        object["unpacked"] = unpacked.image.to_string_lossy().into();
    }
    if let Some(complaint) = report.complaint() {
        object["error"] = complaint.into();
    }
    object
}

fn failed(args: &Args, error: &str) -> Value {
    json!({
        "result": "failed",
        "nic": machine(args).map_or(args.nic.clone(), |(machine, _)| Some(machine.nic)),
        "machine": args.machine,
        "accel": args.accel,
        "error": error,
    })
}
