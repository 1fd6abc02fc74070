//! The chip's registers and how SPI reaches them (W5500 data sheet 1.0.9,
//! sections 2 and 4).
//!
//! A transfer is a 16-bit address (big-endian), a control byte (block in bits
//! 7:3, write in bit 2, length by chip select in bits 1:0 = 0), then the data.
//! The address counts up by itself, and in a buffer block it wraps at the
//! buffer's size, so a frame is one transfer wherever it begins.

use embedded_hal::delay::DelayNs;
use embedded_hal::spi::{Operation, SpiDevice};

/// Common registers (section 4.1).
pub(crate) mod common {
    /// Mode; bit 7 resets the chip and clears itself.
    pub(crate) const MR: u16 = 0x00;
    pub(crate) const MR_RST: u8 = 1 << 7;
    /// Station address, six bytes.
    pub(crate) const SHAR: u16 = 0x09;
    /// Interrupt masks of chip and sockets.
    pub(crate) const IMR: u16 = 0x16;
    pub(crate) const SIMR: u16 = 0x18;
    /// PHY: bit 7 (low) resets it, bit 6 takes the mode from bits 5:3, bit 0 is the link.
    pub(crate) const PHYCFGR: u16 = 0x2e;
    pub(crate) const PHY_RUN: u8 = 1 << 7;
    pub(crate) const PHY_BY_REGISTER: u8 = 1 << 6;
    pub(crate) const PHY_MODE: u8 = 7 << 3;
    /// Everything, by autonegotiation.
    pub(crate) const PHY_AUTO: u8 = 7 << 3;
    pub(crate) const PHY_LINK: u8 = 1 << 0;
    /// Always 4.
    pub(crate) const VERSIONR: u16 = 0x39;
    pub(crate) const VERSION: u8 = 4;
}

/// Socket registers (section 4.2).
pub(crate) mod socket {
    pub(crate) const MR: u16 = 0x00;
    /// Raw frames: what is for our address, broadcast, or (not blocked) multicast.
    pub(crate) const MR_MACRAW: u8 = 4;
    /// Filter by station address.
    pub(crate) const MR_MFEN: u8 = 1 << 7;
    /// Block multicast.
    pub(crate) const MR_MMB: u8 = 1 << 5;
    pub(crate) const CR: u16 = 0x01;
    pub(crate) const OPEN: u8 = 0x01;
    pub(crate) const CLOSE: u8 = 0x10;
    pub(crate) const SEND: u8 = 0x20;
    pub(crate) const RECV: u8 = 0x40;
    /// Interrupts, write 1 to clear.
    pub(crate) const IR: u16 = 0x02;
    pub(crate) const IR_SEND_OK: u8 = 1 << 4;
    pub(crate) const IR_TIMEOUT: u8 = 1 << 3;
    pub(crate) const SR: u16 = 0x03;
    pub(crate) const SR_MACRAW: u8 = 0x42;
    /// Buffer sizes in KiB; 16 for each direction among all sockets.
    pub(crate) const RXBUF_SIZE: u16 = 0x1e;
    pub(crate) const TXBUF_SIZE: u16 = 0x1f;
    pub(crate) const TX_RD: u16 = 0x22;
    pub(crate) const TX_WR: u16 = 0x24;
    pub(crate) const RX_RSR: u16 = 0x26;
    pub(crate) const RX_RD: u16 = 0x28;
}

/// Sockets of the chip. Only the first can send raw frames.
pub(crate) const SOCKETS: u8 = 8;
/// Bytes of each buffer, all of them socket 0's.
pub(crate) const BUFFER_LEN: u16 = 16 * 1024;

/// Looks at a command register until the chip has taken the command: a few of
/// its cycles, less than one transfer takes.
const COMMAND_LOOKS: u32 = 64;
/// Between two looks.
const COMMAND_PAUSE_US: u32 = 1;
/// Reads of a 16-bit counter until two agree: it changes between its bytes.
const COUNTER_READS: u32 = 8;

/// The SPI bus failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusError;

/// Why something did not work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// A transfer failed; the chip may be sound.
    Bus,
    /// The chip does not do what its data sheet says; the text says where.
    Chip(&'static str),
}

impl From<BusError> for Lost {
    fn from(_: BusError) -> Self {
        Self::Bus
    }
}

/// A block of addresses (section 2.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Block {
    Common,
    Socket(u8),
    /// Buffers of socket 0.
    Tx,
    Rx,
}

