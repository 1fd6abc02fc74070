//! Taking the chip over, in steps.

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::NicError;
use debugnet_core::time::{Budget, Instant};
use embedded_hal::delay::DelayNs;
use embedded_hal::spi::SpiDevice;

use crate::chip::{BUFFER_LEN, Block, Chip, Lost, SOCKETS, common, socket};

/// How long the chip may take over its reset, and the looks at it (section
/// 5.5.1: about a millisecond until its clock is stable).
const RESET_US: u64 = 50_000;
const RESET_LOOKS: u32 = 200;
/// Between two looks.
const STEP_US: u64 = 1_000;

/// Where the take-over stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Reset,
    Resetting(Budget),
    Configure,
}

/// What one step led to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Next { phase: Phase, at: Instant },
    Running(Open),
}

/// Socket 0 is open; its write and read pointers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) tx: u16,
    pub(crate) rx: u16,
}

pub(crate) fn step<S: SpiDevice, D: DelayNs>(
    chip: &mut Chip<S, D>,
    phase: Phase,
    mac: MacAddr,
    now: Instant,
) -> Result<Step, NicError> {
    match phase {
        Phase::Reset => {
            chip.write8(Block::Common, common::MR, common::MR_RST).map_err(lost)?;
            let budget = Budget::new(now.after(RESET_US), RESET_LOOKS);
            Ok(Step::Next { phase: Phase::Resetting(budget), at: now.after(STEP_US) })
        }
        Phase::Resetting(mut budget) => {
            let mode = chip.read8(Block::Common, common::MR).map_err(lost)?;
            if mode & common::MR_RST == 0 {
                return Ok(Step::Next { phase: Phase::Configure, at: now });
            }
            if !budget.spend(now) {
                // A bus without a chip reads as ones.
                return Err(match mode {
                    0xff => NicError::Gone,
                    _ => NicError::Timeout("W5500 reset"),
                });
            }
            Ok(Step::Next { phase: Phase::Resetting(budget), at: now.after(STEP_US) })
        }
        Phase::Configure => configure(chip, mac).map(Step::Running),
    }
}

/// Sets up a chip in any state, and opens socket 0.
pub(crate) fn configure<S: SpiDevice, D: DelayNs>(
    chip: &mut Chip<S, D>,
    mac: MacAddr,
) -> Result<Open, NicError> {
    match chip.read8(Block::Common, common::VERSIONR).map_err(lost)? {
        common::VERSION => {}
        0x00 | 0xff => return Err(NicError::Gone),
        other => return Err(NicError::Unknown { id: u32::from(other) }),
    }
    let mut all = || -> Result<Open, Lost> {
        chip.write8(Block::Common, common::IMR, 0)?;
        chip.write8(Block::Common, common::SIMR, 0)?;
        chip.write(Block::Common, common::SHAR, [&mac.0])?;
        phy(chip)?;
        // All memory is socket 0's; the others first, or the sum is too large.
        for number in (0..SOCKETS).rev() {
            let kib = if number == 0 { (BUFFER_LEN >> 10) as u8 } else { 0 };
            chip.write8(Block::Socket(number), socket::RXBUF_SIZE, kib)?;
            chip.write8(Block::Socket(number), socket::TXBUF_SIZE, kib)?;
        }
        open(chip)
    };
    all().map_err(error)
}

/// Opens socket 0 for raw frames.
fn open<S: SpiDevice, D: DelayNs>(chip: &mut Chip<S, D>) -> Result<Open, Lost> {
    let mode = socket::MR_MACRAW | socket::MR_MFEN | socket::MR_MMB;
    chip.command(socket::CLOSE)?;
    chip.write8(Block::Socket(0), socket::MR, mode)?;
    chip.write8(Block::Socket(0), socket::IR, 0xff)?;
    chip.command(socket::OPEN)?;
    if !chip.opens()? {
        return Err(Lost::Chip("W5500: socket 0 does not open"));
    }
    let tx = chip.counter(socket::TX_RD)?;
    let rx = chip.counter(socket::RX_RD)?;
    Ok(Open { tx, rx })
}

pub(crate) fn is_open<S: SpiDevice, D: DelayNs>(chip: &mut Chip<S, D>) -> Result<bool, Lost> {
    Ok(chip.read8(Block::Socket(0), socket::SR)? == socket::SR_MACRAW)
}

/// Leaves a PHY that negotiates alone: resetting it costs the link, for seconds.
fn phy<S: SpiDevice, D: DelayNs>(chip: &mut Chip<S, D>) -> Result<(), Lost> {
    let now = chip.read8(Block::Common, common::PHYCFGR)?;
    let negotiates = now & common::PHY_RUN != 0 && now & common::PHY_MODE == common::PHY_AUTO;
    if !negotiates {
        // Switched off, or held at one speed by the dead firmware. A mode counts from a reset on.
        let mode = common::PHY_BY_REGISTER | common::PHY_AUTO;
        chip.write8(Block::Common, common::PHYCFGR, mode)?;
        chip.write8(Block::Common, common::PHYCFGR, mode | common::PHY_RUN)?;
    }
    Ok(())
}

fn error(lost: Lost) -> NicError {
    match lost {
        Lost::Bus => NicError::Bus,
        Lost::Chip(what) => NicError::Protocol(what),
    }
}

fn lost(bus: crate::chip::BusError) -> NicError {
    error(bus.into())
}
