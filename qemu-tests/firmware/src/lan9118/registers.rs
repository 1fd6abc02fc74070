//! The LAN9118's registers, and the ways to those behind them.
//!
//! SMSC LAN9118 data sheet, chapter 5: system registers are 32-bit words at
//! offsets from the chip's base; the MAC's are reached through a pair of
//! these (5.4), the PHY's through a pair of the MAC's (5.5).

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::NicError;
use nic_hal::{Mmio, Registers};

/// Bytes of the register window.
pub(crate) const WINDOW_LEN: usize = 0x100;

// System registers (5.3): offsets.
pub(crate) const RX_DATA_FIFO: usize = 0x00;
pub(crate) const TX_DATA_FIFO: usize = 0x20;
pub(crate) const RX_STATUS_FIFO: usize = 0x40;
pub(crate) const BYTE_TEST: usize = 0x64;
pub(crate) const RX_CFG: usize = 0x6c;
pub(crate) const TX_CFG: usize = 0x70;
pub(crate) const HW_CFG: usize = 0x74;
pub(crate) const RX_FIFO_INF: usize = 0x7c;
pub(crate) const TX_FIFO_INF: usize = 0x80;
pub(crate) const INT_EN: usize = 0x5c;
const MAC_CSR_CMD: usize = 0xa4;
const MAC_CSR_DATA: usize = 0xa8;

/// What `BYTE_TEST` holds.
const BYTE_ORDER: u32 = 0x8765_4321;
/// `HW_CFG`: soft reset; reads as one until it is over.
pub(crate) const SOFT_RESET: u32 = 1;
/// `HW_CFG`: must be one; and 5 KiB of the 16 for transmission.
pub(crate) const FIFO_SPLIT: u32 = 1 << 20 | 5 << 16;
/// `TX_CFG`: transmit, and go on when nobody reads the status FIFO.
pub(crate) const TX_ON: u32 = 1 << 1 | 1 << 2;
/// `TX_CFG`: stop, and drop what is in both FIFOs.
pub(crate) const TX_STOP: u32 = 1 << 15 | 1 << 14 | 1;
/// `RX_CFG`: drop what is in both FIFOs.
pub(crate) const RX_DUMP: u32 = 1 << 15;
/// Word A of a transmit command (3.12.2): the first, or last, buffer of a frame.
pub(crate) const FIRST: u32 = 1 << 13;
pub(crate) const LAST: u32 = 1 << 12;
/// Status of a received frame (3.13.3): it is damaged.
pub(crate) const RX_ERROR: u32 = 1 << 15;

// The MAC's registers (5.4).
pub(crate) const MAC_CR: u32 = 1;
const ADDRH: u32 = 2;
const ADDRL: u32 = 3;
const MII_ACC: u32 = 6;
const MII_DATA: u32 = 7;
/// `MAC_CR`: full duplex, transmitter and receiver on.
pub(crate) const MAC_ON: u32 = 1 << 20 | 1 << 3 | 1 << 2;
/// The PHY's basic status (IEEE 802.3, 22.2.4.2).
pub(crate) const PHY_STATUS: u32 = 1;
pub(crate) const LINK_UP: u32 = 1 << 2;

const MAC_BUSY: u32 = 1 << 31;
const MAC_READ: u32 = 1 << 30;
const MII_BUSY: u32 = 1;
/// Address of the PHY inside the chip.
const PHY: u32 = 1 << 11;
/// Looks at a busy bit. The slowest access, a PHY register, takes 64 bits at
/// 2.5 MHz: 26 us, which is fewer bus cycles than this.
const LOOKS: u32 = 10_000;

/// The way to the registers.
pub(crate) struct Port(pub(crate) Mmio);

impl Port {
    /// A system register; all ones from a chip that is gone.
    pub(crate) fn get(&mut self, register: usize) -> u32 {
        // The offsets above lie in the window.
        self.0.read32(register).unwrap_or(u32::MAX)
    }

    /// Writes a system register.
    pub(crate) fn set(&mut self, register: usize, value: u32) {
        let _ = self.0.write32(register, value);
    }

    /// Whether the chip is there, and its words come in the right order.
    pub(crate) fn check(&mut self) -> Result<(), NicError> {
        match self.get(BYTE_TEST) {
            BYTE_ORDER => Ok(()),
            u32::MAX => Err(NicError::Gone),
            id => Err(NicError::Unknown { id }),
        }
    }

    /// The station address; `None` if the MAC does not answer.
    pub(crate) fn station(&mut self) -> Option<MacAddr> {
        let [a, b, c, d] = self.mac(ADDRL)?.to_le_bytes();
        let [e, f, ..] = self.mac(ADDRH)?.to_le_bytes();
        Some(MacAddr([a, b, c, d, e, f]))
    }

    /// Sets the station address. `false` if the MAC does not answer.
    pub(crate) fn set_station(&mut self, MacAddr([a, b, c, d, e, f]): MacAddr) -> bool {
        self.set_mac(ADDRL, u32::from_le_bytes([a, b, c, d]))
            && self.set_mac(ADDRH, u32::from_le_bytes([e, f, 0, 0]))
    }

    /// One of the MAC's registers; `None` if the MAC does not answer.
    pub(crate) fn mac(&mut self, register: u32) -> Option<u32> {
        self.set(MAC_CSR_CMD, MAC_BUSY | MAC_READ | register);
        self.mac_idle().then(|| self.get(MAC_CSR_DATA))
    }

    /// Writes one of the MAC's registers. `false` if the MAC does not answer.
    pub(crate) fn set_mac(&mut self, register: u32, value: u32) -> bool {
        self.set(MAC_CSR_DATA, value);
        self.set(MAC_CSR_CMD, MAC_BUSY | register);
        self.mac_idle()
    }

    /// One of the PHY's registers; `None` if MAC or PHY do not answer.
    pub(crate) fn phy(&mut self, register: u32) -> Option<u32> {
        self.set_mac(MII_ACC, PHY | register << 6 | MII_BUSY);
        for _ in 0..LOOKS {
            if self.mac(MII_ACC)? & MII_BUSY == 0 {
                return self.mac(MII_DATA);
            }
        }
        None
    }

    fn mac_idle(&mut self) -> bool {
        (0..LOOKS).any(|_| self.get(MAC_CSR_CMD) & MAC_BUSY == 0)
    }

    /// Puts one buffer of a frame of `frame_len` bytes into the FIFO: two
    /// command words, then the bytes, filled up to a whole word.
    pub(crate) fn push(&mut self, bytes: &[u8], place: u32, frame_len: usize) {
        self.set(TX_DATA_FIFO, place | bytes.len() as u32);
        self.set(TX_DATA_FIFO, frame_len as u32);
        for chunk in bytes.chunks(4) {
            let mut word = [0; 4];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.set(TX_DATA_FIFO, u32::from_le_bytes(word));
        }
    }

    /// Takes a frame of `len` bytes out of the FIFO; what `into` has no room
    /// for is dropped.
    pub(crate) fn pop(&mut self, len: usize, into: &mut [u8]) {
        let mut chunks = into.chunks_mut(4);
        for _ in 0..len.div_ceil(4) {
            let word = self.get(RX_DATA_FIFO).to_le_bytes();
            for (to, from) in chunks.next().into_iter().flatten().zip(word) {
                *to = from;
            }
        }
    }
}
