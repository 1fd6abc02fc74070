//! How much memory the driver wants, and what for.

use debugnet_core::nic::{HEADER_MAX, NicError};
use nic_hal::DmaRegion;

use crate::bits::Bits;
use crate::header;
use crate::queue::{PAGE_LEN, SplitQueue};
use crate::transport::Interface;
use crate::tx::DESCRIPTORS_PER_SLOT;

/// Length of one cell for the virtio header and the frame header, in bytes.
pub(crate) const CELL_LEN: usize = 128;
const _: () = assert!(header::MAX + HEADER_MAX <= CELL_LEN);

/// Smallest receive buffer in bytes; virtio 1.2 section 5.1.6.3.1 asks for 1526.
pub(crate) const RX_BUFFER_LEN: usize = 2048;

/// Every piece starts on a cache line of its own, so that words written by the
/// device and words written by us never share one.
const ALIGN: usize = 64;

/// How large the driver's rings are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    tx_descriptors: u16,
    rx_buffers: u16,
    /// Longest queue of a legacy device there is room for; 0: none.
    legacy_queue_len: u16,
}

/// Bytes of DMA memory [`VirtioNet::new`](crate::VirtioNet::new) needs on a modern
/// interface, at any alignment.
pub const MEMORY_NEEDED: usize = Sizes::DEFAULT.memory_needed();

/// Bytes of DMA memory [`VirtioNet::new`](crate::VirtioNet::new) needs on a legacy
/// interface, at any alignment. Enough for a modern one, too.
pub const MEMORY_NEEDED_ANY: usize = Sizes::ANY.memory_needed();

/// Longest queue a legacy device can have (virtio 1.2 section 2.7).
const LEGACY_QUEUE_LEN_MAX: u16 = 32_768;

impl Sizes {
    /// 256 descriptors to send with (85 frames in flight) and 64 receive
    /// buffers of 2048 bytes: about 147 KiB. For modern interfaces only.
    pub const DEFAULT: Self = Self { tx_descriptors: 256, rx_buffers: 64, legacy_queue_len: 0 };

    /// The same, with room for the queues of a legacy device of up to 1024
    /// entries each, the longest that QEMU makes: about 207 KiB.
    pub const ANY: Self = Self { legacy_queue_len: 1024, ..Self::DEFAULT };

    /// Rings of other lengths. Both must be powers of two; 4 to 1024
    /// descriptors to send with, three for each frame in flight (four with a
    /// legacy device that offers no `ANY_LAYOUT`), and 1 to 1024 receive
    /// buffers. `None` otherwise.
    pub const fn new(tx_descriptors: u16, rx_buffers: u16) -> Option<Self> {
        let tx_fits = tx_descriptors.is_power_of_two()
            && tx_descriptors > DESCRIPTORS_PER_SLOT
            && tx_descriptors <= Bits::LEN;
        let rx_fits = rx_buffers.is_power_of_two() && rx_buffers <= Bits::LEN;
        if tx_fits && rx_fits {
            Some(Self { tx_descriptors, rx_buffers, legacy_queue_len: 0 })
        } else {
            None
        }
    }

    /// The same with room for a legacy device, whose queues have a length that it
    /// alone decides (on PCI), in whole pages. `queue_len_max` is the longest
    /// to be ready for, a power of two up to 32,768; `None` otherwise. A
    /// device with longer ones is refused when it is taken over.
    pub const fn with_legacy(self, queue_len_max: u16) -> Option<Self> {
        if queue_len_max.is_power_of_two() && queue_len_max <= LEGACY_QUEUE_LEN_MAX {
            Some(Self { legacy_queue_len: queue_len_max, ..self })
        } else {
            None
        }
    }

    /// Longest transmit queue.
    pub(crate) const fn tx_descriptors(self) -> u16 {
        self.tx_descriptors
    }

    /// Longest receive queue.
    pub(crate) const fn rx_buffers(self) -> u16 {
        self.rx_buffers
    }

    /// Bytes of DMA memory rings of these sizes need, wherever the memory starts.
    pub const fn memory_needed(self) -> usize {
        let mut total = self.align();
        let pieces = self.pieces();
        let mut index = 0;
        // `for` is not const yet.
        while index < pieces.len() {
            #[allow(clippy::indexing_slicing)] // below the length, as the line above says
            let piece = pieces[index].next_multiple_of(ALIGN);
            total = total.saturating_add(piece);
            index = index.saturating_add(1);
        }
        total
    }

    /// Where the rings begin: at a page for a legacy device.
    const fn align(self) -> usize {
        if self.legacy_queue_len == 0 { ALIGN } else { PAGE_LEN }
    }

    /// Length of the rings of a queue of which we want `len` entries.
    const fn rings(self, len: u16) -> usize {
        if self.legacy_queue_len == 0 {
            return SplitQueue::memory_needed(len, false);
        }
        // A modern device may turn up as well; a block is longer than its rings.
        let longest = if self.legacy_queue_len > len { self.legacy_queue_len } else { len };
        SplitQueue::memory_needed(longest, true)
    }

