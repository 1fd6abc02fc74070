//! What the harness is told: how it died, and what became of the dump.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use debugnet_core::Verdict;
use debugnet_core::dump::Outcome;
use debugnet_core::observer::Event;
use debugnet_core::progress::{Progress, Stage};
use debugnet_core::time::Instant;

use crate::console::Line;
use crate::fault::{self, Registers};
use crate::options::{Death, Options};
use crate::ram::RAM;
use crate::{death, semihosting, volatile};

/// The way of dying that was asked for. Set at boot, only read after the fault.
static HOW: AtomicU8 = AtomicU8::new(0);
/// Whether to leave QEMU after the outcome.
static EXIT: AtomicBool = AtomicBool::new(false);

/// Takes over what the lines will say.
pub(crate) fn expect(options: &Options) {
    HOW.store(options.crash as u8, Ordering::Relaxed);
    EXIT.store(options.exit, Ordering::Relaxed);
}

/// A fault inside the dump: how far it had got.
pub(crate) fn nested(progress: &Progress, registers: &Registers) -> ! {
    let line = begin("nested")
        .number("dump_bytes", RAM.1 - RAM.0)
        .number("acked_bytes", progress.acked_bytes())
        .hex("pc", registers.pc());
    end(line, progress.stage(), "fault in the dump");
    semihosting::exit(false)
}

/// A fault before there was anything to dump with.
pub(crate) fn unarmed(registers: &Registers) -> ! {
    line_of("unarmed", registers);
    end(begin("failed"), Stage::Idle, "the firmware died before the dump was armed");
    semihosting::exit(false)
}

/// The fault that the dump is about.
pub(crate) fn announce(registers: &Registers) {
    line_of(Death::name(HOW.load(Ordering::Relaxed)), registers);
}

/// An event of the dump: faults at the one that `left` counts down to.
#[cfg_attr(not(feature = "defmt"), expect(unused_variables, reason = "for the log"))]
pub(crate) fn event(left: &mut u32, now: Instant, event: &Event) {
    #[cfg(feature = "defmt")]
    crate::log::event(now, event);
    if *left == 1 {
        death::die_in_the_dump();
    }
    *left = left.saturating_sub(1);
}

/// `GUEST-CRASH`: what the fault left.
fn line_of(how: &str, registers: &Registers) {
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

fn begin(result: &str) -> Line {
    Line::begin("GUEST-OUTCOME").text("result", result)
}

/// `GUEST-OUTCOME` of a dump that came to its end.
pub(crate) fn tell(told: &Outcome) -> ! {
    let line = begin(match told.verdict {
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
    if EXIT.load(Ordering::Relaxed) {
        semihosting::exit(told.is_complete());
    }
    // A board would reset here; this one stays as it is for the comparison.
    loop {
        cortex_m::asm::wfi();
    }
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
