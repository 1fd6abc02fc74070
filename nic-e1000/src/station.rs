//! The station address: where it is found, and how it becomes the only one received.

use debugnet_core::addr::MacAddr;
use debugnet_core::nic::NicError;
use nic_hal::Registers;
use nic_hal::pci_types::ConfigRegionAccess;

use crate::device::PciDevice;
use crate::ids::{Family, Mac};
use crate::registers as reg;
use crate::registers::status;

/// The address in receive address register 0, if it is one. Byte 0 is the lowest of RAL.
pub(crate) fn current<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<Option<MacAddr>, NicError> {
    let low = device.window.read(reg::RAL0)?;
    let high = device.window.read(reg::RAH0)?;
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, ..] = high.to_le_bytes();
    let mac = MacAddr([a, b, c, d, e, f]);
    Ok(Some(mac).filter(|mac| high & reg::RAH_AV != 0 && mac.is_station()))
}

/// Writes `mac` to receive address register 0 and clears the others.
pub(crate) fn make_only<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
    mac: MacAddr,
) -> Result<(), NicError> {
    let [a, b, c, d, e, f] = mac.0;
    let high = u32::from_le_bytes([e, f, 0, 0]) | reg::RAH_AV;
    for index in 0..device.part().mac.station_addresses() {
        let (low, high) = match index {
            0 => (u32::from_le_bytes([a, b, c, d]), high),
            _ => (0, 0),
        };
        let offset = (index as usize).saturating_mul(8);
        // Low half first: while the halves do not match, the address is not valid.
        device.window.write(reg::RAH0.saturating_add(offset), 0)?;
        device.window.write(reg::RAL0.saturating_add(offset), low)?;
        device.window.write(reg::RAH0.saturating_add(offset), high)?;
    }
    device.window.flush()
}

/// Whether the first three words of the NVM are the address of function 0. On
/// the 82580 and later each function has an image of its own (or no NVM at
/// all), and the reset has loaded the address.
pub(crate) const fn nvm_holds_address(mac: Mac) -> bool {
    !matches!(mac, Mac::I82580 | Mac::I350 | Mac::I210 | Mac::I211)
}

/// Whether EERD has its address at bit 2 and its DONE at bit 1, as all but the first parts.
const fn has_new_eerd(mac: Mac) -> bool {
    !matches!(mac.family(), Family::E1000) || matches!(mac, Mac::I82541)
}

/// Begins to read a word of the NVM.
pub(crate) fn start_nvm<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
    word: u8,
) -> Result<(), NicError> {
    let address =
        if has_new_eerd(device.part().mac) { u32::from(word) << 2 } else { u32::from(word) << 8 };
    device.window.write(reg::EERD, address | reg::EERD_START)
}

/// The word, once it has been read.
pub(crate) fn nvm_data<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
) -> Result<Option<u16>, NicError> {
    let done = if has_new_eerd(device.part().mac) { 1 << 1 } else { 1 << 4 };
    let value = device.window.read(reg::EERD)?;
    Ok((value & done != 0).then_some((value >> 16) as u16))
}

/// The NVM's address made that of this function: the second port of a
/// controller has the last bit the other way round.
pub(crate) fn of_function<A: ConfigRegionAccess, R: Registers>(
    device: &mut PciDevice<A, R>,
    mac: MacAddr,
) -> Result<MacAddr, NicError> {
    let function = device.window.read(reg::STATUS)? >> status::FUNC_SHIFT & 3;
    let [a, b, c, d, e, f] = mac.0;
    Ok(MacAddr([a, b, c, d, e, f ^ u8::from(function == 1)]))
}
