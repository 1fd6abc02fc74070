//! Death's door: from the fault handler to the last line on the console.

use core::fmt::Write;
use core::sync::atomic::{AtomicU32, Ordering};

use guest::cmdline::Options;
use guest::report::{Crash, Outcome};
use heapless::String;

use super::arch::{self, Machine, Registers};
use super::{panic, report, say};

/// How many faults there have been.
#[unsafe(link_section = ".volatile")]
static FAULTS: AtomicU32 = AtomicU32::new(0);

/// Whether a fault has happened: from then on only the volatile section may be written.
pub(super) fn has_begun() -> bool {
    FAULTS.load(Ordering::Relaxed) != 0
}

pub(super) fn arm(_: &Machine, _: &Options, _: ()) -> Result<(), &'static str> {
    Ok(())
}

/// Where every fault ends. Called by the arch layer on an interrupt stack.
pub(super) fn on_fault(registers: &Registers) -> ! {
    // One CPU: a plain count is exact.
    let faults = FAULTS.load(Ordering::Relaxed) + 1;
    FAULTS.store(faults, Ordering::Relaxed);
    match faults {
        1 => first(registers),
        _ => arch::exit(false),
    }
}
fn first(registers: &Registers) -> ! {
    let mut words = [0; panic::MESSAGE_MAX];
    let words = panic::last_words(&mut words);
    report(&Crash {
        how: "?",
        vector: registers.vector,
        error_code: registers.error_code,
        rip: &hex(registers.rip),
        rsp: &hex(registers.rsp),
        cr2: &hex(registers.cr2),
        message: if words.is_empty() { registers.vector_name() } else { words },
    });
    report(&Outcome { result: "failed", error: "no dump yet", ..Outcome::default() });
    say!("guest: {registers:x?}");
    arch::exit(true)
}

fn hex(value: u64) -> String<18> {
    let mut text = String::new();
    // Two and sixteen digits: it fits.
    let _ = write!(text, "{value:#x}");
    text
}
