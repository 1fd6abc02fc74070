//! Which features this driver accepts (virtio 1.2 sections 2.2, 5.1.3 and 6).
//!
//! Few: each accepted feature is code that has to run in a dying machine, and
//! several would change the header in front of every frame.

use debugnet_core::nic::NicError;

use crate::transport::Interface;

/// The device inserts transport checksums of frames we send.
pub const CSUM: u64 = 1 << 0;
/// The device says how large a packet its network takes.
pub const MTU: u64 = 1 << 3;
/// The device has an address.
pub const MAC: u64 = 1 << 5;
/// The device reports the link.
pub const STATUS: u64 = 1 << 16;
/// Header and frame may share a buffer. Legacy only: the modern interface always may.
pub const ANY_LAYOUT: u64 = 1 << 27;
/// Legacy only: set by a device that had features acknowledged which it never
/// offered. Acknowledging it asks for trouble.
pub const BAD_FEATURE: u64 = 1 << 30;
/// Not the legacy interface.
pub const VERSION_1: u64 = 1 << 32;
/// The device sees memory through the platform's IOMMU, not physical addresses.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// The device needs the barriers of a real bus master. We always use those.
pub const ORDER_PLATFORM: u64 = 1 << 36;
/// A notification carries the available index.
pub const NOTIFICATION_DATA: u64 = 1 << 38;

/// Accepted on a modern interface whenever offered.
const WANTED: u64 = CSUM | MTU | MAC | STATUS | VERSION_1 | ORDER_PLATFORM | NOTIFICATION_DATA;
/// Accepted on a legacy interface whenever offered; it has 32 bits.
const WANTED_LEGACY: u64 = CSUM | MTU | MAC | STATUS | ANY_LAYOUT;

/// The features to accept out of `offered` on `interface`. `platform` says that
/// the caller's addresses are what the device sees behind an IOMMU.
///
/// Everything else is refused, among it: `EVENT_IDX` (a flag each way does),
/// `MRG_RXBUF` (one buffer holds a frame), all segmentation and receive
/// checksum offloads (so that received frames are whole and summed), the
/// control queue, `IN_ORDER`, the packed ring, and whatever lengthens the header.
///
/// # Errors
/// [`NicError::Unsupported`] if a modern interface offers no `VERSION_1`, or if
/// the device sits behind an IOMMU whose addresses the caller does not have:
/// its accesses would go nowhere, without a sound. A legacy device goes around
/// the IOMMU, so there the caller may not have any other addresses.
pub fn negotiate(offered: u64, platform: bool, interface: Interface) -> Result<u64, NicError> {
    if let Interface::Legacy = interface {
        if platform {
            return Err(NicError::Unsupported("legacy virtio device behind an IOMMU"));
        }
        return Ok(offered & WANTED_LEGACY);
    }
    if offered & VERSION_1 == 0 {
        return Err(NicError::Unsupported("virtio device offers no VERSION_1"));
    }
    let mut accepted = offered & WANTED;
    if offered & ACCESS_PLATFORM != 0 {
        if !platform {
            return Err(NicError::Unsupported("virtio device needs IOMMU addresses"));
        }
        accepted |= ACCESS_PLATFORM;
    }
    Ok(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offer_of_qemu_with_a_plain_backend() {
        // QEMU 10.0.2, modern PCI, `-netdev dgram`, bits spelled out in hex.
        let accepted = negotiate(0x101_30bf_8024, false, Interface::Modern).unwrap();
        assert_eq!(accepted, VERSION_1 | MAC | STATUS);
    }

    #[test]
    fn the_legacy_offers_of_qemu_lose_bad_feature() {
        // PCI with `disable-modern=on`, and MMIO version 1: both with bit 30 or 24 in it.
        for offered in [0x79bf_8064, 0x39bf_8064, u64::MAX] {
            let accepted = negotiate(offered, false, Interface::Legacy).unwrap();
            assert_eq!(accepted & (BAD_FEATURE | 1 << 24 | !0xffff_ffff), 0);
            assert_eq!(accepted & ANY_LAYOUT, ANY_LAYOUT);
        }
        assert_eq!(negotiate(0x79bf_8064, false, Interface::Legacy), Ok(MAC | STATUS | ANY_LAYOUT));
    }

    #[test]
    fn all_bits_offered_leaves_what_we_can_do() {
        let accepted = negotiate(u64::MAX, true, Interface::Modern).unwrap();
        assert_eq!(accepted, WANTED | ACCESS_PLATFORM);
        assert_eq!(accepted & (1 << 28 | 1 << 29 | 1 << 15 | 1 << 34 | 1 << 35 | 1 << 40), 0);
    }

    #[test]
    fn an_iommu_without_addresses_is_an_error_and_not_silence() {
        let modern = Interface::Modern;
        assert!(negotiate(VERSION_1 | ACCESS_PLATFORM, false, modern).is_err());
        assert_eq!(negotiate(VERSION_1, true, modern), Ok(VERSION_1));
        assert!(negotiate(MAC, true, modern).is_err());
        assert!(negotiate(MAC, true, Interface::Legacy).is_err());
    }
}
