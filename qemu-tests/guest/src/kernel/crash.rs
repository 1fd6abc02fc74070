//! Death's door: from the fault handler to the last line on the console.
//!
//! Whatever is written from here on lies in the volatile section; the rest of
//! memory is evidence.

use core::cell::Cell;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use debugnet_core::addr::PhysRange;
use debugnet_core::dump::layout::Cpu;
use debugnet_core::dump::{Failure, Outcome, Transform};
use debugnet_core::nic::{Nic, NicError};
use debugnet_core::observer::{DumpingLine, Event};
use debugnet_core::progress::{Progress, Stage};
use debugnet_core::time::{Clock, Instant};
use debugnet_core::{Armed, ConfigError, DumpInfo, Io, Observer, Verdict, arm as arm_dump};
use debugnet_gzip::{Gzip, GzipError};
use guest::cmdline::{ClockFate, Compression, Death, NestedBy, NestedIn, Options, Second};
use guest::overrun::Overrun;
use guest::report;
use heapless::{String, Vec};
use nic_hal::{Entry, Identity};

use super::arch::{self, CoreRegisters, CpuClock, Machine, Registers};
use super::driver::{Device, Driver};
use super::image::{Image, ImageError};
use super::meters::{FatedClock, Interrupts, Paint};
use super::volatile::{self, Pieces};
use super::{panic, reach, report, say};

/// What the dump needs, set aside at boot.
pub(super) struct Kit {
    armed: Armed<'static>,
    nic: Option<Driver<Identity>>,
    clock: CpuClock,
    /// Seconds since 1970 when the clock started.
    armed_time_s: u64,
    image: Image,
    gzip: Option<Gzip<'static>>,
    how: Death,
    nested: Option<u32>,
    nested_in: NestedIn,
    nested_by: NestedBy,
    overrun: Option<Overrun>,
    clock_fate: ClockFate,
    second: Second,
    exit: bool,
    /// The CPU at the death, for whoever looks at the volatile section.
    registers: Option<Registers>,
}

/// How many faults each CPU has had.
#[unsafe(link_section = ".volatile")]
static FAULTS: [AtomicU32; arch::CPUS_MAX] = [const { AtomicU32::new(0) }; arch::CPUS_MAX];

/// RAM in the image, for a nested fault to report.
#[unsafe(link_section = ".volatile")]
static DUMP_BYTES: AtomicU64 = AtomicU64::new(0);

/// Whether a fault has happened: from then on only the volatile section may be written.
pub(super) fn has_begun() -> bool {
    FAULTS.iter().any(|faults| faults.load(Ordering::Relaxed) != 0)
}

/// Why the dump could not be armed.
pub(super) enum ArmError {
    /// The command line asks for what the dump cannot do.
    Config(ConfigError),
    /// The NIC's registers cannot be used.
    Nic(NicError),
    /// There is no image of this RAM.
    Image(ImageError),
    /// There is no compressor.
    Gzip(GzipError),
    /// The crash path in C does not want it.
    #[cfg(feature = "c")]
    C(String<128>),
    /// Armed before.
    Twice,
}

impl fmt::Display for ArmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::Nic(error) => write!(f, "{error:?}"),
            Self::Image(error) => write!(f, "{error}"),
            Self::Gzip(error) => write!(f, "{error}"),
            #[cfg(feature = "c")]
            Self::C(error) => f.write_str(error),
            Self::Twice => f.write_str("done before"),
        }
    }
}

