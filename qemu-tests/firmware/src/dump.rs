//! The dump: armed at boot, sent after the fault.

use debugnet_core::dump::Outcome;
use debugnet_core::observer::{Event, Observer};
use debugnet_core::progress::{Progress, Stage};
use debugnet_core::time::Instant;
use debugnet_core::{Armed, DumpInfo, Io, Verdict, arm as arm_dump};
use nic_hal::{CrashCell, Entry};

use crate::SysTickClock;
use crate::console::Line;
use crate::fault::{self, Registers};
use crate::lan9118::Lan9118;
use crate::options::{Death, Options};
use crate::ram::{RAM, Ram};
use crate::{death, semihosting, systick, volatile};

/// What the fault handler finds.
struct Kit {
    armed: Armed<'static>,
    nic: Lan9118,
    clock: SysTickClock,
    ram: Ram,
    how: Death,
    nested: u32,
    exit: bool,
}

#[unsafe(link_section = ".volatile")]
static KIT: CrashCell<Kit> = CrashCell::new();

/// Makes everything ready for the crash. Touches no device.
pub(crate) fn arm(options: &Options, nic: Lan9118) -> Option<()> {
    let armed = arm_dump(options.config.clone(), volatile::dump_memory()?).ok()?;
    let Options { crash: how, nested, exit, .. } = *options;
    KIT.put(Kit { armed, nic, clock: systick(), ram: Ram::new(), how, nested, exit }).ok()
}

/// Where every fault ends: thread mode, interrupts off, the dump's own stack.
pub(crate) fn on_fault(registers: &Registers) -> ! {
    match KIT.enter(0) {
        Entry::First { value, progress } => dump(value, progress, registers),
        Entry::Nested(progress) => {
            let line = outcome("nested")
                .number("dump_bytes", RAM.1 - RAM.0)
                .number("acked_bytes", progress.acked_bytes())
                .hex("pc", registers.pc());
            end(line, progress.stage(), "fault in the dump");
        }
        _ => {
            announce("unarmed", registers);
            let line = outcome("failed");
            end(line, Stage::Idle, "the firmware died before the dump was armed");
        }
    }
    semihosting::exit(false)
}

fn dump(kit: &'static mut Kit, progress: &'static Progress, registers: &Registers) -> ! {
    announce(kit.how.name(), registers);
    let info = DumpInfo {
        architecture: "arm",
        architecture_version: 7,
        hostname: "mps2-an385",
        version: concat!("debugnet-rs firmware ", env!("CARGO_PKG_VERSION"), "\n"),
        panic: kit.how.name(),
        time_s: 0,
        key: &[],
    };
    let mut observer = Trap { left: kit.nested };
    let mut io = Io {
        clock: &mut kit.clock,
        source: &mut kit.ram,
        transform: None,
        info: &info,
        observer: &mut observer,
        progress,
    };
    let outcome = kit.armed.dump(&mut [&mut kit.nic], &mut io);
    tell(&outcome);
    if kit.exit {
        semihosting::exit(outcome.is_complete());
    }
    // A board would reset here (`SCB::sys_reset`); this one stays for the comparison.
    loop {
        cortex_m::asm::wfi();
    }
}

/// `GUEST-CRASH`: what the fault left.
fn announce(how: &str, registers: &Registers) {
    let (cfsr, address) = fault::status();
    Line::begin("GUEST-CRASH")
        .text("how", how)
        .hex("pc", registers.pc())
        .hex("lr", registers.lr())
        .hex("sp", registers.sp())
        .hex("cfsr", cfsr)
        .hex("address", address)
        .end();
}

fn outcome(result: &str) -> Line {
    Line::begin("GUEST-OUTCOME").text("result", result)
}

/// `GUEST-OUTCOME` of a dump that came to its end.
fn tell(told: &Outcome) {
    let line = outcome(match told.verdict {
        Verdict::Confirmed => "confirmed",
        Verdict::Unconfirmed => "unconfirmed",
        _ => "failed",
    });
    let line = line
        .number("dump_bytes", told.dump_bytes)
        .number("acked_bytes", told.acked_bytes)
        .number("sent_bytes", told.sent_bytes)
        .number("zero_bytes", told.zero_bytes)
        .number("hole_bytes", told.holes.bytes())
        .number("not_sent_bytes", told.not_sent.bytes())
        .number("messages", told.messages.into())
        .number("transmissions", told.transmissions.into())
        .number("retransmits", told.retransmits.into())
        .number("bytes_read", told.bytes_read)
        .number("bytes_copied", told.bytes_copied)
        .number("cells_high_water", told.cells_high_water as u64)
        .number("elapsed_us", told.elapsed_us)
        .number("data_us", told.data_us)
        .flag("nic_stopped", told.nic_stopped)
        .number("stack_bytes", volatile::stack_used() as u64);
    end(line, told.stage, if told.failure.is_some() { "see stage" } else { "" });
}

fn end(line: Line, stage: Stage, error: &str) {
    let stage = match stage {
        Stage::Idle => "idle",
        Stage::TakeOver => "take-over",
        Stage::Link => "link",
        Stage::Resolve => "resolve",
        Stage::Herald => "herald",
        Stage::Data => "data",
        Stage::Header => "header",
        Stage::Finish => "finish",
        Stage::Done => "done",
    };
    line.text("stage", stage).text("error", error).end();
}

/// Faults where it was told to; a watchdog would be fed in `alive`.
struct Trap {
    left: u32,
}

impl Observer for Trap {
    fn event(&mut self, _: Instant, _: &Event) {
        if self.left == 1 {
            death::die_in_the_dump();
        }
        self.left = self.left.saturating_sub(1);
    }
}
