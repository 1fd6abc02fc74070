//! The header in front of every frame, `virtio_net_hdr` (virtio 1.2 section 5.1.6).
//!
//! | offset | size | field | sent | received |
//! |---|---|---|---|---|
//! | 0 | 1 | flags | `NEEDS_CSUM` with an inserted checksum | must not need one |
//! | 1 | 1 | gso_type | 0 | must be 0 |
//! | 2 | 2 | hdr_len | 0 | - |
//! | 4 | 2 | gso_size | 0 | - |
//! | 6 | 2 | csum_start | start of the sum, in the frame | - |
//! | 8 | 2 | csum_offset | field, from there | - |
//! | 10 | 2 | num_buffers | 0 | at most 1 |
//!
//! 12 bytes and little-endian with `VERSION_1`; nothing that lengthens it is
//! negotiated. On the legacy interface 10 bytes, as `num_buffers` is there only
//! with `MRG_RXBUF`, and words in the order of the guest. Two bytes too many
//! would go out in front of every frame, without a complaint from anybody.

use debugnet_core::nic::Checksum;

use crate::format::Order;

/// Length in bytes with `VERSION_1`, and the longest there is.
pub(crate) const MAX: usize = 12;
/// Length in bytes on the legacy interface.
pub(crate) const LEGACY_LEN: usize = 10;

/// The checksum field holds only the pseudo-header sum.
const NEEDS_CSUM: u8 = 1;

/// The header of a frame to send; on the legacy interface less its last two bytes.
pub(crate) const fn encode(checksum: Checksum, order: Order) -> [u8; MAX] {
    match checksum {
        Checksum::Complete => [0; MAX],
        Checksum::Insert { start, offset } => {
            let [start_0, start_1] = order.le16(start).to_le_bytes();
            let [offset_0, offset_1] = order.le16(offset).to_le_bytes();
            [NEEDS_CSUM, 0, 0, 0, 0, 0, start_0, start_1, offset_0, offset_1, 0, 0]
        }
    }
}

/// Whether a received frame is whole: in one buffer, not a segment train, its
/// checksum complete. What we negotiated promises all three.
///
/// `num_buffers` has to be 1 there; QEMU before 10 leaves the field as it was,
/// so the driver zeroes it when it posts the buffer, and 0 passes. It is
/// little-endian wherever it exists here; a header without it ends in zeros.
pub(crate) const fn is_whole(header: [u8; MAX]) -> bool {
    let [flags, gso_type, .., num_buffers_low, num_buffers_high] = header;
    flags & NEEDS_CSUM == 0
        && gso_type == 0
        && u16::from_le_bytes([num_buffers_low, num_buffers_high]) <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inserted_udp_checksum() {
        let header = encode(Checksum::Insert { start: 34, offset: 6 }, Order::Little);
        assert_eq!(header, [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0]);
        let insert = Checksum::Insert { start: 0x1234, offset: 0x0506 };
        assert_eq!(encode(insert, Order::Little)[6..10], [0x34, 0x12, 0x06, 0x05]);
        assert_eq!(encode(insert, Order::Big)[6..10], [0x12, 0x34, 0x05, 0x06]);
        assert_eq!(encode(Checksum::Complete, Order::Big), [0; 12]);
    }

    #[test]
    fn frames_in_pieces_are_not_whole() {
        assert!(is_whole([0; 12]) && is_whole([2, 0, 9, 9, 9, 9, 9, 9, 9, 9, 1, 0]));
        assert!(!is_whole([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
        assert!(!is_whole([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
        assert!(!is_whole([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]));
        assert!(!is_whole([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
    }
}
