//! ARP for IPv4 over Ethernet (RFC 826): 28 bytes.

use core::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ethernet::ETHERTYPE_IPV4;
use crate::addr::MacAddr;

/// `ar$op` of a question.
pub const REQUEST: u16 = 1;
/// `ar$op` of an answer.
pub const REPLY: u16 = 2;

const HARDWARE_ETHERNET: u16 = 1;

/// An ARP packet for Ethernet and IPv4.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ArpPacket {
    /// 1 for Ethernet.
    pub hardware_type: U16,
    /// 0x0800 for IPv4.
    pub protocol_type: U16,
    /// 6.
    pub hardware_len: u8,
    /// 4.
    pub protocol_len: u8,
    /// [`REQUEST`] or [`REPLY`].
    pub operation: U16,
    /// The sender's station address.
    pub sender_mac: MacAddr,
    /// The sender's IPv4 address.
    pub sender_ip: [u8; 4],
    /// The target's station address; zero in a request.
    pub target_mac: MacAddr,
    /// The target's IPv4 address.
    pub target_ip: [u8; 4],
}

impl ArpPacket {
    /// 28 bytes.
    pub const LEN: usize = size_of::<Self>();

    /// A packet with the four addresses filled in; a request leaves `target_mac` zero.
    pub fn new(operation: u16, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Self {
        Self {
            hardware_type: U16::new(HARDWARE_ETHERNET),
            protocol_type: U16::new(ETHERTYPE_IPV4),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation),
            sender_mac: sender.0,
            sender_ip: sender.1.octets(),
            target_mac: target.0,
            target_ip: target.1.octets(),
        }
    }

    /// Whether it speaks of Ethernet and IPv4 with the sizes both have.
    pub fn is_ethernet_ipv4(&self) -> bool {
        self.hardware_type.get() == HARDWARE_ETHERNET
            && self.protocol_type.get() == ETHERTYPE_IPV4
            && self.hardware_len == 6
            && self.protocol_len == 4
    }
}

const _: () = assert!(ArpPacket::LEN == 28);
