//! Register offsets and bits, by the names of the data sheets (8254x SDM
//! chapter 13, 82574 chapter 10, 82576 chapter 8). All registers are 32 bits.

use debugnet_core::nic::NicError;
use nic_hal::{BadAccess, Registers};

/// Bytes of BAR 0 that this driver uses. Every part has at least 128 KiB.
pub(crate) const WINDOW_LEN: usize = 0x1_0000;

pub(crate) const CTRL: usize = 0x0000;
/// The same register again, for parts that cannot be reset through the first.
pub(crate) const CTRL_DUP: usize = 0x0004;
pub(crate) const STATUS: usize = 0x0008;
pub(crate) const EECD: usize = 0x0010;
pub(crate) const EERD: usize = 0x0014;
pub(crate) const CTRL_EXT: usize = 0x0018;
pub(crate) const MDIC: usize = 0x0020;
pub(crate) const ICR: usize = 0x00c0;
pub(crate) const IMC: usize = 0x00d8;
pub(crate) const RCTL: usize = 0x0100;
pub(crate) const TCTL: usize = 0x0400;
pub(crate) const TIPG: usize = 0x0410;
/// Power management of the PHY, 82580 and later.
pub(crate) const PHPM: usize = 0x0e14;
/// Who owns the PHY: firmware or driver (82573, 82574, 82583).
pub(crate) const EXTCNF_CTRL: usize = 0x0f00;
pub(crate) const GPIE: usize = 0x1514;
pub(crate) const EIMC: usize = 0x1528;
pub(crate) const EIAC: usize = 0x152c;
pub(crate) const EIAM: usize = 0x1530;
pub(crate) const EICR: usize = 0x1580;
pub(crate) const RDTR: usize = 0x2820;
pub(crate) const RADV: usize = 0x282c;
pub(crate) const TARC0: usize = 0x3840;
pub(crate) const TXDCTL1: usize = 0x3928;
pub(crate) const TARC1: usize = 0x3940;
pub(crate) const RXCSUM: usize = 0x5000;
pub(crate) const RFCTL: usize = 0x5008;
pub(crate) const MTA: usize = 0x5200;
pub(crate) const RAL0: usize = 0x5400;
pub(crate) const RAH0: usize = 0x5404;
pub(crate) const VFTA: usize = 0x5600;
pub(crate) const WUC: usize = 0x5800;
pub(crate) const MRQC: usize = 0x5818;
pub(crate) const VT_CTL: usize = 0x581c;
pub(crate) const GCR: usize = 0x5b00;
pub(crate) const GCR2: usize = 0x5b64;
pub(crate) const UTA: usize = 0xa000;
/// Words in each of MTA, VFTA and UTA.
pub(crate) const TABLE_WORDS: u32 = 128;

pub(crate) mod ctrl {
    pub(crate) const GIO_MASTER_DISABLE: u32 = 1 << 2;
    pub(crate) const LRST: u32 = 1 << 3;
    pub(crate) const SLU: u32 = 1 << 6;
    pub(crate) const FRCSPD: u32 = 1 << 11;
    pub(crate) const FRCDPX: u32 = 1 << 12;
    pub(crate) const RST: u32 = 1 << 26;
    pub(crate) const RFCE: u32 = 1 << 27;
    pub(crate) const TFCE: u32 = 1 << 28;
    /// Device reset on 82580 and later; to be kept clear on 82573, 82574 and 82583.
    pub(crate) const BIT_29: u32 = 1 << 29;
    pub(crate) const VME: u32 = 1 << 30;
    pub(crate) const PHY_RST: u32 = 1 << 31;
}

pub(crate) mod status {
    pub(crate) const LU: u32 = 1 << 1;
    pub(crate) const FUNC_SHIFT: u32 = 2;
    pub(crate) const PCIX_MODE: u32 = 1 << 13;
    pub(crate) const GIO_MASTER_ENABLE: u32 = 1 << 19;
}

pub(crate) mod ctrl_ext {
    pub(crate) const BIT_22: u32 = 1 << 22;
    pub(crate) const BIT_23: u32 = 1 << 23;
    pub(crate) const EXTENDED_VLAN: u32 = 1 << 26;
    pub(crate) const DRV_LOAD: u32 = 1 << 28;
}

/// The NVM was read after the reset.
pub(crate) const EECD_AUTO_RD: u32 = 1 << 9;
pub(crate) const EERD_START: u32 = 1;
/// The driver owns the PHY.
pub(crate) const MDIO_SW_OWNERSHIP: u32 = 1 << 5;
/// The link goes down when the driver does.
pub(crate) const PHPM_GO_LINKD: u32 = 1 << 5;

