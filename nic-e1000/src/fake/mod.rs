//! An Intel gigabit controller made of registers and rings, honest or lying,
//! for tests and fuzz targets.
//!
//! It sits on a fake PCI function and works the rings through the same memory
//! as the driver. It starts in use: running on rings of a dead kernel's, with
//! stale indices. Where QEMU's models differ from the data sheets, it is as
//! QEMU's (measured on 10.0.2); [`Quirks`] makes it differ further. What the
//! driver must not do is noted in [`FakeIntel::violations`].
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod fuzz;
mod registers;
mod rings;

use std::cell::RefCell;
use std::rc::Rc;

use debugnet_core::addr::{DeviceAddr, MacAddr, PhysAddr, PhysRange};
use debugnet_core::time::{Clock, Instant};
use nic_hal::host::{HostConfig, HostMemory};
use nic_hal::{DmaMap, DmaRegion, Identity};

pub use registers::FakeWindow;

use crate::ids::{Family, VENDOR, identify};
use crate::{E1000, MEMORY_NEEDED, PciDevice};

/// The driver, on the fake device.
pub type FakeDriver<M = Identity> = E1000<HostConfig, M, FakeWindow>;

/// Where the registers lie in physical memory.
const BAR: u32 = 0xfeb0_0000;
const DRIVER_MEMORY: u64 = 0x10_0000;
const PAYLOAD_MEMORY: u64 = 0x4000_0000;
const PAYLOAD_LEN: usize = 0x1_0000;
/// Rings and buffers of the dead kernel.
const DEAD_MEMORY: u64 = 0x2000_0000;
const DEAD_LEN: usize = 0x1_0000;
/// Bytes before and behind the driver's memory that it must not touch.
const MARGIN: usize = 4096;
/// Least time that a read of configuration space takes.
const CONFIG_READ_US: u64 = 1;
/// The address in the NVM, and the one the dead kernel used.
const NVM_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// How the device behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quirks {
    /// A software reset changes nothing but itself, as on QEMU's `e1000`.
    pub reset_keeps_registers: bool,
    /// The reset bit stays set.
    pub reset_never_ends: bool,
    /// The bus master never reports that it has stopped.
    pub master_never_stops: bool,
    /// The queues of an igb never come up.
    pub queues_never_enable: bool,
    /// The NVM never answers.
    pub nvm_never_done: bool,
    /// The PHY never answers.
    pub phy_never_ready: bool,
    /// The cable is not plugged in.
    pub no_link: bool,
    /// Frames are sent, and never completed.
    pub never_done: bool,
    /// The completion bit is set in every other frame's descriptor only.
    pub done_out_of_order: bool,
    /// A received length, instead of the true one.
    pub rx_len: Option<u16>,
    /// Bits XORed into the status of received frames.
    pub rx_status_flip: u8,
    /// Error bits of received frames.
    pub rx_errors: u8,
    /// Every register reads as all ones.
    pub gone: bool,
    /// Registers read as noise from this seed on; 0: they do not.
    pub noise: u64,
}

/// The inside of the device.
#[derive(Debug)]
struct Device {
    family: Family,
    quirks: Quirks,
    words: Vec<u32>,
    config: HostConfig,
    memories: [&'static HostMemory; 3],
    now_us: u64,
    /// Until then no register may be touched.
    quiet_until_us: u64,
    /// When the link comes up, after autonegotiation.
    link_at_us: Option<u64>,
    /// When RCTL was written last.
    rctl_at_us: Option<u64>,
    /// Checksum context: start and field of the sum.
    context: Option<(usize, usize)>,
    /// What was fetched of a frame that is not whole yet.
    partial: Vec<u8>,
    /// A frame that lost a part.
    partial_lost: bool,
    partial_insert: bool,
    frames: Vec<Vec<u8>>,
    log: Vec<(usize, u32)>,
    reads: u64,
    resets: u32,
    violations: Vec<String>,
}

/// Handle on a fake device and everything around it. Clones share it.
#[derive(Clone, Debug)]
pub struct FakeIntel {
    device: Rc<RefCell<Device>>,
    config: HostConfig,
    driver_memory: &'static HostMemory,
    payload: &'static HostMemory,
    dead: &'static HostMemory,
}

/// Violations and log entries kept; a device gone mad finds no end of them.
const KEPT_MAX: usize = 100_000;

/// The memory around a device. Never freed: who makes many devices one after
/// the other keeps one.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    driver: &'static HostMemory,
    payload: &'static HostMemory,
    dead: &'static HostMemory,
}

impl Surroundings {
    /// Memory for a driver, for payload, and a dead kernel's.
    pub fn leak() -> Self {
        let driver_len = MEMORY_NEEDED + 2 * MARGIN;
        Self {
            driver: HostMemory::leak(driver_len, DeviceAddr(DRIVER_MEMORY)),
            payload: HostMemory::leak(PAYLOAD_LEN, DeviceAddr(PAYLOAD_MEMORY)),
            dead: HostMemory::leak(DEAD_LEN, DeviceAddr(DEAD_MEMORY)),
        }
    }
}

/// The device's clock: it moves only when somebody waits, 50 us at a time, or
/// reads configuration space, 1 us a word.
#[derive(Clone, Debug)]
pub struct FakeClock(Rc<RefCell<Device>>);

impl Clock for FakeClock {
    fn now(&mut self) -> Instant {
        Instant::from_micros(self.0.borrow().now_us)
    }

    fn relax(&mut self) {
        self.0.borrow_mut().now_us += 50;
    }
}

impl Device {
    fn violation(&mut self, what: impl Into<String>) {
        if self.violations.len() < KEPT_MAX {
            self.violations.push(what.into());
        }
    }
}

