//! Making a running device quiet.

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::NicError;
use nic_hal::Registers;
use nic_hal::pci_types::ConfigRegionAccess;

use crate::device::{PciDevice, SETTLE_READS};
use crate::ids::{Family, Mac};
use crate::registers as reg;
use crate::registers::{ctrl, tctl};
use crate::station;

/// Looks at CTRL, and at STATUS, in `stop`.
const STOP_LOOKS: u32 = 50_000;

/// Masks and forgets every interrupt cause.
pub(crate) fn mask_interrupts<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<(), NicError> {
    let window = &mut device.window;
    window.write(reg::IMC, u32::MAX)?;
    if device.part().family() == Family::Igb {
        let window = &mut device.window;
        window.write(reg::EIMC, u32::MAX)?;
        window.write(reg::EIAC, 0)?;
        window.write(reg::EIAM, 0)?;
        window.write(reg::GPIE, 0)?;
        window.read(reg::EICR)?;
    }
    // Reading clears the causes. All ones is a value it may have.
    device.window.read(reg::ICR).map(drop)
}

/// Masks interrupts, switches receiver and transmitter off, and says which
/// address the device received for.
pub(crate) fn silence<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<Option<MacAddr>, NicError> {
    // Looked at first: a device that is gone is told nothing.
    device.window.flush()?;
    mask_interrupts(device)?;
    let live = station::current(device)?;
    switch_off(device)?;
    Ok(live)
}

/// Switches receiver and transmitter off and waits until the device has heard it.
fn switch_off<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<(), NicError> {
    device.window.write(reg::RCTL, 0)?;
    device.window.write(reg::TCTL, tctl::PSP)?;
    if device.family() == Family::Igb {
        for queue in 0..device.part().mac.queues() {
            for ring in [device.rx_ring(queue), device.tx_ring(queue)] {
                device.window.change(ring.control(), reg::QUEUE_ENABLE, 0)?;
            }
        }
    }
    device.window.flush()
}

/// Takes all rings away from the device. QEMU's `e1000` keeps every register
/// over a reset; a transmitter that is switched on with stale indices sends
/// whatever they point at.
pub(crate) fn drop_rings<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<(), NicError> {
    for queue in 0..device.part().mac.queues() {
        for ring in [device.rx_ring(queue), device.tx_ring(queue)] {
            for register in [ring.len(), ring.head(), ring.tail()] {
                device.window.write(register, 0)?;
            }
        }
    }
    device.window.flush()
}

/// Asks for the PHY, which firmware may hold. `true` if it is ours.
pub(crate) fn take_phy_ownership<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<bool, NicError> {
    device.window.change(reg::EXTCNF_CTRL, 0, reg::MDIO_SW_OWNERSHIP)?;
    Ok(device.window.read(reg::EXTCNF_CTRL)? & reg::MDIO_SW_OWNERSHIP != 0)
}

/// Gives the PHY back.
pub(crate) fn drop_phy_ownership<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<(), NicError> {
    device.window.change(reg::EXTCNF_CTRL, reg::MDIO_SW_OWNERSHIP, 0)
}

/// Writes the reset bit, in one write. The PHY is left alone, so that the link stays up.
pub(crate) fn reset<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<(), NicError> {
    let value = device.window.read(reg::CTRL)? & !ctrl::PHY_RST;
    let through = match device.part().mac {
        Mac::I82545Rev3 => reg::CTRL_DUP,
        _ => reg::CTRL,
    };
    device.window.write(through, value | ctrl::RST)
}

/// All of it at once and without a clock, for `stop`. Some tens of milliseconds at most,
/// but for a device that does not end its requests or its reset.
pub(crate) fn stop<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<(), NicError> {
    device.window.flush()?;
    mask_interrupts(device)?;
    switch_off(device)?;
    if device.family() != Family::E1000 {
        device.window.change(reg::CTRL, 0, ctrl::GIO_MASTER_DISABLE)?;
        let busy = reg::status::GIO_MASTER_ENABLE;
        // Not confirmed: the reset and the cut decide.
        let _ = look_until_clear(device, reg::STATUS, busy)?;
    }
    drop_rings(device)?;
    reset(device)?;
    device.pause(SETTLE_READS);
    if !look_until_clear(device, reg::CTRL, ctrl::RST)? {
        return Err(NicError::Timeout("e1000 reset"));
    }
    mask_interrupts(device)
}

/// Looks at a register until `bits` are clear; `false` if they never are.
fn look_until_clear<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
    register: usize,
    bits: u32,
) -> Result<bool, NicError> {
    for _ in 0..STOP_LOOKS {
        if device.window.read(register)? & bits == 0 {
            return Ok(true);
        }
        core::hint::spin_loop();
    }
    Ok(false)
}
