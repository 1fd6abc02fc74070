//! A virtio-net device made of registers and rings, honest or lying, for tests
//! and fuzz targets.
//!
//! It sits on a fake PCI function or in an MMIO slot ([`Bus`]), answers register
//! accesses, and works the rings through the same memory as the driver: it follows whatever addresses
//! the driver gave it, and notes every breach of the specification by the
//! driver in [`FakeVirtio::violations`]. It does nothing by itself: the test
//! says when it sends, completes and delivers, and with which lies.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod fuzz;
mod legacy;
mod mmio;
mod registers;
mod rings;

use std::cell::RefCell;
use std::rc::Rc;

use debugnet_core::addr::{DeviceAddr, MacAddr, PhysAddr, PhysRange};
use debugnet_core::nic::NicError;
use nic_hal::host::{HostConfig, HostMemory};
use nic_hal::{DmaMap, DmaRegion, Identity};

pub use registers::FakeWindow;
use registers::Region;
use rings::Queue;
pub use rings::{Chain, RX, TX};

use crate::{AnyTransport, PciLegacy, Sizes, VirtioMmio, VirtioNet, features};

/// The way to the fake device's registers.
pub type FakeTransport = AnyTransport<HostConfig, FakeWindow, FakeWindow>;
/// The driver, on the fake device.
pub type FakeDriver<M = Identity> = VirtioNet<FakeTransport, M>;

/// How the device is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bus {
    /// PCI, modern interface only.
    PciModern,
    /// PCI, legacy interface only.
    PciLegacy,
    /// MMIO version 1.
    MmioV1,
    /// MMIO version 2.
    MmioV2,
}

impl Bus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::PciModern, Self::PciLegacy, Self::MmioV1, Self::MmioV2];

    /// Whether this is the interface from before virtio 1.0.
    pub const fn is_legacy(self) -> bool {
        matches!(self, Self::PciLegacy | Self::MmioV1)
    }

    /// Whether this is PCI.
    pub const fn is_pci(self) -> bool {
        matches!(self, Self::PciModern | Self::PciLegacy)
    }
}

/// Where the device's registers lie in physical memory.
const BAR: u64 = 0xc_fe00_0000;
/// Where the driver's memory lies for the device.
const DRIVER_MEMORY: u64 = 0x10_0000;
/// Where payload lies for the device.
const PAYLOAD_MEMORY: u64 = 0x4000_0000;
/// Length of the payload memory in bytes.
const PAYLOAD_LEN: usize = 0x1_0000;
/// Bytes before and behind the driver's memory that it must not touch.
const MARGIN: usize = 4096;

/// How the device behaves.
#[derive(Clone, Copy, Debug)]
pub struct Quirks {
    /// How it is reached; not to be changed later.
    pub bus: Bus,
    /// Features offered.
    pub features: u64,
    /// Reads of the status after a reset until it reads 0; `u32::MAX`: never.
    pub reset_looks: u32,
    /// Keeps `FEATURES_OK` clear.
    pub refuses_features: bool,
    /// Longest ring offered, for each queue; on legacy PCI the length it has.
    pub queue_len: [u16; 3],
    /// Doorbell number of each queue.
    pub notify_off: [u16; 3],
    /// Address in the configuration.
    pub mac: MacAddr,
    /// MTU in the configuration.
    pub mtu: u16,
    /// Link in the configuration.
    pub link_up: bool,
    /// Every register reads as all ones.
    pub gone: bool,
    /// The configuration changes with every read, and its generation, where there is one.
    pub restless: bool,
    /// A reset leaves the queues set up.
    pub keeps_queues: bool,
    /// Magic, version and device id, on MMIO.
    pub identity: Option<[u32; 3]>,
    /// Registers read as noise from this seed on; 0: they do not.
    pub noise: u64,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            bus: Bus::PciModern,
            features: features::VERSION_1 | features::MAC | features::STATUS,
            reset_looks: 0,
            refuses_features: false,
            queue_len: [256, 256, 64],
            notify_off: [0, 1, 2],
            mac: MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
            mtu: 0xffff,
            link_up: true,
            gone: false,
            restless: false,
            keeps_queues: false,
            identity: None,
            noise: 0,
        }
    }
}

impl Quirks {
    /// An honest device on `bus`, which offers what QEMU does on a plain backend.
    pub fn on(bus: Bus) -> Self {
        let features = match bus {
            Bus::PciModern | Bus::MmioV2 => 0x101_30bf_8024,
            Bus::PciLegacy => 0x79bf_8064,
            Bus::MmioV1 => 0x39bf_8064,
        };
        Self { bus, features: features | features::STATUS, ..Self::default() }
    }
}

/// The inside of the device.
#[derive(Debug)]
struct Device {
    quirks: Quirks,
    status: u8,
    /// Looks left until a reset is confirmed.
    resetting: Option<u32>,
    resets: u32,
    feature_select: [u32; 2],
    driver_features: u64,
    generation: u8,
    queue_select: u16,
    queues: [Queue; 3],
    /// MMIO version 1: what page numbers count, and where used rings start.
    page_len: u32,
    /// Where MSI-X is switched.
    config: HostConfig,
    doorbells: Vec<(u16, u32)>,
    accesses: u64,
    violations: Vec<String>,
}

