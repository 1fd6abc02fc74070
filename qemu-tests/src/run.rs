//! The whole job: boot, die, dump, stop, compare.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use netsim::link::LinkConfig;
use serde_json::Value;

use crate::attack::{Attack, Attacker};
use crate::compare::{Image, Layout, LayoutError, Verdict, break_byte, compare, offset_of};
use crate::contents::{leak, used_bytes};
use crate::defmt_log;
use crate::far_end::Network;
use crate::gateway::{Gateway, GatewayConfig, Stats, WireConfig, free_loopback, socket_paths};
use crate::qemu::{COMPRESSIONS, DEFMT, Machine, Paths, Qemu};
use crate::qmp::{Monitor, TruthFile, save_truth};
use crate::reach::{Look, Untouched};
use crate::serial::{Bench, Line, Outcome, OutcomeKind, Ready};
use crate::server::{Finished, Server};
use crate::tap::Namespace;
use crate::unpack::{Unpacked, gunzip};

/// What is to be run.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// The guest's ELF file, of the machine's mapping.
    pub guest: PathBuf,
    /// The server's program.
    pub netdumpd: PathBuf,
    /// QEMU's program.
    pub qemu: PathBuf,
    /// The machine and the guest's fate.
    pub machine: Machine,
    /// Addresses on the link.
    pub network: Network,
    /// Each direction of the link.
    pub link: LinkConfig,
    /// Seed of the link.
    pub seed: u64,
    /// Broadcast frames a second that hit the guest from boot to the end.
    pub noise_per_s: u32,
    /// Directory of the files; made if it is missing.
    pub out: PathBuf,
    /// Whether to write `net.pcap`.
    pub pcap: bool,
    /// Whether QEMU is to write a capture of its own, `qemu.pcap`.
    pub filter_dump: bool,
    /// Whether the guest is shown acks that are for another station.
    pub decoys: bool,
    /// Whether the link is a tap, which lets QEMU offer checksum insertion; see [`tap::probe`](crate::tap::probe).
    pub tap: bool,
    /// Keep the saved RAM even if the dump is identical.
    pub keep_truth: bool,
    /// Invert the byte at this address of the vmcore before comparing.
    pub break_at: Option<u64>,
    /// Kill the server when this share of the guest's RAM has been sent, 0 to 1.
    pub kill_server_at: Option<f64>,
    /// What is done to the NIC in the middle of the dump.
    pub attack: Option<Attack>,
    /// Whether the guest may say that some RAM changes during the dump.
    pub may_change: bool,
    /// Have QEMU write down the registers of every exception.
    pub log_faults: bool,
    /// Limit for the whole run.
    pub time_limit: Duration,
}

impl RunConfig {
    /// A run of the default machine over a perfect link, files in `out`.
    /// `guest` is its program and `qemu` its emulator.
    pub fn new(guest: PathBuf, qemu: PathBuf, netdumpd: PathBuf, out: PathBuf) -> Self {
        let machine = Machine::default();
        Self {
            guest,
            netdumpd,
            qemu,
            network: Network::default(),
            link: LinkConfig::default(),
            seed: 1,
            noise_per_s: 200,
            out,
            pcap: true,
            filter_dump: false,
            decoys: false,
            tap: false,
            keep_truth: false,
            break_at: None,
            kill_server_at: None,
            attack: None,
            may_change: false,
            log_faults: false,
            time_limit: time_limit(&machine),
            machine,
        }
    }
}

/// A generous limit for a run of `machine`: a slow host under load, and a MiB a second.
pub fn time_limit(machine: &Machine) -> Duration {
    Duration::from_secs(120 + machine.memory_mib)
}

/// Where a run has got to; for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// QEMU has been started.
    Booting,
    /// The guest has died and its fault handler has control.
    Dumping {
        /// Image bytes sent, first transmissions only.
        sent: u64,
        /// RAM in the image.
        total: u64,
    },
    /// The guest's dump is over; the server is closing the file.
    Closing,
    /// QEMU is saving the truth and both are being compared.
    Comparing,
}

