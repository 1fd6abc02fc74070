//! Transmit descriptors: four little-endian words (8254x SDM section 3.3,
//! 82576 section 7.2.2).
//!
//! | word | legacy | extended data (8254x, 8257x) | advanced data (igb) |
//! |---|---|---|---|
//! | 0, 1 | address | address | address |
//! | 2 | length 15:0, command 31:24 | length 19:0, type 1, command | length 15:0, type 3, command |
//! | 3 | status: DD 0 | DD 0, TXSM 9 | DD 0, TXSM 9, frame length 31:14 |

use debugnet_core::addr::DeviceAddr;
use debugnet_core::nic::{Checksum, NicError, TxError};

use crate::ids::Family;

/// The device is done with the descriptor (word 3).
pub(crate) const DONE: u32 = 1;

const EOP: u32 = 1 << 24;
const IFCS: u32 = 1 << 25;
const RS: u32 = 1 << 27;
const DEXT: u32 = 1 << 29;
const DATA: u32 = 1 << 20;
const ADVANCED_DATA: u32 = 3 << 20;
const ADVANCED_CONTEXT: u32 = 2 << 20;
/// Insert the transport checksum (POPTS.TXSM).
const TXSM: u32 = 2 << 8;

/// A piece of a frame as the device finds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) address: DeviceAddr,
    pub(crate) len: u32,
}

/// Where in the frame a piece is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) first: bool,
    pub(crate) last: bool,
    /// Bytes of the whole frame.
    pub(crate) frame_len: u32,
    /// The device inserts the checksum that the context describes.
    pub(crate) insert: bool,
}

/// The data descriptor for `piece`.
pub(crate) fn data(family: Family, piece: Piece, place: Place) -> [u32; 4] {
    let mut command = piece.len | IFCS;
    let mut options = 0;
    if family == Family::Igb {
        command |= ADVANCED_DATA | DEXT;
    } else if place.insert {
        command |= DATA | DEXT;
    }
    // The first one's is the one that counts; QEMU's 8257x takes the last one's.
    if place.insert {
        options |= TXSM;
    }
    if place.first && family == Family::Igb {
        options |= place.frame_len << 14;
    }
    if place.last {
        command |= EOP | RS;
    }
    [piece.address.0 as u32, (piece.address.0 >> 32) as u32, command, options]
}

/// What the device has to know to insert a checksum. It keeps one until the next reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Context {
    /// Bytes of the Ethernet header, with tags.
    mac_len: u8,
    /// Bytes of the IP header.
    ip_len: u8,
    ipv4: bool,
}

/// Offset of the checksum in a UDP header.
const UDP_CHECKSUM_AT: u16 = 6;

impl Context {
    /// The context for a frame, `None` if its checksum is complete.
    ///
    /// # Errors
    /// [`TxError::Device`] for anything but UDP over IP behind at most two tags.
    pub(crate) fn of(header: &[u8], checksum: Checksum) -> Result<Option<Self>, TxError> {
        let Checksum::Insert { start, offset } = checksum else { return Ok(None) };
        let refused = TxError::Device(NicError::Unsupported("a checksum e1000 does not insert"));
        Self::parse(header, start, offset).map(Some).ok_or(refused)
    }

    fn parse(header: &[u8], start: u16, offset: u16) -> Option<Self> {
        let (mac_len, ethertype) = link_header(header)?;
        let ipv4 = match ethertype {
            0x0800 => true,
            0x86dd => false,
            _ => return None,
        };
        let ip_len = start.checked_sub(u16::from(mac_len))?;
        let field_end = usize::from(start).checked_add(usize::from(UDP_CHECKSUM_AT))?;
        let in_header = field_end.checked_add(2)? <= header.len();
        let plausible = (20..=255).contains(&ip_len) && offset == UDP_CHECKSUM_AT && in_header;
        plausible.then_some(Self { mac_len, ip_len: u8::try_from(ip_len).ok()?, ipv4 })
    }

    /// The context descriptor.
    pub(crate) fn descriptor(self, family: Family) -> [u32; 4] {
        let (mac_len, ip_len) = (u32::from(self.mac_len), u32::from(self.ip_len));
        if family == Family::Igb {
            // UDP is type 0 (bits 12:11).
            let ipv4 = u32::from(self.ipv4) << 10;
            return [ip_len | mac_len << 9, 0, ipv4 | ADVANCED_CONTEXT | DEXT, 0];
        }
        let start = mac_len.saturating_add(ip_len);
        let field = start.saturating_add(u32::from(UDP_CHECKSUM_AT));
        // The IP fields are unused without IXSM, but have to be sound.
        let ip_field = mac_len.saturating_add(10);
        let ip_end = start.saturating_sub(1);
        // The end of the sum is 0: the end of the frame.
        [mac_len | ip_field << 8 | ip_end << 16, start | field << 8, DEXT, 0]
    }
}

/// Length of the Ethernet header and the type behind it.
fn link_header(header: &[u8]) -> Option<(u8, u16)> {
    const TAGS: [u16; 2] = [0x8100, 0x88a8];
    for mac_len in [14u8, 18, 22] {
        let at = usize::from(mac_len).checked_sub(2)?;
        let bytes = header.get(at..usize::from(mac_len))?;
        let ethertype = u16::from_be_bytes(bytes.try_into().ok()?);
        if !TAGS.contains(&ethertype) {
            return Some((mac_len, ethertype));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(types: &[u8], len: usize) -> Vec<u8> {
        let mut header = vec![0; 12];
        header.extend(types);
        header.resize(len, 0);
        header
    }

    #[test]
    fn contexts_as_in_the_data_sheets() {
        let insert = Checksum::Insert { start: 34, offset: 6 };
        let plain = Context::of(&header(&[8, 0], 74), insert).unwrap().unwrap();
        assert_eq!(plain.descriptor(Family::E1000), [0x0021_180e, 0x2822, 0x2000_0000, 0]);
        assert_eq!(
            plain.descriptor(Family::Igb),
            [14 << 9 | 20, 0, 1 << 10 | 2 << 20 | 1 << 29, 0]
        );
        let insert = Checksum::Insert { start: 58, offset: 6 };
        let tagged = header(&[0x81, 0, 0, 5, 0x86, 0xdd], 98);
        let tagged = Context::of(&tagged, insert).unwrap().unwrap();
        assert_eq!(tagged.descriptor(Family::Igb), [18 << 9 | 40, 0, 2 << 20 | 1 << 29, 0]);
        assert_eq!(Context::of(&[], Checksum::Complete), Ok(None));
    }

    #[test]
    fn what_no_context_describes_is_refused() {
        let refused = |header: &[u8], start, offset| {
            Context::of(header, Checksum::Insert { start, offset }).is_err()
        };
        assert!(refused(&header(&[8, 6], 74), 34, 6), "ARP");
        assert!(refused(&header(&[8, 0], 74), 34, 16), "TCP");
        assert!(refused(&header(&[8, 0], 74), 30, 6) && refused(&header(&[8, 0], 74), 0, 6));
        assert!(refused(&header(&[8, 0], 41), 34, 6), "the field is in the payload");
        assert!(refused(&[0; 13], 34, 6));
        let nested = [0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0];
        assert!(refused(&header(&nested, 90), 46, 6));
    }
}