/// Violations kept; a device gone mad finds no end of them.
const VIOLATIONS_MAX: usize = 100;

impl Device {
    fn violation(&mut self, what: impl Into<String>) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what.into());
        }
    }
}

/// The memory around a device. Never freed: who makes many devices one after
/// the other keeps one.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    driver: &'static HostMemory,
    payload: &'static HostMemory,
}

impl Surroundings {
    /// Memory for a driver of these sizes, and for payload.
    pub fn leak(sizes: Sizes) -> Self {
        let driver_len = sizes.memory_needed() + 2 * MARGIN;
        Self {
            driver: HostMemory::leak(driver_len, DeviceAddr(DRIVER_MEMORY)),
            payload: HostMemory::leak(PAYLOAD_LEN, DeviceAddr(PAYLOAD_MEMORY)),
        }
    }
}

/// Handle on a fake device and everything around it. Clones share it.
#[derive(Clone, Debug)]
pub struct FakeVirtio {
    device: Rc<RefCell<Device>>,
    config: HostConfig,
    driver_memory: &'static HostMemory,
    payload: &'static HostMemory,
}

impl FakeVirtio {
    /// A device that is in use: running, with rings of the dead kernel's, MSI-X
    /// on and bus mastering off.
    pub fn new(quirks: Quirks) -> Self {
        Self::with_sizes(quirks, Sizes::DEFAULT)
    }

    /// The same, with memory for a driver of these sizes.
    pub fn with_sizes(quirks: Quirks, sizes: Sizes) -> Self {
        Self::within(quirks, Surroundings::leak(sizes))
    }

    /// The same, in memory that no other device or driver uses any more. It is zeroed.
    pub fn within(quirks: Quirks, memory: Surroundings) -> Self {
        memory.driver.zero();
        memory.payload.zero();
        let config = HostConfig::new(match quirks.bus {
            Bus::PciLegacy => legacy::config_space(),
            _ => config_space(),
        });
        let device = Device {
            quirks,
            page_len: 0x1000,
            config: config.clone(),
            status: 0x0f,
            resetting: None,
            resets: 0,
            feature_select: [1, 1],
            driver_features: quirks.features,
            generation: 7,
            queue_select: 2,
            queues: [Queue::of_the_dead(), Queue::of_the_dead(), Queue::of_the_dead()],
            doorbells: Vec::new(),
            accesses: 0,
            violations: Vec::new(),
        };
        Self {
            device: Rc::new(RefCell::new(device)),
            config,
            driver_memory: memory.driver,
            payload: memory.payload,
        }
    }

    /// The transport, as a kernel finds it at boot.
    ///
    /// # Errors
    /// What the transport's probe finds wrong.
    pub fn transport(&self) -> Result<FakeTransport, NicError> {
        let window =
            |region, base, len| FakeWindow { device: self.device.clone(), region, base, len };
        let bus = self.device.borrow().quirks.bus;
        match bus {
            Bus::PciModern => AnyTransport::probe_pci(
                self.config.function(),
                |phys, len| {
                    let base = usize::try_from(phys.0.checked_sub(BAR)?).ok()?;
                    Some(window(Region::Modern, base, len))
                },
                |_, _| None,
            ),
            Bus::PciLegacy => PciLegacy::probe(self.config.function(), |port, count| {
                (port == legacy::PORT).then(|| window(Region::Ports, 0, count.into()))
            })
            .map(AnyTransport::PciLegacy),
            Bus::MmioV1 | Bus::MmioV2 => {
                VirtioMmio::probe(window(Region::Mmio, 0, 0x200)).map(AnyTransport::Mmio)
            }
        }
    }

    /// The driver of default sizes with physical addresses.
    ///
    /// # Panics
    /// If the device cannot be probed.
    pub fn driver(&self) -> FakeDriver {
        self.driver_with(Identity::new(), Sizes::DEFAULT)
    }

    /// The driver, with another map or other sizes.
    ///
    /// # Panics
    /// If the device cannot be probed or its memory is too short.
    pub fn driver_with<M: DmaMap>(&self, map: M, sizes: Sizes) -> FakeDriver<M> {
        self.try_driver_with(map, sizes).expect("a sound device and enough memory")
    }

    /// The same for a device that may not be one.
    ///
    /// # Errors
    /// What probe and constructor find wrong.
    ///
    /// # Panics
    /// If the surroundings are for smaller sizes.
    pub fn try_driver_with<M: DmaMap>(
        &self,
        map: M,
        sizes: Sizes,
    ) -> Result<FakeDriver<M>, NicError> {
        let mut memory = self.driver_memory.region();
        let _margin = memory.take(MARGIN, 1).expect("a margin");
        let memory = memory.take(sizes.memory_needed(), 1).expect("as much as was asked for");
        VirtioNet::with_sizes(self.transport()?, memory, map, sizes)
    }