/// Result of a run that came to an end.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// What the guest said at boot.
    pub ready: Ready,
    /// What the fault handler said.
    pub crash: Value,
    /// What the guest measured, if it was asked to.
    pub bench: Option<Bench>,
    /// How the dump ended, as the guest knows it.
    pub outcome: Outcome,
    /// What the guest logged with `defmt`, if it does.
    pub logged: Option<Vec<String>>,
    /// How it ended, as the server knows it; `None` if it did not say.
    pub server: Option<Finished>,
    /// Counts of the link and the dump as it looked from outside.
    pub stats: Stats,
    /// The comparison; `None` if there is no file to compare.
    pub verdict: Option<Verdict>,
    /// RAM in the image, in bytes.
    pub dump_bytes: u64,
    /// Bytes of pages of RAM that are not all zero, as QEMU has them; 0 without a truth.
    pub used_bytes: u64,
    /// What a compressed dump holds; `None` if it is not compressed, or not complete.
    pub unpacked: Option<Unpacked>,
    /// How many ranges beside the dump's memory the guest named, which nobody may write.
    pub guards: usize,
    /// Bytes of free RAM that nobody may write either.
    pub filled_bytes: u64,
    /// Whether one of them was written nevertheless.
    pub look: Look,
    /// How QEMU ended, if it did so before it was asked to.
    pub ended: Option<ExitStatus>,
    /// Where in the image something of what was to be kept out of it is.
    pub leak_at: Option<u64>,
    /// The run's files.
    pub files: Files,
}

impl RunReport {
    /// Whether the vmcore is the guest's RAM, byte for byte, and the server calls it complete.
    pub fn is_identical(&self) -> bool {
        self.verdict.as_ref().is_some_and(Verdict::is_identical)
            && self.server.as_ref().is_some_and(|server| server.result == "complete")
    }

    /// The file to look into: the dump, or what it holds if it is compressed.
    pub fn image(&self) -> Option<&Path> {
        match &self.unpacked {
            Some(unpacked) => Some(&unpacked.image),
            None => self.files.vmcore.as_deref(),
        }
    }

    /// Why it is not identical, in one line; `None` if it is.
    pub fn complaint(&self) -> Option<String> {
        if self.is_identical() {
            return None;
        }
        if !matches!(self.outcome.result, OutcomeKind::Confirmed | OutcomeKind::Unconfirmed) {
            let error = self.outcome.more.get("error").and_then(Value::as_str).unwrap_or_default();
            return Some(format!("the guest's dump ended as {:?}: {error}", self.outcome.result));
        }
        let Some(server) = &self.server else {
            return Some("the server did not finish the dump".into());
        };
        if let Some(Verdict { first: Some(first), count, .. }) = &self.verdict {
            let differ = if *count == 1 { "byte differs" } else { "bytes differ" };
            return Some(format!("{count} {differ}, the first {first}"));
        }
        Some(format!("the server calls the dump {}", server.result))
    }
}

/// Files that a run leaves behind.
#[derive(Clone, Debug)]
pub struct Files {
    /// The dump.
    pub vmcore: Option<PathBuf>,
    /// What the guest said.
    pub serial_log: PathBuf,
    /// What the server logged.
    pub server_log: PathBuf,
    /// Frames at the guest's end of the link.
    pub pcap: Option<PathBuf>,
    /// The same, as QEMU saw them.
    pub qemu_pcap: Option<PathBuf>,
    /// QEMU's copy of the RAM, unless removed.
    pub truth: Vec<PathBuf>,
    /// Registers of every exception, if asked for.
    pub fault_log: Option<PathBuf>,
}

/// Why a run did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file, socket or process failed.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What failed.
        error: io::Error,
    },
    /// QEMU ended, or the guest said something impossible, or nothing in time.
    #[error("{what}; last words:\n{last_words}")]
    Guest {
        /// What went wrong.
        what: String,
        /// The end of the serial log and of QEMU's messages.
        last_words: String,
        /// How QEMU ended, if it did.
        ended: Option<ExitStatus>,
    },
    /// The guest's memory layout cannot be believed.
    #[error("the guest's memory layout: {0}")]
    Layout(#[from] LayoutError),
}

