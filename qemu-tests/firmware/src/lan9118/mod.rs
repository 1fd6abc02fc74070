//! A NIC for the crash path in under 100 lines: SMSC's LAN9118, a chip with
//! FIFOs and no DMA. It has no rings that the dead could have spoiled; a soft
//! reset empties the FIFOs, whatever was half written to them.

pub(crate) mod registers;

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::{
    Capabilities, ChecksumOffload, Link, Nic, NicError, Payload, PayloadKind, RxError, Start,
    TxError, TxFrame, TxTicket,
};
use debugnet_core::time::{Budget, Clock};
use nic_hal::Mmio;
use registers::*;

/// Longest frame without its checksum, in bytes.
const FRAME_MAX: usize = 1514;
/// Two commands of two words, and two buffers filled up to whole words.
const OVERHEAD: usize = 2 * 8 + 2 * 3;
/// The reset takes microseconds; the EEPROM is read in under 10 ms (3.7).
const RESET_MAX_US: u64 = 100_000;

/// The chip, from its registers on. Made at boot; touches nothing before [`Nic::poll_start`].
pub(crate) struct Lan9118 {
    pub(crate) port: Port,
    mac: MacAddr,
    reset: Option<Budget>,
    last: TxTicket,
}

impl Lan9118 {
    pub(crate) const fn new(window: Mmio) -> Self {
        Self { port: Port(window), mac: MacAddr([0; 6]), reset: None, last: TxTicket::NONE }
    }
}

impl Nic for Lan9118 {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mac: self.mac,
            ip_mtu: 1500,
            tx_slots: 2,
            max_segments: 1,
            payload: PayloadKind::Bytes,
            checksum: ChecksumOffload::None,
        }
    }

    fn poll_start(&mut self, clock: &mut dyn Clock) -> Result<Start, NicError> {
        const DEAF: NicError = NicError::Timeout("MAC register");
        let now = clock.now();
        let Some(budget) = &mut self.reset else {
            // A write wakes a chip that sleeps (3.10.2).
            self.port.set(BYTE_TEST, 0);
            self.port.check()?;
            // The reset forgets it, unless there is an EEPROM.
            self.mac = self.port.station().ok_or(DEAF)?;
            self.port.set(HW_CFG, SOFT_RESET);
            self.reset = Some(Budget::new(now.after(RESET_MAX_US), 100_000));
            return Ok(Start::Again { until: now.after(10) });
        };
        if self.port.get(HW_CFG) & SOFT_RESET != 0 {
            let alive = budget.spend(now);
            let again = Start::Again { until: now.after(10) };
            return if alive { Ok(again) } else { Err(NicError::Timeout("soft reset")) };
        }
        self.reset = None;
        self.port.set(INT_EN, 0);
        self.port.set(HW_CFG, FIFO_SPLIT);
        self.port.set(RX_CFG, 0);
        self.port.set(TX_CFG, TX_ON);
        let on = self.port.set_station(self.mac) && self.port.set_mac(MAC_CR, MAC_ON);
        if on { Ok(Start::Ready) } else { Err(DEAF) }
    }

    fn link(&mut self) -> Link {
        // The bit keeps a loss until it is read: the second look is the present.
        self.port.phy(PHY_STATUS);
        match self.port.phy(PHY_STATUS) {
            Some(status) if status & LINK_UP == 0 => Link::Down,
            Some(_) => Link::Up,
            None => Link::Unknown,
        }
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<TxTicket, TxError> {
        let payload = match frame.payload {
            Payload::None => &[],
            Payload::Bytes(bytes) => bytes,
            Payload::Dma(_) => return Err(TxError::NotReachable),
        };
        let len = frame.header.len().saturating_add(payload.len());
        if len > FRAME_MAX {
            return Err(TxError::TooLong { len: len as u32, max: FRAME_MAX as u32 });
        }
        if (self.port.get(TX_FIFO_INF) & 0xffff) < (len + OVERHEAD) as u32 {
            return Err(TxError::Full);
        }
        let alone = if payload.is_empty() { LAST } else { 0 };
        self.port.push(frame.header, FIRST | alone, len);
        if !payload.is_empty() {
            self.port.push(payload, LAST, len);
        }
        self.last = self.last.next();
        Ok(self.last)
    }

    fn kick(&mut self) {} // The chip began with the last word of the frame.

    fn poll_tx(&mut self) -> Result<TxTicket, NicError> {
        // It has the bytes: nothing of ours is in its hands.
        self.port.check().map(|()| self.last)
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RxError> {
        if self.port.get(RX_FIFO_INF) >> 16 & 0xff == 0 {
            return Ok(None);
        }
        let status = self.port.get(RX_STATUS_FIFO);
        let with_fcs = (status >> 16 & 0x3fff) as usize;
        self.port.pop(with_fcs, buf);
        match with_fcs.checked_sub(4) {
            Some(len) if status & RX_ERROR == 0 && len <= buf.len() => Ok(Some(len)),
            Some(len) if status & RX_ERROR == 0 => Err(RxError::TooLong { len: len as u32 }),
            _ => Err(RxError::Malformed),
        }
    }

    fn stop(&mut self) -> Result<(), NicError> {
        let off = self.port.set_mac(MAC_CR, 0);
        self.port.set(TX_CFG, TX_STOP);
        self.port.set(RX_CFG, RX_DUMP);
        if off { Ok(()) } else { Err(NicError::Timeout("stop")) }
    }
}
