//! The QEMU runs that a change must pass, and what each must show.

use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use guest::cmdline::{NESTED_PANIC, SLOTS_MAX};
use netsim::link::LinkConfig;
use rustix::process::Signal;
use serde_json::Value;

use crate::attack::Attack;
use crate::board::{Arch, BOARDS, Board, Guest, board};
use crate::capture;
use crate::core_file::CoreFile;
use crate::defmt_log;
use crate::far_end::Network;
use crate::frame::Station;
use crate::hostile;
use crate::qemu::{COMPRESSIONS, CRASHES, DEFMT, MAC, MIB, Machine};
use crate::reach::{self, Look};
use crate::run::{RunConfig, RunError, RunReport};
use crate::serial::OutcomeKind;

/// Bytes of stack that the firmware has for its dump of the smallest kind, a flat one.
const FIRMWARE_STACK: u64 = 2048;

/// Bytes of stack that core, driver and the guest's observer may use, without compression.
pub const STACK_MAX: u64 = 4096;
/// The same with compression, as `debugnet-gzip` says.
const GZIP_STACK_MAX: u64 = 8192;
/// Longest time between two signs of life, in microseconds. A step takes less than a
/// millisecond; the rest is for a host that runs something else.
const WATCHDOG_GAP_MAX_US: u64 = 5_000_000;

/// One run and its expectation.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name for people and for directories.
    pub name: String,
    /// The machine.
    pub machine: Machine,
    /// Each direction of the link.
    pub link: LinkConfig,
    /// Addresses on the link.
    pub network: Network,
    /// Whether the guest is shown acks that are for another station.
    pub decoys: bool,
    /// Whether the link is a tap, so that the device inserts checksums.
    pub tap: bool,
    /// What is done to the NIC in the middle.
    pub attack: Option<Attack>,
    /// A bug of QEMU's own that this run may meet: QEMU dies of it, by a signal.
    pub qemu_bug: Option<&'static str>,
    /// What must come out.
    pub expect: Expect,
}

