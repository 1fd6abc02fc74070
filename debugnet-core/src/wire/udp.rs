//! UDP header (RFC 768): 8 bytes, and its pseudo header over IPv4.

use core::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Sum;
use super::ipv4::PROTOCOL_UDP;

/// A UDP header.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct UdpHeader {
    /// Sender's port.
    pub source: U16,
    /// Receiver's port.
    pub destination: U16,
    /// Header and payload in bytes.
    pub len: U16,
    /// Checksum over pseudo header, header and payload; 0 means none.
    pub checksum: U16,
}

impl UdpHeader {
    /// 8 bytes.
    pub const LEN: usize = size_of::<Self>();
    /// Offset of the checksum field in the header.
    pub const CHECKSUM_OFFSET: u16 = 6;
}

/// The sum of the IPv4 pseudo header for a UDP datagram of `udp_len` bytes, header included.
pub fn pseudo_header_v4(source: Ipv4Addr, destination: Ipv4Addr, udp_len: u16) -> Sum {
    Sum::of(&source.octets()).and(&destination.octets()).plus(u16::from(PROTOCOL_UDP)).plus(udp_len)
}

const _: () = assert!(UdpHeader::LEN == 8);