fn doing(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |error| RunError::Io { what, error }
}

/// How often progress is reported.
const TICK: Duration = Duration::from_millis(10);
/// Longest wait for the server after the guest has ended.
const SERVER_MAX: Duration = Duration::from_secs(60);
/// Longest wait for server and QEMU after a dump that was given up.
const GAVE_UP_MAX: Duration = Duration::from_secs(1);
/// How long the link stays down after a death without one.
const LINK_DOWN: Duration = Duration::from_millis(500);
/// Most that an image has beside RAM.
const HEADERS_MAX: u64 = 16 << 20;
const CONNECT_MAX: Duration = Duration::from_secs(20);
const QUIT_MAX: Duration = Duration::from_secs(20);

/// Each run of this process has its own loopback address.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// Runs `config` from boot to comparison. Everything it starts has ended when it returns.
///
/// # Errors
/// [`RunError`] if there is nothing to compare with; a dump that differs or
/// failed is a [`RunReport`].
pub fn run(config: &RunConfig, progress: &mut dyn FnMut(Progress)) -> Result<RunReport, RunError> {
    let end = Instant::now() + config.time_limit;
    fs::create_dir_all(&config.out).map_err(doing("making the output directory"))?;
    // QEMU saves memory relative to its own directory.
    let out = config.out.canonicalize().map_err(doing("the output directory"))?;
    let sockets = tempfile::Builder::new()
        .prefix("qdump")
        .tempdir()
        .map_err(doing("making a directory for sockets"))?;

    let ip = free_loopback(RUNS.fetch_add(1, Ordering::Relaxed))
        .map_err(doing("looking for a free loopback address"))?;
    let server_log = out.join("netdumpd.log");
    let mut server = Server::start(&config.netdumpd, ip, &out, &server_log)
        .map_err(doing("starting netdumpd"))?;
    let pcap = config.pcap.then(|| out.join("net.pcap"));
    let namespace =
        config.tap.then(Namespace::new).transpose().map_err(doing("making a network namespace"))?;
    let (host_path, guest_path) = socket_paths(sockets.path());
    let wire = match &namespace {
        Some(namespace) => WireConfig::Tap { namespace: namespace.path() },
        None => WireConfig::Unix { host_path, guest_path },
    };
    let gateway = Gateway::start(GatewayConfig {
        wire,
        network: config.network,
        relay_ip: ip,
        herald: server.address(),
        link: config.link.clone(),
        seed: config.seed,
        pcap: pcap.clone(),
        noise_per_s: config.noise_per_s,
        decoys: config.decoys,
    })
    .map_err(doing("starting the gateway"))?;

    let memory_len = config.machine.memory_len();
    let attacker = config.attack.map(|attack| Attacker::new(attack, memory_len));
    let mut kill_at = config.kill_server_at.map(|share| (memory_len as f64 * share) as u64);
    let next_blow = attacker.and_then(|attacker| attacker.due());
    gateway.hold_at(earliest(kill_at, next_blow));

    progress(Progress::Booting);
    let paths = Paths {
        guest: config.guest.clone(),
        serial_log: out.join("serial.log"),
        defmt_log: (config.machine.client == DEFMT).then(|| out.join("defmt.bin")),
        qemu_log: out.join("qemu.log"),
        fault_log: config.log_faults.then(|| out.join("faults.log")),
        sockets: sockets.path().to_path_buf(),
        filter_dump: config.filter_dump.then(|| out.join("qemu.pcap")),
    };
    let defmt_log = paths.defmt_log.clone();
    let (serial_log, fault_log) = (paths.serial_log.clone(), paths.fault_log.clone());
    let monitor_path = paths.monitor();
    let qemu_pcap = paths.filter_dump.clone();
    let qemu =
        Qemu::start(&config.qemu, &config.machine, &config.network, namespace.as_ref(), paths)
            .map_err(doing("starting QEMU"))?;
    let mut guest = Guest {
        qemu,
        end,
        monitor_path,
        monitor: None,
        link_is_up: true,
        untouched: Untouched::default(),
        bench: None,
        attacker,
    };
    let (ready, layout) = guest.boot(memory_len)?;
    let Machine { image, redact, .. } = &config.machine;
    if ready.image != *image || layout.redacted.is_empty() == *redact {
        let (got, kept) = (&ready.image, &layout.redacted);
        let what =
            format!("asked for image={image} and redact={redact}, got {got} without {kept:x?}");
        return Err(guest.error(what));
    }
    if layout.changing.is_empty() == config.may_change {
        return Err(guest.error(format!("{:x?} is said to change", layout.changing)));
    }
    let crash = guest.crash()?;
    guest.mend_link()?;
    let total = layout.ram_len();
    let outcome = guest.outcome(&mut |next_blow| {
        let sent = gateway.stats().traffic.data_bytes;
        progress(Progress::Dumping { sent, total });
        if kill_at.is_some_and(|kill_at| sent >= kill_at) {
            server.kill();
            kill_at = None;
        }
        gateway.hold_at(earliest(kill_at, next_blow));
        sent
    })?;
    if kill_at.is_some() || guest.attacker.is_some_and(|attacker| attacker.due().is_some()) {
        return Err(guest.error("the dump was over before its middle".into()));
    }

    progress(Progress::Closing);
    let gave_up = matches!(outcome.result, OutcomeKind::Failed | OutcomeKind::Nested);
    // A server waits long for a client that is gone; we need not.
    let finished = server.finished(if gave_up { GAVE_UP_MAX } else { SERVER_MAX });

    progress(Progress::Comparing);
    // A guest that fell twice leaves QEMU, and there is no truth to be had.
    let ended = match outcome.result {
        OutcomeKind::Nested => guest.qemu.wait(QUIT_MAX),
        _ if gave_up => guest.qemu.wait(GAVE_UP_MAX),
        _ => None,
    };
    let mut monitor = if ended.is_some() { None } else { Some(guest.stop()?) };
    // Noise has hit the NIC to the end; from here on a full socket means nothing.
    let stats = gateway.finish().map_err(doing("running the gateway"))?;
    let truth = match &mut monitor {
        None => Vec::new(),
        Some(monitor) => guest.truth(monitor, &layout, &out)?,
    };
    let bench = guest.bench;
    let untouched = std::mem::take(&mut guest.untouched);
    drop(guest);
    server.stop();

    let finished = match finished {
        Ok(finished) => Some(finished),
        Err(_) if gave_up => None,
        Err(error) => return Err(doing("waiting for netdumpd")(error)),
    };
    let mut vmcore = finished.as_ref().and_then(|finished| finished.vmcore.clone());
    let mut judged = vmcore.as_deref().filter(|_| !truth.is_empty());
    let mut unpacked = None;
    if config.machine.compress != COMPRESSIONS[0] {
        // Of a cut one there is nothing to compare.
        let is_whole = finished.as_ref().is_some_and(|finished| finished.result == "complete");
        unpacked = judged
            .filter(|_| is_whole)
            .map(|vmcore| gunzip(vmcore, layout.file_len() + HEADERS_MAX))
            .transpose()
            .map_err(doing("decompressing the vmcore"))?;
        judged = unpacked.as_ref().map(|unpacked| unpacked.image.as_path());
    }
    let verdict = judged.map(|vmcore| judge(config, vmcore, &layout, &truth)).transpose()?;
    let leak_at = judged.map(|vmcore| leak(vmcore, &layout.redacted, &truth)).transpose();
    let leak_at = leak_at.map_err(doing("looking for what was kept out"))?.flatten();
    let look = untouched.look(&truth).map_err(doing("looking at the guard pages"))?;
    let used_bytes = used_bytes(&truth).map_err(doing("counting pages in use"))?;
    if config.kill_server_at.is_some() || gave_up && vmcore.is_none() {
        vmcore = left_behind(&out).map_err(doing("looking for what the server left"))?;
    }
    let logged = defmt_log.map(|log| defmt_log::read(&config.guest, &log)).transpose();
    let logged = logged.map_err(doing("decoding the guest's log"))?;
    let keep = config.keep_truth || !verdict.as_ref().is_some_and(Verdict::is_identical);
    Ok(RunReport {
        ready,
        crash,
        bench,
        outcome,
        logged,
        server: finished,
        stats,
        verdict,
        dump_bytes: total,
        used_bytes,
        unpacked,
        guards: untouched.guards.len(),
        filled_bytes: untouched.filled_len(),
        look,
        ended,
        leak_at,
        files: Files {
            vmcore,
            serial_log,
            server_log,
            pcap,
            truth: settle(truth, keep)?,
            fault_log,
            qemu_pcap,
        },
    })
}

