//! Finds functions on the PCI bus.

use nic_hal::PciFunction;
use nic_hal::pci_types::{ConfigRegionAccess, PciAddress};

/// The first function, by bus, device and function number, that `wanted` accepts.
///
/// Looks at every number there can be: firmware assigned the bus numbers, and
/// 65536 absent functions cost a few milliseconds.
pub(super) fn find<A: ConfigRegionAccess>(
    access: impl Fn() -> A,
    mut wanted: impl FnMut(&PciFunction<A>) -> bool,
) -> Option<PciFunction<A>> {
    for bus in 0..=255 {
        for device in 0..32 {
            for function in 0..8 {
                let address = PciAddress::new(0, bus, device, function);
                // SAFETY: reading configuration space changes nothing, and whoever
                // takes the function over is the only one to do so.
                let found = unsafe { PciFunction::new(access(), address) };
                if found.id().is_none() {
                    if function == 0 {
                        break;
                    }
                    continue;
                }
                if wanted(&found) {
                    return Some(found);
                }
                if function == 0 && !has_functions(&found) {
                    break;
                }
            }
        }
    }
    None
}

/// Whether function 0 says that there are others (header type, bit 7).
fn has_functions<A: ConfigRegionAccess>(function: &PciFunction<A>) -> bool {
    function.read32(0x0c) & 1 << 23 != 0
}
