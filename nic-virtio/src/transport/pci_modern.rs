//! Virtio over PCI, the modern interface (virtio 1.2 section 4.1).
//!
//! Drives `1af4:1041` and the transitional `1af4:1000` through the structures
//! that vendor-specific capabilities point at. Where they lie differs between
//! hosts, so nothing is assumed about BARs, offsets or the notify multiplier.

use debugnet_core::addr::PhysAddr;
use debugnet_core::nic::NicError;
use nic_hal::pci_types::ConfigRegionAccess;
use nic_hal::{BadAccess, Bar, Capability, Mmio, PciFunction, Registers};

use super::{Interface, QueueLen, Rings, Transport, lost, status};
use crate::features;

/// PCI vendor id of virtio devices.
pub(super) const VENDOR: u16 = 0x1af4;
/// Device id of a transitional network device.
pub(super) const TRANSITIONAL_NET: u16 = 0x1000;
/// Device id of a modern one: 0x1040 and the virtio device type, 1.
const MODERN_NET: u16 = 0x1041;

/// Capability id of vendor-specific capabilities.
const VENDOR_SPECIFIC: u8 = 0x09;
/// `cfg_type` values (section 4.1.4).
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const DEVICE_CFG: u8 = 4;

/// Bytes of the common configuration that this driver uses, up to `queue_device`.
const COMMON_LEN: usize = 0x38;
/// Most of a structure that is mapped: a claim of gigabytes is cut to this.
const WINDOW_MAX: u32 = 1 << 20;
/// Vector that means "no interrupt".
const NO_VECTOR: u16 = 0xffff;
/// A device back from D3 is left alone this long.
pub(super) const WAKE_US: u32 = 10_000;
/// Queues this driver uses: receive and transmit.
const QUEUES: usize = 2;

/// Offsets in the common configuration (section 4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub(super) const DEVICE_FEATURE: usize = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub(super) const DRIVER_FEATURE: usize = 0x0c;
    pub(super) const CONFIG_MSIX_VECTOR: usize = 0x10;
    pub(super) const NUM_QUEUES: usize = 0x12;
    pub(super) const DEVICE_STATUS: usize = 0x14;
    pub(super) const CONFIG_GENERATION: usize = 0x15;
    pub(super) const QUEUE_SELECT: usize = 0x16;
    pub(super) const QUEUE_SIZE: usize = 0x18;
    pub(super) const QUEUE_MSIX_VECTOR: usize = 0x1a;
    pub(super) const QUEUE_ENABLE: usize = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: usize = 0x1e;
    pub(super) const QUEUE_DESC: usize = 0x20;
    pub(super) const QUEUE_DRIVER: usize = 0x28;
    pub(super) const QUEUE_DEVICE: usize = 0x30;
}

/// A virtio network device on PCI. `A` reaches its configuration space, `R` its registers.
#[derive(Debug)]
pub struct PciModern<A, R = Mmio> {
    function: PciFunction<A>,
    common: R,
    notify: R,
    config: R,
    /// Bytes between the doorbells of two queues, times the queue's own number for it.
    notify_multiplier: u32,
    /// Where in `notify` each queue's doorbell is; `None` until the queue is enabled.
    doorbells: [Option<usize>; QUEUES],
    /// Whether a notification carries the available index.
    notification_data: bool,
}

/// The PCI ids of virtio network devices, and what they are: vendor, device, name.
pub const IDS: [(u16, u16, &str); 2] = [
    (VENDOR, TRANSITIONAL_NET, "virtio-net, transitional or legacy"),
    (VENDOR, MODERN_NET, "virtio-net"),
];

/// Whether a PCI function with these ids is a virtio network device, of any age.
pub const fn is_virtio_net(vendor: u16, device: u16) -> bool {
    vendor == VENDOR && (device == MODERN_NET || device == TRANSITIONAL_NET)
}

/// Whether `function` has the structures of the modern interface, at usable addresses.
/// Reads configuration space only.
pub fn has_modern_interface<A: ConfigRegionAccess>(function: &PciFunction<A>) -> bool {
    [COMMON_CFG, NOTIFY_CFG, DEVICE_CFG].iter().all(|kind| structure(function, *kind).is_ok())
}

