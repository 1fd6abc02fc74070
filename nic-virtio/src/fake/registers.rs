//! The registers of the fake device.

use std::cell::RefCell;
use std::rc::Rc;

use nic_hal::{BadAccess, Registers};

use super::Device;
use crate::features;
use crate::transport::status;

/// Offsets of the structures in the BAR.
pub(super) const COMMON_AT: u32 = 0x100;
pub(super) const NET_AT: u32 = 0x800;
pub(super) const NOTIFY_AT: u32 = 0x1000;
pub(super) const NOTIFY_LEN: u32 = 0x20;
/// Bytes between two doorbells.
pub(super) const NOTIFY_MULTIPLIER: u32 = 8;

/// What a window shows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Region {
    /// The structures of the modern PCI interface.
    Modern,
    /// The I/O ports of the legacy one.
    Ports,
    /// An MMIO slot.
    Mmio,
}

/// A window over some of the device's registers.
#[derive(Debug)]
pub struct FakeWindow {
    pub(super) device: Rc<RefCell<Device>>,
    pub(super) region: Region,
    pub(super) base: usize,
    pub(super) len: usize,
}

impl FakeWindow {
    fn address(&self, offset: usize, width: usize) -> Result<u32, BadAccess> {
        let bad = BadAccess { offset, len: width };
        let end = offset.checked_add(width).ok_or(bad)?;
        if end > self.len || !offset.is_multiple_of(width) {
            return Err(bad);
        }
        let address = self.base.checked_add(offset).ok_or(bad)?;
        u32::try_from(address).map_err(|_| bad)
    }

    fn read(&self, offset: usize, width: usize) -> Result<u32, BadAccess> {
        let address = self.address(offset, width)?;
        let mut device = self.device.borrow_mut();
        device.accesses += 1;
        if device.quirks.gone {
            return Ok(u32::MAX);
        }
        if device.quirks.noise != 0 {
            return Ok(device.next_noise());
        }
        Ok(match self.region {
            Region::Ports => device.read_port(address, width),
            Region::Mmio => device.read_slot(address, width),
            Region::Modern if address >= NOTIFY_AT => {
                device.violation("read a doorbell");
                0
            }
            Region::Modern if address >= NET_AT => device.read_net(address - NET_AT, width),
            Region::Modern => device.read_common(address.wrapping_sub(COMMON_AT), width),
        })
    }

    fn write(&self, offset: usize, width: usize, value: u32) -> Result<(), BadAccess> {
        let address = self.address(offset, width)?;
        let mut device = self.device.borrow_mut();
        device.accesses += 1;
        if device.quirks.gone {
            return Ok(());
        }
        match self.region {
            Region::Ports => device.write_port(address, width, value),
            Region::Mmio => device.write_slot(address, width, value),
            Region::Modern if address >= NOTIFY_AT => {
                device.write_doorbell(address - NOTIFY_AT, width, value);
            }
            Region::Modern if address >= NET_AT => device.violation("wrote to the configuration"),
            Region::Modern => {
                device.write_common(address.wrapping_sub(COMMON_AT), width, value);
            }
        }
        Ok(())
    }
}

impl Registers for FakeWindow {
    fn window_len(&self) -> usize {
        self.len
    }

    fn read8(&mut self, offset: usize) -> Result<u8, BadAccess> {
        self.read(offset, 1).map(|value| value as u8)
    }

    fn read16(&mut self, offset: usize) -> Result<u16, BadAccess> {
        self.read(offset, 2).map(|value| value as u16)
    }

    fn read32(&mut self, offset: usize) -> Result<u32, BadAccess> {
        self.read(offset, 4)
    }

    fn write8(&mut self, offset: usize, value: u8) -> Result<(), BadAccess> {
        self.write(offset, 1, value.into())
    }

    fn write16(&mut self, offset: usize, value: u16) -> Result<(), BadAccess> {
        self.write(offset, 2, value.into())
    }

    fn write32(&mut self, offset: usize, value: u32) -> Result<(), BadAccess> {
        self.write(offset, 4, value)
    }
}

impl Device {
    /// A field is to be accessed with its own width, 64-bit ones as two halves (section 4.1.3.1).
    fn check_width(&mut self, at: u32, width: usize) {
        let own = match at {
            0x14 | 0x15 => 1,
            0x10 | 0x12 | 0x16..0x20 => 2,
            _ => 4,
        };
        if width != own {
            self.violation(format!("access of {width} bytes to common register {at:#x}"));
        }
    }

    fn next_noise(&mut self) -> u32 {
        let noise = &mut self.quirks.noise;
        *noise ^= *noise << 13;
        *noise ^= *noise >> 7;
        *noise ^= *noise << 17;
        *noise as u32
    }

    fn read_common(&mut self, at: u32, width: usize) -> u32 {
        self.check_width(at, width);
        let select = usize::from(self.queue_select).min(2);
        let queue = &self.queues[select];
        match at {
            0x04 => half(self.quirks.features, self.feature_select[0]),
            0x0c => half(self.driver_features, self.feature_select[1]),
            0x12 => 3,
            0x14 => self.read_status().into(),
            0x15 => {
                if self.quirks.restless {
                    self.generation = self.generation.wrapping_add(1);
                }
                self.generation.into()
            }
            0x16 => self.queue_select.into(),
            0x18 if queue.len != 0 => queue.len.into(),
            0x18 => self.quirks.queue_len[select].into(),
            0x1c => queue.enabled.into(),
            0x1e => self.quirks.notify_off[select].into(),
            _ => {
                self.violation(format!("read common register {at:#x}"));
                0
            }
        }
    }

