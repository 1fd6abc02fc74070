//! Which parts there are: PCI device ids of Intel's gigabit controllers.
//!
//! An id marked [`Tested::Qemu`] was driven in QEMU; one marked
//! [`Tested::DataSheet`] follows the data sheet of its relatives and has not
//! been seen by this code.

use debugnet_core::nic::NicError;

/// Intel's PCI vendor id.
pub const VENDOR: u16 = 0x8086;

/// A family of parts with the same descriptors and the same order of reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// 8254x, on PCI and PCI-X (`e1000`).
    E1000,
    /// 8257x and 82583, on PCI Express (`e1000e`).
    E1000e,
    /// 82575, 82576, 82580, I350, I210 and I211 (`igb`).
    Igb,
}

/// How a part is known to work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tested {
    /// Dumps were made through QEMU's model of it.
    Qemu,
    /// Written from the data sheets, never run.
    DataSheet,
}

/// The controller generation, which decides the details of a take-over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Mac {
    I82544,
    I82540,
    /// 82541 and 82547: the NVM read register is laid out as on the later families.
    I82541,
    I82545,
    /// 82545GM and 82546GB, which are reset through the duplicate of CTRL.
    I82545Rev3,
    I82571,
    I82573,
    I82574,
    I82583,
    I82575,
    I82576,
    I82580,
    I350,
    I210,
    I211,
}

impl Mac {
    pub(crate) const fn family(self) -> Family {
        match self {
            Self::I82544 | Self::I82540 | Self::I82541 | Self::I82545 | Self::I82545Rev3 => {
                Family::E1000
            }
            Self::I82571 | Self::I82573 | Self::I82574 | Self::I82583 => Family::E1000e,
            Self::I82575 | Self::I82576 | Self::I82580 | Self::I350 | Self::I210 | Self::I211 => {
                Family::Igb
            }
        }
    }

    /// Queues of each direction that a dead kernel may have left running.
    pub(crate) const fn queues(self) -> u32 {
        match self {
            Self::I82576 => 16,
            Self::I82580 | Self::I350 => 8,
            Self::I82575 | Self::I210 => 4,
            Self::I211 | Self::I82571 | Self::I82573 | Self::I82574 | Self::I82583 => 2,
            _ => 1,
        }
    }

    /// Whether firmware and driver share the PHY through `EXTCNF_CTRL`
    /// (82573, 82574, 82583).
    pub(crate) const fn has_phy_ownership(self) -> bool {
        matches!(self, Self::I82573 | Self::I82574 | Self::I82583)
    }

    /// Receive address registers (RAL and RAH pairs) that every part of the family has.
    pub(crate) const fn station_addresses(self) -> u32 {
        match self {
            Self::I82571 => 15,
            _ => 16,
        }
    }

    /// Largest IP packet that the part sends, in bytes.
    pub(crate) const fn ip_mtu_max(self) -> u16 {
        match self {
            Self::I82573 | Self::I82583 => 1500,
            _ => 9000,
        }
    }

    /// Longest piece of a frame that one descriptor describes, in bytes.
    pub(crate) const fn piece_max(self) -> u32 {
        match self.family() {
            Family::E1000 => 4096,
            Family::E1000e => 8192,
            Family::Igb => 16384,
        }
    }
}

/// A part that this driver drives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// PCI device id.
    pub device: u16,
    /// What Intel calls it.
    pub name: &'static str,
    /// How it is known to work.
    pub tested: Tested,
    pub(crate) mac: Mac,
}

impl Part {
    /// The family, which decides the descriptors.
    pub const fn family(&self) -> Family {
        self.mac.family()
    }
}

const fn qemu(device: u16, name: &'static str, mac: Mac) -> Part {
    Part { device, name, tested: Tested::Qemu, mac }
}

const fn sheet(device: u16, name: &'static str, mac: Mac) -> Part {
    Part { device, name, tested: Tested::DataSheet, mac }
}