pub(crate) mod mdic {
    /// Write to the internal PHY, which is number 1.
    pub(crate) const WRITE_PHY_1: u32 = 1 << 26 | 1 << 21;
    pub(crate) const REGISTER_SHIFT: u32 = 16;
    pub(crate) const READY: u32 = 1 << 28;
    pub(crate) const ERROR: u32 = 1 << 30;
}

pub(crate) mod rctl {
    pub(crate) const EN: u32 = 1 << 1;
    pub(crate) const BAM: u32 = 1 << 15;
    pub(crate) const SECRC: u32 = 1 << 26;
}

pub(crate) mod tctl {
    pub(crate) const EN: u32 = 1 << 1;
    pub(crate) const PSP: u32 = 1 << 3;
    pub(crate) const CT_MASK: u32 = 0xff << 4;
    pub(crate) const CT: u32 = 0x0f << 4;
    pub(crate) const COLD_MASK: u32 = 0x3ff << 12;
    pub(crate) const COLD: u32 = 0x40 << 12;
}

/// RXDCTL and TXDCTL of the igb family.
pub(crate) const QUEUE_ENABLE: u32 = 1 << 25;
/// A receive address register pair is valid (RAH).
pub(crate) const RAH_AV: u32 = 1 << 31;

/// Registers of one ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    base: usize,
}

impl Ring {
    /// Receive or transmit queue `queue` of the 8254x and 8257x.
    pub(crate) const fn old(first: usize, queue: u32) -> Self {
        Self { base: first.saturating_add((queue as usize).saturating_mul(0x100)) }
    }

    /// Receive or transmit queue `queue` of the igb family.
    pub(crate) const fn igb(first: usize, queue: u32) -> Self {
        Self { base: first.saturating_add((queue as usize).saturating_mul(0x40)) }
    }

    const fn at(self, offset: usize) -> usize {
        self.base.saturating_add(offset)
    }

    /// Low half of the ring's address (RDBAL, TDBAL).
    pub(crate) const fn base_low(self) -> usize {
        self.at(0)
    }

    /// High half of the ring's address.
    pub(crate) const fn base_high(self) -> usize {
        self.at(4)
    }

    /// Length in bytes (RDLEN, TDLEN).
    pub(crate) const fn len(self) -> usize {
        self.at(8)
    }

    /// SRRCTL, receive queues of the igb family.
    pub(crate) const fn split(self) -> usize {
        self.at(0x0c)
    }

    /// First descriptor of the device (RDH, TDH).
    pub(crate) const fn head(self) -> usize {
        self.at(0x10)
    }

    /// First descriptor that is not the device's (RDT, TDT).
    pub(crate) const fn tail(self) -> usize {
        self.at(0x18)
    }

    /// Thresholds and the enable bit (RXDCTL, TXDCTL).
    pub(crate) const fn control(self) -> usize {
        self.at(0x28)
    }

    /// Head write-back address, transmit queues of the igb family (TDWBAL).
    pub(crate) const fn write_back_low(self) -> usize {
        self.at(0x38)
    }

    /// Its high half.
    pub(crate) const fn write_back_high(self) -> usize {
        self.at(0x3c)
    }
}

/// First receive ring of the 8254x and 8257x.
pub(crate) const RX_OLD: usize = 0x2800;
/// First transmit ring of the 8254x and 8257x.
pub(crate) const TX_OLD: usize = 0x3800;
/// First receive ring of the igb family.
pub(crate) const RX_IGB: usize = 0xc000;
/// First transmit ring of the igb family.
pub(crate) const TX_IGB: usize = 0xe000;

/// The registers, with the check that somebody answers.
#[derive(Debug)]
pub(crate) struct Window<R>(pub(crate) R);

impl<R: Registers> Window<R> {
    /// Reads a register. All ones are believed only if CTRL is not all ones
    /// too: it has reserved bits that are zero on every part.
    pub(crate) fn read(&mut self, at: usize) -> Result<u32, NicError> {
        let value = self.0.read32(at).map_err(lost)?;
        if value == u32::MAX && self.0.read32(CTRL).map_err(lost)? == u32::MAX {
            return Err(NicError::Gone);
        }
        Ok(value)
    }

    /// Writes a register.
    pub(crate) fn write(&mut self, at: usize, value: u32) -> Result<(), NicError> {
        self.0.write32(at, value).map_err(lost)
    }

    /// Clears and sets bits of a register, which is written in any case.
    pub(crate) fn change(&mut self, at: usize, clear: u32, set: u32) -> Result<(), NicError> {
        let value = self.read(at)?;
        self.write(at, value & !clear | set)
    }

    /// Makes the posted writes arrive: a read of the same function returns behind them.
    pub(crate) fn flush(&mut self) -> Result<(), NicError> {
        self.read(STATUS).map(drop)
    }
}

/// The error of an access that the constructor's checks exclude.
pub(crate) fn lost(_: BadAccess) -> NicError {
    NicError::Protocol("e1000 access outside its window")
}