    pub(super) fn read_status(&mut self) -> u8 {
        match self.resetting {
            None => {}
            Some(0) => self.finish_reset(),
            Some(u32::MAX) => {}
            Some(left) => self.resetting = Some(left - 1),
        }
        self.status
    }

    /// Only now does the device let go of its rings.
    pub(super) fn finish_reset(&mut self) {
        self.resetting = None;
        self.status = 0;
        self.resets += 1;
        self.driver_features = 0;
        self.page_len = 0;
        if !self.quirks.keeps_queues {
            self.queues = Default::default();
        }
    }

    fn write_common(&mut self, at: u32, width: usize, value: u32) {
        self.check_width(at, width);
        if self.resetting.is_some() && at != 0x14 {
            self.violation(format!("wrote common register {at:#x} before the reset was confirmed"));
        }
        let select = usize::from(self.queue_select).min(2);
        let enabled = self.queues[select].enabled;
        if enabled && (0x18..0x38).contains(&at) {
            self.violation(format!("wrote common register {at:#x} of an enabled queue"));
        }
        let queue = &mut self.queues[select];
        match at {
            0x00 => self.feature_select[0] = value,
            0x08 => self.feature_select[1] = value,
            0x0c => self.accept(self.feature_select[1], value),
            0x10 | 0x1a => {
                if value != 0xffff {
                    self.violation("asked for an interrupt");
                }
            }
            0x14 => self.write_status(value as u8),
            0x16 => self.queue_select = value as u16,
            0x18 => {
                queue.len = value as u16;
                let possible = queue.len.is_power_of_two()
                    && queue.len <= self.quirks.queue_len[select].max(1);
                if !possible {
                    self.violation(format!("ring of {value} entries"));
                }
            }
            0x1c => queue.enabled = value == 1,
            0x20 | 0x24 => set_half(&mut queue.descriptors, (at - 0x20) / 4, value),
            0x28 | 0x2c => set_half(&mut queue.avail, (at - 0x28) / 4, value),
            0x30 | 0x34 => set_half(&mut queue.used, (at - 0x30) / 4, value),
            _ => self.violation(format!("wrote common register {at:#x}")),
        }
    }

    pub(super) fn write_status(&mut self, value: u8) {
        if value == 0 {
            // One that is reset already has nothing to let go of.
            if self.status != 0 {
                self.resetting = Some(self.quirks.reset_looks);
            }
            return;
        }
        if self.resetting.is_some() {
            self.violation("set status before the reset was confirmed");
        }
        if value & status::FAILED == 0 && self.status & !value & !status::NEEDS_RESET != 0 {
            self.violation(format!("cleared status bits: {:#x} to {value:#x}", self.status));
        }
        if self.quirks.bus.is_legacy() {
            if value & status::FEATURES_OK != 0 {
                self.violation("set FEATURES_OK on a legacy device");
            }
            self.status = value;
            return;
        }
        let mut value = value;
        let subset = self.driver_features & !self.quirks.features == 0;
        let platform = self.quirks.features & !self.driver_features & features::ACCESS_PLATFORM;
        if self.quirks.refuses_features || !subset || platform != 0 {
            value &= !status::FEATURES_OK;
        }
        self.status = value;
    }

    pub(super) fn read_net(&mut self, at: u32, width: usize) -> u32 {
        if self.quirks.restless && self.quirks.bus.is_legacy() {
            self.quirks.mac.0[5] = self.quirks.mac.0[5].wrapping_add(1);
        }
        match (at, width) {
            (0..6, 1) => self.quirks.mac.0[at as usize].into(),
            (6, 2) => u32::from(self.quirks.link_up),
            (10, 2) => self.quirks.mtu.into(),
            _ => {
                self.violation(format!("read {width} bytes at {at:#x} of the configuration"));
                0
            }
        }
    }

    fn write_doorbell(&mut self, at: u32, width: usize, value: u32) {
        let data = self.driver_features & features::NOTIFICATION_DATA != 0;
        let queue = value as u16;
        if width != if data { 4 } else { 2 } {
            self.violation(format!("doorbell of {width} bytes"));
        }
        let off = self.quirks.notify_off.get(usize::from(queue)).copied().unwrap_or(u16::MAX);
        if u32::from(off) * NOTIFY_MULTIPLIER != at {
            self.violation(format!("doorbell of queue {queue} at {at:#x}"));
        }
        self.ring(value);
    }

    /// A doorbell with this value.
    pub(super) fn ring(&mut self, value: u32) {
        if self.status & status::DRIVER_OK == 0 {
            self.violation("doorbell before DRIVER_OK");
        }
        self.doorbells.push((value as u16, value));
    }

    /// The driver accepts `features` (one half of them).
    pub(super) fn accept(&mut self, select: u32, features: u32) {
        if self.status & (status::FEATURES_OK | status::DRIVER_OK) != 0 {
            self.violation("changed features too late");
        }
        set_half(&mut self.driver_features, select, features);
        if self.driver_features & features::BAD_FEATURE != 0 {
            self.violation("acknowledged BAD_FEATURE");
        }
        if self.driver_features & !self.quirks.features != 0 {
            self.violation("accepted what was not offered");
        }
    }
}

pub(super) const fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

pub(super) fn set_half(value: &mut u64, select: u32, half: u32) {
    match select {
        0 => *value = *value & !0xffff_ffff | u64::from(half),
        1 => *value = *value & 0xffff_ffff | u64::from(half) << 32,
        _ => {}
    }
}
