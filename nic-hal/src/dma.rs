//! Memory shared with a device.

use core::ptr::NonNull;

use debugnet_core::addr::DeviceAddr;

use crate::registers::{BadAccess, check_bounds};

/// A contiguous piece of memory that a driver shares with its device: rings,
/// header cells, receive buffers.
///
/// It knows its address on both sides. The CPU side is reached only through
/// checked volatile accesses by offset, never through a reference, because
/// the device may change any byte at any time. The region is the only handle
/// on its memory: it can be cut in pieces, not copied. The `le` accessors
/// hold little-endian words, as virtio and Intel rings have them.
#[derive(Debug)]
pub struct DmaRegion {
    base: NonNull<u8>,
    len: usize,
    device: DeviceAddr,
}

// SAFETY: the region is the only CPU-side handle on its memory (the promise of
// `new`), so that moving it to another context moves the access with it.
#[allow(unsafe_code)]
unsafe impl Send for DmaRegion {}

macro_rules! word {
    ($visible:vis $read:ident, $write:ident, $value:ty, $text:literal) => {
        #[doc = concat!("Reads a little-endian ", $text, " at `offset` in one access.")]
        ///
        /// # Errors
        /// [`BadAccess`] if it is outside the region or misaligned.
        #[allow(unsafe_code)]
        $visible fn $read(&self, offset: usize) -> Result<$value, BadAccess> {
            let address = self.aligned(offset, size_of::<$value>())?;
            // SAFETY: inside the region and aligned (just checked). The memory is plain
            // RAM that stays ours and the device's; any bit pattern is a valid integer,
            // and a volatile load copes with the device writing meanwhile.
            Ok(<$value>::from_le(unsafe { address.cast::<$value>().read_volatile() }))
        }

        #[doc = concat!("Writes a little-endian ", $text, " at `offset` in one access.")]
        ///
        /// # Errors
        /// [`BadAccess`] if it is outside the region or misaligned.
        #[allow(unsafe_code)]
        $visible fn $write(&mut self, offset: usize, value: $value) -> Result<(), BadAccess> {
            let address = self.aligned(offset, size_of::<$value>())?;
            // SAFETY: inside the region and aligned (just checked); `&mut self` is the
            // only CPU-side writer, and nobody holds a reference into the region.
            unsafe { address.cast::<$value>().write_volatile(value.to_le()) };
            Ok(())
        }
    };
}

impl DmaRegion {
    /// `len` bytes at `base`, which the device reaches at `device`; `None` if
    /// either run of addresses would wrap, or if the two addresses differ
    /// modulo 16 (no mapping by pages does that), so that what is aligned for
    /// one side is aligned for the other.
    ///
    /// # Safety
    /// The caller owns the memory and gives it up for as long as the region or
    /// the device uses it: from now until [`Nic::stop`](debugnet_core::nic::Nic::stop)
    /// has confirmed that the device is quiet, or for ever. It is plain RAM,
    /// mapped, coherent with the device or uncached, contiguous on the device's
    /// side, and `device` is the address at which the device finds `base` (an
    /// address the device does not reach corrupts whatever lies there).
    #[allow(unsafe_code)]
    pub unsafe fn new(base: NonNull<u8>, len: usize, device: DeviceAddr) -> Option<Self> {
        let address = base.as_ptr().addr();
        address.checked_add(len)?;
        device.checked_add(u64::try_from(len).ok()?)?;
        let congruent = (address as u64 ^ device.0) & 15 == 0;
        congruent.then_some(Self { base, len, device })
    }

    /// The region over memory reserved at boot.
    ///
    /// # Safety
    /// As for [`DmaRegion::new`], of which the exclusive `'static` borrow
    /// proves all but coherence, contiguity and `device`.
    #[allow(unsafe_code)]
    pub unsafe fn from_static(memory: &'static mut [u8], device: DeviceAddr) -> Option<Self> {
        let len = memory.len();
        // SAFETY: the borrow was exclusive and ends here, for ever; the caller
        // vouches for the rest.
        unsafe { Self::new(NonNull::from(memory).cast(), len, device) }
    }

