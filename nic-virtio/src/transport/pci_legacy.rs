//! Virtio over PCI, the legacy interface (virtio 1.2 section 4.1.4.10).
//!
//! Drives `1af4:1000` of revision 0 through the I/O ports of its first BAR:
//! devices from before virtio 1.0, and transitional ones.
//!
//! | port | bits | register |
//! |---|---|---|
//! | 00h, 04h | 32 | features of the device, of the driver |
//! | 08h | 32 | page number of the selected queue |
//! | 0ch | 16 | its length, fixed |
//! | 0eh | 16 | queue select |
//! | 10h | 16 | notify |
//! | 12h | 8 | status |
//! | 14h, or 18h while MSI-X is on | | configuration of the network device |

use debugnet_core::nic::NicError;
use nic_hal::pci_types::ConfigRegionAccess;
use nic_hal::{Bar, PciFunction, Registers};

use super::pci_modern::{TRANSITIONAL_NET, VENDOR, WAKE_US};
use super::{Interface, QueueLen, Rings, Transport, lost, page_number, status};
use crate::format::Order;

/// Ports that are used: the length of a BAR cannot be had without writing to
/// it, and this much every network device has.
pub const PORTS: u16 = 0x20;

/// PCI subsystem id of a network device.
const SUBSYSTEM_NET: u32 = 1;
/// Queues that a dead kernel may have left set up: receive, transmit, control.
const QUEUES_BEFORE: u16 = 3;

const DEVICE_FEATURES: usize = 0x00;
const DRIVER_FEATURES: usize = 0x04;
const QUEUE_PAGE: usize = 0x08;
const QUEUE_LEN: usize = 0x0c;
const QUEUE_SELECT: usize = 0x0e;
const NOTIFY: usize = 0x10;
const STATUS: usize = 0x12;
/// The configuration, and where it moves to while MSI-X is on.
const CONFIG: usize = 0x14;
const CONFIG_MSI_X: usize = 0x18;

/// A legacy or transitional virtio network device on PCI. `A` reaches its
/// configuration space, `R` its I/O ports.
#[derive(Debug)]
pub struct PciLegacy<A, R> {
    function: PciFunction<A>,
    ports: R,
    /// Where the configuration begins.
    config_at: usize,
}

impl<A: ConfigRegionAccess, R: Registers> PciLegacy<A, R> {
    /// Finds the ports of `function`, at boot.
    ///
    /// Reads configuration space and writes nothing. `map` makes a window of
    /// [`PORTS`] I/O ports from the given one.
    ///
    /// # Errors
    /// [`NicError::Gone`] if there is no function, [`NicError::Unknown`] if it
    /// is no virtio network device, [`NicError::Unsupported`] if it has no
    /// legacy interface or no port was assigned to it,
    /// [`NicError::NotReachable`] if `map` gives no window.
    pub fn probe(
        function: PciFunction<A>,
        map: impl FnOnce(u16, u16) -> Option<R>,
    ) -> Result<Self, NicError> {
        let (vendor, device) = function.id().ok_or(NicError::Gone)?;
        if (vendor, device) != (VENDOR, TRANSITIONAL_NET) {
            return Err(NicError::Unknown { id: u32::from(vendor) << 16 | u32::from(device) });
        }
        let revision = function.read32(0x08) as u8;
        if revision != 0 || function.read32(0x2c) >> 16 != SUBSYSTEM_NET {
            return Err(NicError::Unsupported("virtio device of an unknown revision"));
        }
        let port = match function.bar(0) {
            Some(Bar::Io { port }) if port != 0 => port,
            _ => return Err(NicError::Unsupported("virtio device has no legacy PCI interface")),
        };
        let ports = map(port, PORTS).ok_or(NicError::NotReachable)?;
        Ok(Self { function, ports, config_at: CONFIG })
    }

    fn select(&mut self, queue: u16) -> Result<(), NicError> {
        self.ports.write16(QUEUE_SELECT, queue).map_err(lost)
    }
}

impl<A: ConfigRegionAccess, R: Registers> Transport for PciLegacy<A, R> {
    fn interface(&self) -> Interface {
        Interface::Legacy
    }

    fn prepare(&mut self) -> Result<u32, NicError> {
        if self.function.id().is_none() {
            return Err(NicError::Gone);
        }
        if self.function.wake() {
            return Ok(WAKE_US);
        }
        if !self.function.claim_ports() {
            return Err(NicError::Unsupported("PCI function does not decode its ports"));
        }
        // Switched off just now, if it can be: a reset would not do that, and the
        // address would be read from the wrong place.
        self.config_at = if self.function.msi_x_is_on() { CONFIG_MSI_X } else { CONFIG };
        Ok(0)
    }

    fn connect(&mut self) -> Result<(), NicError> {
        // The reset should have done this; not every old device forgets its
        // queues. Before the bus is opened, that is, and QEMU takes it as
        // another reset.
        for queue in 0..QUEUES_BEFORE {
            self.select(queue)?;
            self.ports.write32(QUEUE_PAGE, 0).map_err(lost)?;
        }
        if self.function.master_bus() {
            Ok(())
        } else {
            Err(NicError::Unsupported("PCI function takes no bus mastering"))
        }
    }

    fn status(&mut self) -> Result<u8, NicError> {
        match self.ports.read8(STATUS).map_err(lost)? {
            status::GONE => Err(NicError::Gone),
            status => Ok(status),
        }
    }

    fn set_status(&mut self, status: u8) -> Result<(), NicError> {
        self.ports.write8(STATUS, status).map_err(lost)
    }

    fn device_features(&mut self) -> Result<u64, NicError> {
        self.ports.read32(DEVICE_FEATURES).map(u64::from).map_err(lost)
    }

    fn set_driver_features(&mut self, features: u64) -> Result<(), NicError> {
        self.ports.write32(DRIVER_FEATURES, features as u32).map_err(lost)
    }

    fn queue_len(&mut self, queue: u16) -> Result<QueueLen, NicError> {
        self.select(queue)?;
        self.ports.read16(QUEUE_LEN).map(QueueLen::Fixed).map_err(lost)
    }

    fn enable_queue(&mut self, queue: u16, rings: &Rings) -> Result<(), NicError> {
        let page = page_number(rings)?;
        self.select(queue)?;
        self.ports.write32(QUEUE_PAGE, page).map_err(lost)
    }

    fn notify(&mut self, queue: u16, _avail_index: u16) {
        // Inside the window of `PORTS`, or the probe would have failed.
        let _ = self.ports.write16(NOTIFY, queue);
    }

    fn config_generation(&mut self) -> Result<Option<u32>, NicError> {
        Ok(None)
    }

    fn config8(&mut self, offset: usize) -> Result<u8, NicError> {
        self.ports.read8(self.config_at.saturating_add(offset)).map_err(lost)
    }

    fn config16(&mut self, offset: usize) -> Result<u16, NicError> {
        let word = self.ports.read16(self.config_at.saturating_add(offset)).map_err(lost)?;
        Ok(Order::NATIVE.le16(word))
    }

    fn cut_off(&mut self) -> bool {
        self.function.cut_off()
    }
}