    /// Lengths of the pieces, in the order of [`Pieces`].
    const fn pieces(self) -> [usize; 4] {
        let slots = (self.tx_descriptors / DESCRIPTORS_PER_SLOT) as usize;
        [
            self.rings(self.tx_descriptors),
            self.rings(self.rx_buffers),
            slots.saturating_mul(CELL_LEN),
            (self.rx_buffers as usize).saturating_mul(RX_BUFFER_LEN),
        ]
    }

    /// Cuts `memory` up.
    pub(crate) fn cut(
        self,
        mut memory: DmaRegion,
        interface: Interface,
    ) -> Result<Pieces, NicError> {
        if self.legacy_queue_len == 0 && matches!(interface, Interface::Legacy) {
            return Err(NicError::Unsupported("legacy virtio device: no memory set aside for it"));
        }
        let short = NicError::Memory { need: self.memory_needed(), have: memory.len() };
        let [tx_rings, rx_rings, tx_cells, rx_buffers] = self.pieces();
        let mut take = |len, align| memory.take(len, align).ok_or(short);
        Ok(Pieces {
            tx_rings: take(tx_rings, self.align())?,
            rx_rings: take(rx_rings, self.align())?,
            tx_cells: take(tx_cells, ALIGN)?,
            rx_buffers: take(rx_buffers, ALIGN)?,
        })
    }
}

/// The driver's memory, by use.
pub(crate) struct Pieces {
    pub(crate) tx_rings: DmaRegion,
    pub(crate) rx_rings: DmaRegion,
    pub(crate) tx_cells: DmaRegion,
    pub(crate) rx_buffers: DmaRegion,
}

#[cfg(test)]
mod tests {
    use super::*;
    use debugnet_core::addr::DeviceAddr;
    use nic_hal::host::HostMemory;

    #[test]
    fn what_is_needed_is_enough_at_any_alignment() {
        for (tx, rx) in [(4, 1), (256, 64), (64, 256), (8, 2)] {
            let sizes = Sizes::new(tx, rx).unwrap();
            for start in (0x1000..0x1040).step_by(16) {
                let memory = HostMemory::leak(sizes.memory_needed(), DeviceAddr(start));
                let cut = sizes.cut(memory.region(), Interface::Modern);
                assert!(cut.is_ok(), "{sizes:?} at {start:#x}");
            }
            let memory = HostMemory::leak(sizes.memory_needed() - 128, DeviceAddr(0x1000));
            assert!(matches!(
                sizes.cut(memory.region(), Interface::Modern),
                Err(NicError::Memory { need, have }) if need == have + 128
            ));
        }
    }

    #[test]
    fn legacy_blocks_start_on_pages_wherever_the_memory_does() {
        for len in [64, 256, 1024] {
            let sizes = Sizes::new(256, 64).unwrap().with_legacy(len).unwrap();
            for start in [0x1000, 0x1010, 0x1ff0, 0x2000] {
                let memory = HostMemory::leak(sizes.memory_needed(), DeviceAddr(start));
                let pieces = sizes.cut(memory.region(), Interface::Legacy).unwrap();
                for rings in [&pieces.tx_rings, &pieces.rx_rings] {
                    assert!(rings.device_addr().0.is_multiple_of(4096), "{len} at {start:#x}");
                    assert!(rings.len() >= SplitQueue::memory_needed(len, true));
                }
            }
        }
        // Section 2.7.2's formula, by hand: 16 n + 6 + 2 n, then 6 + 8 n, each in whole pages.
        assert_eq!(SplitQueue::memory_needed(256, true), 3 * 4096);
        assert_eq!(SplitQueue::memory_needed(1024, true), 8 * 4096);
        let memory = HostMemory::leak(MEMORY_NEEDED, DeviceAddr(0x1000));
        let refused = Sizes::DEFAULT.cut(memory.region(), Interface::Legacy);
        assert!(matches!(refused, Err(NicError::Unsupported(_))));
        let refused = Sizes::ANY.cut(memory.region(), Interface::Legacy);
        assert!(matches!(refused, Err(NicError::Memory { .. })));
    }

    #[test]
    fn sizes_that_no_queue_can_have_are_refused() {
        for (tx, rx) in [(0, 64), (2, 64), (96, 64), (2048, 64), (256, 0), (256, 48), (256, 2048)] {
            assert_eq!(Sizes::new(tx, rx), None, "{tx} {rx}");
        }
        assert_eq!(Sizes::new(256, 64), Some(Sizes::DEFAULT));
        assert_eq!(Sizes::DEFAULT.with_legacy(1024), Some(Sizes::ANY));
        assert!([0, 96, 32_769].iter().all(|len| Sizes::DEFAULT.with_legacy(*len).is_none()));
    }
}
