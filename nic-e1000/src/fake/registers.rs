//! The registers of the fake device.

use std::cell::RefCell;
use std::rc::Rc;

use nic_hal::{BadAccess, Registers};

use super::{Device, KEPT_MAX, NVM_MAC};
use crate::ids::Family;
use crate::registers as reg;
use crate::registers::{ctrl, mdic, rctl, status, tctl};

/// The link of an igb comes up so long after autonegotiation was restarted.
const NEGOTIATION_US: u64 = 500_000;
/// After a reset no register may be touched for so long, on PCI and on PCI Express.
const QUIET_PCI_US: u64 = 5_000;
const QUIET_PCIE_US: u64 = 1_000;

/// A window over the device's registers.
#[derive(Debug)]
pub struct FakeWindow {
    pub(super) device: Rc<RefCell<Device>>,
    pub(super) len: usize,
}

impl FakeWindow {
    const fn refused<T>(&self, offset: usize, len: usize) -> Result<T, BadAccess> {
        Err(BadAccess { offset, len })
    }
}

impl Registers for FakeWindow {
    fn window_len(&self) -> usize {
        self.len
    }

    fn read8(&mut self, offset: usize) -> Result<u8, BadAccess> {
        self.refused(offset, 1)
    }

    fn read16(&mut self, offset: usize) -> Result<u16, BadAccess> {
        self.refused(offset, 2)
    }

    fn read32(&mut self, offset: usize) -> Result<u32, BadAccess> {
        if offset + 4 > self.len || !offset.is_multiple_of(4) {
            return self.refused(offset, 4);
        }
        Ok(self.device.borrow_mut().read(offset))
    }

    fn write8(&mut self, offset: usize, _: u8) -> Result<(), BadAccess> {
        self.refused(offset, 1)
    }

    fn write16(&mut self, offset: usize, _: u16) -> Result<(), BadAccess> {
        self.refused(offset, 2)
    }

    fn write32(&mut self, offset: usize, value: u32) -> Result<(), BadAccess> {
        if offset + 4 > self.len || !offset.is_multiple_of(4) {
            return self.refused(offset, 4);
        }
        self.device.borrow_mut().write(offset, value);
        Ok(())
    }
}

impl Device {
    pub(super) fn word(&self, at: usize) -> u32 {
        self.words[at / 4]
    }

    pub(super) fn set_word(&mut self, at: usize, value: u32) {
        self.words[at / 4] = value;
    }

    /// First registers of receive and transmit queue 0.
    pub(super) const fn rings(&self) -> (usize, usize) {
        match self.family {
            Family::Igb => (reg::RX_IGB, reg::TX_IGB),
            _ => (reg::RX_OLD, reg::TX_OLD),
        }
    }

    /// Running, on the dead kernel's rings, with frames not yet sent.
    pub(super) fn leave_in_use(&mut self, dead: u64) {
        self.load_defaults();
        let (rx, tx) = self.rings();
        for (ring, head, tail) in [(rx, 0, 31), (tx, 3, 9)] {
            for (offset, value) in
                [(0, dead as u32), (8, 0x200), (0x10, head), (0x18, tail), (0x28, 1 << 25)]
            {
                self.set_word(ring + offset, value);
            }
        }
        self.set_word(tx + 0x38, dead as u32 | 1);
        self.set_word(reg::RCTL, rctl::EN | rctl::BAM | 0x18);
        self.set_word(reg::TCTL, tctl::EN);
        self.set_word(reg::MTA + 8, u32::MAX);
        self.set_word(reg::VFTA + 8, u32::MAX);
        self.set_word(reg::UTA + 8, u32::MAX);
        self.set_word(reg::VT_CTL, 1);
        self.set_word(reg::MRQC, 1);
        self.set_word(reg::RFCTL, 1 << 15);
        let value = self.word(reg::CTRL) | ctrl::RFCE | ctrl::TFCE | ctrl::VME;
        self.set_word(reg::CTRL, value);
        // A second address, that the dead kernel also received for.
        self.set_word(reg::RAL0 + 8, 0x1122_3302);
        self.set_word(reg::RAH0 + 8, reg::RAH_AV | 0x5544);
        self.link_at_us = Some(0);
    }

    /// The registers as a reset leaves them (measured on QEMU).
    fn load_defaults(&mut self) {
        self.words.fill(0);
        let (control, tctl, txdctl, rxdctl) = match self.family {
            Family::E1000 => (0x0014_0240, 0, 0, 0),
            Family::E1000e => (0x0014_0241, 0, 0, 0x0001_0000),
            Family::Igb => (0x0010_0209, 0xa404_00f8, 0x0200_0000, 0x0201_0000),
        };
        let (rx, tx) = self.rings();
        self.set_word(reg::CTRL, control);
        self.set_word(reg::TCTL, tctl);
        self.set_word(tx + 0x28, txdctl);
        self.set_word(rx + 0x28, rxdctl);
        self.set_word(reg::EECD, reg::EECD_AUTO_RD);
        if self.family == Family::E1000e {
            self.set_word(reg::TARC0, 0x403);
        }
        let [a, b, c, d, e, f] = NVM_MAC.0;
        self.set_word(reg::RAL0, u32::from_le_bytes([a, b, c, d]));
        self.set_word(reg::RAH0, reg::RAH_AV | u32::from_le_bytes([e, f, 0, 0]));
    }

