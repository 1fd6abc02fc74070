//! IPv4 header without options (RFC 791 section 3.1): 20 bytes.

use core::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::{Sum, added};

/// Protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

const VERSION_AND_IHL: u8 = 0x45;
const DONT_FRAGMENT: u16 = 0x4000;
const FRAGMENT_MASK: u16 = 0x3fff;

/// An IPv4 header of 20 bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (high nibble) and header length in 32-bit words.
    pub version_ihl: u8,
    /// Differentiated services.
    pub tos: u8,
    /// Header and payload in bytes, big-endian.
    pub total_len: U16,
    /// Identification; 0, as nothing is fragmented.
    pub id: U16,
    /// Flags (15:13) and fragment offset (12:0).
    pub fragment: U16,
    /// Hops left.
    pub ttl: u8,
    /// 17 for UDP.
    pub protocol: u8,
    /// Ones' complement checksum of these 20 bytes.
    pub checksum: U16,
    /// Sender.
    pub source: [u8; 4],
    /// Receiver.
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// 20 bytes.
    pub const LEN: usize = size_of::<Self>();

    /// All zero: no header yet.
    pub(crate) const EMPTY: Self = Self {
        version_ihl: 0,
        tos: 0,
        total_len: U16::new(0),
        id: U16::new(0),
        fragment: U16::new(0),
        ttl: 0,
        protocol: 0,
        checksum: U16::new(0),
        source: [0; 4],
        destination: [0; 4],
    };

    /// A header as the stock client writes it (TOS 0, id 0, DF, TTL 255) in
    /// front of `payload_len` bytes of UDP, checksum filled in.
    pub fn udp(source: Ipv4Addr, destination: Ipv4Addr, payload_len: u16) -> Self {
        let mut header = Self {
            version_ihl: VERSION_AND_IHL,
            tos: 0,
            total_len: U16::new(payload_len.saturating_add(Self::LEN as u16)),
            id: U16::new(0),
            fragment: U16::new(DONT_FRAGMENT),
            ttl: 255,
            protocol: PROTOCOL_UDP,
            checksum: U16::new(0),
            source: source.octets(),
            destination: destination.octets(),
        };
        header.checksum = U16::new(Sum::of(header.as_bytes()).complement());
        header
    }

    /// This header, made in front of no payload, in front of `payload_len` bytes.
    #[must_use]
    pub fn with_payload(mut self, payload_len: u16) -> Self {
        self.total_len = U16::new(payload_len.saturating_add(Self::LEN as u16));
        // The length is one word of the sum: the rest stays (RFC 1624).
        self.checksum = U16::new(!added(!self.checksum.get(), payload_len));
        self
    }

    /// Whether it is version 4 without options, no fragment, and its checksum holds.
    pub fn is_plain(&self) -> bool {
        self.version_ihl == VERSION_AND_IHL
            && self.fragment.get() & FRAGMENT_MASK == 0
            && Sum::of(self.as_bytes()).complement() == 0
    }
}

const _: () = assert!(Ipv4Header::LEN == 20);