/// Makes everything ready for the crash. Touches no device.
pub(super) fn arm(
    machine: &mut Machine,
    options: &Options,
    device: Option<Device>,
    secret: PhysRange,
) -> Result<(), ArmError> {
    let config = options.config().map_err(ArmError::Config)?;
    let mut pieces = Pieces::take().ok_or(ArmError::Twice)?;
    let cell_len = config.payload_len(u16::MAX).into();
    let memory = pieces.dump_memory(options.slots, cell_len).ok_or(ArmError::Twice)?;
    let armed = arm_dump(config, memory).map_err(ArmError::Config)?;
    #[cfg(feature = "c")]
    let device = {
        super::c::arm(machine, options, device).map_err(ArmError::C)?;
        // The driver in C has it.
        None::<Device>
    };
    let nic = match device {
        None => None,
        Some(device) => {
            let needs = device.ring_needs(options).map_err(ArmError::Nic)?;
            let memory = pieces.rings(needs).ok_or(ArmError::Twice)?;
            let nic = device.driver(machine, memory, Identity::new(), options);
            Some(nic.map_err(ArmError::Nic)?)
        }
    };
    let regions = pieces.regions().ok_or(ArmError::Twice)?;
    let image = Image::new(machine, options.image, secret, regions).map_err(ArmError::Image)?;
    let gzip = match options.compress {
        Compression::None => None,
        Compression::Gzip => Some(compressor(&mut pieces)?),
    };
    let kit = Kit {
        armed,
        nic,
        clock: arch::cpu_clock(machine.counter_hz),
        armed_time_s: machine.boot_time_s,
        image,
        gzip,
        how: options.crash,
        nested: options.nested,
        nested_in: options.nested_in,
        nested_by: options.nested_by,
        overrun: options.overrun,
        clock_fate: options.clock,
        second: options.second,
        exit: options.exit,
        registers: None,
    };
    DUMP_BYTES.store(machine.ram.iter().map(|run| run.len()).sum(), Ordering::Relaxed);
    volatile::kit().put(kit).map_err(|_| ArmError::Twice)
}

/// A compressor as fast as can be: the CPU does nothing else during the dump.
fn compressor(pieces: &mut Pieces) -> Result<Gzip<'static>, ArmError> {
    const LEVEL: u8 = 1;
    let memory = pieces.gzip().ok_or(ArmError::Twice)?;
    Gzip::new(memory, volatile::GZIP_WINDOW, LEVEL).map_err(ArmError::Gzip)
}

/// Where every fault ends. Called by the arch layer on an interrupt stack.
pub(super) fn on_fault(registers: &Registers) -> ! {
    /// The death, a fault in the dump, and one in the report about that.
    const FAULTS_MAX: u32 = 2;
    let cpu = arch::cpu();
    if FAULTS[cpu].fetch_add(1, Ordering::Relaxed) >= FAULTS_MAX {
        arch::exit(false);
    }
    match volatile::kit().enter(cpu as u32) {
        Entry::First { value, progress } => die(value, progress, registers),
        Entry::Nested(progress) => die_again(progress, registers),
        Entry::Empty => die_unarmed(registers),
        // Another one dumps already, and waits for this one to stop.
        Entry::OtherCpu => arch::park(registers),
    }
}

/// The first fault: dumps.
fn die(kit: &'static mut Kit, progress: &'static Progress, registers: &Registers) -> ! {
    kit.registers = Some(*registers);
    if kit.second == Second::Writes {
        say!("guest: the other CPU goes on");
    } else if !arch::park_others(&mut kit.clock) {
        say!("guest: the other CPU did not stop; its registers are not in the dump");
    }
    let cpus = cpus(registers);
    let mut words = [0; panic::MESSAGE_MAX];
    let message = cause(panic::last_words(&mut words), registers);
    announce(kit.how.name(), message, registers);
    #[cfg(feature = "c")]
    {
        let _ = (progress, cpus);
        let complete = super::c::dump(message);
        if kit.exit {
            arch::exit(complete);
        }
        arch::stop()
    }
    #[cfg(not(feature = "c"))]
    dump(kit, progress, registers, &cpus, message)
}