    /// Length in bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no byte.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device's address of the first byte.
    pub const fn device_addr(&self) -> DeviceAddr {
        self.device
    }

    /// The device's address of `len` bytes at `offset`.
    ///
    /// # Errors
    /// [`BadAccess`] if they do not all lie inside.
    pub fn device_addr_of(&self, offset: usize, len: usize) -> Result<DeviceAddr, BadAccess> {
        check_bounds(offset, len, self.len)?;
        let bad = BadAccess { offset, len };
        self.device.checked_add(u64::try_from(offset).map_err(|_| bad)?).ok_or(bad)
    }

    /// Cuts `len` bytes off the front, starting where the *device's* address is
    /// a multiple of `align` (a power of two). Bytes skipped for that are lost.
    /// `None`, and nothing changed, if there is not that much.
    #[allow(unsafe_code)]
    pub fn take(&mut self, len: usize, align: usize) -> Option<DmaRegion> {
        let mask = align.is_power_of_two().then(|| align.wrapping_sub(1))?;
        // Only the low bits of the address matter for the distance to the next multiple.
        let skip = (self.device.0 as usize).wrapping_neg() & mask;
        let end = skip.checked_add(len).filter(|end| *end <= self.len)?;
        let at = |offset: usize| {
            let device = self.device.checked_add(u64::try_from(offset).ok()?)?;
            // SAFETY: `offset` is at most `end`, which is inside the region or just
            // behind it; `new` proved that the addresses do not wrap.
            Some((unsafe { self.base.add(offset) }, device))
        };
        let (base, device) = at(skip)?;
        let (rest_base, rest_device) = at(end)?;
        self.base = rest_base;
        self.device = rest_device;
        self.len = self.len.checked_sub(end)?;
        Some(DmaRegion { base, len, device })
    }

    word!(pub read_u8, write_u8, u8, "byte");
    word!(pub read_le16, write_le16, u16, "16-bit word");
    word!(pub read_le32, write_le32, u32, "32-bit word");
    word!(read_word, write_word, usize, "word of the CPU's width");

    /// Reads a little-endian 64-bit word at `offset`, as two 32-bit accesses, low half first.
    ///
    /// # Errors
    /// [`BadAccess`] if it is outside the region or not 4-byte aligned.
    pub fn read_le64(&self, offset: usize) -> Result<u64, BadAccess> {
        let high = offset.checked_add(4).ok_or(BadAccess { offset, len: 8 })?;
        let low = self.read_le32(offset)?;
        Ok(u64::from(self.read_le32(high)?) << 32 | u64::from(low))
    }

    /// Writes a little-endian 64-bit word at `offset`, as two 32-bit accesses, low half first.
    ///
    /// # Errors
    /// [`BadAccess`], with nothing written, if it is outside the region or not 4-byte aligned.
    pub fn write_le64(&mut self, offset: usize, value: u64) -> Result<(), BadAccess> {
        check_bounds(offset, 8, self.len)?;
        let high = offset.checked_add(4).ok_or(BadAccess { offset, len: 8 })?;
        self.write_le32(offset, value as u32)?;
        self.write_le32(high, (value >> 32) as u32)
    }

    /// Copies `into.len()` bytes out, from `offset` on, by whole words where they are aligned.
    ///
    /// # Errors
    /// [`BadAccess`], with nothing copied, if they do not all lie inside.
    // Inlined where it is called, the three loops make a crash image 4 KiB larger.
    #[inline(never)]
    pub fn read_bytes(&self, offset: usize, into: &mut [u8]) -> Result<(), BadAccess> {
        check_bounds(offset, into.len(), self.len)?;
        let head = self.until_word(offset).min(into.len());
        let (head, rest) = into.split_at_mut_checked(head).unwrap_or_default();
        let (words, tail) = rest.as_chunks_mut();
        let mut at = offset;
        for byte in head {
            *byte = self.read_u8(at)?;
            at = at.saturating_add(1);
        }
        for word in words {
            *word = self.read_word(at)?.to_le_bytes();
            at = at.saturating_add(word.len());
        }
        for byte in tail {
            *byte = self.read_u8(at)?;
            at = at.saturating_add(1);
        }
        Ok(())
    }

