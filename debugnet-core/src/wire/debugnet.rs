//! The debugnet header and ack (FreeBSD `sys/net/debugnet.h`), and the numbers
//! netdump gives them (`sys/netinet/netdump/netdump.h`).
//!
//! A datagram of exactly 4 bytes is an [`Ack`]; any other is a
//! [`MessageHeader`] and its payload.

use zerocopy::network_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Opens a conversation; its payload is an optional NUL-terminated path. Debugnet.
pub const HERALD: u32 = 1;
/// Closes it. Debugnet.
pub const FINISHED: u32 = 2;
/// Bytes of the vmcore at `offset`; debugnet's `DATA`, netdump's `VMCORE`.
pub const VMCORE: u32 = 3;
/// The 512-byte kernel dump header. Netdump.
pub const KDH: u32 = 4;
/// The key blob of an encrypted dump. Netdump.
pub const EKCD_KEY: u32 = 5;

/// UDP port a netdump server listens on for heralds.
pub const NETDUMP_HERALD_PORT: u16 = 20023;
/// UDP port a netdump client sends from and gets its acks at.
pub const NETDUMP_CLIENT_PORT: u16 = 20024;

/// Largest payload the stock server accepts in one message, in bytes.
pub const STOCK_PAYLOAD_MAX: u16 = 4096;

/// The 24 bytes in front of every message.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct MessageHeader {
    /// What it is: [`HERALD`] and the rest.
    pub kind: U32,
    /// Sequence number, from 1, one a message, echoed by the ack.
    pub seqno: U32,
    /// Where in the vmcore (or key) the payload belongs.
    pub offset: U64,
    /// Payload bytes behind this header.
    pub len: U32,
    /// Consumer's word; netdump sends 0, netgdb and we (see `herald_word`) use it.
    pub aux2: U32,
}

impl MessageHeader {
    /// 24 bytes.
    pub const LEN: usize = size_of::<Self>();

    /// Splits a datagram into header and payload.
    ///
    /// # Errors
    /// [`MessageError`] for a datagram shorter than a header, or whose length field disagrees with its length.
    pub fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), MessageError> {
        let Ok((header, payload)) = Self::read_from_prefix(datagram) else {
            return Err(MessageError::Runt { len: datagram.len() });
        };
        if payload.len() as u64 != u64::from(header.len.get()) {
            return Err(MessageError::Length { claimed: header.len.get(), found: payload.len() });
        }
        Ok((header, payload))
    }
}

/// Why a datagram is no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageError {
    /// Fewer than 24 bytes.
    Runt {
        /// Bytes there are.
        len: usize,
    },
    /// The length field and the datagram disagree.
    Length {
        /// Payload bytes the header claims.
        claimed: u32,
        /// Payload bytes there are.
        found: usize,
    },
}

/// The acknowledgement of one message: 4 bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Ack {
    /// Sequence number of the message.
    pub seqno: U32,
}

impl Ack {
    /// 4 bytes.
    pub const LEN: usize = size_of::<Self>();

    /// The ack of `seqno`.
    pub fn new(seqno: u32) -> Self {
        Self { seqno: U32::new(seqno) }
    }

    /// The ack in a datagram of exactly 4 bytes.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        Self::read_from_bytes(datagram).ok()
    }
}

/// `aux2` of a herald: how a server of ours knows a client of ours.
///
/// Stock clients send 0 there, netgdb its own magic, and stock servers do not
/// read it. The nonce is new with every crash, so that a late copy of an old
/// herald is told from a new one.
pub mod herald_word {
    /// Bits 31:20 of the word.
    pub const MAGIC: u32 = 0xd6e;
    /// Bits 19:16: version of what the client promises (contiguous sequence
    /// numbers, a window of its own, no 64-packet chunks).
    pub const VERSION: u32 = 1;

    /// The word for a crash with this nonce.
    pub const fn new(nonce: u16) -> u32 {
        MAGIC << 20 | VERSION << 16 | nonce as u32
    }

    /// Version and nonce, if the word is ours.
    pub const fn parse(word: u32) -> Option<(u32, u16)> {
        if word >> 20 == MAGIC { Some((word >> 16 & 0xf, word as u16)) } else { None }
    }
}

const _: () = assert!(MessageHeader::LEN == 24 && Ack::LEN == 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_must_match() {
        let header = MessageHeader {
            kind: U32::new(VMCORE),
            seqno: U32::new(7),
            offset: U64::new(0x1_0000_0000),
            len: U32::new(2),
            aux2: U32::new(0),
        };
        let mut datagram = [0u8; 26];
        header.write_to_prefix(&mut datagram).unwrap();
        assert_eq!(MessageHeader::parse(&datagram), Ok((header, &[0u8, 0][..])));
        assert_eq!(
            MessageHeader::parse(&datagram[..25]),
            Err(MessageError::Length { claimed: 2, found: 1 })
        );
        assert_eq!(MessageHeader::parse(&datagram[..23]), Err(MessageError::Runt { len: 23 }));
    }

    #[test]
    fn only_four_bytes_are_an_ack() {
        assert_eq!(Ack::parse(&[0, 0, 1, 2]), Some(Ack::new(258)));
        assert_eq!(Ack::parse(&[0, 0, 1]), None);
        assert_eq!(Ack::parse(&[0, 0, 1, 2, 3]), None);
    }

    #[test]
    fn herald_word_is_ours_alone() {
        assert_eq!(herald_word::parse(herald_word::new(0xbeef)), Some((1, 0xbeef)));
        assert_eq!(herald_word::parse(0), None);
        assert_eq!(herald_word::parse(0x2515_f095), None, "netgdb's magic");
    }
}