    pub(super) fn clear_all(&mut self) {
        self.load_defaults();
        self.context = None;
        self.partial.clear();
        if self.family == Family::Igb {
            self.link_at_us = None;
        }
    }

    fn reset(&mut self) {
        self.resets += 1;
        let quiet_us = match self.family {
            Family::E1000 => QUIET_PCI_US,
            _ => QUIET_PCIE_US,
        };
        self.quiet_until_us = self.now_us + quiet_us;
        let (rx, tx) = self.rings();
        for ring in [rx, tx] {
            if [8, 0x10, 0x18].iter().any(|offset| self.word(ring + offset) != 0) {
                self.violation("reset with a ring in the device");
            }
        }
        if self.family != Family::E1000 && !self.quirks.reset_keeps_registers {
            self.clear_all();
        }
        if self.quirks.reset_never_ends {
            let value = self.word(reg::CTRL) | ctrl::RST;
            self.set_word(reg::CTRL, value);
        }
    }

    pub(super) fn link_is_up(&self) -> bool {
        !self.quirks.no_link && self.link_at_us.is_some_and(|at| at <= self.now_us)
    }

    fn check_quiet(&mut self) {
        if self.now_us < self.quiet_until_us {
            self.violation("register touched during a reset");
        }
    }

    fn read(&mut self, at: usize) -> u32 {
        self.reads += 1;
        self.check_quiet();
        if self.quirks.gone {
            return u32::MAX;
        }
        if self.quirks.noise != 0 {
            self.quirks.noise ^= self.quirks.noise << 13;
            self.quirks.noise ^= self.quirks.noise >> 7;
            self.quirks.noise ^= self.quirks.noise << 17;
            return self.quirks.noise as u32;
        }
        match at {
            reg::STATUS => {
                let disabled = self.word(reg::CTRL) & ctrl::GIO_MASTER_DISABLE != 0;
                // The PCI model never says that it has stopped.
                let stuck = self.family == Family::E1000 || self.quirks.master_never_stops;
                let master = if disabled && !stuck { 0 } else { status::GIO_MASTER_ENABLE };
                u32::from(self.link_is_up()) << 1 | master | 0x8000_0281
            }
            reg::ICR => self.set_word_and_get(reg::ICR, 0),
            _ => self.word(at),
        }
    }

    fn set_word_and_get(&mut self, at: usize, value: u32) -> u32 {
        std::mem::replace(&mut self.words[at / 4], value)
    }

    fn write(&mut self, at: usize, value: u32) {
        if self.log.len() < KEPT_MAX {
            self.log.push((at, value));
        }
        self.check_quiet();
        if self.quirks.gone {
            return;
        }
        let (rx, tx) = self.rings();
        let before = self.word(at);
        self.set_word(at, value);
        match at {
            reg::CTRL => {
                self.set_word(at, value & !ctrl::RST);
                if value & ctrl::RST != 0 {
                    self.reset();
                }
            }
            reg::RCTL => {
                self.rctl_at_us = Some(self.now_us);
            }
            // Stale indices are sent at once, but by an igb, which waits for a tail.
            reg::TCTL if value & tctl::EN != 0 && before & tctl::EN == 0 => {
                if self.word(tx + 0x10) != self.word(tx + 0x18) {
                    self.violation("transmitter switched on with descriptors in its ring");
                }
                if self.family != Family::Igb {
                    self.run_transmitter();
                }
            }
            reg::EERD => self.read_nvm(value),
            reg::MDIC => {
                if !self.quirks.phy_never_ready {
                    self.set_word(at, value | mdic::READY);
                }
                let restart = mdic::WRITE_PHY_1 | 0x1340;
                if value & restart == restart {
                    self.link_at_us = Some(self.now_us + NEGOTIATION_US);
                }
            }
            _ if at == tx + 0x18 => self.run_transmitter(),
            _ if self.quirks.queues_never_enable && (at == tx + 0x28 || at == rx + 0x28) => {
                self.set_word(at, value & !(1 << 25));
            }
            _ => {}
        }
    }

    fn read_nvm(&mut self, value: u32) {
        if self.quirks.nvm_never_done || value & 1 == 0 {
            return;
        }
        let (word, done) = match self.family {
            Family::E1000 => (value >> 8 & 0xff, 1 << 4),
            _ => (value >> 2 & 0x3fff, 1 << 1),
        };
        let at = word as usize * 2;
        let bytes = NVM_MAC.0.get(at..at + 2).map_or([0xff; 2], |pair| [pair[0], pair[1]]);
        let data = u32::from(u16::from_le_bytes(bytes)) << 16;
        self.set_word(reg::EERD, data | done);
    }
}
