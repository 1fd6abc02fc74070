//! Virtio over MMIO, version 2 and the legacy version 1 (virtio 1.2 section 4.2).
//!
//! A window of 32-bit registers, with the configuration of the network device
//! from 100h. Nothing on the device says where it is: the caller knows from a
//! device tree, ACPI, or a list of slots.

use debugnet_core::nic::NicError;
use nic_hal::{BadAccess, Registers};

use super::{Interface, QueueLen, Rings, Transport, lost, page_number};
use crate::features;
use crate::format::Order;
use crate::queue::PAGE_LEN;

/// Bytes of registers and configuration that are used.
pub const WINDOW_LEN: usize = 0x200;

/// `virt`, read as a little-endian word.
const MAGIC: u32 = 0x7472_6976;
/// Virtio device type of a network device.
const NET: u32 = 1;
/// What an empty slot has in its place.
const NO_DEVICE: u32 = 0;
/// Queues that a dead kernel may have left set up: receive, transmit, control.
const QUEUES_BEFORE: u32 = 3;

/// Registers (sections 4.2.2 and 4.2.4).
mod register {
    pub(super) const MAGIC: usize = 0x000;
    pub(super) const VERSION: usize = 0x004;
    pub(super) const DEVICE_ID: usize = 0x008;
    pub(super) const DEVICE_FEATURES: usize = 0x010;
    pub(super) const DEVICE_FEATURES_SELECT: usize = 0x014;
    pub(super) const DRIVER_FEATURES: usize = 0x020;
    pub(super) const DRIVER_FEATURES_SELECT: usize = 0x024;
    /// Version 1 only.
    pub(super) const GUEST_PAGE_SIZE: usize = 0x028;
    pub(super) const QUEUE_SELECT: usize = 0x030;
    pub(super) const QUEUE_LEN_MAX: usize = 0x034;
    pub(super) const QUEUE_LEN: usize = 0x038;
    /// Version 1 only.
    pub(super) const QUEUE_ALIGN: usize = 0x03c;
    /// Version 1 only.
    pub(super) const QUEUE_PAGE: usize = 0x040;
    pub(super) const QUEUE_READY: usize = 0x044;
    pub(super) const QUEUE_NOTIFY: usize = 0x050;
    pub(super) const STATUS: usize = 0x070;
    pub(super) const QUEUE_DESC: usize = 0x080;
    pub(super) const QUEUE_DRIVER: usize = 0x090;
    pub(super) const QUEUE_DEVICE: usize = 0x0a0;
    pub(super) const CONFIG_GENERATION: usize = 0x0fc;
    pub(super) const CONFIG: usize = 0x100;
}

/// A virtio network device behind MMIO registers `R`.
#[derive(Debug)]
pub struct VirtioMmio<R> {
    registers: R,
    interface: Interface,
    /// Whether a notification carries the available index.
    notification_data: bool,
}

impl<R: Registers> VirtioMmio<R> {
    /// Looks who is behind `registers`, at boot: reads three of them, writes none.
    ///
    /// # Errors
    /// [`NicError::Gone`] if the slot is empty or there is no slot,
    /// [`NicError::Unknown`] if the device is no network device (its virtio type
    /// is the id), [`NicError::Unsupported`] if its version is neither 1 nor 2,
    /// [`NicError::NotReachable`] if the window is shorter than [`WINDOW_LEN`].
    pub fn probe(mut registers: R) -> Result<Self, NicError> {
        if registers.window_len() < WINDOW_LEN {
            return Err(NicError::NotReachable);
        }
        let interface = identify(&mut registers)?;
        Ok(Self { registers, interface, notification_data: false })
    }

    /// The version of the interface: 1 or 2.
    pub const fn version(&self) -> u32 {
        match self.interface {
            Interface::Legacy => 1,
            Interface::Modern => 2,
        }
    }

    fn write(&mut self, at: usize, value: u32) -> Result<(), NicError> {
        self.registers.write32(at, value).map_err(lost)
    }

    fn read(&mut self, at: usize) -> Result<u32, NicError> {
        self.registers.read32(at).map_err(lost)
    }

    fn write_address(&mut self, at: usize, address: u64) -> Result<(), NicError> {
        self.write(at, address as u32)?;
        self.write(at.saturating_add(4), (address >> 32) as u32)
    }

    fn set_up_modern(&mut self, rings: &Rings) -> Result<(), NicError> {
        self.write(register::QUEUE_LEN, rings.len.into())?;
        self.write_address(register::QUEUE_DESC, rings.descriptors.0)?;
        self.write_address(register::QUEUE_DRIVER, rings.avail.0)?;
        self.write_address(register::QUEUE_DEVICE, rings.used.0)?;
        self.write(register::QUEUE_READY, 1)
    }

    fn set_up_legacy(&mut self, rings: &Rings) -> Result<(), NicError> {
        let page = page_number(rings)?;
        self.write(register::QUEUE_LEN, rings.len.into())?;
        self.write(register::QUEUE_ALIGN, PAGE_LEN as u32)?;
        self.write(register::QUEUE_PAGE, page)
    }
}