/// The dump, by the library in Rust.
fn dump(
    kit: &'static mut Kit,
    progress: &'static Progress,
    registers: &Registers,
    cpus: &[Cpu<CoreRegisters>],
    message: &str,
) -> ! {
    let info = DumpInfo {
        architecture: arch::ARCHITECTURE.0,
        architecture_version: arch::ARCHITECTURE.1,
        hostname: "guest",
        version: concat!("debugnet-rs guest ", env!("CARGO_PKG_VERSION"), "\n"),
        panic: message,
        time_s: time_of_day(kit.armed_time_s, kit.clock.now()),
        key: &[],
    };
    let line = DumpingLine::new(DUMP_BYTES.load(Ordering::Relaxed));
    let is_half = Cell::new(false);
    let mut observer = Narrator {
        events: 0,
        nested: kit.nested,
        nested_in: kit.nested_in,
        nested_by: kit.nested_by,
        overrun: kit.overrun,
        line,
        in_line: false,
        is_half: &is_half,
        alive_at: None,
        gap_us: 0,
        interrupts: Interrupts::default(),
    };
    let Kit { armed, nic, clock, image, gzip, .. } = kit;
    let mut clock =
        FatedClock { inner: clock, fate: kit.clock_fate, is_half: &is_half, stopped_at: None };
    let mut stack_bytes = 0;
    let outcome = image.dump(&info, cpus, registers, |source| {
        let (clock, observer) = (&mut clock, &mut observer);
        let transform = gzip.as_mut().map(|gzip| gzip as &mut dyn Transform);
        let mut io = Io { clock, source, transform, info: &info, observer, progress };
        let paint = Paint::new();
        let outcome = match nic {
            Some(nic) => armed.dump(&mut [nic as &mut dyn Nic], &mut io),
            None => armed.dump(&mut [], &mut io),
        };
        stack_bytes = paint.used();
        outcome
    });
    let doorbells = kit.nic.as_ref().map_or(0, Driver::doorbells);
    observer.interrupts.look();
    let figures = Figures {
        doorbells,
        stack_bytes,
        watchdog_gap_us: observer.gap_us,
        interrupts_off: observer.interrupts.were_off(),
    };
    tell(&outcome, &figures);
    if kit.exit {
        arch::exit(outcome.is_complete());
    }
    arch::stop()
}

/// This CPU, which died, and those that it stopped.
fn cpus(registers: &Registers) -> Vec<Cpu<CoreRegisters>, { arch::CPUS_MAX }> {
    let this = arch::cpu();
    let dead = Cpu { id: this as u32, signal: registers.signal(), registers: registers.in_core() };
    let mut cpus = Vec::new();
    // No more than there are.
    let _ = cpus.push(dead);
    for cpu in (0..arch::CPUS_MAX).filter(|cpu| *cpu != this) {
        if let Some(stopped) = arch::parked(cpu) {
            say!("guest: CPU {cpu} stopped at {:#x}", stopped.pc());
            let _ = cpus.push(Cpu { id: cpu as u32, signal: 0, registers: stopped.in_core() });
        }
    }
    cpus
}

/// Seconds since 1970, 0 if they were unknown at boot.
fn time_of_day(armed_time_s: u64, now: Instant) -> u64 {
    if armed_time_s == 0 { 0 } else { armed_time_s + now.as_micros() / 1_000_000 }
}

/// A fault inside the dump: says how far that had got, and gives up.
fn die_again(progress: &Progress, registers: &Registers) -> ! {
    let mut words = [0; panic::MESSAGE_MAX];
    let cause = cause(panic::nested_words(&mut words), registers);
    let mut error: String<640> = String::new();
    // Longer messages are cut: nothing is lost that the first 512 bytes do not say.
    let _ = write!(
        error,
        "fault in the dump: {cause} at {:#x}, address {:#x}",
        registers.pc(),
        registers.address()
    );
    if let Some(guard) = reach::guard_at(registers.address()) {
        let _ = write!(error, ", in the guard page {guard}");
    }
    report(&report::Outcome {
        result: "nested",
        dump_bytes: DUMP_BYTES.load(Ordering::Relaxed),
        acked_bytes: progress.acked_bytes(),
        stage: stage_name(progress.stage()),
        error: &error,
        ..report::Outcome::default()
    });
    say!("{registers}");
    arch::exit(false)
}

/// A fault before there was anything to dump with.
fn die_unarmed(registers: &Registers) -> ! {
    let mut words = [0; panic::MESSAGE_MAX];
    announce("unarmed", cause(panic::last_words(&mut words), registers), registers);
    report(&report::Outcome {
        result: "failed",
        stage: stage_name(Stage::Idle),
        error: "the kernel died before the dump was armed",
        ..report::Outcome::default()
    });
    arch::exit(false)
}

/// The panic message, or the meaning of the exception.
fn cause<'a>(words: &'a str, registers: &Registers) -> &'a str {
    if words.is_empty() { registers.vector_name() } else { words }
}

fn announce(how: &str, message: &str, registers: &Registers) {
    let (vector, error_code) = registers.cause();
    say!("{registers}");
    report(&report::Crash {
        how,
        vector,
        error_code,
        pc: &hex(registers.pc()),
        sp: &hex(registers.sp()),
        address: &hex(registers.address()),
        message,
    });
}

/// What the guest measured of a dump.
struct Figures {
    doorbells: u64,
    stack_bytes: u64,
    watchdog_gap_us: u64,
    interrupts_off: bool,
}