impl Block {
    const fn control(self, write: bool) -> u8 {
        let block = match self {
            Self::Common => 0,
            Self::Socket(number) => (number & 7).wrapping_mul(4).wrapping_add(1),
            Self::Tx => 2,
            Self::Rx => 3,
        };
        (block << 3) | ((write as u8) << 2)
    }
}

/// The chip at the end of its bus.
#[derive(Debug)]
pub(crate) struct Chip<S, D> {
    spi: S,
    delay: D,
    pub(crate) bus_errors: u32,
}

impl<S: SpiDevice, D: DelayNs> Chip<S, D> {
    pub(crate) const fn new(spi: S, delay: D) -> Self {
        Self { spi, delay, bus_errors: 0 }
    }

    pub(crate) fn read(&mut self, block: Block, at: u16, into: &mut [u8]) -> Result<(), BusError> {
        let [high, low] = at.to_be_bytes();
        let header = [high, low, block.control(false)];
        let mut operations = [Operation::Write(&header), Operation::Read(into)];
        let result = self.spi.transaction(&mut operations);
        self.count(result)
    }

    /// Writes `parts` one behind the other, in one transfer.
    pub(crate) fn write<const N: usize>(
        &mut self,
        block: Block,
        at: u16,
        parts: [&[u8]; N],
    ) -> Result<(), BusError> {
        let [high, low] = at.to_be_bytes();
        let header = [high, low, block.control(true)];
        let mut operations: heapless::Vec<Operation<'_, u8>, 4> = heapless::Vec::new();
        for part in core::iter::once(&header[..]).chain(parts) {
            // Room for the address and three parts; an empty one is nothing to send.
            if !part.is_empty() && operations.push(Operation::Write(part)).is_err() {
                return Err(BusError);
            }
        }
        let result = self.spi.transaction(&mut operations);
        self.count(result)
    }

    fn count<E>(&mut self, result: Result<(), E>) -> Result<(), BusError> {
        result.map_err(|_| {
            self.bus_errors = self.bus_errors.saturating_add(1);
            BusError
        })
    }

    pub(crate) fn read8(&mut self, block: Block, at: u16) -> Result<u8, BusError> {
        let mut byte = [0];
        self.read(block, at, &mut byte)?;
        let [value] = byte;
        Ok(value)
    }

    pub(crate) fn write8(&mut self, block: Block, at: u16, value: u8) -> Result<(), BusError> {
        self.write(block, at, [&[value]])
    }

    pub(crate) fn read16(&mut self, block: Block, at: u16) -> Result<u16, BusError> {
        let mut bytes = [0; 2];
        self.read(block, at, &mut bytes)?;
        Ok(u16::from_be_bytes(bytes))
    }

    pub(crate) fn write16(&mut self, block: Block, at: u16, value: u16) -> Result<(), BusError> {
        self.write(block, at, [&value.to_be_bytes()])
    }

    /// A counter that the chip may move between its two bytes: read until two
    /// reads agree, as the data sheet asks (Sn_RX_RSR).
    pub(crate) fn counter(&mut self, at: u16) -> Result<u16, Lost> {
        let mut last = self.read16(Block::Socket(0), at)?;
        for _ in 0..COUNTER_READS {
            let next = self.read16(Block::Socket(0), at)?;
            if next == last {
                return Ok(next);
            }
            last = next;
        }
        Err(Lost::Chip("W5500: a counter that never stands still"))
    }

    /// Whether socket 0 comes up as one for raw frames: its status may be late.
    pub(crate) fn opens(&mut self) -> Result<bool, Lost> {
        for _ in 0..COMMAND_LOOKS {
            match self.read8(Block::Socket(0), socket::SR)? {
                socket::SR_MACRAW => return Ok(true),
                0 => self.delay.delay_us(COMMAND_PAUSE_US),
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Gives socket 0 a command and waits until the chip has taken it.
    pub(crate) fn command(&mut self, command: u8) -> Result<(), Lost> {
        self.write8(Block::Socket(0), socket::CR, command)?;
        for _ in 0..COMMAND_LOOKS {
            if self.read8(Block::Socket(0), socket::CR)? == 0 {
                return Ok(());
            }
            self.delay.delay_us(COMMAND_PAUSE_US);
        }
        Err(Lost::Chip("W5500: a command that is never taken"))
    }
}
