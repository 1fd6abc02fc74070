//! What the negotiated interface does to rings and headers, decided once.

use crate::features;
use crate::header;
use crate::transport::Interface;

/// Byte order of the words in rings, headers and configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Little,
    Big,
}

impl Order {
    /// This CPU's.
    pub(crate) const NATIVE: Self =
        if cfg!(target_endian = "big") { Self::Big } else { Self::Little };

    /// The modern interface is little-endian, the legacy one has the order of
    /// the guest (virtio 1.2 section 2.4.3).
    pub(crate) const fn of(interface: Interface) -> Self {
        match interface {
            Interface::Modern => Self::Little,
            Interface::Legacy => Self::NATIVE,
        }
    }

    /// A value as it is to be stored by, or was loaded by, a little-endian access.
    pub(crate) const fn le16(self, value: u16) -> u16 {
        match self {
            Self::Little => value,
            Self::Big => value.swap_bytes(),
        }
    }

    /// The same for 32 bits.
    pub(crate) const fn le32(self, value: u32) -> u32 {
        match self {
            Self::Little => value,
            Self::Big => value.swap_bytes(),
        }
    }

    /// The same for 64 bits.
    pub(crate) const fn le64(self, value: u64) -> u64 {
        match self {
            Self::Little => value,
            Self::Big => value.swap_bytes(),
        }
    }
}

/// How frames and rings look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Format {
    /// Byte order of ring and header words.
    pub(crate) order: Order,
    /// Length of the virtio header in bytes: 10 or 12.
    pub(crate) header_len: usize,
    /// The virtio header has a descriptor of its own, frames begin in the next one.
    pub(crate) header_apart: bool,
    /// The three parts of a queue lie in one block of pages.
    pub(crate) block: bool,
}

impl Format {
    /// Nothing negotiated yet.
    pub(crate) const NONE: Self =
        Self { order: Order::Little, header_len: header::MAX, header_apart: false, block: false };

    /// What follows from the interface and the features accepted.
    pub(crate) const fn of(interface: Interface, accepted: u64) -> Self {
        let modern = accepted & features::VERSION_1 != 0;
        Self {
            order: Order::of(interface),
            // `num_buffers` is there in the modern interface; in the legacy one
            // only with MRG_RXBUF, which is refused.
            header_len: if modern { header::MAX } else { header::LEGACY_LEN },
            header_apart: !modern && accepted & features::ANY_LAYOUT == 0,
            block: matches!(interface, Interface::Legacy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_decides() {
        let modern = Format::of(Interface::Modern, features::VERSION_1);
        assert_eq!(modern, Format::NONE);
        let legacy = Format::of(Interface::Legacy, features::ANY_LAYOUT);
        assert_eq!((legacy.header_len, legacy.header_apart, legacy.block), (10, false, true));
        assert!(Format::of(Interface::Legacy, 0).header_apart);
    }

    #[test]
    fn words_are_swapped_for_a_big_endian_guest() {
        assert_eq!(Order::Big.le16(0x1234).to_le_bytes(), [0x12, 0x34]);
        assert_eq!(Order::Big.le32(0x1234_5678).to_le_bytes(), [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(Order::Big.le64(1).to_le_bytes(), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(Order::of(Interface::Modern).le16(0x1234), 0x1234);
        assert_eq!(Order::NATIVE.le32(7).to_le_bytes(), 7u32.to_ne_bytes());
    }
}