fn tell(outcome: &Outcome, figures: &Figures) {
    report(&report::Outcome {
        result: match outcome.verdict {
            Verdict::Confirmed => "confirmed",
            Verdict::Unconfirmed => "unconfirmed",
            _ => "failed",
        },
        dump_bytes: outcome.dump_bytes,
        acked_bytes: outcome.acked_bytes,
        sent_bytes: outcome.sent_bytes,
        zero_bytes: outcome.zero_bytes,
        hole_bytes: outcome.holes.bytes(),
        not_sent_bytes: outcome.not_sent.bytes(),
        messages: outcome.messages.into(),
        transmissions: outcome.transmissions.into(),
        retransmits: outcome.retransmits.into(),
        bytes_read: outcome.bytes_read,
        bytes_copied: outcome.bytes_copied,
        doorbells: figures.doorbells,
        cells_high_water: outcome.cells_high_water as u64,
        elapsed_us: outcome.elapsed_us,
        data_us: outcome.data_us,
        stack_bytes: figures.stack_bytes,
        watchdog_gap_us: figures.watchdog_gap_us,
        interrupts_off: figures.interrupts_off,
        nic_stopped: outcome.nic_stopped,
        stage: stage_name(outcome.stage),
        error: &outcome.failure.map(|failure| failure_text(&failure)).unwrap_or_default(),
    });
}

fn failure_text(failure: &Failure) -> String<256> {
    let mut text = String::new();
    let Failure { kind, stage, address, offset, seqno, tries, .. } = failure;
    // Longer than any failure there is; cut if not.
    let _ = write!(text, "{kind:?} in stage {}", stage_name(*stage));
    for (name, value) in [
        ("address", address.map(|at| at.0)),
        ("offset", *offset),
        ("seqno", seqno.map(u64::from)),
        ("tries", (*tries != 0).then_some(u64::from(*tries))),
    ] {
        if let Some(value) = value {
            let _ = write!(text, ", {name} {value:#x}");
        }
    }
    text
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Idle => "idle",
        Stage::TakeOver => "take-over",
        Stage::Link => "link",
        Stage::Resolve => "resolve",
        Stage::Herald => "herald",
        Stage::Data => "data",
        Stage::Header => "header",
        Stage::Finish => "finish",
        Stage::Done => "done",
    }
}

fn hex(value: u64) -> String<18> {
    let mut text = String::new();
    // Two and sixteen digits: it fits.
    let _ = write!(text, "{value:#x}");
    text
}

/// Tells the console what happens, and faults where it was told to.
struct Narrator<'a> {
    events: u32,
    nested: Option<u32>,
    nested_in: NestedIn,
    nested_by: NestedBy,
    overrun: Option<Overrun>,
    line: DumpingLine,
    /// The console is behind a part of that line.
    in_line: bool,
    /// Half of the image is acknowledged.
    is_half: &'a Cell<bool>,
    /// The last sign of life, and the longest time between two.
    alive_at: Option<Instant>,
    gap_us: u64,
    interrupts: Interrupts,
}

impl Observer for Narrator<'_> {
    fn alive(&mut self, now: Instant) {
        self.gap_us = self.gap_us.max(now.since_us(self.alive_at.unwrap_or(now)));
        self.alive_at = Some(now);
        self.interrupts.look();
    }

    fn event(&mut self, now: Instant, event: &Event) {
        self.events = self.events.saturating_add(1);
        if let Event::Progress { done, total, .. } = *event {
            self.is_half.set(done >= total / 2);
            // The console's `write_str` cannot fail.
            let _ = self.line.event(event, &mut arch::Serial);
            self.in_line = true;
        } else {
            if core::mem::take(&mut self.in_line) {
                say!("");
            }
            say!("guest: {:>10} us {event:?}", now.as_micros());
        }
        if self.is_half.get()
            && let Some(overrun) = self.overrun.take()
        {
            reach::write_beyond(overrun);
        }
        let is_in = match self.nested_in {
            NestedIn::Never => false,
            NestedIn::Stage(stage) => *event == Event::Stage(stage),
            NestedIn::Half => self.is_half.get(),
        };
        if is_in || self.nested == Some(self.events) {
            super::death::die_in_the_dump(self.nested_by);
        }
    }
}