/// The dump of a server that was killed: the one file of its name.
fn left_behind(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut found = None;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_dump = entry.file_name().to_string_lossy().starts_with("vmcore.");
        if is_dump && entry.metadata()?.is_file() {
            found = Some(entry.path());
        }
    }
    Ok(found)
}

fn judge(
    config: &RunConfig,
    vmcore: &Path,
    layout: &Layout,
    truth: &[TruthFile],
) -> Result<Verdict, RunError> {
    let image = if config.machine.image == "flat" { Image::Flat } else { Image::Elf };
    if let Some(address) = config.break_at {
        if layout.volatile.contains(&address) {
            let error = io::Error::other(format!("{address:#x} is in the volatile section"));
            return Err(doing("breaking a byte of the vmcore")(error));
        }
        offset_of(vmcore, image, layout, address)
            .and_then(|offset| break_byte(vmcore, offset))
            .map_err(doing("breaking a byte of the vmcore"))?;
    }
    compare(vmcore, image, layout, truth).map_err(doing("comparing the vmcore"))
}

/// Removes the truth if nobody needs it; names the files that stay.
fn settle(truth: Vec<TruthFile>, keep: bool) -> Result<Vec<PathBuf>, RunError> {
    let mut kept = Vec::new();
    for TruthFile { path, .. } in truth {
        if keep {
            kept.push(path);
        } else {
            fs::remove_file(&path).map_err(doing("removing the truth"))?;
        }
    }
    Ok(kept)
}

