//! A kernel that arms a dump at boot and sends it from its panic handler.
//!
//! The README shows this file down to `mod platform`. It is compiled with the
//! tests and never run: there is no device behind it.
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "five times the same argument")]

use core::num::NonZeroU64;

use debugnet_core::addr::{DeviceAddr, PhysAddr, PhysRange};
use debugnet_core::dump::{Extent, ReadFault, ReadRam, Stability};
use debugnet_core::observer::Blind;
use debugnet_core::time::CounterClock;
use debugnet_core::{
    Armed, Cells, Config, DumpInfo, DumpSource, Io, Limits, Memory, Needs, Slot, arm, memory_needed,
};
use nic_hal::{CrashCell, DmaRegion, Entry, Identity, Mmio, PciFunction, Reserved};
use nic_virtio::{MEMORY_NEEDED, PciModern, VirtioNet};
use platform::{Pci, console, park, phys_to_virt, reboot, tsc, virt_to_phys}; // your kernel's

/// What the panic handler finds: all of it made at boot.
struct Kit {
    armed: Armed<'static>,
    nic: VirtioNet<PciModern<Pci>, Identity>,
    clock: CounterClock<fn() -> u64>,
    ram: Ram,
}

#[repr(align(4096))]
struct Pages<const LEN: usize>([u8; LEN]);

const NEEDS: Needs = memory_needed(&Limits::DEFAULT);
static SLOTS: Reserved<[Slot; NEEDS.slots]> = Reserved::new([Slot::EMPTY; NEEDS.slots]);
static INDEX: Reserved<[u16; NEEDS.index]> = Reserved::new([0; NEEDS.index]);
static CELLS: Reserved<Pages<{ NEEDS.cell_bytes }>> = Reserved::new(Pages([0; NEEDS.cell_bytes]));
static RX: Reserved<[u8; NEEDS.rx]> = Reserved::new([0; NEEDS.rx]);
static RINGS: Reserved<Pages<MEMORY_NEEDED>> = Reserved::new(Pages([0; MEMORY_NEEDED]));
static KIT: CrashCell<Kit> = CrashCell::new();

/// At boot, once. Touches no device.
fn arm_the_dump(nic: PciFunction<Pci>, tsc_hz: NonZeroU64, ram: Ram) -> Option<()> {
    // SAFETY: boot runs once, on one CPU: no two calls of `take` at a time.
    let (slots, index, cells, rx, rings) =
        unsafe { (SLOTS.take()?, INDEX.take()?, CELLS.take()?, RX.take()?, RINGS.take()?) };

    let config = Config::parse("server=192.0.2.1 client=192.0.2.9").ok()?;
    let phys = Some(PhysAddr(virt_to_phys(&cells.0)));
    let cells = Cells { bytes: &mut cells.0, phys };
    let armed = arm(config, Memory { slots, index, cells, rx }).ok()?;

    // SAFETY: device registers, mapped one to one and uncached since early boot.
    let transport =
        PciModern::probe(nic, |at, len| unsafe { Mmio::at(at.0 as usize, len) }).ok()?;
    let device = DeviceAddr(virt_to_phys(&rings.0));
    // SAFETY: the driver's for ever; contiguous, coherent, and there is no IOMMU.
    let rings = unsafe { DmaRegion::from_static(&mut rings.0, device) }?;
    let nic = VirtioNet::new(transport, rings, Identity::new()).ok()?;

    let clock = CounterClock::new(tsc as fn() -> u64, tsc_hz, u64::MAX);
    KIT.put(Kit { armed, nic, clock, ram }).ok()
}

/// From the panic and fault handlers: interrupts off, other CPUs stopped.
fn on_panic(cpu: u32, message: &str, unix_time_s: u64) -> ! {
    match KIT.enter(cpu) {
        Entry::First { value: Kit { armed, nic, clock, ram }, progress } => {
            let info = DumpInfo {
                architecture: "amd64",
                architecture_version: 2,
                hostname: "box",
                version: "my kernel 1.0\n",
                panic: message,
                time_s: unix_time_s,
                key: &[],
            };
            let outcome = armed.dump(
                &mut [nic],
                &mut Io {
                    clock,
                    source: ram,
                    transform: None,
                    info: &info,
                    observer: &mut Blind, // or your own: console, watchdog
                    progress,
                },
            );
            console(format_args!("dump: {:?}, {} bytes", outcome.verdict, outcome.acked_bytes));
        }
        // A fault inside the dump itself: say how far it got.
        Entry::Nested(progress) => {
            console(format_args!("fault in the dump after {} bytes", progress.acked_bytes()));
        }
        Entry::OtherCpu => park(),
        Entry::Empty => {}
    }
    reboot()
}

/// The image: all RAM, file offset = physical address.
struct Ram {
    /// RAM in order. `Volatile` is what the dump itself writes to: its stack
    /// and the statics above. `Frozen` is the rest.
    extents: &'static [Extent],
    next: usize,
}

impl DumpSource for Ram {
    fn next(&mut self) -> Option<Extent> {
        let extent = self.extents.get(self.next)?;
        self.next += 1;
        Some(*extent)
    }

    fn rewind(&mut self) {
        self.next = 0;
    }
}

impl ReadRam for Ram {
    fn read(&mut self, at: PhysAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        let range = PhysRange::new(at, into.len() as u64).ok_or(ReadFault { at })?;
        if !self.extents.iter().any(|extent| extent.range.contains(range)) {
            return Err(ReadFault { at });
        }
        for (address, byte) in (at.0..).zip(into) {
            // SAFETY: RAM, in the direct map since boot. Read as bytes, never
            // borrowed: whoever owns it is dead, or is this dump.
            *byte = unsafe { core::ptr::read_volatile(phys_to_virt(address)) };
        }
        Ok(())
    }
    // `sum` and `zero_prefix` have defaults over `read`; override them with wide loads.
}

/// Stand-ins for what every kernel has.
mod platform {
    use nic_hal::pci_types::{ConfigRegionAccess, PciAddress};

    /// The way to PCI configuration space: here none, on x86 `nic_hal::pci::Cf8`.
    pub(crate) struct Pci;

    impl ConfigRegionAccess for Pci {
        unsafe fn read(&self, _: PciAddress, _: u16) -> u32 {
            u32::MAX
        }
        unsafe fn write(&self, _: PciAddress, _: u16, _: u32) {}
    }

    pub(crate) fn virt_to_phys(bytes: &[u8]) -> u64 {
        bytes.as_ptr().addr() as u64
    }

    pub(crate) fn phys_to_virt(phys: u64) -> *const u8 {
        core::ptr::without_provenance(phys as usize)
    }

    pub(crate) fn tsc() -> u64 {
        0
    }

    pub(crate) fn console(line: core::fmt::Arguments<'_>) {
        println!("{line}");
    }

    pub(crate) fn park() -> ! {
        std::process::exit(0)
    }

    pub(crate) fn reboot() -> ! {
        std::process::exit(0)
    }
}

fn main() {
    let ram = Ram {
        extents: &[Extent { offset: 0, range: PhysRange::EMPTY, stability: Stability::Frozen }],
        next: 0,
    };
    // SAFETY: the stand-in has no function and touches nothing.
    let nic =
        unsafe { PciFunction::new(platform::Pci, nic_hal::pci_types::PciAddress::new(0, 0, 3, 0)) };
    if arm_the_dump(nic, NonZeroU64::MIN, ram).is_none() {
        console(format_args!("not armed: no such device"));
    }
    on_panic(0, "the end", 0)
}
