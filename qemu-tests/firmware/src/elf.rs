//! The image: an ELF core, with the registers of the code that died, which a
//! debugger opens. Flat if it is asked for (see `image.rs`, which can do nothing else).

use core::sync::atomic::{AtomicBool, Ordering};

use debugnet_core::DumpInfo;
use debugnet_core::addr::{PhysAddr, PhysRange};
use debugnet_core::dump::DumpSource;
use debugnet_core::dump::layout::{
    Arm, Cpu, ElfCore, Facts, LittleEndian, Region, Regions, Treatment,
};
use nic_hal::Reserved;

use crate::fault::Registers;
use crate::ram::{RAM, Ram};
use crate::volatile;

/// Bytes of stack that a dump of this image needs.
pub(crate) const STACK_LEN: usize = 4096;

/// RAM: before the volatile section, the section, and behind it.
#[unsafe(link_section = ".volatile")]
static REGIONS: Reserved<[Region; 3]> = Reserved::new([Region::EMPTY; 3]);

/// Whether it is to be flat. Set at boot, only read after the fault.
static FLAT: AtomicBool = AtomicBool::new(false);

/// Makes the image flat, or not.
pub(crate) fn set_flat(flat: bool) {
    FLAT.store(flat, Ordering::Relaxed);
}

/// The image, as far as it is known at boot.
pub(crate) struct Image {
    ram: Ram,
    regions: Regions<'static>,
}

impl Image {
    /// Of all RAM. `None` the second time.
    pub(crate) fn new() -> Option<Self> {
        // SAFETY: start-up code, one thread.
        let mut regions = Regions::new(unsafe { REGIONS.take() }?);
        regions.add(range(RAM)?).ok()?;
        regions.mark(range(volatile::section())?, Treatment::Volatile).ok()?;
        Some(Self { ram: Ram::new(), regions })
    }

    /// Hands the image to `dump`.
    pub(crate) fn dump<T>(
        &mut self,
        registers: &Registers,
        info: &DumpInfo<'_>,
        dump: impl FnOnce(&mut dyn DumpSource) -> T,
    ) -> T {
        if FLAT.load(Ordering::Relaxed) {
            dump(&mut self.ram)
        } else {
            self.dump_core(registers, info, dump)
        }
    }

    /// Apart, so that the stack has room for the core only where there is one.
    #[inline(never)]
    fn dump_core<T>(
        &mut self,
        registers: &Registers,
        info: &DumpInfo<'_>,
        dump: impl FnOnce(&mut dyn DumpSource) -> T,
    ) -> T {
        let cpus = [Cpu { id: 0, signal: SEGMENT, registers: in_core(registers) }];
        let facts = Facts { info, cpus: &cpus, build_id: &[], vmcoreinfo: "" };
        let Self { ram, regions } = self;
        match ElfCore::<_, LittleEndian>::new(ram, regions, &[], &facts) {
            Ok(mut core) => {
                // The stack that died: a dump cut short has a backtrace.
                let sp = u64::from(registers.sp());
                if let Some(stack) = range((sp.clamp(RAM.0, RAM.1) & !0xfff, RAM.1)) {
                    // The first of many: there is room.
                    let _ = core.send_first(stack);
                }
                dump(&mut core)
            }
            // It was made at boot of ranges that fit.
            Err(_) => dump(&mut Ram::new()),
        }
    }
}

/// The signal that a process would have died of.
const SEGMENT: u16 = 11;

fn range((start, end): (u64, u64)) -> Option<PhysRange> {
    PhysRange::new(PhysAddr(start), end.checked_sub(start)?)
}

/// As a core file has them.
fn in_core(registers: &Registers) -> Arm {
    let [r0, r1, r2, r3, r12, lr, pc, xpsr] = registers.pushed;
    let [r4, r5, r6, r7, r8, r9, r10, r11] = registers.r4_to_r11;
    let sp = registers.sp();
    Arm { r: [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, sp, lr, pc], cpsr: xpsr }
}