/// The guest as heard on its serial port.
struct Guest {
    qemu: Qemu,
    end: Instant,
    monitor_path: PathBuf,
    /// QEMU's monitor, once it was needed: it takes one connection only.
    monitor: Option<Monitor>,
    link_is_up: bool,
    untouched: Untouched,
    bench: Option<Bench>,
    attacker: Option<Attacker>,
}

/// How many bytes are sent when something is to happen next; `u64::MAX` if nothing is.
fn earliest(kill_at: Option<u64>, next_blow: Option<u64>) -> u64 {
    kill_at.into_iter().chain(next_blow).min().unwrap_or(u64::MAX)
}

/// Is told at how many bytes of the image the next blow falls, and tells how many were sent.
type Tick<'a> = dyn FnMut(Option<u64>) -> u64 + 'a;

impl Guest {
    fn monitor(&mut self) -> Result<&mut Monitor, RunError> {
        let monitor = match self.monitor.take() {
            Some(monitor) => monitor,
            None => self.connect()?,
        };
        Ok(self.monitor.insert(monitor))
    }

    fn connect(&mut self) -> Result<Monitor, RunError> {
        Monitor::connect(&self.monitor_path, CONNECT_MAX)
            .map_err(|error| self.lost("connecting to QEMU", &error))
    }

    fn set_link(&mut self, up: bool) -> Result<(), RunError> {
        self.link_is_up = up;
        self.monitor()?.set_link("net0", up).map_err(doing("setting the link"))
    }

    /// Brings the link up a little later, if the guest died while it was down.
    fn mend_link(&mut self) -> Result<(), RunError> {
        if self.link_is_up {
            return Ok(());
        }
        std::thread::sleep(LINK_DOWN);
        self.set_link(true)
    }

