//! The dump: armed at boot, sent after the fault.

use debugnet_core::observer::{Event, Observer};
use debugnet_core::progress::Progress;
use debugnet_core::time::Instant;
use debugnet_core::{Armed, Config, DumpInfo, Io, arm as arm_dump};
use nic_hal::{CrashCell, Entry};

use crate::fault::Registers;
use crate::image::Image;
use crate::lan9118::Lan9118;
use crate::{SysTickClock, outcome, systick, volatile};

/// What the fault handler finds.
struct Kit {
    armed: Armed<'static>,
    nic: Lan9118,
    clock: SysTickClock,
    image: Image,
    /// What the observer counts down: see [`outcome::event`].
    left: u32,
}

#[unsafe(link_section = ".volatile")]
static KIT: CrashCell<Kit> = CrashCell::new();

/// Makes everything ready for the crash. Touches no device. `None` if the
/// configuration is wrong, or the second time.
pub(crate) fn arm(config: Config, nic: Lan9118, left: u32) -> Option<()> {
    let armed = arm_dump(config, volatile::dump_memory()?).ok()?;
    KIT.put(Kit { armed, nic, clock: systick(), image: Image::new()?, left }).ok()
}

/// Where every fault ends: thread mode, interrupts off, the dump's own stack.
pub(crate) fn on_fault(registers: &Registers) -> ! {
    match KIT.enter(0) {
        Entry::First { value, progress } => dump(value, progress, registers),
        Entry::Nested(progress) => outcome::nested(progress, registers),
        _ => outcome::unarmed(registers),
    }
}

fn dump(kit: &'static mut Kit, progress: &'static Progress, registers: &Registers) -> ! {
    outcome::announce(registers);
    let info = DumpInfo {
        architecture: "arm",
        architecture_version: 7,
        hostname: "mps2-an385",
        version: concat!("debugnet-rs firmware ", env!("CARGO_PKG_VERSION"), "\n"),
        panic: "fault",
        time_s: 0,
        key: &[],
    };
    let Kit { armed, nic, clock, image, left } = kit;
    outcome::tell(image.dump(registers, &info, |source| {
        let observer = &mut Watch { left };
        let mut io = Io { clock, source, transform: None, info: &info, observer, progress };
        armed.dump_in_place(&mut [nic], &mut io)
    }))
}

/// Sees the events; a watchdog would be fed in `alive`.
struct Watch<'a> {
    left: &'a mut u32,
}

impl Observer for Watch<'_> {
    fn event(&mut self, now: Instant, event: &Event) {
        outcome::event(self.left, now, event);
    }
}
