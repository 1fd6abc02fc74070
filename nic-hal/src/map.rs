//! From physical addresses to the addresses a device uses.

use debugnet_core::addr::{DeviceAddr, PhysRange};

/// Says where a device finds physical memory.
///
/// A driver asks it for the *payload* of a frame, which the device only reads:
/// a wrong answer sends wrong bytes, it cannot corrupt memory. What a device
/// writes to is always inside a [`DmaRegion`](crate::DmaRegion), whose device
/// address its creator vouched for. So this trait is safe to implement.
pub trait DmaMap {
    /// The device address of the first byte of `range`, if the device can read
    /// all of it as one contiguous run; `None` if it cannot.
    fn map(&self, range: PhysRange) -> Option<DeviceAddr>;

    /// Whether these, and the addresses of the driver's own region, are what
    /// the device's bus presents *behind* a platform IOMMU.
    ///
    /// `true` allows a driver to accept virtio's `ACCESS_PLATFORM`. Say it for
    /// an IOMMU mapping made at boot, or for an IOMMU known to pass this
    /// device's addresses through; never as a guess, because a translated
    /// access to an unmapped address is dropped without a sound.
    fn is_platform(&self) -> bool;
}

/// Device addresses are physical addresses: no IOMMU, or one that passes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    passes_iommu: bool,
}

impl Identity {
    /// The identity on a machine where no IOMMU stands before the device.
    pub const fn new() -> Self {
        Self { passes_iommu: false }
    }

    /// The identity behind an IOMMU that is known to pass this device through.
    pub const fn through_iommu() -> Self {
        Self { passes_iommu: true }
    }
}

impl DmaMap for Identity {
    fn map(&self, range: PhysRange) -> Option<DeviceAddr> {
        Some(DeviceAddr(range.start().0))
    }

    fn is_platform(&self) -> bool {
        self.passes_iommu
    }
}

/// Another map, cut to the addresses a device can put on its bus (32-bit masters).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limited<M> {
    inner: M,
    mask: u64,
}

impl<M: DmaMap> Limited<M> {
    /// `inner`, for a device with `bits` address lines (64 or more: no limit).
    pub const fn new(inner: M, bits: u32) -> Self {
        let mask = match u64::MAX.checked_shl(bits) {
            Some(above) => !above,
            None => u64::MAX,
        };
        Self { inner, mask }
    }
}

impl<M: DmaMap> DmaMap for Limited<M> {
    fn map(&self, range: PhysRange) -> Option<DeviceAddr> {
        let start = self.inner.map(range)?;
        let last = start.checked_add(range.len().saturating_sub(1))?;
        (last.0 <= self.mask).then_some(start)
    }

    fn is_platform(&self) -> bool {
        self.inner.is_platform()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use debugnet_core::addr::PhysAddr;

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr(start), len).unwrap()
    }

    #[test]
    fn a_limit_counts_the_last_byte() {
        let map = Limited::new(Identity::new(), 32);
        assert_eq!(map.map(range(0xffff_f000, 0x1000)), Some(DeviceAddr(0xffff_f000)));
        assert_eq!(map.map(range(0xffff_f000, 0x1001)), None);
        assert_eq!(map.map(range(0x1_0000_0000, 0)), None);
        let all = Limited::new(Identity::new(), 64);
        assert_eq!(all.map(range(u64::MAX - 1, 1)), Some(DeviceAddr(u64::MAX - 1)));
    }

    #[test]
    fn only_a_statement_makes_an_identity_hold_behind_an_iommu() {
        assert!(!Limited::new(Identity::new(), 32).is_platform());
        assert!(Limited::new(Identity::through_iommu(), 32).is_platform());
    }
}
