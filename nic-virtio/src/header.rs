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
//! All words are little-endian. 12 bytes, because `VERSION_1` is negotiated
//! and nothing that lengthens it is.

use debugnet_core::nic::Checksum;

/// Length in bytes.
pub const LEN: usize = 12;

/// The checksum field holds only the pseudo-header sum.
const NEEDS_CSUM: u8 = 1;

/// The header of a frame to send.
pub const fn encode(checksum: Checksum) -> [u8; LEN] {
    match checksum {
        Checksum::Complete => [0; LEN],
        Checksum::Insert { start, offset } => {
            let [start_low, start_high] = start.to_le_bytes();
            let [offset_low, offset_high] = offset.to_le_bytes();
            [NEEDS_CSUM, 0, 0, 0, 0, 0, start_low, start_high, offset_low, offset_high, 0, 0]
        }
    }
}

/// Whether a received frame is whole: in one buffer, not a segment train, its
/// checksum complete. What we negotiated promises all three.
///
/// `num_buffers` has to be 1 there; QEMU before 10 leaves the field as it was,
/// so the driver zeroes it when it posts the buffer, and 0 passes.
pub const fn is_whole(header: [u8; LEN]) -> bool {
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
        let header = encode(Checksum::Insert { start: 34, offset: 6 });
        assert_eq!(header, [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0]);
        assert_eq!(
            encode(Checksum::Insert { start: 0x1234, offset: 0x0506 })[6..10],
            [0x34, 0x12, 0x06, 0x05]
        );
        assert_eq!(encode(Checksum::Complete), [0; 12]);
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