/// Which interface the network device behind `registers` has.
fn identify(registers: &mut impl Registers) -> Result<Interface, NicError> {
    let mut read = |at| registers.read32(at).map_err(|_: BadAccess| NicError::NotReachable);
    if read(register::MAGIC)? != MAGIC {
        return Err(NicError::Gone);
    }
    let version = read(register::VERSION)?;
    match read(register::DEVICE_ID)? {
        NET => {}
        NO_DEVICE | u32::MAX => return Err(NicError::Gone),
        id => return Err(NicError::Unknown { id }),
    }
    match version {
        1 => Ok(Interface::Legacy),
        2 => Ok(Interface::Modern),
        _ => Err(NicError::Unsupported("virtio MMIO version is neither 1 nor 2")),
    }
}

impl<R: Registers> Transport for VirtioMmio<R> {
    fn interface(&self) -> Interface {
        self.interface
    }

    fn prepare(&mut self) -> Result<u32, NicError> {
        // Interrupts cannot be masked here; `avail.flags` asks for none.
        self.notification_data = false;
        match identify(&mut self.registers)? == self.interface {
            true => Ok(0),
            false => Err(NicError::Protocol("virtio MMIO version changed")),
        }
    }

    fn connect(&mut self) -> Result<(), NicError> {
        if let Interface::Legacy = self.interface {
            // In this order: QEMU takes page 0 as another reset. The page size
            // is forgotten in one.
            for queue in 0..QUEUES_BEFORE {
                self.write(register::QUEUE_SELECT, queue)?;
                self.write(register::QUEUE_PAGE, 0)?;
            }
            self.write(register::GUEST_PAGE_SIZE, PAGE_LEN as u32)?;
        }
        Ok(())
    }

    fn status(&mut self) -> Result<u8, NicError> {
        match self.read(register::STATUS)? {
            u32::MAX => Err(NicError::Gone),
            status => Ok(status as u8),
        }
    }

    fn set_status(&mut self, status: u8) -> Result<(), NicError> {
        self.write(register::STATUS, status.into())
    }

    fn device_features(&mut self) -> Result<u64, NicError> {
        self.write(register::DEVICE_FEATURES_SELECT, 0)?;
        let low = self.read(register::DEVICE_FEATURES)?;
        if let Interface::Legacy = self.interface {
            return Ok(low.into());
        }
        self.write(register::DEVICE_FEATURES_SELECT, 1)?;
        let high = self.read(register::DEVICE_FEATURES)?;
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    fn set_driver_features(&mut self, features: u64) -> Result<(), NicError> {
        self.write(register::DRIVER_FEATURES_SELECT, 0)?;
        self.write(register::DRIVER_FEATURES, features as u32)?;
        if let Interface::Modern = self.interface {
            self.write(register::DRIVER_FEATURES_SELECT, 1)?;
            self.write(register::DRIVER_FEATURES, (features >> 32) as u32)?;
        }
        self.notification_data = features & features::NOTIFICATION_DATA != 0;
        Ok(())
    }

    fn queue_len(&mut self, queue: u16) -> Result<QueueLen, NicError> {
        self.write(register::QUEUE_SELECT, queue.into())?;
        let max = self.read(register::QUEUE_LEN_MAX)?;
        Ok(QueueLen::UpTo(u16::try_from(max).unwrap_or(u16::MAX)))
    }

    fn enable_queue(&mut self, queue: u16, rings: &Rings) -> Result<(), NicError> {
        self.write(register::QUEUE_SELECT, queue.into())?;
        let in_use = match self.interface {
            Interface::Modern => register::QUEUE_READY,
            Interface::Legacy => register::QUEUE_PAGE,
        };
        // Section 4.2.3.2 step 2: another user's queue is not to be touched.
        if self.read(in_use)? != 0 {
            return Err(NicError::Protocol("virtio queue in use after the reset"));
        }
        match self.interface {
            Interface::Modern => self.set_up_modern(rings),
            Interface::Legacy => self.set_up_legacy(rings),
        }
    }

    fn notify(&mut self, queue: u16, avail_index: u16) {
        let data = if self.notification_data { u32::from(avail_index) << 16 } else { 0 };
        // Inside `WINDOW_LEN`, or the probe would have failed.
        let _ = self.registers.write32(register::QUEUE_NOTIFY, data | u32::from(queue));
    }

    fn config_generation(&mut self) -> Result<Option<u32>, NicError> {
        match self.interface {
            Interface::Legacy => Ok(None),
            Interface::Modern => self.read(register::CONFIG_GENERATION).map(Some),
        }
    }

    fn config8(&mut self, offset: usize) -> Result<u8, NicError> {
        self.registers.read8(register::CONFIG.saturating_add(offset)).map_err(lost)
    }

    fn config16(&mut self, offset: usize) -> Result<u16, NicError> {
        let at = register::CONFIG.saturating_add(offset);
        let word = self.registers.read16(at).map_err(lost)?;
        Ok(Order::of(self.interface).le16(word))
    }

    fn cut_off(&mut self) -> bool {
        false
    }
}