impl<A: ConfigRegionAccess, R: Registers> PciModern<A, R> {
    /// Finds the registers of `function`, at boot.
    ///
    /// Reads configuration space and writes nothing. `map` makes a window over
    /// the given physical addresses, which must stay mapped; it is called once
    /// for each of three structures of the device, at most 1 MiB each.
    ///
    /// # Errors
    /// [`NicError::Gone`] if there is no function, [`NicError::Unknown`] if it
    /// is no virtio network device, [`NicError::Unsupported`] if it lacks the
    /// modern interface or its BARs have no address, [`NicError::NotReachable`]
    /// if `map` gives no window.
    pub fn probe(
        function: PciFunction<A>,
        mut map: impl FnMut(PhysAddr, usize) -> Option<R>,
    ) -> Result<Self, NicError> {
        let (vendor, device) = function.id().ok_or(NicError::Gone)?;
        if !is_virtio_net(vendor, device) {
            return Err(NicError::Unknown { id: u32::from(vendor) << 16 | u32::from(device) });
        }
        let mut window = |cfg_type, len_min: usize| {
            let (at, address, len) = structure(&function, cfg_type)?;
            if len < len_min {
                return Err(NicError::Unsupported("virtio PCI structure too short"));
            }
            Ok((at, map(address, len).ok_or(NicError::NotReachable)?))
        };
        let (_, common) = window(COMMON_CFG, COMMON_LEN)?;
        let (notify_at, notify) = window(NOTIFY_CFG, 2)?;
        let (_, config) = window(DEVICE_CFG, 0)?;
        let notify_multiplier = function.read32(notify_at.offset.saturating_add(16));
        Ok(Self {
            function,
            common,
            notify,
            config,
            notify_multiplier,
            doorbells: [None; QUEUES],
            notification_data: false,
        })
    }

    /// Writes a 64-bit address as two 32-bit words, which every device takes (section 4.1.3.1).
    fn write_address(&mut self, at: usize, address: u64) -> Result<(), BadAccess> {
        self.common.write32(at, address as u32)?;
        self.common.write32(at.saturating_add(4), (address >> 32) as u32)
    }

    fn doorbell_of(&self, notify_off: u16) -> Result<usize, NicError> {
        let width = if self.notification_data { 4usize } else { 2 };
        let at = u64::from(notify_off).saturating_mul(u64::from(self.notify_multiplier));
        usize::try_from(at)
            .ok()
            .filter(|at| at.is_multiple_of(width))
            .filter(|at| at.saturating_add(width) <= self.notify.window_len())
            .ok_or(NicError::Protocol("virtio doorbell outside its window"))
    }

    fn set_up_queue(&mut self, queue: u16, rings: &Rings) -> Result<u16, BadAccess> {
        self.common.write16(common::QUEUE_SELECT, queue)?;
        self.common.write16(common::QUEUE_SIZE, rings.len)?;
        self.common.write16(common::QUEUE_MSIX_VECTOR, NO_VECTOR)?;
        self.write_address(common::QUEUE_DESC, rings.descriptors.0)?;
        self.write_address(common::QUEUE_DRIVER, rings.avail.0)?;
        self.write_address(common::QUEUE_DEVICE, rings.used.0)?;
        self.common.read16(common::QUEUE_NOTIFY_OFF)
    }
}

/// The first usable structure of type `cfg_type`: its capability, address and length in bytes.
fn structure<A: ConfigRegionAccess>(
    function: &PciFunction<A>,
    cfg_type: u8,
) -> Result<(Capability, PhysAddr, usize), NicError> {
    let mut unassigned = false;
    for capability in function.capabilities() {
        let [_, found_type] = capability.extension.to_le_bytes();
        if capability.id != VENDOR_SPECIFIC || found_type != cfg_type {
            continue;
        }
        let bar_index = function.read32(capability.offset.saturating_add(4)) as u8;
        let offset = function.read32(capability.offset.saturating_add(8));
        let len = function.read32(capability.offset.saturating_add(12)).min(WINDOW_MAX);
        // Reserved BAR numbers and I/O BARs are to be skipped (section 4.1.4.1).
        let Some(Bar::Memory { address }) = function.bar(bar_index) else { continue };
        if address.0 == 0 {
            unassigned = true;
            continue;
        }
        let start = address.checked_add(u64::from(offset));
        let end = start.and_then(|start| start.checked_add(u64::from(len)));
        if let (Some(start), Some(_), Ok(len)) = (start, end, usize::try_from(len)) {
            return Ok((capability, start, len));
        }
    }
    Err(NicError::Unsupported(if unassigned {
        "virtio PCI BAR has no address"
    } else {
        "virtio device has no modern PCI interface"
    }))
}