/// Every part this driver drives. All have copper PHYs.
pub const PARTS: &[Part] = &[
    qemu(0x100c, "82544GC", Mac::I82544),
    qemu(0x100e, "82540EM", Mac::I82540),
    qemu(0x100f, "82545EM", Mac::I82545),
    qemu(0x10d3, "82574L", Mac::I82574),
    qemu(0x10c9, "82576", Mac::I82576),
    sheet(0x1008, "82544EI", Mac::I82544),
    sheet(0x100d, "82544GC LOM", Mac::I82544),
    sheet(0x1015, "82540EM LOM", Mac::I82540),
    sheet(0x1016, "82540EP LOM", Mac::I82540),
    sheet(0x1017, "82540EP", Mac::I82540),
    sheet(0x101e, "82540EP LP", Mac::I82540),
    sheet(0x1010, "82546EB", Mac::I82545),
    sheet(0x101d, "82546EB quad", Mac::I82545),
    sheet(0x1026, "82545GM", Mac::I82545Rev3),
    sheet(0x1079, "82546GB", Mac::I82545Rev3),
    sheet(0x1099, "82546GB quad", Mac::I82545Rev3),
    sheet(0x10b5, "82546GB quad", Mac::I82545Rev3),
    sheet(0x1013, "82541EI", Mac::I82541),
    sheet(0x1014, "82541ER LOM", Mac::I82541),
    sheet(0x1018, "82541EI mobile", Mac::I82541),
    sheet(0x1019, "82547EI", Mac::I82541),
    sheet(0x101a, "82547EI mobile", Mac::I82541),
    sheet(0x1075, "82547GI", Mac::I82541),
    sheet(0x1076, "82541GI", Mac::I82541),
    sheet(0x1077, "82541GI mobile", Mac::I82541),
    sheet(0x1078, "82541ER", Mac::I82541),
    sheet(0x107c, "82541PI", Mac::I82541),
    sheet(0x105e, "82571EB", Mac::I82571),
    sheet(0x10a4, "82571EB quad", Mac::I82571),
    sheet(0x10bc, "82571EB quad LP", Mac::I82571),
    sheet(0x10d5, "82571PT quad", Mac::I82571),
    sheet(0x107d, "82572EI", Mac::I82571),
    sheet(0x10b9, "82572EI", Mac::I82571),
    sheet(0x108b, "82573E", Mac::I82573),
    sheet(0x108c, "82573E AMT", Mac::I82573),
    sheet(0x109a, "82573L", Mac::I82573),
    sheet(0x10f6, "82574LA", Mac::I82574),
    sheet(0x150c, "82583V", Mac::I82583),
    sheet(0x10a7, "82575EB", Mac::I82575),
    sheet(0x10d6, "82575GB quad", Mac::I82575),
    sheet(0x10e8, "82576 quad", Mac::I82576),
    sheet(0x150a, "82576NS", Mac::I82576),
    sheet(0x1526, "82576 quad ET2", Mac::I82576),
    sheet(0x150e, "82580", Mac::I82580),
    sheet(0x1516, "82580 dual", Mac::I82580),
    sheet(0x1521, "I350", Mac::I350),
    sheet(0x1533, "I210", Mac::I210),
    sheet(0x157b, "I210 flashless", Mac::I210),
    sheet(0x1539, "I211", Mac::I211),
];

const OLD: &str = "82542 and 82543 have other registers";
const OPTICAL: &str = "an Intel part with optical, SerDes or SGMII link";
const VIRTUAL: &str = "a virtual function: its parent has to be taken over";
const PCH: &str = "an Intel part in the chipset (82562 to I219), shared with its firmware";
const IGC: &str = "I225 and I226 need another driver";