    /// The fake PCI function.
    pub fn config(&self) -> &HostConfig {
        &self.config
    }

    /// Changes how the device behaves from now on.
    pub fn change(&self, change: impl FnOnce(&mut Quirks)) {
        change(&mut self.device.borrow_mut().quirks);
    }

    /// Sets status bits, as a device does that needs a reset.
    pub fn set_status_bits(&self, bits: u8) {
        self.device.borrow_mut().status |= bits;
    }

    /// The status register.
    pub fn status(&self) -> u8 {
        self.device.borrow().status
    }

    /// Register accesses so far.
    pub fn accesses(&self) -> u64 {
        self.device.borrow().accesses
    }

    /// Overwrites eight bytes of the driver's memory, as a device gone mad may;
    /// `offset` is taken modulo its length.
    ///
    /// # Panics
    /// Never: the offset is inside.
    pub fn scribble(&self, offset: u32, word: u64) {
        let room = (self.driver_memory.len() - 2 * MARGIN - 8) as u64;
        let at = DRIVER_MEMORY + MARGIN as u64 + u64::from(offset) % room;
        self.driver_memory.device_write(at, &word.to_le_bytes()).expect("inside");
    }

    /// Features the driver accepted.
    pub fn accepted(&self) -> u64 {
        self.device.borrow().driver_features
    }

    /// Confirmed resets.
    pub fn resets(&self) -> u32 {
        self.device.borrow().resets
    }

    /// Doorbells rung: queue and value written. Forgets them.
    pub fn take_doorbells(&self) -> Vec<(u16, u32)> {
        std::mem::take(&mut self.device.borrow_mut().doorbells)
    }

    /// What the driver did against the specification.
    pub fn violations(&self) -> Vec<String> {
        self.device.borrow().violations.clone()
    }

    /// Whether the driver kept to its memory.
    pub fn margins_are_untouched(&self) -> bool {
        let behind = DRIVER_MEMORY + (self.driver_memory.len() - MARGIN) as u64;
        [DRIVER_MEMORY, behind].iter().all(|start| {
            let mut margin = [0xff; MARGIN];
            self.driver_memory.device_read(*start, &mut margin).expect("a margin");
            margin == [0; MARGIN]
        })
    }

    /// The payload memory, for a caller that fills it itself.
    pub fn payload_memory(&self) -> (DmaRegion, PhysAddr) {
        (self.payload.region(), PhysAddr(PAYLOAD_MEMORY))
    }

    /// Puts `bytes` in the payload memory at `offset`.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn payload(&self, offset: u64, bytes: &[u8]) -> PhysRange {
        self.payload.device_write(PAYLOAD_MEMORY + offset, bytes).expect("room for the payload");
        PhysRange::new(PhysAddr(PAYLOAD_MEMORY + offset), bytes.len() as u64).expect("no wrap")
    }
}

/// A function unlike QEMU's, so that nothing about QEMU's can be taken for
/// granted: several structures in a BAR that starts in slot 2, one capability
/// that points at a reserved BAR and one at an I/O BAR, unknown types between.
fn config_space() -> Vec<(u16, u32)> {
    const MEMORY_64: u32 = 0xc;
    let mut words = vec![
        (0x00, 0x1041_1af4),
        // Capability list; memory decoding on, bus mastering off.
        (0x04, 0x0010_0002),
        (0x08, 0x0200_0001),
        (0x10, 0xc001),
        (0x18, BAR as u32 | MEMORY_64),
        (0x1c, (BAR >> 32) as u32),
        (0x34, 0x40),
        // MSI-X, enabled by the dead kernel.
        (0x40, 0x8002_5011),
    ];
    // next, cfg_type, bar, offset, len
    let structures = [
        (0x50, 0x60, 5, 0, 0, 0),
        (0x60, 0x70, 1, 7, 0, 0x1000),
        (0x70, 0x80, 1, 0, 0, 0x1000),
        (0x80, 0x90, 1, 2, registers::COMMON_AT, 0x40),
        (0x90, 0xa4, 2, 2, registers::NOTIFY_AT, registers::NOTIFY_LEN),
        (0xa4, 0xb4, 9, 2, 0, 4),
        (0xb4, 0xc4, 4, 2, registers::NET_AT, 0x18),
        // A second one, to be ignored.
        (0xc4, 0x00, 1, 2, 0x2000, 0x38),
    ];
    for (at, next, cfg_type, bar, offset, len) in structures {
        let cap_len = if cfg_type == 2 { 20 } else { 16 };
        words.push((at, cfg_type << 24 | cap_len << 16 | next << 8 | 0x09));
        words.push((at + 4, bar));
        words.push((at + 8, offset));
        words.push((at + 12, len));
    }
    words.push((0x90 + 16, registers::NOTIFY_MULTIPLIER));
    words
}
