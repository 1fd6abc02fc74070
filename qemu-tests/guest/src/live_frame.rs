//! Frames of the living kernel: nothing that a dump would send, so that one
//! that turns up after the take-over can only come from a stale ring.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 14 | Ethernet header, type 0x88b6 (IEEE 802, local experimental), to everybody |
//! | 14 | 8 | `LIVE-KRN` |
//! | 22 | 1 | kind, see [`Kind`] |
//! | 24 | 4 | number |
//! | 28 | 2 | length of the frame, before padding |
//! | 30 | 2 | length of the header; the payload follows |
//! | 32 | 2 | ones' complement sum of the payload, folded, not complemented |
//! | 34 | 2 | milliseconds, for [`Kind::Hold`] |
//!
//! Everything is big-endian. The rest of the header is zero.

use debugnet_core::addr::MacAddr;

/// Ethernet type of the frames.
pub const ETHERTYPE: u16 = 0x88b6;
/// Marks a frame of the living, and the padding of its ARP requests.
pub const MARK: [u8; 8] = *b"LIVE-KRN";
/// Shortest header in bytes.
pub const HEADER_MIN: usize = 36;
/// Longest header in bytes: as long as that of a dump's message.
pub const HEADER_MAX: usize = 66;

/// What a frame asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing; it has to arrive.
    Plain = 1,
    /// An answer of the smallest size with the same number; it has to arrive.
    Ask = 2,
    /// The answer.
    Answer = 3,
    /// Nothing, and it need not arrive: the kernel dies while it is under way.
    Doomed = 4,
    /// That the network takes no frame for some milliseconds.
    Hold = 5,
}

/// The part of a frame in front of its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What is asked for.
    pub kind: Kind,
    /// Number of the frame.
    pub number: u32,
    /// Bytes of the header, [`HEADER_MIN`] to [`HEADER_MAX`].
    pub header_len: u16,
    /// Bytes of the payload.
    pub payload_len: u16,
    /// Its sum.
    pub sum: u16,
    /// Milliseconds to hold.
    pub hold_ms: u16,
}

impl Header {
    /// Its bytes; [`Header::header_len`] of them count.
    pub fn encode(&self, from: MacAddr) -> [u8; HEADER_MAX] {
        let mut bytes = [0; HEADER_MAX];
        let frame_len = self.header_len.saturating_add(self.payload_len);
        let mut at = 0;
        for field in [
            &MacAddr::BROADCAST.0[..],
            &from.0,
            &ETHERTYPE.to_be_bytes(),
            &MARK,
            &[self.kind as u8, 0],
            &self.number.to_be_bytes(),
            &frame_len.to_be_bytes(),
            &self.header_len.to_be_bytes(),
            &self.sum.to_be_bytes(),
            &self.hold_ms.to_be_bytes(),
        ] {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        bytes
    }
}

/// The number that an answer carries, if `frame` is one.
pub fn answer(frame: &[u8]) -> Option<u32> {
    let is_answer = frame.get(12..14)? == ETHERTYPE.to_be_bytes()
        && frame.get(14..22)? == MARK
        && *frame.get(22)? == Kind::Answer as u8;
    let number = frame.get(24..28)?.try_into().ok()?;
    is_answer.then_some(u32::from_be_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_documented() {
        let header = Header {
            kind: Kind::Hold,
            number: 0x0102_0304,
            header_len: 66,
            payload_len: 1448,
            sum: 0xabcd,
            hold_ms: 300,
        };
        let bytes = header.encode(MacAddr([2, 0, 0, 0, 0, 7]));
        assert_eq!(bytes[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 0x88, 0xb6]);
        assert_eq!(&bytes[14..22], b"LIVE-KRN");
        assert_eq!(bytes[22..36], [5, 0, 1, 2, 3, 4, 0x05, 0xea, 0, 66, 0xab, 0xcd, 1, 44]);
        assert_eq!(bytes[36..], [0; 30]);
        assert_eq!(HEADER_MIN, 36);
    }

    #[test]
    fn only_answers_are_answers() {
        let mut header = Header {
            kind: Kind::Answer,
            number: 9,
            header_len: 60,
            payload_len: 0,
            sum: 0,
            hold_ms: 0,
        };
        let frame = header.encode(MacAddr::BROADCAST);
        assert_eq!(answer(&frame), Some(9));
        assert_eq!(answer(&frame[..27]), None);
        header.kind = Kind::Ask;
        assert_eq!(answer(&header.encode(MacAddr::BROADCAST)), None);
    }
}
