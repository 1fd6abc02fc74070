//! Setting a device up after its reset.

use core::ops::Range;

use debugnet_core::addr::DeviceAddr;
use debugnet_core::nic::NicError;
use nic_hal::Registers;
use nic_hal::pci_types::ConfigRegionAccess;

use crate::device::PciDevice;
use crate::ids::{Family, Mac};
use crate::quiesce;
use crate::registers as reg;
use crate::registers::{Ring, ctrl, ctrl_ext, mdic, rctl, status, tctl};

/// Inter-packet gap for copper.
const TIPG_COPPER: u32 = 0x0060_2008;
/// SRRCTL: buffers of 2 KiB, advanced descriptors with one buffer.
const SRRCTL: u32 = 0x0200_0002;
/// RXDCTL of the igb family: prefetch 8, host 8, write back each one.
const RXDCTL_IGB: u32 = 8 | 8 << 8 | 1 << 16;
/// TXDCTL of the igb family: prefetch 8, host 1, write back at once.
const TXDCTL_IGB: u32 = 8 | 1 << 8;
/// TXDCTL of the 8257x: thresholds count descriptors (to be set, says Intel).
const TXDCTL_COUNT: u32 = 1 << 22;
/// TARC0: queue 0 takes part in the arbitration.
const TARC_ENABLE: u32 = 1 << 10;
/// BMCR: autonegotiation on, restarted, 1000 Mb/s full duplex; power-down off.
const BMCR_RESTART: u32 = 0x1340;

/// A ring as the device is told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RingMemory {
    pub(crate) address: DeviceAddr,
    pub(crate) len_bytes: u32,
}

/// Interrupts masked once more, CTRL for our use, the family's own bits.
pub(crate) fn control<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<(), NicError> {
    quiesce::mask_interrupts(device)?;
    let mac = device.part().mac;
    if mac == Mac::I82544 && device.window.read(reg::STATUS)? & status::PCIX_MODE != 0 {
        // It hangs when a buffer ends in certain words, which payloads do.
        return Err(NicError::Unsupported("82544 on PCI-X"));
    }
    // Flow control off: a peer's pause frames could hold our frames for ever.
    let clear = ctrl::GIO_MASTER_DISABLE
        | ctrl::LRST
        | ctrl::FRCSPD
        | ctrl::FRCDPX
        | ctrl::RST
        | ctrl::RFCE
        | ctrl::TFCE
        | ctrl::BIT_29
        | ctrl::VME
        | ctrl::PHY_RST;
    device.window.change(reg::CTRL, clear, ctrl::SLU)?;
    device.window.write(reg::WUC, 0)?;
    if mac.has_phy_ownership() {
        quiesce::drop_phy_ownership(device)?;
    }
    match mac.family() {
        Family::E1000 => {}
        Family::E1000e => stabilise(device)?,
        Family::Igb => {
            let clear = ctrl_ext::EXTENDED_VLAN;
            device.window.change(reg::CTRL_EXT, clear, ctrl_ext::DRV_LOAD)?;
            device.window.write(reg::MRQC, 0)?;
            device.window.write(reg::VT_CTL, 0)?;
            if matches!(mac, Mac::I82580 | Mac::I350 | Mac::I210 | Mac::I211) {
                device.window.change(reg::PHPM, reg::PHPM_GO_LINKD, 0)?;
            }
        }
    }
    device.window.write(reg::RXCSUM, 0)?;
    device.window.flush()
}

/// Bits that Intel's drivers set on the 8257x against transmit hangs and lost completions.
fn stabilise<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<(), NicError> {
    let mac = device.part().mac;
    let window = &mut device.window;
    let mut clear = 0;
    let mut set = ctrl_ext::DRV_LOAD;
    if mac.has_phy_ownership() {
        clear = ctrl_ext::BIT_23;
        set |= ctrl_ext::BIT_22;
    }
    window.change(reg::CTRL_EXT, clear, set)?;
    // No RSS; legacy receive descriptors.
    window.write(reg::MRQC, 0)?;
    let ipv6_parsing_off = 1 << 16 | 1 << 17;
    let old = matches!(mac, Mac::I82571 | Mac::I82573);
    window.write(reg::RFCTL, if old { ipv6_parsing_off } else { 0 })?;
    let arbitration = match mac {
        Mac::I82571 => 0xf << 23,
        Mac::I82574 | Mac::I82583 => 1 << 26,
        _ => 0,
    };
    window.change(reg::TARC0, 0xf << 27, TARC_ENABLE | arbitration)?;
    window.change(reg::TXDCTL1, 0, TXDCTL_COUNT)?;
    match mac {
        Mac::I82571 => {
            window.change(reg::TARC1, 3 << 29, 1 << 22 | 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28)
        }
        Mac::I82574 | Mac::I82583 => {
            window.change(reg::GCR, 0, 1 << 22)?;
            window.change(reg::GCR2, 0, 1)
        }
        _ => Ok(()),
    }
}

