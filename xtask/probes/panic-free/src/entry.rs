//! The entry points: what a kernel calls at boot, and what its panic handler calls.

use core::hint::black_box;
use core::net::{IpAddr, Ipv4Addr};

use debugnet_core::addr::{DeviceAddr, PhysAddr};
use debugnet_core::nic::{Checksum, Nic, Payload, TxFrame};
use debugnet_core::{
    Armed, Cells, Config, DumpInfo, DumpSource, Io, Limits, Memory, Needs, Progress, Slot, Step,
    Target, arm, memory_needed,
};
#[cfg(feature = "e1000")]
use nic_e1000::{E1000, MEMORY_NEEDED, PciDevice};
use nic_hal::pci_types::PciAddress;
use nic_hal::{CrashCell, DmaRegion, Entry, Identity, Mmio, PciFunction, Reserved};
#[cfg(feature = "probe")]
use nic_probe::{AnyNic, Device, MEMORY_NEEDED};
#[cfg(feature = "every-transport")]
use nic_virtio::{
    AnyTransport, MEMORY_NEEDED_ANY as MEMORY_NEEDED, PciLegacy, PciModern, VirtioMmio, VirtioNet,
};
#[cfg(not(any(feature = "every-transport", feature = "e1000", feature = "probe")))]
use nic_virtio::{MEMORY_NEEDED, PciModern, VirtioNet};

#[cfg(feature = "layouts")]
use crate::layouts;
use crate::platform::{self, Counter, Ram, Witness};

const NEEDS: Needs = memory_needed(&Limits::DEFAULT);

#[repr(C, align(4096))]
struct Rings([u8; MEMORY_NEEDED]);

// What a kernel with the default limits sets aside; `size` counts it. Apart, so
// that only the slots, which are not all zero at first, need initial values.
static SLOTS: Reserved<[Slot; NEEDS.slots]> = Reserved::new([Slot::EMPTY; NEEDS.slots]);
static INDEX: Reserved<[u16; NEEDS.index]> = Reserved::new([0; NEEDS.index]);
static CELLS: Reserved<[u8; NEEDS.cell_bytes]> = Reserved::new([0; NEEDS.cell_bytes]);
static RX: Reserved<[u8; NEEDS.rx]> = Reserved::new([0; NEEDS.rx]);
static RINGS: Reserved<Rings> = Reserved::new(Rings([0; MEMORY_NEEDED]));
static KIT: CrashCell<Kit> = CrashCell::new();

#[cfg(feature = "probe")]
type Driver = AnyNic<platform::Config, Identity>;
#[cfg(feature = "e1000")]
type Driver = E1000<platform::Config, Identity>;
#[cfg(feature = "every-transport")]
type Driver = VirtioNet<AnyTransport<platform::Config>, Identity>;
#[cfg(not(any(feature = "every-transport", feature = "e1000", feature = "probe")))]
type Driver = VirtioNet<PciModern<platform::Config, Mmio>, Identity>;

struct Kit {
    armed: Armed<'static>,
    nic: Driver,
}

