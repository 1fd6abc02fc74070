//! Ethernet II header (IEEE 802.3 clause 3) and VLAN tag (IEEE 802.1Q clause 9).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::addr::MacAddr;

/// Bytes of the shortest frame, less its FCS (IEEE 802.3 section 4.4.2).
pub const FRAME_MIN: usize = 60;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;

/// The 14 bytes in front of every frame. The FCS is the NIC's.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct EthernetHeader {
    /// Where the frame goes.
    pub destination: MacAddr,
    /// Who sent it.
    pub source: MacAddr,
    /// What follows, big-endian.
    pub ethertype: U16,
}

impl EthernetHeader {
    /// 14 bytes.
    pub const LEN: usize = size_of::<Self>();
}

/// The 4 bytes of an 802.1Q tag as they follow an EtherType of [`ETHERTYPE_VLAN`].
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct VlanTag {
    /// Priority (15:13), drop eligible (12), VLAN id (11:0).
    pub tci: U16,
    /// EtherType of what follows.
    pub ethertype: U16,
}

impl VlanTag {
    /// 4 bytes.
    pub const LEN: usize = size_of::<Self>();

    /// The VLAN id, 0..=4095.
    pub fn id(&self) -> u16 {
        self.tci.get() & 0x0fff
    }
}

const _: () = assert!(EthernetHeader::LEN == 14 && VlanTag::LEN == 4);