/// Relatives that are refused by name, because a reset without what they need
/// would hang them, cut off others, or end in silence.
const REFUSED: &[(&str, &[u16])] = &[
    (OLD, &[0x1000, 0x1001, 0x1004]),
    (
        OPTICAL,
        &[
            0x1009, 0x1011, 0x1012, 0x1027, 0x1028, 0x107a, 0x107b, 0x105f, 0x1060, 0x10a5, 0x107e,
            0x107f, 0x10d9, 0x10da, 0x10a9, 0x10e6, 0x10e7, 0x150d, 0x1518, 0x150f, 0x1510, 0x1511,
            0x1527, 0x1522, 0x1523, 0x1524, 0x1536, 0x1537, 0x1538, 0x157c, 0x1f40, 0x1f41, 0x1f45,
        ],
    ),
    (VIRTUAL, &[0x10ca, 0x152d, 0x1520, 0x152f]),
    (
        PCH,
        &[
            0x1049, 0x104a, 0x104b, 0x104c, 0x104d, 0x10bd, 0x10bf, 0x10c0, 0x10c2, 0x10c3, 0x10c4,
            0x10c5, 0x10cb, 0x10cc, 0x10cd, 0x10ce, 0x10de, 0x10df, 0x10e5, 0x10ea, 0x10eb, 0x10ef,
            0x10f0, 0x10f5, 0x1501, 0x1502, 0x1503, 0x1525, 0x153a, 0x153b, 0x1559, 0x155a, 0x156f,
            0x1570, 0x15a0, 0x15a1, 0x15a2, 0x15a3, 0x15b7, 0x15b8, 0x15b9, 0x15bb, 0x15bc, 0x15bd,
            0x15be, 0x15d6, 0x15d7, 0x15d8, 0x15df, 0x15e0, 0x15e1, 0x15e2, 0x15e3, 0x15f4, 0x15f5,
            0x15f9, 0x15fa, 0x15fb, 0x15fc, 0x0d4c, 0x0d4d, 0x0d4e, 0x0d4f, 0x0d53, 0x0d55, 0x1a1c,
            0x1a1d, 0x1a1e, 0x1a1f,
        ],
    ),
    (IGC, &[0x15f2, 0x15f3, 0x125b, 0x125c, 0x125d]),
];

/// The part with these PCI ids.
///
/// # Errors
/// [`NicError::Unsupported`] with the reason for a relative that is refused,
/// [`NicError::Unknown`] for anything else.
pub fn identify(vendor: u16, device: u16) -> Result<Part, NicError> {
    let unknown = NicError::Unknown { id: u32::from(vendor) << 16 | u32::from(device) };
    if vendor != VENDOR {
        return Err(unknown);
    }
    if let Some(part) = PARTS.iter().find(|part| part.device == device) {
        return Ok(*part);
    }
    let refused = REFUSED.iter().find(|(_, devices)| devices.contains(&device));
    Err(refused.map_or(unknown, |(why, _)| NicError::Unsupported(why)))
}

/// Whether this driver drives the PCI function with these ids.
pub fn is_e1000(vendor: u16, device: u16) -> bool {
    identify(vendor, device).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_id_stands_once() {
        let mut seen = BTreeSet::new();
        let refused = REFUSED.iter().flat_map(|(_, devices)| devices.iter().copied());
        for device in PARTS.iter().map(|part| part.device).chain(refused) {
            assert!(seen.insert(device), "{device:#06x} twice");
        }
    }

    #[test]
    fn families_and_refusals() {
        let family = |device| identify(VENDOR, device).map(|part| (part.family(), part.tested));
        for device in [0x100e, 0x100c, 0x100f] {
            assert_eq!(family(device), Ok((Family::E1000, Tested::Qemu)));
        }
        assert_eq!(family(0x10d3), Ok((Family::E1000e, Tested::Qemu)));
        assert_eq!(family(0x10c9), Ok((Family::Igb, Tested::Qemu)));
        assert_eq!(family(0x1521), Ok((Family::Igb, Tested::DataSheet)));
        for device in [0x153a, 0x15b7, 0x10ca, 0x1520, 0x1011, 0x15f3, 0x1004] {
            assert!(matches!(family(device), Err(NicError::Unsupported(_))), "{device:#06x}");
        }
        assert_eq!(family(0x10fb), Err(NicError::Unknown { id: 0x8086_10fb }));
        assert_eq!(identify(0x1af4, 0x100e), Err(NicError::Unknown { id: 0x1af4_100e }));
        assert!(is_e1000(VENDOR, 0x1533) && !is_e1000(VENDOR, 0x1559));
    }
}