    /// Copies `bytes` in, from `offset` on, by whole words where they are aligned.
    ///
    /// # Errors
    /// [`BadAccess`], with nothing copied, if they would not all lie inside.
    // As for `read_bytes`.
    #[inline(never)]
    pub fn write_bytes(&mut self, offset: usize, bytes: &[u8]) -> Result<(), BadAccess> {
        check_bounds(offset, bytes.len(), self.len)?;
        let head = self.until_word(offset).min(bytes.len());
        let (head, rest) = bytes.split_at_checked(head).unwrap_or_default();
        let (words, tail) = rest.as_chunks();
        let mut at = offset;
        for byte in head {
            self.write_u8(at, *byte)?;
            at = at.saturating_add(1);
        }
        for word in words {
            self.write_word(at, usize::from_le_bytes(*word))?;
            at = at.saturating_add(word.len());
        }
        for byte in tail {
            self.write_u8(at, *byte)?;
            at = at.saturating_add(1);
        }
        Ok(())
    }

    /// Zeroes `len` bytes from `offset` on.
    ///
    /// # Errors
    /// [`BadAccess`], with nothing changed, if they do not all lie inside.
    pub fn zero(&mut self, offset: usize, len: usize) -> Result<(), BadAccess> {
        const PIECE: usize = 128;
        check_bounds(offset, len, self.len)?;
        let (zeros, mut at) = ([0; PIECE], offset);
        for _ in 0..len / PIECE {
            self.write_bytes(at, &zeros)?;
            at = at.saturating_add(PIECE);
        }
        let rest = zeros.get(..len % PIECE).unwrap_or_default();
        self.write_bytes(at, rest)
    }

    /// Bytes from `offset` to the next word's boundary.
    fn until_word(&self, offset: usize) -> usize {
        self.base.as_ptr().addr().wrapping_add(offset).wrapping_neg()
            & size_of::<usize>().wrapping_sub(1)
    }