impl<A: ConfigRegionAccess, R: Registers> Transport for PciModern<A, R> {
    fn interface(&self) -> Interface {
        Interface::Modern
    }

    fn prepare(&mut self) -> Result<u32, NicError> {
        if self.function.id().is_none() {
            return Err(NicError::Gone);
        }
        if self.function.wake() {
            return Ok(WAKE_US);
        }
        if !self.function.claim() {
            return Err(NicError::Unsupported("PCI function does not decode its registers"));
        }
        self.doorbells = [None; QUEUES];
        Ok(0)
    }

    fn connect(&mut self) -> Result<(), NicError> {
        if self.function.master_bus() {
            Ok(())
        } else {
            Err(NicError::Unsupported("PCI function takes no bus mastering"))
        }
    }

    fn status(&mut self) -> Result<u8, NicError> {
        match self.common.read8(common::DEVICE_STATUS).map_err(lost)? {
            status::GONE => Err(NicError::Gone),
            status => Ok(status),
        }
    }

    fn set_status(&mut self, status: u8) -> Result<(), NicError> {
        self.common.write8(common::DEVICE_STATUS, status).map_err(lost)
    }

    fn device_features(&mut self) -> Result<u64, NicError> {
        let mut half = |select| {
            self.common.write32(common::DEVICE_FEATURE_SELECT, select).map_err(lost)?;
            self.common.read32(common::DEVICE_FEATURE).map_err(lost)
        };
        Ok(u64::from(half(0)?) | u64::from(half(1)?) << 32)
    }

    fn set_driver_features(&mut self, features: u64) -> Result<(), NicError> {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.common.write32(common::DRIVER_FEATURE_SELECT, select).map_err(lost)?;
            self.common.write32(common::DRIVER_FEATURE, half).map_err(lost)?;
        }
        self.notification_data = features & features::NOTIFICATION_DATA != 0;
        self.common.write16(common::CONFIG_MSIX_VECTOR, NO_VECTOR).map_err(lost)
    }

    fn queue_len(&mut self, queue: u16) -> Result<QueueLen, NicError> {
        if queue >= self.common.read16(common::NUM_QUEUES).map_err(lost)? {
            return Ok(QueueLen::UpTo(0));
        }
        self.common.write16(common::QUEUE_SELECT, queue).map_err(lost)?;
        self.common.read16(common::QUEUE_SIZE).map(QueueLen::UpTo).map_err(lost)
    }

    fn enable_queue(&mut self, queue: u16, rings: &Rings) -> Result<(), NicError> {
        let notify_off = self.set_up_queue(queue, rings).map_err(lost)?;
        let doorbell = self.doorbell_of(notify_off)?;
        if let Some(slot) = self.doorbells.get_mut(usize::from(queue)) {
            *slot = Some(doorbell);
        }
        self.common.write16(common::QUEUE_ENABLE, 1).map_err(lost)
    }

    fn notify(&mut self, queue: u16, avail_index: u16) {
        let Some(Some(at)) = self.doorbells.get(usize::from(queue)).copied() else { return };
        // `enable_queue` checked the doorbell, so neither write can miss.
        let _ = if self.notification_data {
            // Section 4.1.5.2: queue number below, available index above.
            self.notify.write32(at, u32::from(avail_index) << 16 | u32::from(queue))
        } else {
            self.notify.write16(at, queue)
        };
    }

    fn config_generation(&mut self) -> Result<Option<u32>, NicError> {
        let generation = self.common.read8(common::CONFIG_GENERATION).map_err(lost)?;
        Ok(Some(generation.into()))
    }

    fn config8(&mut self, offset: usize) -> Result<u8, NicError> {
        self.config.read8(offset).map_err(lost)
    }

    fn config16(&mut self, offset: usize) -> Result<u16, NicError> {
        self.config.read16(offset).map_err(lost)
    }

    fn cut_off(&mut self) -> bool {
        self.function.cut_off()
    }
}