    fn boot(&mut self, memory_len: u64) -> Result<(Ready, Layout), RunError> {
        match self.next("boot", &mut |_| 0)? {
            Line::Ready(ready) => {
                let layout = Layout {
                    ram: ready.ram_ranges(),
                    volatile: ready.volatile_range(),
                    redacted: ready.redacted_range(),
                    changing: ready.changing_range(),
                };
                layout.check(memory_len)?;
                Ok((ready, layout))
            }
            other => Err(self.unexpected("GUEST-READY", &other)),
        }
    }

    fn crash(&mut self) -> Result<Value, RunError> {
        match self.next("die", &mut |_| 0)? {
            Line::Crash(crash) => Ok(crash),
            other => Err(self.unexpected("GUEST-CRASH", &other)),
        }
    }

    fn outcome(&mut self, tick: &mut Tick<'_>) -> Result<Outcome, RunError> {
        match self.next("finish its dump", tick)? {
            Line::Outcome(outcome) => Ok(outcome),
            other => Err(self.unexpected("GUEST-OUTCOME", &other)),
        }
    }

    /// Stops the guest.
    fn stop(&mut self) -> Result<Monitor, RunError> {
        let mut monitor = match self.monitor.take() {
            Some(monitor) => monitor,
            None => self.connect()?,
        };
        match monitor.stop() {
            Ok(()) => Ok(monitor),
            Err(error) => Err(self.lost("stopping the guest", &error)),
        }
    }

    /// Takes QEMU's copy of the RAM into `out`, and ends QEMU.
    fn truth(
        &mut self,
        monitor: &mut Monitor,
        layout: &Layout,
        out: &Path,
    ) -> Result<Vec<TruthFile>, RunError> {
        let truth = save_truth(monitor, &layout.ram, out);
        let truth = truth.map_err(|error| self.lost("saving guest RAM", &error))?;
        // QEMU may close the monitor before its answer is read.
        let _ = monitor.quit();
        self.qemu.wait(QUIT_MAX);
        Ok(truth)
    }

    /// Strikes if it is time to, when `sent` bytes of the image were sent.
    fn attack(&mut self, sent: u64) -> Result<(), RunError> {
        let is_due = |attacker: &Attacker| attacker.due().is_some_and(|due| sent >= due);
        let Some(mut attacker) = self.attacker.filter(is_due) else { return Ok(()) };
        let struck = attacker.strike(self.monitor()?);
        struck.map_err(|error| self.lost("attacking the NIC", &error))?;
        self.attacker = Some(attacker);
        Ok(())
    }

    /// The next tagged line.
    fn next(&mut self, goal: &str, tick: &mut Tick<'_>) -> Result<Line, RunError> {
        loop {
            let sent = tick(self.attacker.and_then(|attacker| attacker.due()));
            self.attack(sent)?;
            if Instant::now() >= self.end {
                return Err(self.error(format!("the guest did not {goal} in time")));
            }
            match self.qemu.line(TICK) {
                Ok(None | Some(Line::Text)) => {}
                Ok(Some(Line::Link(wish))) => self.set_link(wish.up)?,
                Ok(Some(Line::Guard(guard))) => self.untouched.guards.push(guard),
                Ok(Some(Line::Filled(filled))) => self.untouched.filled.push(filled),
                Ok(Some(Line::Bench(bench))) => self.bench = Some(bench),
                Ok(Some(line)) => return Ok(line),
                Err(closed) => {
                    return Err(self.lost(&format!("waiting for the guest to {goal}"), &closed));
                }
            }
        }
    }

    fn unexpected(&mut self, wanted: &str, got: &Line) -> RunError {
        self.error(format!("expected {wanted}, got {got:?}"))
    }

    /// QEMU does not answer any more: it may have ended, and its status says why.
    fn lost(&mut self, what: &str, error: &dyn std::error::Error) -> RunError {
        self.qemu.wait(GAVE_UP_MAX);
        self.error(format!("{what}: {error}"))
    }

    fn error(&mut self, what: String) -> RunError {
        let last_words = self.qemu.last_words();
        RunError::Guest { what, last_words, ended: self.qemu.wait(Duration::ZERO) }
    }
}
