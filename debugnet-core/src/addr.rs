//! Addresses: of Ethernet stations, of RAM as the CPU numbers it, of RAM as a
//! device numbers it.
//!
//! The three are separate types because mixing them up is how a dying machine
//! overwrites the evidence. The core only ever holds [`PhysAddr`]; a driver
//! turns it into a [`DeviceAddr`] through its `DmaMap`.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An Ethernet (EUI-48) address: 6 bytes in transmission order (IEEE 802-2014 section 8.2).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`, never a valid source.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether the group bit (IEEE 802) is set: broadcast counts as multicast.
    pub const fn is_multicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 != 0
    }

    /// Whether a station may own this address: neither zero nor a group address.
    pub fn is_station(self) -> bool {
        self != Self::ZERO && !self.is_multicast()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A physical address as the CPU sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct PhysAddr(pub u64);

/// An address as a bus master sees it: equal to the physical one without an IOMMU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct DeviceAddr(pub u64);

macro_rules! hex_address {
    ($name:ident) => {
        impl $name {
            /// The address `offset` bytes further on, or `None` past the end of the address space.
            pub const fn checked_add(self, offset: u64) -> Option<Self> {
                match self.0.checked_add(offset) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

hex_address!(PhysAddr);
hex_address!(DeviceAddr);

/// A run of physical memory, `len` bytes from `start`. It may cross pages; it never wraps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PhysRange {
    start: PhysAddr,
    len: u64,
}

impl PhysRange {
    /// No memory at all.
    pub const EMPTY: Self = Self { start: PhysAddr(0), len: 0 };

    /// `len` bytes from `start`, or `None` if they would run past the end of the address space.
    pub const fn new(start: PhysAddr, len: u64) -> Option<Self> {
        match start.0.checked_add(len) {
            Some(_) => Some(Self { start, len }),
            None => None,
        }
    }

    /// First address.
    pub const fn start(self) -> PhysAddr {
        self.start
    }

    /// Length in bytes.
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Whether it holds no byte.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// First address behind the range.
    pub const fn end(self) -> PhysAddr {
        // `new` proved that this cannot wrap.
        PhysAddr(self.start.0.saturating_add(self.len))
    }

    /// The first `at` bytes (all of them if it is shorter) and the rest.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub const fn split_at(self, at: u64) -> (Self, Self) {
        let head_len = if at < self.len { at } else { self.len };
        let head = Self { start: self.start, len: head_len };
        let tail = Self {
            start: PhysAddr(self.start.0.saturating_add(head_len)),
            len: self.len.saturating_sub(head_len),
        };
        (head, tail)
    }

    /// Whether the two share a byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.len != 0
            && other.len != 0
            && self.start.0 < other.end().0
            && other.start.0 < self.end().0
    }

    /// Whether every byte of `other` lies inside.
    pub const fn contains(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end().0 <= self.end().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_refuses_to_wrap() {
        assert!(PhysRange::new(PhysAddr(u64::MAX), 2).is_none());
        let top = PhysRange::new(PhysAddr(u64::MAX - 1), 1).unwrap();
        assert_eq!(top.end(), PhysAddr(u64::MAX));
    }

    #[test]
    fn split_keeps_every_byte() {
        let range = PhysRange::new(PhysAddr(0x1000), 10).unwrap();
        let (head, tail) = range.split_at(4);
        assert_eq!(
            (head.start().0, head.len(), tail.start().0, tail.len()),
            (0x1000, 4, 0x1004, 6)
        );
        let (all, none) = range.split_at(99);
        assert_eq!((all, none.len()), (range, 0));
    }

    #[test]
    fn overlap_needs_a_common_byte() {
        let a = PhysRange::new(PhysAddr(0x1000), 0x1000).unwrap();
        let touching = PhysRange::new(PhysAddr(0x2000), 0x1000).unwrap();
        let inside = PhysRange::new(PhysAddr(0x1fff), 1).unwrap();
        assert!(!a.overlaps(touching));
        assert!(a.overlaps(inside) && a.contains(inside));
        assert!(!a.overlaps(PhysRange::EMPTY));
    }

    #[test]
    fn mac_kinds() {
        assert!(MacAddr([2, 0, 0, 0, 0, 1]).is_station());
        assert!(!MacAddr::BROADCAST.is_station() && !MacAddr::ZERO.is_station());
        assert!(!MacAddr([1, 0, 0x5e, 0, 0, 1]).is_station());
    }
}