/// Boot: configuration, memory, driver.
///
/// Not in the proof: `Config::parse`. It runs at boot, where a panic is an
/// ordinary one, and the address parser of `core` that it uses keeps slice
/// indexing that the optimiser does not see through.
#[inline(never)]
pub(crate) fn boot() -> Option<()> {
    let mut config = Config::new();
    let target = Target::new(black_box(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    config.targets.push(target).ok()?;
    black_box(&mut config);
    // SAFETY: called once.
    let (slots, index) = (unsafe { SLOTS.take() }?, unsafe { INDEX.take() }?);
    // SAFETY: called once.
    let (bytes, rx) = (unsafe { CELLS.take() }?, unsafe { RX.take() }?);
    let cells = Cells { bytes, phys: None };
    let armed = arm(config, Memory { slots, index, cells, rx }).ok()?;

    // SAFETY: called once.
    let rings = unsafe { RINGS.take() }?;
    // SAFETY: the driver's for ever.
    let region = unsafe { DmaRegion::from_static(&mut rings.0, DeviceAddr(black_box(0))) }?;
    KIT.put(Kit { armed, nic: driver(region)? }).ok()
}

fn function() -> PciFunction<platform::Config> {
    // SAFETY: never run; a kernel argues here that no other driver is on it.
    unsafe { PciFunction::new(platform::Config, PciAddress::new(0, 0, 3, 0)) }
}

fn window(start: PhysAddr, len: usize) -> Option<Mmio> {
    // SAFETY: never run; a kernel argues here how BARs are mapped.
    unsafe { Mmio::at(usize::try_from(start.0).ok()?, len) }
}

#[cfg(not(any(feature = "every-transport", feature = "e1000", feature = "probe")))]
fn driver(region: DmaRegion) -> Option<Driver> {
    VirtioNet::new(PciModern::probe(function(), window).ok()?, region, Identity::new()).ok()
}

/// One of the three transports, in a way that the compiler cannot foresee.
#[cfg(feature = "every-transport")]
fn driver(region: DmaRegion) -> Option<Driver> {
    let ports = |first: u16, len: u16| window(PhysAddr(first.into()), len.into());
    let transport = match black_box(0) {
        0 => PciModern::probe(function(), window).ok().map(AnyTransport::PciModern),
        1 => PciLegacy::probe(function(), ports).ok().map(AnyTransport::PciLegacy),
        2 => VirtioMmio::probe(window(PhysAddr(black_box(0)), 0x200)?).ok().map(AnyTransport::Mmio),
        _ => AnyTransport::probe_pci(function(), window, ports).ok(),
    };
    VirtioNet::new(transport?, region, Identity::new()).ok()
}

#[cfg(feature = "probe")]
fn driver(region: DmaRegion) -> Option<Driver> {
    let ports = |first: u16, len: u16| window(PhysAddr(first.into()), len.into());
    let device = Device::probe(function(), window, ports).ok()?;
    black_box(device.memory_needed());
    Some(device.driver(region, Identity::new()).ok()?.with_ip_mtu(black_box(9000)))
}

/// With checksum offload on: more of the driver is reached.
#[cfg(feature = "e1000")]
fn driver(region: DmaRegion) -> Option<Driver> {
    let device = PciDevice::probe(function(), window).ok()?;
    Some(E1000::new(device, region, Identity::new()).ok()?.with_checksum_offload(black_box(true)))
}

/// The crash: the whole dump, and each piece that a kernel may call by itself.
#[inline(never)]
pub(crate) fn crash() {
    let Entry::First { value: Kit { armed, nic }, progress } = KIT.enter(black_box(0)) else {
        return;
    };
    let info = DumpInfo {
        architecture: black_box("amd64"),
        architecture_version: black_box(2),
        hostname: black_box("host"),
        version: black_box("version"),
        panic: black_box("panic"),
        time_s: black_box(0),
        key: black_box(&[]),
    };
    let mut ram = Ram::new();
    let mut kit = Crash { armed, nic, info: &info, progress };
    #[cfg(feature = "layouts")]
    layouts::any(&mut ram, &info, &mut kit);
    kit.source(&mut ram);
    #[cfg(feature = "w5500")]
    {
        let mac = debugnet_core::addr::MacAddr(black_box([0; 6]));
        methods(black_box(&mut nic_w5500::W5500::new(platform::Bus, platform::Pause, mac)));
    }
}

/// What is at hand when the machine has died.
struct Crash<'a> {
    armed: &'a mut Armed<'static>,
    nic: &'a mut Driver,
    info: &'a DumpInfo<'a>,
    progress: &'a Progress,
}

#[cfg(feature = "layouts")]
impl layouts::Use for Crash<'_> {
    fn source(&mut self, source: &mut dyn DumpSource) {
        Crash::source(self, source);
    }
}

impl Crash<'_> {
    fn source(&mut self, source: &mut dyn DumpSource) {
        let mut io = Io {
            clock: &mut Counter,
            source,
            transform: None,
            info: self.info,
            observer: &mut Witness,
            progress: self.progress,
        };
        // Through a pointer that the compiler cannot see through, as at panic time.
        let nic: &mut dyn Nic = black_box(&mut *self.nic);
        black_box(self.armed.dump(&mut [nic], &mut io));

        let mut dump = self.armed.begin(black_box(0));
        if let Step::Done(outcome) = dump.poll(nic, &mut io) {
            black_box(outcome);
        }
        methods(nic);
    }
}

/// Each method of a NIC with arguments that no core would give.
fn methods(nic: &mut dyn Nic) {
    black_box(nic.capabilities());
    black_box(nic.poll_start(&mut Counter)).ok();
    black_box(nic.link());
    let frame = TxFrame {
        header: black_box(&[]),
        payload: black_box(Payload::None),
        checksum: black_box(Checksum::Complete),
    };
    black_box(nic.transmit(&frame)).ok();
    nic.kick();
    black_box(nic.poll_tx()).ok();
    black_box(nic.receive(black_box(&mut [0; 64]))).ok();
    black_box(nic.stop()).ok();
}

/// What must not be on the crash path.
#[cfg(feature = "inject")]
#[inline(never)]
pub(crate) fn index(bytes: &[u8], at: usize) {
    black_box(bytes[at]);
}