    fn aligned(&self, offset: usize, width: usize) -> Result<*mut u8, BadAccess> {
        check_bounds(offset, width, self.len)?;
        let address = self.base.as_ptr().wrapping_add(offset);
        if address.addr().is_multiple_of(width) {
            Ok(address)
        } else {
            Err(BadAccess { offset, len: width })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostMemory;
    use proptest::prelude::*;

    const DEVICE: DeviceAddr = DeviceAddr(0x8000_0010);

    #[test]
    fn the_device_sees_little_endian_words() {
        let memory = HostMemory::leak(64, DEVICE);
        let mut region = memory.region();
        region.write_le16(2, 0x0201).unwrap();
        region.write_le64(8, 0x0807_0605_0403_0201).unwrap();
        let mut seen = [0; 16];
        memory.device_read(DEVICE.0, &mut seen).unwrap();
        assert_eq!(seen, [0, 0, 1, 2, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        memory.device_write(DEVICE.0 + 4, &[0xff, 0xee]).unwrap();
        assert_eq!(region.read_le32(4), Ok(0x0000_eeff));
        assert_eq!(region.read_le64(8), Ok(0x0807_0605_0403_0201));
    }

    #[test]
    fn the_edges_are_refused_and_nothing_is_half_done() {
        let memory = HostMemory::leak(64, DEVICE);
        let mut whole = memory.region();
        let mut part = whole.take(14, 16).unwrap();
        assert!(part.read_le16(13).is_err() && part.read_le32(12).is_err());
        assert!(part.write_le64(8, u64::MAX).is_err());
        assert!(part.write_bytes(10, &[1; 5]).is_err() && part.zero(0, 15).is_err());
        assert!(part.read_bytes(usize::MAX, &mut [0; 2]).is_err());
        assert!(part.device_addr_of(14, 1).is_err());
        assert_eq!(part.device_addr_of(14, 0), Ok(DeviceAddr(0x8000_001e)));
        let mut seen = [1; 64];
        memory.device_read(DEVICE.0, &mut seen).unwrap();
        assert_eq!(seen, [0; 64]);
    }

    #[test]
    fn runs_at_any_offset_change_their_own_bytes_and_no_other() {
        let pattern: [u8; 64] = core::array::from_fn(|at| 0x80 | at as u8);
        let memory = HostMemory::leak(64, DEVICE);
        let mut region = memory.region();
        let mut seen = [0; 64];
        for (offset, len) in (0..18).flat_map(|offset| (0..42).map(move |len| (offset, len))) {
            let end = offset + len;
            region.zero(0, 64).unwrap();
            region.write_bytes(offset, &pattern[..len]).unwrap();
            memory.device_read(DEVICE.0, &mut seen).unwrap();
            assert_eq!(seen[offset..end], pattern[..len], "{offset} {len}");
            assert!([&seen[..offset], &seen[end..]].concat().iter().all(|byte| *byte == 0));

            memory.device_write(DEVICE.0, &pattern).unwrap();
            let mut copy = [0; 42];
            region.read_bytes(offset, &mut copy[..len]).unwrap();
            assert_eq!(copy[..len], pattern[offset..end], "{offset} {len}");

            region.zero(offset, len).unwrap();
            memory.device_read(DEVICE.0, &mut seen).unwrap();
            assert!(seen[offset..end].iter().all(|byte| *byte == 0), "{offset} {len}");
            assert_eq!(seen[..offset], pattern[..offset]);
            assert_eq!(seen[end..], pattern[end..]);
        }
        // In more than one piece.
        let memory = HostMemory::leak(512, DEVICE);
        memory.device_write(DEVICE.0, &[0xff; 512]).unwrap();
        memory.region().zero(3, 300).unwrap();
        let mut seen = [1; 512];
        memory.device_read(DEVICE.0, &mut seen).unwrap();
        assert_eq!(seen[3..303], [0; 300]);
        assert_eq!((&seen[..3], &seen[303..]), (&[0xff; 3][..], &[0xff; 209][..]));
    }

    #[test]
    fn pieces_are_aligned_for_the_device_and_do_not_overlap() {
        let memory = HostMemory::leak(256, DEVICE);
        let mut rest = memory.region();
        let first = rest.take(3, 1).unwrap();
        let mut second = rest.take(8, 64).unwrap();
        assert_eq!((first.device_addr().0, second.device_addr().0), (0x8000_0010, 0x8000_0040));
        second.write_u8(0, 0xab).unwrap();
        let mut seen = [0];
        memory.device_read(0x8000_0040, &mut seen).unwrap();
        assert_eq!(seen, [0xab]);
        assert_eq!((rest.device_addr().0, rest.len()), (0x8000_0048, 256 - 0x38));
        assert!(rest.take(256, 1).is_none() && rest.take(1, 3).is_none());
        assert_eq!(rest.len(), 256 - 0x38);
    }

    proptest! {
        #[test]
        fn takes_never_leave_the_block(cuts in prop::collection::vec((0usize..80, 0u32..8), 0..12)) {
            let memory = HostMemory::leak(256, DEVICE);
            let mut rest = memory.region();
            let mut end = DEVICE.0;
            for (len, shift) in cuts {
                let Some(mut piece) = rest.take(len, 1 << shift) else { continue };
                let start = piece.device_addr().0;
                prop_assert!(start >= end && start.is_multiple_of(1 << shift));
                end = start + len as u64;
                prop_assert!(end <= DEVICE.0 + 256);
                piece.zero(0, len).unwrap();
            }
        }
    }
}