impl FakeIntel {
    /// A part with this PCI device id, in use.
    ///
    /// # Panics
    /// If the driver does not know the part.
    pub fn new(device_id: u16, quirks: Quirks) -> Self {
        Self::within(device_id, quirks, Surroundings::leak())
    }

    /// The same, in memory that no other device or driver uses any more. What
    /// a driver left there is zeroed.
    ///
    /// # Panics
    /// If the driver does not know the part.
    pub fn within(device_id: u16, quirks: Quirks, memory: Surroundings) -> Self {
        let family = identify(VENDOR, device_id).expect("a part that is driven").family();
        let config = HostConfig::new([
            (0x00, u32::from(device_id) << 16 | u32::from(VENDOR)),
            // Capability list; decoding and bus mastering on.
            (0x04, 0x0010_0006),
            (0x10, BAR),
            (0x34, 0x50),
            // MSI, enabled by the dead kernel.
            (0x50, 0x0081_0005),
        ]);
        let Surroundings { driver: driver_memory, payload, dead } = memory;
        driver_memory.zero();
        payload.zero();
        let mut device = Device {
            family,
            quirks,
            words: vec![0; crate::registers::WINDOW_LEN / 4],
            config: config.clone(),
            memories: [driver_memory, payload, dead],
            now_us: 0,
            quiet_until_us: 0,
            link_at_us: None,
            rctl_at_us: None,
            context: None,
            partial: Vec::new(),
            partial_lost: false,
            partial_insert: false,
            frames: Vec::new(),
            log: Vec::new(),
            reads: 0,
            resets: 0,
            violations: Vec::new(),
        };
        device.leave_in_use(DEAD_MEMORY);
        // Transmit descriptors that lead to the dead kernel's memory.
        let stale = [(DEAD_MEMORY + 0x8000).to_le_bytes(), 0x0b00_0040_u64.to_le_bytes()].concat();
        dead.device_write(DEAD_MEMORY, &stale.repeat(DEAD_LEN / 16)).expect("inside");
        let device = Rc::new(RefCell::new(device));
        let clock = Rc::downgrade(&device);
        config.on_read(move || {
            if let Some(device) = clock.upgrade() {
                device.borrow_mut().now_us += CONFIG_READ_US;
            }
        });
        Self { device, config, driver_memory, payload, dead }
    }

    /// The driver.
    ///
    /// # Panics
    /// If the device cannot be probed.
    pub fn driver(&self) -> FakeDriver {
        self.driver_with(Identity::new())
    }

    /// The driver, with another map.
    ///
    /// # Panics
    /// If the device cannot be probed.
    pub fn driver_with<M: DmaMap>(&self, map: M) -> FakeDriver<M> {
        let mut memory = self.driver_memory.region();
        let _margin = memory.take(MARGIN, 1).expect("a margin");
        let memory = memory.take(MEMORY_NEEDED, 1).expect("as much as is needed");
        let device = PciDevice::probe(self.config.function(), |phys, len| {
            assert_eq!(phys, PhysAddr(u64::from(BAR)));
            Some(FakeWindow { device: self.device.clone(), len })
        });
        E1000::new(device.expect("a sound device"), memory, map).expect("memory")
    }

    /// The clock that the device runs by.
    pub fn clock(&self) -> FakeClock {
        FakeClock(self.device.clone())
    }

    /// Lets time pass.
    pub fn pass_us(&self, us: u64) {
        self.device.borrow_mut().now_us += us;
    }

    /// Microseconds since the start.
    pub fn now_us(&self) -> u64 {
        self.device.borrow().now_us
    }

    /// The fake PCI function.
    pub fn config(&self) -> &HostConfig {
        &self.config
    }

    /// Changes how the device behaves from now on.
    pub fn change(&self, change: impl FnOnce(&mut Quirks)) {
        change(&mut self.device.borrow_mut().quirks);
    }

    /// Sets a register as firmware, or the dead kernel, would have.
    pub fn set(&self, register: usize, value: u32) {
        let mut device = self.device.borrow_mut();
        device.words[register / 4] = value;
    }

    /// A register as it is, without an access.
    pub fn get(&self, register: usize) -> u32 {
        self.device.borrow().words[register / 4]
    }

    /// Resets the device behind the driver's back.
    pub fn reset_itself(&self) {
        self.device.borrow_mut().clear_all();
    }

    /// Register writes since the last call, offset and value.
    pub fn take_log(&self) -> Vec<(usize, u32)> {
        std::mem::take(&mut self.device.borrow_mut().log)
    }

    /// Registers read so far.
    pub fn reads(&self) -> u64 {
        self.device.borrow().reads
    }

    /// Software resets so far.
    pub fn resets(&self) -> u32 {
        self.device.borrow().resets
    }

    /// Frames sent since the last call.
    pub fn take_frames(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.device.borrow_mut().frames)
    }

    /// What the driver must not have done.
    pub fn violations(&self) -> Vec<String> {
        self.device.borrow().violations.clone()
    }

    /// A frame from the wire; `false` if the device could not take it.
    pub fn deliver(&self, frame: &[u8]) -> bool {
        self.device.borrow_mut().deliver(frame)
    }

    /// Overwrites some of the driver's memory, as a device gone mad may.
    ///
    /// # Panics
    /// If that is not inside it.
    pub fn scribble(&self, offset: u64, bytes: &[u8]) {
        let at = DRIVER_MEMORY + MARGIN as u64 + offset;
        self.driver_memory.device_write(at, bytes).expect("inside the driver's memory");
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

    /// A copy of the dead kernel's memory.
    pub fn dead_memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; DEAD_LEN];
        self.dead.device_read(DEAD_MEMORY, &mut bytes).expect("inside");
        bytes
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