/// What a run must show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expect {
    /// Identical and confirmed.
    Identical,
    /// A byte inverted behind the server's back is found, at its address.
    BrokenByte(u64),
    /// A fault inside the dump, at this stage of it, is told truthfully.
    Nested(&'static str),
    /// The same of a panic, with its message.
    NestedPanic(&'static str),
    /// A write beyond a piece of the dump's memory faults in this guard page, which is told.
    Overrun(&'static str),
    /// Identical, but for a write beyond a piece of the dump's memory, found here.
    Spoilt(&'static str),
    /// The server is killed when this share of RAM has been sent: the guest gives up and says so.
    Cut(f64),
    /// Identical, and what was sent is the pages in use, within 5 %.
    OnlyUsed,
    /// Identical, and all of RAM was sent, zeros or not.
    AllSent,
    /// Identical, and nothing of the guest's keys is in the file.
    Redacted,
    /// The guest gives up in the middle, for this reason, and says what is missing.
    GivesUp(&'static str),
    /// The guest does not boot, and says why.
    Refused(&'static str),
}

/// Plain Ethernet, and the largest IP packet that every driver sends.
pub(crate) const PLAIN: u16 = 1500;
const JUMBO: u16 = 9000;
/// Payload of a full message at [`JUMBO`].
const JUMBO_PAYLOAD: u16 = JUMBO - 52;
/// Broadcast frames a second: the receive ring is never at rest.
const NOISE_PER_S: u32 = 1000;

impl Case {
    pub(crate) fn new(
        machine: &str,
        nic: &str,
        memory_mib: u64,
        mtu: u16,
        loss_pct: u32,
        crash: &str,
    ) -> Self {
        let case = Self {
            name: format!("{machine}-{nic}-{memory_mib}M-mtu{mtu}-loss{loss_pct}-{crash}"),
            machine: Machine {
                machine: machine.into(),
                nic: nic.into(),
                memory_mib,
                mtu,
                crash: crash.into(),
                image: board(machine).map_or("elf", |board| board.guest.images()[0]).into(),
                ..Machine::default()
            },
            link: LinkConfig { loss: f64::from(loss_pct) / 100.0, ..LinkConfig::default() },
            network: Network::default(),
            decoys: true,
            tap: false,
            attack: None,
            qemu_bug: None,
            expect: Expect::Identical,
        };
        if mtu == JUMBO { case.append(&format!("payload={JUMBO_PAYLOAD}")) } else { case }
    }

    pub(crate) fn named(mut self, suffix: &str) -> Self {
        self.name = format!("{}-{suffix}", self.name);
        self
    }

    fn higher_half(mut self) -> Self {
        self.machine.mapping = "higher-half".into();
        self.named("higher-half")
    }

    fn in_c(mut self) -> Self {
        self.machine.client = "c".into();
        self.machine.image = "flat".into();
        self.named("c")
    }

    fn with_defmt(mut self) -> Self {
        self.machine.client = DEFMT.into();
        self.named(DEFMT)
    }

    pub(crate) fn two_cpus(mut self) -> Self {
        self.machine.cpus = 2;
        self.named("2cpus")
    }

    fn image(mut self, image: &str) -> Self {
        self.machine.image = image.into();
        self.named(image)
    }

    /// The program that it needs, and QEMU's for it.
    pub fn needs(&self) -> Option<(Guest, &'static str)> {
        board(&self.machine.machine).map(|board| (board.guest, board.program))
    }

    /// Words for the guest, without a mention in the name.
    pub(crate) fn append(mut self, words: &str) -> Self {
        self.machine.append = format!("{} {words}", self.machine.append).trim_start().to_owned();
        self
    }

    /// Words for the guest, which name the case.
    pub(crate) fn guest(self, words: &str) -> Self {
        let suffix = words.replace([' ', ',', '='], "-");
        self.append(words).named(&suffix)
    }

    /// Properties of QEMU's device, which name the case.
    pub(crate) fn device(mut self, properties: &str) -> Self {
        self.machine.properties = properties.into();
        self.named(&properties.replace([',', '='], "-"))
    }

    /// Sets up a run of this case.
    pub fn configure(&self, config: &mut RunConfig) {
        config.machine = self.machine.clone();
        config.link = self.link.clone();
        config.network = self.network;
        config.time_limit = crate::run::time_limit(&self.machine);
        config.noise_per_s = NOISE_PER_S;
        config.decoys = self.decoys;
        config.tap = self.tap;
        // On a tap, QEMU sees frames whose checksums the kernel has yet to complete.
        config.pcap = self.tap;
        config.filter_dump = !self.tap;
        match self.expect {
            Expect::BrokenByte(address) => config.break_at = Some(address),
            Expect::Cut(share) => config.kill_server_at = Some(share),
            _ => {}
        }
        config.attack = self.attack;
        config.may_change = self.changes();
        config.log_faults = self.checks_registers();
    }

    /// Whether the registers in the dump are to be compared with those that QEMU saw.
    pub fn checks_registers(&self) -> bool {
        self.machine.image == "elf"
            && self.machine.cpus == 2
            && !self.changes()
            && self.expect == Expect::Identical
    }

    /// Whether a CPU goes on writing to memory during the dump.
    fn changes(&self) -> bool {
        self.machine.append.contains("second=writes")
    }

    /// Whether a debugger is to open what came out.
    pub fn is_for_debuggers(&self) -> bool {
        self.machine.image == "elf"
            && !self.changes()
            && !matches!(
                self.expect,
                Expect::Nested(_)
                    | Expect::NestedPanic(_)
                    | Expect::Overrun(_)
                    | Expect::BrokenByte(_)
                    | Expect::GivesUp(_)
            )
    }

    /// Why a run shows nothing: QEMU died of the bug that this case may meet. Any other end is
    /// for [`Case::judge`].
    pub fn excuse(&self, result: &Result<RunReport, RunError>) -> Option<String> {
        let bug = self.qemu_bug?;
        let ended = match result {
            Ok(report) => report.ended,
            Err(RunError::Guest { ended, .. }) => *ended,
            Err(_) => None,
        };
        let signal = ended?.signal()?;
        // What a program dies of by its own doing, not what others send it.
        let own = [Signal::SEGV, Signal::BUS, Signal::ABORT].map(Signal::as_raw);
        own.contains(&signal).then(|| format!("QEMU died of signal {signal}: {bug}"))
    }

    /// Looks at what came out.
    ///
    /// # Errors
    /// The first thing that is not as expected.
    pub fn judge(&self, result: &Result<RunReport, RunError>) -> Result<(), String> {
        let report = match (result, self.expect) {
            (Err(RunError::Guest { last_words, .. }), Expect::Refused(why)) => {
                return ensure(last_words.contains(why), || {
                    format!("no `{why}` in the guest's last words:\n{last_words}")
                });
            }
            (Ok(_), Expect::Refused(why)) => return Err(format!("it boots in spite of `{why}`")),
            (Err(error), _) => return Err(error.to_string()),
            (Ok(report), _) => report,
        };
        let told = report.crash.get("how").and_then(serde_json::Value::as_str);
        ensure(told.is_none_or(|how| how == self.machine.crash), || {
            format!("asked for {}, died of {told:?}", self.machine.crash)
        })?;
        let claims =
            matches!(report.outcome.result, OutcomeKind::Confirmed | OutcomeKind::Unconfirmed);
        let is_broken_by_us = matches!(self.expect, Expect::BrokenByte(_));
        ensure(!claims || is_broken_by_us || report.is_identical(), || {
            "success is claimed, and the image is another: the worst that can happen".into()
        })?;
        self.judge_reach(report)?;
        self.judge_figures(report)?;
        match self.expect {
            Expect::Identical | Expect::Spoilt(_) => self.judge_identical(report),
            Expect::Cut(_) => judge_cut(report, "Silence"),
            Expect::GivesUp(why) => judge_cut(report, why),
            Expect::OnlyUsed => {
                self.judge_identical(report)?;
                let (sent, used) = (report.outcome.sent_bytes, report.used_bytes);
                ensure(sent.abs_diff(used) <= used / 20, || {
                    format!("{sent} bytes sent, {used} bytes of pages in use")
                })
            }
            Expect::AllSent => {
                self.judge_identical(report)?;
                let (sent, ram) = (report.outcome.sent_bytes, report.dump_bytes);
                // Headers and padding, too.
                ensure((ram..ram + MIB).contains(&sent), || format!("{sent} of {ram} bytes sent"))
            }
            Expect::Redacted => {
                self.judge_identical(report)?;
                judge_redacted(report)
            }
            Expect::BrokenByte(address) => {
                let verdict = report.verdict.as_ref().ok_or("there is nothing to compare")?;
                let found = verdict.first.map(|first| first.address);
                ensure(found == Some(address) && verdict.count == 1, || {
                    format!("{} bytes differ, the first at {found:x?}", verdict.count)
                })
            }
            Expect::Refused(_) => Ok(()),
            Expect::Nested(stage) => self.judge_nested(report, stage),
            Expect::NestedPanic(stage) => {
                self.judge_nested(report, stage)?;
                let error = report.outcome.more.get("error").and_then(Value::as_str);
                let tells =
                    |error: &str| error.contains("panicked at") && error.contains(NESTED_PANIC);
                ensure(error.is_some_and(tells), || {
                    format!("not the message of a panic, `{NESTED_PANIC}`, but {error:?}")
                })
            }
            Expect::Overrun(guard) => {
                self.judge_nested(report, "data")?;
                let error = report.outcome.more.get("error").and_then(Value::as_str);
                let place = format!("in the guard page {guard}");
                ensure(error.is_some_and(|error| error.ends_with(&place)), || {
                    format!("not `{place}`, but {error:?}")
                })
            }
        }
    }

    /// Nothing was written beside the dump's memory, and no interrupt could come.
    fn judge_reach(&self, report: &RunReport) -> Result<(), String> {
        if self.needs().is_none_or(|(guest, _)| guest == Guest::Firmware) {
            return Ok(());
        }
        ensure(report.guards > 0 && report.filled_bytes > 0, || {
            let (guards, filled) = (report.guards, report.filled_bytes);
            format!("the guest has {guards} guard pages and {filled} bytes of pattern")
        })?;
        match (self.expect, &report.look) {
            (Expect::Spoilt(place), Look::Spoilt(told)) if told.contains(place) => {}
            (Expect::Spoilt(place), look) => {
                return Err(format!("nothing found {place}, but {look:?}"));
            }
            (_, Look::Clean) => {}
            (_, Look::Spoilt(told)) => return Err(told.clone()),
            // A guest that fell twice leaves QEMU.
            (Expect::Nested(_) | Expect::NestedPanic(_) | Expect::Overrun(_), Look::NotTaken) => {}
            (_, Look::NotTaken) => {
                let ended = report.ended;
                return Err(format!("nobody looked at the guard pages, QEMU had ended: {ended:?}"));
            }
        }
        let off = report.outcome.more.get("interrupts_off").and_then(Value::as_bool);
        let is_over = report.outcome.result != OutcomeKind::Nested;
        ensure(!is_over || off == Some(true), || "interrupts were on in the dump".into())
    }

    /// A fault in the dump, told as it was: where, and how much was acknowledged, as seen on the
    /// wire. What had not come to the dump by then is a window at most.
    fn judge_nested(&self, report: &RunReport, stage: &str) -> Result<(), String> {
        /// The guest tells whole units of so many bytes.
        const UNIT: u64 = 4096;
        let told = report.outcome.more.get("stage").and_then(Value::as_str);
        ensure(told == Some(stage), || format!("in stage {stage}, it says {told:?}"))?;
        let result = report.outcome.result;
        ensure(result == OutcomeKind::Nested, || format!("the guest says {result:?}"))?;
        ensure(!report.is_identical(), || "a nested fault made a whole dump".into())?;
        let (acked, seen) = (report.outcome.acked_bytes, report.stats.traffic.acked_bytes);
        let slots = self.machine.slots.map_or(SLOTS_MAX as u64, u64::from);
        let window = slots * u64::from(self.machine.mtu);
        ensure(acked <= seen && seen < acked + window + UNIT, || {
            format!("the guest claims {acked} bytes acked, {seen} were")
        })?;
        let is_late = ["data", "header", "finish"].contains(&stage);
        ensure(is_late == (acked > 0), || format!("{acked} bytes acked in stage {stage}"))?;
        let server = report.server.as_ref().map(|server| server.result.as_str());
        ensure(server != Some("complete"), || "the server calls it complete".into())
    }

    fn judge_identical(&self, report: &RunReport) -> Result<(), String> {
        if let Some(complaint) = report.complaint() {
            return Err(complaint);
        }
        let (outcome, stats) = (&report.outcome, &report.stats);
        ensure(outcome.result == OutcomeKind::Confirmed, || {
            format!("identical, but the guest says {:?}", outcome.result)
        })?;
        ensure(outcome.sent_bytes == stats.traffic.data_bytes, || {
            let (told, seen) = (outcome.sent_bytes, stats.traffic.data_bytes);
            format!("the guest says that it sent {told} bytes, {seen} passed")
        })?;
        let server = report.server.as_ref().ok_or("the server says nothing")?;
        let (bytes, missing) = (&server.event["bytes"], &server.event["missing_seqnos"]);
        let holes = &server.event["holes"]["bytes"];
        ensure(*bytes == outcome.sent_bytes && *missing == 0 && *holes == 0, || {
            let sent = outcome.sent_bytes;
            format!(
                "{sent} bytes sent, the server has {bytes}, {holes} in holes, {missing} missing"
            )
        })?;
        ensure(stats.unsummed == 0, || format!("{} datagrams without checksum", stats.unsummed))?;
        // What changes between its sum and its sending is broken on the wire. How often that is
        // depends on the host.
        let broken = stats.malformed;
        ensure(broken == 0 || self.changes(), || format!("{broken} broken frames"))?;
        let is_flapping = matches!(self.attack, Some(Attack::Flap(_)));
        ensure(!is_flapping || outcome.retransmits > 0, || "the link was never down".into())?;
        self.judge_compressed(report)?;
        let lost = stats.up.lost + stats.down.lost;
        ensure((lost > 0) == (self.link.loss > 0.0) || self.attack.is_some(), || {
            format!("{lost} frames lost")
        })?;
        ensure(!self.decoys || stats.decoys > 0, || "the guest was shown no decoy".into())?;
        self.judge_offload(report)?;
        self.judge_log(report)?;
        if self.needs().is_none_or(|(guest, _)| guest == Guest::Firmware) {
            // The firmware's living frames bear no mark.
            return Ok(());
        }
        self.judge_living(report)?;
        self.judge_capture(report)
    }

    /// Stack and signs of life stay within what is promised. The client in C does not measure
    /// them, and a fault in the dump takes the figures with it.
    fn judge_figures(&self, report: &RunReport) -> Result<(), String> {
        if self.machine.client == "c" || report.outcome.result == OutcomeKind::Nested {
            return Ok(());
        }
        let told = |name| report.outcome.more.get(name).and_then(Value::as_u64);
        let is_firmware = self.needs().is_some_and(|(guest, _)| guest == Guest::Firmware);
        let is_smallest = is_firmware && self.machine.image == "flat";
        let limit = match self.machine.compress.as_str() {
            "gzip" => GZIP_STACK_MAX,
            _ if is_smallest => FIRMWARE_STACK,
            _ => STACK_MAX,
        };
        // Both paint it; no paint left means that it was too small.
        let stack = told("stack_bytes");
        ensure(stack.is_some_and(|used| 0 < used && used < limit), || {
            format!("the dump used {stack:?} bytes of stack, {limit} are promised")
        })?;
        // The firmware does not measure it; by a clock that was tampered with, it says nothing.
        if is_firmware || self.machine.append.contains("clock=") {
            return Ok(());
        }
        let gap = told("watchdog_gap_us");
        ensure(gap.is_some_and(|gap| 0 < gap && gap < WATCHDOG_GAP_MAX_US), || {
            format!("{gap:?} us without a sign of life")
        })
    }

    /// What is asked to be compressed is, and zeros take next to nothing.
    fn judge_compressed(&self, report: &RunReport) -> Result<(), String> {
        if self.machine.compress == COMPRESSIONS[0] {
            return Ok(());
        }
        let unpacked = report.unpacked.as_ref().ok_or("nothing was decompressed")?;
        let (packed, used) = (unpacked.packed_len, report.used_bytes);
        // The pattern cannot be compressed; deflate adds a little to it.
        ensure(packed < used + used / 20, || {
            format!("{packed} bytes compressed, {used} bytes of pages in use")
        })
    }

    /// The living kernel was heard: each of its frames once and unharmed, and,
    /// where nothing is lost, it heard every answer that QEMU took.
    fn judge_living(&self, report: &RunReport) -> Result<(), String> {
        let told = |key| report.ready.more.get(key).and_then(Value::as_u64).unwrap_or(0);
        let (sent, answers, live) = (told("live_sent"), told("live_answers"), report.stats.live);
        ensure(sent > 0 && live.arrived == sent && live.broken + live.repeated == 0, || {
            format!("the living kernel sent {sent} frames, what arrived is {live:?}")
        })?;
        let dropped = report.stats.drops_up() + report.stats.drops_down();
        ensure(answers + dropped >= sent / 2, || {
            format!("asked {} times, {answers} answers, {dropped} frames lost", sent / 2)
        })
    }

    /// The capture of the guest's end of the link, QEMU's own where there is one, and where each
    /// frame of it is to be sound: what changes between its sum and its sending is not.
    pub fn capture<'a>(&self, report: &'a RunReport) -> Option<&'a Path> {
        if self.changes() {
            return None;
        }
        report.files.qemu_pcap.as_deref().or(report.files.pcap.as_deref())
    }

    /// With inserted checksums, the CPU reads what it copies, and nothing else.
    fn judge_offload(&self, report: &RunReport) -> Result<(), String> {
        let (outcome, volatile) = (&report.outcome, report.ready.volatile_range());
        let (read, copied) = (outcome.bytes_read, outcome.bytes_copied);
        let fits = read == copied && copied <= volatile.end - volatile.start;
        ensure(!self.tap || fits, || {
            format!("read {read} bytes of the image and copied {copied}, volatile: {volatile:x?}")
        })
    }

    /// The log of a guest that keeps one tells the dump's story, with the port that is seen in
    /// the capture.
    fn judge_log(&self, report: &RunReport) -> Result<(), String> {
        let Some(logged) = &report.logged else {
            return ensure(self.machine.client != DEFMT, || "the guest has no log".into());
        };
        let path = self.capture(report).ok_or("there is no capture")?;
        let ports = capture::session_ports(path, &self.network)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let [port] = ports[..] else { return Err(format!("sessions with the ports {ports:?}")) };
        defmt_log::judge(logged, port)
    }

    /// QEMU's own capture: no frame that the take-over should have prevented.
    fn judge_capture(&self, report: &RunReport) -> Result<(), String> {
        if self.changes() {
            return Ok(());
        }
        let path = self.capture(report).ok_or("there is no capture")?;
        let sent = capture::read(path, MAC, &self.network)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        if let Some((number, why)) = sent.strays.front() {
            return Err(format!("frame {number} of {} is {why}", path.display()));
        }
        ensure(sent.live > 0 && sent.dump >= report.stats.traffic.data_messages, || {
            format!("captured {} frames of the living, {} of the dump", sent.live, sent.dump)
        })
    }
}

fn judge_cut(report: &RunReport, why: &str) -> Result<(), String> {
    let (outcome, traffic) = (&report.outcome, &report.stats.traffic);
    let number = |name: &str| outcome.more.get(name).and_then(Value::as_u64).unwrap_or(0);
    ensure(outcome.result == OutcomeKind::Failed, || {
        format!("it cannot have succeeded, and the guest says {:?}", outcome.result)
    })?;
    let error = outcome.more.get("error").and_then(Value::as_str).unwrap_or_default();
    ensure(error.contains(why), || format!("no `{why}` in `{error}`"))?;
    let server = report.server.as_ref().map(|server| server.result.as_str());
    ensure(server != Some("complete"), || "the server calls it complete".into())?;
    let (acked, sent) = (outcome.acked_bytes, traffic.data_bytes);
    ensure(0 < acked && acked <= sent, || format!("{acked} bytes acked, {sent} sent"))?;
    let (zero, holes) = (number("zero_bytes"), number("hole_bytes"));
    ensure(holes > 0 && acked + zero + holes >= report.dump_bytes, || {
        format!("{acked} bytes acked, {zero} zeros and {holes} missing are not all of RAM")
    })?;
    ensure(report.files.vmcore.is_some(), || "the server left no file".into())
}

fn judge_redacted(report: &RunReport) -> Result<(), String> {
    let redacted = report.ready.redacted_range();
    let len = redacted.end - redacted.start;
    if let Some(offset) = report.leak_at {
        return Err(format!("something of the keys is in the file, at offset {offset:#x}"));
    }
    let not_sent = report.outcome.more.get("not_sent_bytes").and_then(Value::as_u64);
    ensure(not_sent == Some(len), || format!("the guest says {not_sent:?} bytes not sent"))?;
    let told = report.server.as_ref().and_then(|server| server.event["not_sent"]["bytes"].as_u64());
    ensure(told >= Some(len), || format!("the server says {told:?} bytes not sent"))?;
    let vmcore = report.image().ok_or("there is no file")?;
    let core = CoreFile::read(vmcore).map_err(|error| error.to_string())?;
    let regions = core.regions().ok_or("no list of regions in the notes")?;
    let entry = regions.iter().find(|region| region.range == redacted);
    ensure(entry.is_some_and(|region| region.is_withheld()), || {
        format!("the notes do not say that {redacted:x?} is withheld: {entry:x?}")
    })
}

fn ensure(holds: bool, complaint: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(complaint()) }
}

/// The runs: a covering subset, or every combination.
pub fn cases(full: bool) -> Vec<Case> {
    let mut cases = particulars();
    cases.extend(images(full));
    cases.extend(hostile::cases(full));
    cases.extend(reach::cases(full));
    // Last, as they are most: what shows one thing is seen early.
    cases.extend(if full { everything() } else { subset() });
    cases
}

/// Every NIC, and every value of every other dimension: machines, deaths, loss, MTU, and the
/// states that a device can be left in.
fn subset() -> Vec<Case> {
    vec![
        Case::new("q35", "virtio-net-pci", 64, PLAIN, 0, "null").guest("left=stuck"),
        Case::new("pc", "virtio-net-pci", 32, PLAIN, 1, "panic")
            .guest("left=bus-off")
            .higher_half(),
        Case::new("q35", "virtio-net-pci-non-transitional", 32, JUMBO, 1, "stack")
            .guest("left=garbage"),
        Case::new("pc", "virtio-net-pci-non-transitional", 32, 4148, 0, "driver-lock")
            .guest("link=down"),
        Case::new("pc", "virtio-net-pci-legacy", 32, PLAIN, 1, "null").guest("left=msi-x"),
        Case::new("q35", "virtio-net-pci-legacy", 32, JUMBO, 0, "panic").guest("left=undecoded"),
        Case::new("q35", "e1000", 32, PLAIN, 1, "null").guest("left=pending"),
        Case::new("pc", "e1000", 32, JUMBO, 0, "panic").guest("left=garbage"),
        Case::new("pc", "e1000-82544gc", 32, PLAIN, 0, "driver-lock").guest("left=bus-off"),
        Case::new("pc", "e1000-82545em", 32, JUMBO, 1, "stack").guest("left=stuck").image("flat"),
        Case::new("q35", "e1000e", 32, JUMBO, 0, "panic").guest("left=garbage").image("freebsd"),
        Case::new("pc", "e1000e", 32, PLAIN, 1, "null").guest("link=bounce left=asleep"),
        Case::new("q35", "igb", 32, PLAIN, 1, "driver-lock").guest("left=garbage").higher_half(),
        Case::new("q35", "igb", 32, JUMBO, 0, "null").guest("link=bounce left=pending,msi-x"),
        Case::new("microvm", "virtio-net-device", 32, JUMBO, 0, "panic")
            .guest("left=half")
            .two_cpus(),
        Case::new("microvm", "virtio-net-device", 32, PLAIN, 1, "null")
            .guest("left=garbage tx-queue=64 rx-queue=8"),
        Case::new("microvm", "virtio-net-device-legacy", 32, PLAIN, 1, "driver-lock")
            .guest("left=garbage"),
        Case::new("microvm", "virtio-net-device-legacy", 32, JUMBO, 0, "stack")
            .guest("left=stopped"),
        Case::new("microvm", "virtio-net-device", 32, PLAIN, 1, "null").in_c(),
        Case::new("mps2-an385", "lan9118", 4, PLAIN, 1, "driver-lock"),
        Case::new("mps2-an385", "lan9118", 4, PLAIN, 0, "null").image("flat"),
        Case::new("mps2-an385", "lan9118", 4, PLAIN, 1, "panic").with_defmt(),
        Case::new("aarch64-virt", "virtio-net-device", 32, PLAIN, 1, "null"),
        Case::new("riscv64-virt", "virtio-net-device", 32, PLAIN, 1, "panic"),
    ]
}

/// Runs that show one thing each.
fn particulars() -> Vec<Case> {
    let small = |nic| Case::new("q35", nic, 32, PLAIN, 0, "null");
    let transitional = || small("virtio-net-pci");
    let modern = || small("virtio-net-pci-non-transitional");
    let elsewhere = Ipv4Addr::new(192, 0, 2, 77);
    let network = Network::default();
    let gateway = Network {
        server: Station { ip: elsewhere, ..network.server },
        server_on_link: false,
        ..network
    };
    vec![
        Case { network: gateway, ..transitional().named("gateway") },
        Case { expect: Expect::BrokenByte(28 * MIB + 5), ..transitional().named("broken") },
        Case { expect: Expect::Nested("herald"), ..transitional().guest("nested=6") },
        // All that QEMU can offer and the driver does not want.
        modern().device("packed=on,mq=on,in_order=on,iommu_platform=off,ats=on"),
        small("virtio-net-pci-legacy").device("rx_queue_size=1024"),
        Case {
            expect: Expect::Refused("needs IOMMU addresses"),
            ..modern().device("iommu_platform=on")
        },
        Case { tap: true, ..transitional().append("zeros=send").named("tap") },
        small("e1000").guest("offload=1"),
        small("e1000e").guest("offload=1"),
        small("igb").guest("offload=1"),
    ]
}

/// What is in the file, by kind of image and way of ending.
fn images(full: bool) -> Vec<Case> {
    let nic = "virtio-net-pci";
    let small = || Case::new("q35", nic, 32, PLAIN, 0, "null");
    let mut cases = vec![small().higher_half().two_cpus()];
    let mut redacted = Case { expect: Expect::Redacted, ..small().named("redacted") };
    redacted.machine.redact = true;
    cases.push(redacted);
    for share in if full { &[0.25, 0.5, 0.75][..] } else { &[0.5][..] } {
        // Slow enough to be met in the middle.
        let link = LinkConfig { rate_bps: 100_000_000, ..LinkConfig::default() };
        let name = format!("cut{:.0}", share * 100.0);
        let cut = Case { link, expect: Expect::Cut(*share), ..small().named(&name) };
        cases.push(cut.append("no-progress=2").higher_half());
    }
    let mut used =
        Case::new("q35", nic, 1024, PLAIN, 0, "null").named("48M-used").append("fill=48");
    used.expect = Expect::OnlyUsed;
    let mut all = small().named("zeros-sent").append("fill=4 zeros=send");
    all.expect = Expect::AllSent;
    // Zeros are not left out of what is compressed, but take next to nothing.
    let mut gzip = Case::new("q35", nic, 32, PLAIN, 1, "null").named("gzip").append("fill=8");
    gzip.machine.compress = "gzip".into();
    cases.extend([used, all, gzip]);
    cases
}

/// What a dead kernel can do to a device of QEMU's. The firmware's chip is its board's.
fn ends(nic: &str) -> Vec<&'static str> {
    if nic == "lan9118" {
        return Vec::new();
    }
    let mut ends =
        vec!["link=bounce", "link=down", "left=stuck", "left=garbage", "left=stopped", "left=half"];
    if !nic.starts_with("virtio-net-device") {
        ends.extend(["left=bus-off", "left=undecoded"]);
    }
    if nic.starts_with("virtio-net-pci") || nic == "e1000e" || nic == "igb" {
        ends.push("left=msi-x");
    }
    if nic == "e1000e" || nic == "igb" {
        ends.push("left=asleep");
    }
    if nic.starts_with("e1000") || nic == "igb" {
        ends.push("left=pending");
    }
    ends
}

fn everything() -> Vec<Case> {
    let mut cases = Vec::new();
    for Board { name, guest, nics, memory_mib, jumbo, .. } in BOARDS {
        let links = [(PLAIN, 0), (PLAIN, 1), (JUMBO, 0), (JUMBO, 1), (PLAIN, 5)];
        // The drivers are the PC's: what is left to see is that they run elsewhere.
        let is_elsewhere = matches!(guest, Guest::Kernel(arch) if *arch != Arch::X86_64);
        let links = if is_elsewhere { &links[..2] } else { &links[..] };
        for nic in *nics {
            for crash in CRASHES {
                for &(mtu, loss) in links {
                    if mtu <= PLAIN || *jumbo {
                        let memory_mib = memory_mib.unwrap_or(32);
                        cases.push(Case::new(name, nic, memory_mib, mtu, loss, crash));
                    }
                }
            }
            for end in if is_elsewhere { Vec::new() } else { ends(nic) } {
                cases.push(Case::new(name, nic, 32, PLAIN, 0, "null").guest(end));
            }
        }
    }
    let nic = "virtio-net-pci";
    for memory_mib in [64, 256, 1024] {
        cases.push(Case::new("q35", nic, memory_mib, PLAIN, 0, "null"));
    }
    for (image, loss, crash) in [("flat", 0, "stack"), ("freebsd", 1, "panic")] {
        cases.push(Case::new("q35", nic, 32, 1500, loss, crash).image(image));
    }
    for crash in CRASHES {
        cases.push(Case::new("pc", nic, 32, 1500, 1, crash).higher_half());
        cases.push(Case::new("microvm", "virtio-net-device", 32, 4148, 0, crash).two_cpus());
        cases.push(Case::new("q35", nic, 32, 4148, 0, crash).higher_half().two_cpus());
    }
    for (loss, crash) in [(0, "panic"), (1, "null"), (5, "stack")] {
        cases.push(Case::new("microvm", "virtio-net-device", 32, 1500, loss, crash).in_c());
    }
    // A payload of one page, and RAM split around the hole below 4 GiB.
    cases.push(Case::new("pc", nic, 4096, 4148, 0, "null"));
    for (name, nic, memory_mib) in [
        ("mps2-an385", "lan9118", 4),
        ("aarch64-virt", "virtio-net-device", 32),
        ("riscv64-virt", "virtio-net-device", 32),
    ] {
        let nested = Case::new(name, nic, memory_mib, PLAIN, 0, "stack").guest("nested=6");
        cases.push(Case { expect: Expect::Nested("herald"), ..nested });
        if memory_mib == 32 {
            cases.push(Case::new(name, "e1000e", 32, JUMBO, 1, "null").guest("left=garbage"));
            cases.push(Case::new(name, nic, 32, JUMBO, 1, "panic").guest("left=half"));
        }
    }
    cases
}

#[cfg(test)]
mod judging;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::qemu::{CLIENTS, IMAGES, MAPPINGS};

    #[test]
    fn the_subset_covers_every_value() {
        let cases = subset();
        let all =
            |value: fn(&Case) -> String| -> BTreeSet<String> { cases.iter().map(value).collect() };
        let machines = all(|case| case.machine.machine.clone());
        assert!(crate::board::machines().all(|name| machines.contains(name)));
        let nics = all(|case| case.machine.nic.clone());
        assert!(crate::board::nics().iter().all(|name| nics.contains(*name)));
        let deaths = all(|case| case.machine.crash.clone());
        assert!(CRASHES.iter().all(|name| deaths.contains(*name)));
        let images = all(|case| case.machine.image.clone());
        assert!(IMAGES.iter().all(|name| images.contains(*name)));
        let mappings = all(|case| case.machine.mapping.clone());
        assert!(MAPPINGS.iter().all(|name| mappings.contains(*name)));
        let clients = all(|case| case.machine.client.clone());
        assert!(CLIENTS.iter().all(|name| clients.contains(*name)));
        assert_eq!(all(|case| case.machine.mtu.to_string()).len(), 3);
        assert_eq!(all(|case| case.link.loss.to_string()).len(), 2);
        let words: BTreeSet<_> = cases
            .iter()
            .flat_map(|case| case.machine.append.split([' ', ',']))
            .map(|word| word.trim_start_matches("left="))
            .collect();
        for nic in crate::board::nics() {
            for end in ends(nic) {
                assert!(words.contains(end.trim_start_matches("left=")), "{end}");
            }
        }
    }

    #[test]
    fn names_are_unique_and_fit_a_path() {
        for full in [false, true] {
            let cases = cases(full);
            let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
            assert_eq!(names.len(), cases.len());
            assert!(names.iter().all(|name| !name.contains(['/', ' '])));
        }
    }
}