/// Zeroes some words of the filter tables: no multicast, no VLAN, no hash of unicast addresses.
pub(crate) fn clear_tables<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
    words: Range<u32>,
) -> Result<(), NicError> {
    let igb = device.family() == Family::Igb;
    for word in words {
        let offset = (word as usize).saturating_mul(4);
        device.window.write(reg::MTA.saturating_add(offset), 0)?;
        device.window.write(reg::VFTA.saturating_add(offset), 0)?;
        if igb {
            device.window.write(reg::UTA.saturating_add(offset), 0)?;
        }
    }
    device.window.flush()
}

/// Tells the PHY to negotiate. The igb model in QEMU has no link after a reset until then.
pub(crate) fn restart_autonegotiation<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<(), NicError> {
    const BMCR: u32 = 0;
    let command = mdic::WRITE_PHY_1 | BMCR << mdic::REGISTER_SHIFT | BMCR_RESTART;
    device.window.write(reg::MDIC, command)
}

/// Gives the device our transmit ring, empty.
pub(crate) fn transmit_ring<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
    memory: &RingMemory,
) -> Result<(), NicError> {
    let ring = device.tx_ring(0);
    let family = device.family();
    place(device, ring, memory)?;
    match family {
        Family::E1000 => device.window.write(ring.control(), 0)?,
        Family::E1000e => device.window.write(ring.control(), TXDCTL_COUNT)?,
        Family::Igb => {
            // Completions in the descriptors, not at an address of the dead kernel's.
            device.window.write(ring.write_back_low(), 0)?;
            device.window.write(ring.write_back_high(), 0)?;
            device.window.write(ring.control(), TXDCTL_IGB | reg::QUEUE_ENABLE)?;
        }
    }
    if family != Family::Igb {
        device.window.write(reg::TIPG, TIPG_COPPER)?;
    }
    Ok(())
}

/// Gives the device our receive ring, empty.
pub(crate) fn receive_ring<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
    memory: &RingMemory,
) -> Result<(), NicError> {
    let ring = device.rx_ring(0);
    let family = device.family();
    place(device, ring, memory)?;
    if family == Family::Igb {
        device.window.write(ring.split(), SRRCTL)?;
        return device.window.write(ring.control(), RXDCTL_IGB | reg::QUEUE_ENABLE);
    }
    // No delay before a frame is shown.
    device.window.write(reg::RDTR, 0)?;
    device.window.write(reg::RADV, 0)
}

fn place<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
    ring: Ring,
    memory: &RingMemory,
) -> Result<(), NicError> {
    let window = &mut device.window;
    window.write(ring.base_low(), memory.address.0 as u32)?;
    window.write(ring.base_high(), (memory.address.0 >> 32) as u32)?;
    window.write(ring.len(), memory.len_bytes)?;
    window.write(ring.head(), 0)?;
    window.write(ring.tail(), 0)
}

/// Whether the queues of the igb family have come up; the others have no such bit.
pub(crate) fn queues_are_enabled<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<bool, NicError> {
    if device.family() != Family::Igb {
        return Ok(true);
    }
    let mut enabled = true;
    for ring in [device.rx_ring(0), device.tx_ring(0)] {
        enabled &= device.window.read(ring.control())? & reg::QUEUE_ENABLE != 0;
    }
    Ok(enabled)
}

/// Switches the transmitter on, then the receiver, then hands the buffers over
/// by writing `rx_tail`.
///
/// RCTL is written once: QEMU's `e1000` receives nothing for a second after each write.
pub(crate) fn enable<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
    rx_tail: u16,
) -> Result<(), NicError> {
    let clear = tctl::CT_MASK | tctl::COLD_MASK;
    let set = tctl::EN | tctl::PSP | tctl::CT | tctl::COLD;
    device.window.change(reg::TCTL, clear, set)?;
    device.window.write(reg::RCTL, rctl::EN | rctl::BAM | rctl::SECRC)?;
    let tail = device.rx_ring(0).tail();
    device.window.write(tail, u32::from(rx_tail))?;
    device.window.flush()
}

/// Whether the device still is as we set it up: no reset behind our back, the
/// transmitter on, the bus open.
pub(crate) fn is_ours<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
    tx_ring: DeviceAddr,
) -> Result<bool, NicError> {
    let sends = device.window.read(reg::TCTL)? & tctl::EN != 0;
    let receives = device.window.read(reg::RCTL)? & rctl::EN != 0;
    let ring = device.tx_ring(0).base_low();
    let same_ring = device.window.read(ring)? == tx_ring.0 as u32;
    Ok(sends && receives && same_ring && device.is_bus_master())
}
